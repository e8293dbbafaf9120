"""Frozen speech encoders: from a waveform to frames, 50 a second."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from serein.errors import UsageError
from serein.frames.logmel import LogMelEncoder
from serein.frames.pretrained import CONFIG_FILES, find_checkpoint
from serein.frames.wav2vec2 import Wav2Vec2Encoder
from serein.frames.whisper import WhisperEncoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@runtime_checkable
class SpeechEncoder(Protocol):
    """What every front end offers.

    Attributes:
        name: Hub id, folder, or ``logmel``: what :func:`load_encoder` was given.
        revision: the commit on the Hub; "" for a folder and for ``logmel``.
        fingerprint: SHA-256, in hexadecimal, over the weights that are used (``logmel``: over its settings).
        layers: layer numbers from 0 up, in the order asked for.
        width: numbers a layer and frame.
        frame_rate: frames a second.
        padded_to: samples up to which a shorter waveform is filled before it is computed; 0 where none is.
        longest_seconds: of a recording whose frames a store may hold: what computes a recording as a whole needs memory
            with its length; infinite for what works in pieces.
        settings: what else changes the frames; can be written as JSON.
    """

    name: str
    revision: str
    fingerprint: str
    layers: tuple[int, ...]
    width: int
    frame_rate: float
    padded_to: int
    longest_seconds: float
    settings: dict[str, Any]

    def num_frames(self, samples: int) -> int:
        """How many frames a waveform of so many samples gives."""
        ...

    def encode(self, waveforms: Sequence[Float32[np.ndarray, " _"]]) -> list[Float[Tensor, "_ layers width"]]:
        """Encode waveforms of 16 kHz: one float32 tensor on the CPU each.

        An utterance's frames are the same in whatever company it is encoded (in float32 to about 1e-5, the
        rounding of a matrix product whose shape depends on the company). All waveforms given are computed at
        once: the caller chooses groups that fit into memory.

        Raises:
            TooShort: a waveform gives no frame.
        """
        ...


def load_encoder(
    name: str,
    *,
    layers: Sequence[int] = (-1,),
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    whisper_padding: bool = True,
    token: str | bool | None = None,
) -> SpeechEncoder:
    """Load a frozen encoder; no block above the highest layer asked for is kept.

    Layer 0 enters the first transformer block (after projection and positions), layer k leaves block k. The
    highest layer is the model's ``last_hidden_state``: after the final layer norm, where the model has one.

    Args:
        name: a Hub id, a folder, or ``logmel`` (built in, no weights; its only layer is 0).
        layers: layer numbers; negative ones count from the last, -1.
        revision: branch, tag, commit or ``refs/pr/N`` on the Hub.
        device: where it runs, such as ``cuda``; ``logmel`` runs on the CPU.
        dtype: of weights and arithmetic: ``float32`` or ``bfloat16``; frames are float32 in any case.
        whisper_padding: Whisper only: see :class:`serein.frames.whisper.WhisperEncoder`.
        token: for private and gated models; by default the one of ``HF_TOKEN`` or ``hf auth login``.

    Raises:
        UsageError: no such layer, device or dtype, or a setting that the encoder does not have: a folder or ``logmel``
            has no revision, ``logmel`` neither another dtype than float32 nor padding.
        ModelError: the model is out of reach, incomplete, or of a family that serein does not read.

    Example:
        >>> encoder = load_encoder("logmel")
        >>> encoder.layers, encoder.width, encoder.frame_rate
        ((0,), 80, 50.0)
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r}: choose from {', '.join(DTYPES)}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise UsageError(f"device {device!r}: cannot be used here: {error}") from error
    if name == LogMelEncoder.name:
        _resolve(layers, 0, name)
        unused = {"revision": revision, "dtype": dtype != "float32", "cut Whisper": not whisper_padding}
        if asked := [option for option, is_asked in unused.items() if is_asked]:
            raise UsageError(f"{name}: is built in, and knows nothing of {' and '.join(asked)}; leave that out")
        return LogMelEncoder()
    checkpoint = find_checkpoint(name, revision, token)
    resolved = _resolve(layers, checkpoint.blocks, name)
    if checkpoint.config.model_type == "whisper":
        return WhisperEncoder(checkpoint, resolved, device, DTYPES[dtype], whisper_padding)
    return Wav2Vec2Encoder(checkpoint, resolved, device, DTYPES[dtype])


def num_layers(name: str, revision: str | None = None) -> int:
    """The highest layer of an encoder (its number of transformer blocks), from its configuration alone.

    Raises:
        ModelError: out of reach, or of a family that serein does not read.

    Example:
        >>> num_layers("logmel")
        0
    """
    return 0 if name == LogMelEncoder.name else find_checkpoint(name, revision, files=CONFIG_FILES).blocks


def _resolve(layers: Sequence[int], highest: int, name: str) -> tuple[int, ...]:
    resolved = tuple(layer + highest + 1 if layer < 0 else layer for layer in layers)
    if not resolved or len(set(resolved)) < len(resolved) or not set(resolved) <= set(range(highest + 1)):
        raise UsageError(
            f"layers {list(layers)}: {name} has 0 to {highest} (or -1, the last, down to {-highest - 1}); "
            "name at least one, each once"
        )
    return resolved
