"""The built-in front end: log-mel energies, for trying things out without any model to download."""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from serein.errors import TooShort
from serein.frames.audio import SAMPLE_RATE

WINDOW = SAMPLE_RATE * 25 // 1000  # samples: 25 ms, what one frame of HuBERT sees
HOP = SAMPLE_RATE * 20 // 1000  # samples: 20 ms, 50 frames a second
BANDS = 80
FLOOR = 1e-10  # power: far below 16-bit quantisation noise


class LogMelEncoder:
    """Natural logarithm of energy in mel bands; a weightless :class:`serein.frames.encoder.SpeechEncoder`.

    Example:
        >>> encoder = LogMelEncoder()
        >>> [tuple(frames.shape) for frames in encoder.encode([np.zeros(16_000, dtype=np.float32)])]
        [(49, 1, 80)]
    """

    name = "logmel"
    revision = ""
    layers: tuple[int, ...] = (0,)
    width = BANDS
    frame_rate = SAMPLE_RATE / HOP
    padded_to = 0
    longest_seconds = math.inf

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {
            "window": WINDOW,
            "hop": HOP,
            "bands": BANDS,
            "floor": FLOOR,
            "mel_scale": "slaney",
        }
        self.fingerprint = hashlib.sha256(json.dumps(self.settings).encode()).hexdigest()
        filters = mel_filter_bank(
            WINDOW // 2 + 1, BANDS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self._filters = torch.from_numpy(filters).float()
        self._window = torch.hann_window(WINDOW)

    def num_frames(self, samples: int) -> int:
        """Frames of a waveform: floor((samples - 400) / 320) + 1: as many as HuBERT's convolutions give.

        Example:
            >>> [LogMelEncoder().num_frames(samples) for samples in (399, 400, 719, 720)]
            [0, 1, 1, 2]
        """
        return max(0, (samples - WINDOW) // HOP + 1)

    def encode(self, waveforms: Sequence[Float32[np.ndarray, " _"]]) -> list[Float[Tensor, "_ layers width"]]:
        """Frames of each waveform (16 kHz); see :meth:`serein.frames.encoder.SpeechEncoder.encode`."""
        return [self._log_mel(waveform)[:, None] for waveform in waveforms]

    def _log_mel(self, waveform: Float32[np.ndarray, " _"]) -> Float[Tensor, "_ width"]:
        if not self.num_frames(len(waveform)):
            raise TooShort(f"{len(waveform)} samples are fewer than the {WINDOW} of one frame")
        windows = torch.tensor(waveform).unfold(0, WINDOW, HOP) * self._window
        energies: Tensor = torch.fft.rfft(windows).abs().square() @ self._filters
        return energies.clamp(min=FLOOR).log()
