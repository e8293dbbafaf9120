"""What a recognizer may be given, and the 16 kHz samples in it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from jaxtyping import Float32

from serein.errors import AudioError, TooShort
from serein.frames.audio import MINIMUM_SAMPLES, SAMPLE_RATE, load_audio, mono


class Recording(NamedTuple):
    """Samples that are already in memory.

    Attributes:
        samples: floating point, mono, or (samples, channels).
        rate: samples a second.
    """

    samples: np.ndarray
    rate: int


Source = str | Path | bytes | Recording


def load_source(source: Source) -> Float32[np.ndarray, " samples"]:
    """Mono samples at 16 kHz of a path, the bytes of an audio file, or a :class:`Recording`.

    Raises:
        AudioError: the recording cannot be used; says why.

    Example:
        >>> load_source(Recording(np.zeros((44_100, 2)), 44_100)).shape
        (16000,)
    """
    if not isinstance(source, Recording):
        return load_audio(source)
    samples = mono(source.samples)
    if source.rate != SAMPLE_RATE:
        samples = soxr.resample(samples, source.rate, SAMPLE_RATE, quality="HQ")
    if len(samples) < MINIMUM_SAMPLES:
        raise TooShort(f"this recording has {len(samples)} samples at 16 kHz; {MINIMUM_SAMPLES} make one frame")
    return samples


def load_sources(sources: list[Source]) -> list[Float32[np.ndarray, " _"]]:
    """Samples of several recordings; an error says of which one, counted from 0 where it has no path."""
    return [_load_numbered(number, source) for number, source in enumerate(sources)]


def _load_numbered(number: int, source: Source) -> Float32[np.ndarray, " samples"]:
    try:
        return load_source(source)
    except AudioError as error:
        if isinstance(source, (str, Path)):
            raise
        raise type(error)(f"recording {number}: {error}") from error
