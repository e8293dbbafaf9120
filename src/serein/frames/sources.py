"""What a recognizer may be given, and the 16 kHz samples in it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from jaxtyping import Float32

from serein.errors import AudioError, NonFiniteAudio, TooShort, UsageError
from serein.frames.audio import (
    BLOCK,
    HIGHEST_RATE,
    LOWEST_RATE,
    MINIMUM_SAMPLES,
    MOST_CHANNELS,
    SAMPLE_RATE,
    load_audio,
)
from serein.frames.mending import Levels, mix


class Recording(NamedTuple):
    """Samples that are already in memory.

    Attributes:
        samples: floating point, full scale is 1, mono, or (samples, channels).
        rate: samples a second.
    """

    samples: np.ndarray
    rate: int


Source = str | Path | bytes | Recording
FILES = (str, Path, bytes)  # a path, or what is in the file


def load_source(source: Source) -> Float32[np.ndarray, " samples"]:
    """Mono samples at 16 kHz of a path, the bytes of an audio file, or a :class:`Recording`.

    Channels that cancel and peaks beyond 8 are mended as :func:`serein.frames.audio.decode` mends them.

    Raises:
        AudioError: the recording cannot be used; says why.
        UsageError: this is no source.

    Example:
        >>> load_source(Recording(np.zeros((44_100, 2)), 44_100)).shape
        (16000,)
    """
    if isinstance(source, FILES):
        return load_audio(source)
    if not isinstance(source, Recording):
        raise UsageError(
            f"{type(source).__name__}: is no recording; give a path, the bytes of an audio file or "
            "Recording(samples, rate), and several in a list"
        )
    if not isinstance(source.samples, np.ndarray):
        raise UsageError(f"{type(source.samples).__name__}: holds no samples that can be used; give a NumPy array")
    check_rate(source.rate)
    channels = as_channels(source.samples)
    levels = Levels(channels.shape[1])
    for start in range(0, len(channels), BLOCK):
        levels.add(channels[start : start + BLOCK])
    samples = mix(channels, levels.judge().weights)
    if source.rate != SAMPLE_RATE:
        samples = soxr.resample(samples, source.rate, SAMPLE_RATE, quality="HQ")
    if len(samples) < MINIMUM_SAMPLES:
        raise TooShort(f"this recording has {len(samples)} samples at 16 kHz; {MINIMUM_SAMPLES} make one frame")
    return samples


def load_sources(sources: list[Source]) -> list[Float32[np.ndarray, " _"]]:
    """Samples of several recordings; an error says of which one, counted from 0 where it has no path."""
    return [_load_numbered(number, source) for number, source in enumerate(sources)]


def as_channels(samples: np.ndarray) -> Float32[np.ndarray, "samples channels"]:
    """Samples in memory, (samples,) or (samples, channels), as float32 and two-dimensional.

    Raises:
        AudioError: integers, whose full scale is unknown, or not of these shapes.
        NonFiniteAudio: samples that are NaN, infinite, or beyond float32.

    Example:
        >>> as_channels(np.array([0.5, -1.0]))
        array([[ 0.5],
               [-1. ]], dtype=float32)
    """
    if not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"this recording's samples are {samples.dtype}, not floats; divide integers by full scale (16 bits: "
            "32768.0) first"
        )
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not samples.shape[1]):
        raise AudioError(
            f"this recording's samples have the shape {samples.shape}; give (samples,) or (samples, channels)"
        )
    if samples.ndim == 2 and samples.shape[1] > MOST_CHANNELS:
        raise AudioError(
            f"this recording's samples have the shape {samples.shape}, which is {samples.shape[1]} channels; transpose "
            f"(channels, samples) to (samples, channels), of which there may be {MOST_CHANNELS}"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is infinite, and refused
        channels = np.ascontiguousarray(samples[:, None] if samples.ndim == 1 else samples, dtype=np.float32)
    if not np.isfinite(channels).all():
        raise NonFiniteAudio("this recording has samples that are not finite numbers")
    return channels


def check_rate(rate: int | float) -> None:
    """Refuse a sample rate that nobody records at.

    Raises:
        AudioError: the rate is no whole number, or not within 4 and 384 kHz.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE or rate % 1:
        raise AudioError(
            f"a rate of {rate} Hz; credible are {LOWEST_RATE} to {HIGHEST_RATE} Hz: give the samples' own rate, "
            "a whole number"
        )


def _load_numbered(number: int, source: Source) -> Float32[np.ndarray, " samples"]:
    try:
        return load_source(source)
    except AudioError as error:
        if isinstance(source, (str, Path)):
            raise
        raise type(error)(f"recording {number}: {error}") from error
