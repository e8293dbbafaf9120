"""Levels that no recording should have, channels that cancel and peaks far beyond full scale, and their mending."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

LARGEST_PEAK = 8.0  # full scale is 1; floats beyond this hold integers, or nobody ever listened to them
QUIETEST_PEAK = 2.0**-15  # one step of 16-bit samples
CANCELLED = 0.1  # power of the channels' average, over what unrelated channels would leave of theirs


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What one whole pass over a recording found.

    Attributes:
        weights: of the channels, to mix them with once more; None where their average is sound.
        warnings: what was wrong and could be mended.
    """

    weights: Float32[np.ndarray, " channels"] | None
    warnings: tuple[str, ...]


class Levels:
    """Peak and powers of a recording of so many channels, gathered block by block.

    Example:
        >>> levels = Levels(2)
        >>> levels.add(np.array([[0.5, -0.5], [0.25, -0.25]], np.float32))
        array([0., 0.], dtype=float32)
        >>> levels.judge().weights
        array([1., 0.], dtype=float32)
    """

    def __init__(self, channels: int) -> None:
        self._peak, self._average_power, self._powers = 0.0, 0.0, np.zeros(channels)

    def add(self, block: Float32[np.ndarray, "samples channels"]) -> Float32[np.ndarray, " samples"]:
        """Measure the next block; returns the average of its channels."""
        average = mix(block)
        self._peak = max(self._peak, peak_of(block))
        self._powers += np.square(block, dtype=np.float64).sum(axis=0)
        self._average_power += float(np.square(average, dtype=np.float64).sum())
        return average

    def judge(self) -> Verdict:
        """What is wrong, after the last block."""
        channels = len(self._powers)
        mended = []
        weights = _equal(channels)
        if self._average_power < CANCELLED * self._powers.sum() / channels**2:
            loudest = int(self._powers.argmax())
            weights = np.eye(channels, dtype=np.float32)[loudest]
            mended.append(f"the channels cancel each other; only channel {loudest + 1} was taken")
        if self._peak > LARGEST_PEAK:
            weights = weights / np.float32(self._peak)
            mended.append(f"the peak is {self._peak:.3g} where full scale is 1; scaled to 1")
        again = weights if mended else None
        if self._peak < QUIETEST_PEAK:
            mended.append("silence: no sample reaches one step of 16-bit audio")
        return Verdict(again, tuple(mended))


def mix(
    block: Float32[np.ndarray, "samples channels"], weights: Float32[np.ndarray, " channels"] | None = None
) -> Float32[np.ndarray, " samples"]:
    """The channels as one, with these weights (None: averaged)."""
    weights = _equal(block.shape[1]) if weights is None else weights
    mixed: np.ndarray = (block * weights).sum(axis=1)
    return mixed


def peak_of(samples: Float32[np.ndarray, "samples channels"]) -> float:
    """The largest magnitude; 0 without samples."""
    return float(np.abs(samples).max(initial=0.0))


def _equal(channels: int) -> Float32[np.ndarray, " channels"]:
    return np.full(channels, 1 / channels, dtype=np.float32)
