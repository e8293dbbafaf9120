"""Emotions while the sound is still coming in."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import soxr
from jaxtyping import Float32

from serein.errors import AudioError, UsageError
from serein.frames.audio import MINIMUM_SAMPLES, SAMPLE_RATE
from serein.frames.mending import LARGEST_PEAK, mix, peak_of
from serein.frames.sources import as_channels, check_rate
from serein.frames.windows import plan_windows
from serein.timeline import Silent, Timeline, Window

BLOCK_SECONDS = 60  # of sound that is taken in before the windows that it completes are judged
MOST_PIECES = 256  # of sound that is held; more are joined, for each takes memory of its own
GROUP_SECONDS = 60  # of windows that are judged at once: where they overlap much, a block has many times its own length
Judge = Callable[[list[Float32[np.ndarray, " _"]]], list[list[float]]]
"""Probabilities, a row each, of recordings (mono, 16 kHz)."""


class EmotionStream:
    """Feed it samples as they come, in chunks of any size; it answers with each window that is complete.

    Whether channels cancel each other or a peak is too high shows at a recording's end. A stream cannot wait for that,
    as a file and a :class:`serein.frames.sources.Recording` can: channels are averaged as they are, and samples far
    beyond full scale are refused.

    Args:
        judge: gives the probabilities; :meth:`serein.recognizer.EmotionRecognizer.stream` fills it in.
        labels: emotions, in the order of the probabilities.
        window: seconds that are judged at once.
        hop: seconds from one window's start to the next one's; at most ``window``.
        rate: of the samples that will be fed, in Hz; a whole number.
        silent: tells samples (mono float32, 16 kHz) in which nobody speaks.

    Attributes:
        latency: once the first window is full, the longest that a sound waits, in seconds, before a window that holds
            it is answered: the hop and, at other rates than 16 kHz, what the resampler holds back (37 ms at 48 kHz,
            116 ms at 8 kHz). At 16 kHz no window waits for sound beyond its end. The time to compute it comes on top.

    Raises:
        AudioError: nobody records at this rate.
        UsageError: a window shorter than a frame, or a hop that leaves gaps.
    """

    def __init__(
        self, judge: Judge, labels: tuple[str, ...], window: float, hop: float, *, rate: int | float, silent: Silent
    ) -> None:
        check_rate(rate)
        rate = int(rate)
        if not (1 / SAMPLE_RATE <= hop <= window < math.inf and window >= MINIMUM_SAMPLES / SAMPLE_RATE):
            raise UsageError(f"window {window:g} s, hop {hop:g} s: a window lasts 0.025 s or more, a hop is no longer")
        self._window, self._hop = round(window * SAMPLE_RATE), round(hop * SAMPLE_RATE)
        self._judge, self._labels = judge, labels
        self._silent: Silent = lambda samples: bool(silent(samples))  # numpy's truth is none in JSON
        self._block = BLOCK_SECONDS * rate
        self._resampler: soxr.ResampleStream | None = _resampler(rate)  # None after the end
        self._arrived = 0  # samples at 16 kHz
        self._start = 0  # of the next window, in these samples
        self._held = [np.empty(0, dtype=np.float32)]  # from there on, in pieces: joining them takes its time
        self._windows: list[Window] = []
        self._quiet: list[bool] = []
        self._refused = 0  # windows that the model could not take
        self._refusal: AudioError | None = None  # what it said of the last of them
        self._told = 0  # windows that were answered
        self._finished = False
        self.latency = self._hop / SAMPLE_RATE + _held_back(rate)

    def feed(self, samples: np.ndarray) -> list[Window]:
        """Windows that these samples complete; one whose sound the model cannot take counts as silent.

        After any other error of the model or the detector the samples are kept, and the next call judges them again.

        Args:
            samples: floating point, full scale is 1, mono, or (samples, channels).

        Raises:
            AudioError: the samples are integers, not finite, or beyond 8, and left out.
            UsageError: the stream is finished.
        """
        chunk = as_channels(samples)
        if (peak := peak_of(chunk)) > LARGEST_PEAK:
            raise AudioError(
                f"these samples reach {peak:.3g}; floats whose full scale is 1 are wanted: divide them by theirs "
                "(16 bits: 32768.0)"
            )
        self._take(mix(chunk))
        return self._answer()

    def finish(self) -> list[Window]:
        """The windows that are left, of which the last is cut at the end; nothing can be fed after this.

        After an error of the model it can be called again.

        Raises:
            AudioError: the model could take not one window.
        """
        if self._resampler is not None:
            self._hold(self._resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True))
            self._resampler = None
        if not self._finished:
            self._judge_held(ended=True)
            self._finished = True
        if self._refusal and 0 < self._refused == len(self._windows):
            raise self._refusal
        return self._answer()

    def follow(self, recording: Iterable[Float32[np.ndarray, " _"]], mended: tuple[str, ...] = ()) -> Timeline:
        """The timeline of a whole recording, given in blocks: mono, and mended already; raises as :meth:`finish`.

        Args:
            recording: its blocks.
            mended: what the timeline's warnings begin with.
        """
        for block in recording:
            self._take(block)
        self.finish()
        found = self.timeline()
        return replace(found, warnings=(*mended, *found.warnings))

    def timeline(self) -> Timeline:
        """All so far; after :meth:`finish`, all."""
        warnings: tuple[str, ...] = ()
        if self._refused:
            judged = f"{self._refused} of {len(self._windows)} windows could not be judged"
            warnings = (f"{judged}, and count as silence ({self._refusal})",)
        held = self._joined()
        rest = (self._silent(held[cell : cell + self._hop]) for cell in range(0, len(held), self._hop))
        return Timeline(
            self._labels,
            self._hop / SAMPLE_RATE,
            tuple(self._windows),
            (*self._quiet, *rest),
            self._arrived / SAMPLE_RATE,
            warnings,
        )

    def _take(self, samples: Float32[np.ndarray, " _"]) -> None:
        """Judge what these samples complete, block by block; all are held, even when there is an error."""
        if self._resampler is None:
            raise UsageError("this stream is finished; start another one")
        blocks = (samples[start : start + self._block] for start in range(0, len(samples), self._block))
        try:
            for block in blocks:
                self._hold(self._resampler.resample_chunk(block))
                self._judge_held()
        finally:
            for block in blocks:  # what follows a window that could not be judged
                self._hold(self._resampler.resample_chunk(block))

    def _hold(self, samples: Float32[np.ndarray, " _"]) -> None:
        self._arrived += len(samples)
        if len(samples):  # the resampler often keeps what it was given
            self._held.append(samples)
        if len(self._held) > MOST_PIECES:
            self._joined()

    def _joined(self) -> Float32[np.ndarray, " _"]:
        self._held = [np.concatenate(self._held)]
        return self._held[0]

    def _answer(self) -> list[Window]:
        """Windows that were judged since the last answer."""
        new = self._windows[self._told :]
        self._told = len(self._windows)
        return new

    def _judge_held(self, *, ended: bool = False) -> None:
        if not ended and self._arrived - self._start < self._window:
            return
        held, start = self._joined(), self._start
        planned = plan_windows(len(held), self._window, self._hop)
        if not ended:
            planned = [(first, last) for first, last in planned if last - first == self._window]
        elif self._windows and len(held) == self._window - self._hop:  # the last window reached the end
            planned = []
        even = (1 / len(self._labels),) * len(self._labels)
        size = max(1, GROUP_SECONDS * SAMPLE_RATE // self._window)
        for number in range(0, len(planned), size):
            some = planned[number : number + size]
            heard = [held[first:last] for first, last in some]
            found = self._scores(heard)
            windows = [
                Window((start + first) / SAMPLE_RATE, (start + last) / SAMPLE_RATE,
                       tuple(scores or even), scores is None or self._silent(piece))
                for (first, last), scores, piece in zip(some, found, heard, strict=True)
            ]  # fmt: skip
            # As a hop is no longer than a window, the cell that begins with a window has arrived with it.
            quiet = [self._silent(held[first : first + self._hop]) for first, _ in some]
            # Only now, for the judge and the detector are others' code: after an error of theirs all is judged again.
            self._windows += windows
            self._refused += found.count(None)
            self._quiet += quiet
            taken = (number + len(some)) * self._hop
            self._held, self._start = [held[taken:]], start + taken

    def _scores(self, heard: list[Float32[np.ndarray, " _"]]) -> list[list[float] | None]:
        """Probabilities of each window; None for one that the model cannot take, which costs the others nothing."""
        try:
            return [*self._judge(heard)]
        except AudioError as error:
            if len(heard) > 1:
                half = len(heard) // 2
                return self._scores(heard[:half]) + self._scores(heard[half:])
            self._refusal = type(error)(str(error))  # without the traceback, which would keep the sound
            return [None]


def _resampler(rate: int) -> soxr.ResampleStream:
    return soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")


@lru_cache(maxsize=64)  # as rates come from anybody
def _held_back(rate: int) -> float:
    """The most, in seconds, that the resampler keeps to itself; found by trying, as it works in blocks."""
    resampler, step = _resampler(rate), max(1, rate // 1000)
    most = answered = 0.0
    for number in range(1, 1001):
        answered += len(resampler.resample_chunk(np.zeros(step, dtype=np.float32))) / SAMPLE_RATE
        most = max(most, number * step / rate - answered)
    return most
