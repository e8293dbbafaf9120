"""Windows of audio: whatever is judged goes through encoder and network in these, each on its own."""

from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32

from serein.errors import TooShort
from serein.frames.audio import MINIMUM_SAMPLES, change_speed


def longest_of(num_frames: Callable[[int], int], frames: int) -> int:
    """Most samples that give no more than so many frames.

    Args:
        num_frames: an encoder's: frames of a waveform of so many samples, never fewer for a longer one.
        frames: at least 1.

    Example:
        >>> longest_of(lambda samples: max(0, (samples - 400) // 320 + 1), 50)
        16399
    """
    beyond = MINIMUM_SAMPLES
    while num_frames(beyond) <= frames:
        beyond *= 2
    return bisect_right(range(beyond), frames, key=num_frames) - 1


def cut(samples: Float32[np.ndarray, " samples"], longest: int) -> list[Float32[np.ndarray, " _"]]:
    """Cut a recording into as few windows of at most ``longest`` samples as will do, equal to one sample.

    They overlap where they would otherwise be too short for a frame.

    Args:
        samples: at 16 kHz.
        longest: at least ``MINIMUM_SAMPLES``.

    Example:
        >>> [len(window) for window in cut(np.zeros(2500, np.float32), 1000)]
        [834, 833, 833]
        >>> [len(window) for window in cut(np.zeros(750, np.float32), 719)]
        [400, 400]
    """
    count = max(1, -(-len(samples) // longest))
    if count == 1 or len(samples) >= count * MINIMUM_SAMPLES:
        return np.array_split(samples, count)
    starts = np.linspace(0, len(samples) - MINIMUM_SAMPLES, count).astype(int)
    return [samples[start : start + MINIMUM_SAMPLES] for start in starts]


def hear(
    samples: Float32[np.ndarray, " samples"], speeds: Sequence[float], longest: int
) -> list[list[Float32[np.ndarray, " _"]]]:
    """The windows of a recording at each speed; a speed at which it is too short for one frame is left out.

    Args:
        samples: at 16 kHz.
        speeds: above 1 is faster.
        longest: samples of the longest window.

    Raises:
        TooShort: there is no frame at any speed.

    Example:
        >>> [[len(window) for window in windows] for windows in hear(np.zeros(1600, np.float32), (1.0, 0.8), 1600)]
        [[1600], [1000, 1000]]
    """
    heard = [changed for speed in speeds if len(changed := change_speed(samples, speed)) >= MINIMUM_SAMPLES]
    if not heard:
        raise TooShort(f"this recording has {len(samples)} samples at 16 kHz; {MINIMUM_SAMPLES} make one frame")
    return [cut(changed, longest) for changed in heard]


def plan_windows(total: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Where overlapping windows start and end, in samples: one every ``hop`` until one reaches the end.

    The last one is cut at the end. A rest that is too short for one frame gets no window of its own.

    Args:
        total: samples of the recording.
        window: samples of a window.
        hop: samples from one window's start to the next one's; at most ``window``.

    Example:
        >>> plan_windows(50_000, window=32_000, hop=16_000)
        [(0, 32000), (16000, 48000), (32000, 50000)]
        >>> plan_windows(32_100, window=16_000, hop=16_000)
        [(0, 16000), (16000, 32000)]
    """
    count = 1 + max(0, -((window - total) // hop))
    planned = [(start, min(start + window, total)) for start in range(0, count * hop, hop)]
    return [(start, end) for start, end in planned if end - start >= MINIMUM_SAMPLES]


def group(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indices of windows that are computed together: of similar length, at most ``most`` samples with their padding.

    A window that is longer than that is a group of its own.

    Example:
        >>> group([400, 900, 500, 400], most=1000)
        [[0, 3], [2], [1]]
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not groups or (len(groups[-1]) + 1) * lengths[index] > most:
            groups.append([])
        groups[-1].append(index)
    return groups
