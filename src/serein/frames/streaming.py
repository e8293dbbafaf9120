"""A recording of any length, decoded as it is needed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from serein.frames.audio import SAMPLE_RATE, open_audio
from serein.frames.sources import FILES, Source, load_source

Samples = Float32[np.ndarray, " _"]


@contextmanager
def stream_audio(
    source: str | Path | bytes, *, block: int = 60 * SAMPLE_RATE
) -> Iterator[tuple[Iterator[Samples], tuple[str, ...]]]:
    """The samples of :func:`serein.frames.audio.decode`, a block at a time, and its warnings.

    Whether channels cancel, the peak is too high, or the file is damaged further on, shows at its end: it is decoded
    once without being kept, and nothing is given of a file that ``decode`` refuses; then it is decoded again.

    Args:
        source: a path, or the bytes of a file; open until the context ends.
        block: samples (mono, 16 kHz) of each block; the last one may have fewer.

    Raises:
        AudioError: as ``decode`` raises.

    Example:
        >>> import io, soundfile
        >>> file = io.BytesIO()
        >>> soundfile.write(file, np.full((44_100, 2), 0.5), 44_100, format="WAV")
        >>> with stream_audio(file.getvalue(), block=6000) as (blocks, warnings):
        ...     [len(samples) for samples in blocks], warnings
        ([6000, 6000, 4000], ())
    """
    with open_audio(source) as recording:
        for _ in recording.mixed():
            pass
        verdict = recording.judge()
        yield _blocks(recording.resampled(verdict.weights), block), verdict.warnings


@contextmanager
def stream_source(source: Source) -> Iterator[tuple[Iterator[Samples], tuple[str, ...]]]:
    """The same of a file; of a recording that is in memory all samples at once, and no warnings.

    Raises:
        AudioError: the recording cannot be used; says why.
        UsageError: this is no source.
    """
    if isinstance(source, FILES):
        with stream_audio(source) as streamed:
            yield streamed
    else:
        yield iter([load_source(source)]), ()


def _blocks(pieces: Iterable[Samples], size: int) -> Iterator[Samples]:
    held = np.empty(0, dtype=np.float32)
    for piece in pieces:
        held = np.concatenate([held, piece])
        while len(held) >= size:
            yield held[:size]
            held = held[size:]
    if len(held):
        yield held
