"""Emotions along a recording: overlapping windows, the segments they add up to, and both as text."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.typing import ArrayLike

from serein.frames.audio import SAMPLE_RATE

SILENCE = "silence"
PIECE = SAMPLE_RATE * 50 // 1000  # samples: three periods of the lowest pitch

Silent = Callable[[Float32[np.ndarray, " _"]], bool]
"""Whether nobody speaks in these samples (16 kHz): :func:`quieter_than`, or a voice activity detector."""


def quieter_than(decibels: float) -> Silent:
    """Tell samples of which no 50 ms reach this level.

    Args:
        decibels: mean square over full scale; a full-scale sine has -3 dB, speech at a microphone about -25 dB.

    Example:
        >>> quiet = quieter_than(-50.0)
        >>> quiet(np.full(16_000, 0.001, np.float32)), quiet(np.full(16_000, 0.01, np.float32))
        (True, False)
    """
    power = 10 ** (decibels / 10)

    def quiet(samples: Float32[np.ndarray, " _"]) -> bool:
        size = min(PIECE, len(samples))
        if not size:
            return True
        sums = np.concatenate([[0.0], np.square(samples, dtype=np.float64).cumsum()])
        return bool((sums[size:] - sums[:-size]).max() / size < power)

    return quiet


QUIET = quieter_than(-50.0)


@dataclass(frozen=True, slots=True)
class Window:
    """What was heard in one window.

    Attributes:
        start: seconds from the recording's start.
        end: likewise.
        scores: a probability for each of the timeline's labels; all the same where the model could not take the sound.
        silent: nobody spoke, or the model could not take the sound; the scores mean nothing.
    """

    start: float
    end: float
    scores: tuple[float, ...]
    silent: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch with one emotion.

    Attributes:
        start: seconds from the recording's start.
        end: likewise.
        label: the emotion, or ``silence``.
        score: its mean probability; 0 for silence.
    """

    start: float
    end: float
    label: str
    score: float


@dataclass(frozen=True)
class Timeline:
    """Emotions along a recording.

    Attributes:
        labels: emotions, in the order of each window's scores.
        hop: seconds from one window's start to the next one's.
        windows: overlapping, in their order.
        quiet: whether nobody speaks in each cell, ``hop`` seconds of the recording; the last cell may be shorter.
        seconds: length of the recording.
        warnings: what a reader of it should know: what was mended in the file, how many windows could not be judged.

    Example:
        >>> windows = (Window(0.0, 2.0, (0.9, 0.1), False), Window(1.0, 3.0, (0.2, 0.8), False))
        >>> timeline = Timeline(("angry", "sad"), 1.0, windows, (False, False, False), 3.0)
        >>> print(timeline.to_audacity(), end="")
        0.000000	2.000000	angry
        2.000000	3.000000	sad
    """

    labels: tuple[str, ...]
    hop: float
    windows: tuple[Window, ...]
    quiet: tuple[bool, ...]
    seconds: float
    warnings: tuple[str, ...] = ()

    def segments(self) -> list[Segment]:
        """Cut the recording where the emotion changes.

        A cell has the mean scores of the windows that cover its middle, silent ones left out, and the label of the
        highest; it is silent where it is quiet, or where all those windows are. Equal neighbours are joined, and
        scores averaged. A last cell too short for a window belongs to no segment.
        """
        means, covered = self._cells()
        cells = []
        for number, (mean, quiet) in enumerate(zip(means, self.quiet, strict=True)):
            if covered[number]:
                best = int(mean.argmax())
                start, end = number * self.hop, min((number + 1) * self.hop, self.seconds)
                spoken = not quiet and mean[best] > 0
                cells.append(Segment(start, end, self.labels[best] if spoken else SILENCE, mean[best] * spoken))
        joined = []
        for label, alike in groupby(cells, key=lambda cell: cell.label):
            run = list(alike)
            joined.append(Segment(run[0].start, run[-1].end, label, float(np.mean([cell.score for cell in run]))))
        return joined

    def _cells(self) -> tuple[Float64[np.ndarray, "cells classes"], np.ndarray]:
        """Mean scores of each cell, 0 where every window is silent, and whether any window covers it."""
        cells = np.arange(len(self.quiet)) * self.hop
        # In half samples all times are whole numbers: whether a window ends at a middle is no matter of rounding.
        middles = _half_samples((cells + np.minimum(cells + self.hop, self.seconds)) / 2)
        # Starts and ends both rise, so a cell's windows are neighbours, and their sum a difference of two sums.
        first = np.searchsorted(_half_samples([window.end for window in self.windows]), middles, side="right")
        last = np.searchsorted(_half_samples([window.start for window in self.windows]), middles, side="right")
        sums = np.zeros((len(self.windows) + 1, len(self.labels) + 1))
        for number, window in enumerate(self.windows):
            sums[number + 1] = 0.0 if window.silent else (*window.scores, 1.0)
        sums = sums.cumsum(0)
        total = sums[last] - sums[first]
        means = total[:, :-1] / np.maximum(total[:, -1:], 1.0)
        return np.clip(means, 0.0, 1.0), last > first  # the difference of two long sums can miss either by a little

    def as_dict(self) -> dict[str, Any]:
        """Labels, hop, seconds, windows, segments and warnings, ready for JSON."""
        return {
            "labels": list(self.labels),
            "hop": self.hop,
            "seconds": self.seconds,
            "windows": [
                {
                    "start": window.start,
                    "end": window.end,
                    "silent": window.silent,
                    "scores": dict(zip(self.labels, window.scores, strict=True)),
                }
                for window in self.windows
            ],
            "segments": [
                {"start": segment.start, "end": segment.end, "label": segment.label, "score": segment.score}
                for segment in self.segments()
            ],
            "warnings": list(self.warnings),
        }

    def to_json(self) -> str:
        """:meth:`as_dict` as one JSON document."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"

    def to_csv(self) -> str:
        """A row a window: start, end (seconds), silent (0 or 1), and a probability for each label."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["start", "end", "silent", *self.labels])
        for window in self.windows:
            scores = (f"{score:.6f}" for score in window.scores)
            rows.writerow([f"{window.start:.6f}", f"{window.end:.6f}", int(window.silent), *scores])
        return text.getvalue()

    def to_audacity(self) -> str:
        """A label track for Audacity: a line a segment, with start, end (seconds) and label between tabs."""
        return "".join(f"{s.start:.6f}\t{s.end:.6f}\t{_words(s.label, ' ')}\n" for s in self.segments())

    def to_rttm(self, name: str) -> str:
        """A line a segment in the Rich Transcription Time Marked format; silence has no line.

        The columns of ``SPEAKER`` lines are type, recording, channel, start and duration (seconds), two unused ones,
        talker, and two more unused ones. Emotions have no line type of their own: here the talker's column holds the
        emotion. White space in names becomes ``_``.

        Args:
            name: of the recording.
        """
        recording = _words(name, "_")
        return "".join(
            f"SPEAKER {recording} 1 {s.start:.3f} {s.end - s.start:.3f} <NA> <NA> {_words(s.label, '_')} <NA> <NA>\n"
            for s in self.segments()
            if s.label != SILENCE
        )


def _half_samples(seconds: ArrayLike) -> Int64[np.ndarray, " times"]:
    return np.rint(np.asarray(seconds, dtype=np.float64) * (2 * SAMPLE_RATE)).astype(np.int64)


def _words(text: str, between: str) -> str:
    return between.join(text.split())
