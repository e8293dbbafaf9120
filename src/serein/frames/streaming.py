"""A recording of any length, decoded as it is needed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from serein.frames.audio import SAMPLE_RATE, open_audio


def stream_audio(source: str | Path | bytes, *, block: int = 60 * SAMPLE_RATE) -> Iterator[Float32[np.ndarray, " _"]]:
    """The samples of :func:`serein.frames.audio.decode`, a block at a time.

    Whether channels cancel, the peak is too high, or the file is damaged further on, shows at its end: it is decoded
    once without being kept, and nothing is given of a file that ``decode`` refuses; then it is decoded again.

    Args:
        source: a path, or the bytes of a file.
        block: samples (mono, 16 kHz) of each block; the last one may have fewer.

    Raises:
        AudioError: as ``decode`` raises, before the first block.

    Example:
        >>> import io, soundfile
        >>> file = io.BytesIO()
        >>> soundfile.write(file, np.full((44_100, 2), 0.5), 44_100, format="WAV")
        >>> [len(samples) for samples in stream_audio(file.getvalue(), block=6000)]
        [6000, 6000, 4000]
    """
    with open_audio(source) as recording:
        for _ in recording.mixed():
            pass
        held = np.empty(0, dtype=np.float32)
        for piece in recording.resampled(recording.judge().weights):
            held = np.concatenate([held, piece])
            while len(held) >= block:
                yield held[:block]
                held = held[block:]
        if len(held):
            yield held
