"""Emotions while the sound is still coming in."""

import math
from collections.abc import Callable

import numpy as np
import soxr
from jaxtyping import Float32

from serein.errors import AudioError, UsageError
from serein.frames.audio import HIGHEST_RATE, LOWEST_RATE, MINIMUM_SAMPLES, SAMPLE_RATE, mono
from serein.frames.windows import plan_windows
from serein.timeline import Silent, Timeline, Window

Judge = Callable[[list[Float32[np.ndarray, " _"]]], list[list[float]]]
"""Probabilities, a row each, of recordings (mono, 16 kHz)."""


class EmotionStream:
    """Feed it samples as they come, in chunks of any size; it answers with each window that is complete.

    Args:
        judge: gives the probabilities; :meth:`serein.recognizer.EmotionRecognizer.stream` fills it in.
        labels: emotions, in the order of the probabilities.
        window: seconds that are judged at once.
        hop: seconds from one window's start to the next one's; at most ``window``.
        rate: of the samples that will be fed, in Hz.
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
        self, judge: Judge, labels: tuple[str, ...], window: float, hop: float, *, rate: int, silent: Silent
    ) -> None:
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise AudioError(f"a rate of {rate} Hz; credible are {LOWEST_RATE} to {HIGHEST_RATE} Hz")
        if not (1 / SAMPLE_RATE <= hop <= window < math.inf and window >= MINIMUM_SAMPLES / SAMPLE_RATE):
            raise UsageError(f"window {window:g} s, hop {hop:g} s: a window lasts 0.025 s or more, a hop is no longer")
        self._window, self._hop = round(window * SAMPLE_RATE), round(hop * SAMPLE_RATE)
        self._judge, self._labels, self._silent = judge, labels, silent
        self._resampler = _resampler(rate)
        self._arrived = 0  # samples at 16 kHz
        self._held = np.empty(0, dtype=np.float32)  # from the next window's start on
        self._windows: list[Window] = []
        self._quiet: list[bool] = []
        self._finished = False
        self.latency = self._hop / SAMPLE_RATE + _held_back(rate)

    def feed(self, samples: np.ndarray) -> list[Window]:
        """Windows that these samples complete.

        Args:
            samples: floating point, mono, or (samples, channels).

        Raises:
            AudioError: the samples are integers, or not finite; they are left out.
            UsageError: the stream is finished.
        """
        if self._finished:
            raise UsageError("this stream is finished; start another one")
        chunk = mono(samples)
        return self._hear(self._resampler.resample_chunk(chunk)) if len(chunk) else []

    def finish(self) -> list[Window]:
        """The windows that are left, of which the last is cut at the end; nothing can be fed after this."""
        if self._finished:
            return []
        self._finished = True
        return self._hear(self._resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True))

    def timeline(self) -> Timeline:
        """All so far; after :meth:`finish`, all."""
        rest = (self._silent(self._held[cell : cell + self._hop]) for cell in range(0, len(self._held), self._hop))
        return Timeline(
            self._labels,
            self._hop / SAMPLE_RATE,
            tuple(self._windows),
            (*self._quiet, *rest),
            self._arrived / SAMPLE_RATE,
        )

    def _hear(self, samples: Float32[np.ndarray, " _"]) -> list[Window]:
        start = self._arrived - len(self._held)
        self._arrived += len(samples)
        held = self._held = np.concatenate([self._held, samples])
        planned = plan_windows(len(held), self._window, self._hop)
        if not self._finished:
            planned = [(first, last) for first, last in planned if last - first == self._window]
        elif self._windows and len(held) == self._window - self._hop:  # the last window reached the end
            planned = []
        if not planned:
            return []
        heard = [held[first:last] for first, last in planned]
        windows = [
            Window((start + first) / SAMPLE_RATE, (start + last) / SAMPLE_RATE, tuple(scores), self._silent(piece))
            for (first, last), scores, piece in zip(planned, self._judge(heard), heard, strict=True)
        ]
        self._windows += windows
        # As a hop is no longer than a window, the cell that begins with a window has arrived with it.
        self._quiet += [self._silent(held[first : first + self._hop]) for first, _ in planned]
        self._held = held[len(planned) * self._hop :]
        return windows


def _resampler(rate: int) -> soxr.ResampleStream:
    return soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")


def _held_back(rate: int) -> float:
    """The most, in seconds, that the resampler keeps to itself; found by trying, as it works in blocks."""
    resampler, step = _resampler(rate), max(1, rate // 1000)
    most = answered = 0.0
    for number in range(1, 1001):
        answered += len(resampler.resample_chunk(np.zeros(step, dtype=np.float32))) / SAMPLE_RATE
        most = max(most, number * step / rate - answered)
    return most
