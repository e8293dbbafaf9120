"""Whisper's encoder: a log-mel spectrogram of up to 30 seconds, two convolutions, then a transformer."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import gelu

from serein.errors import ModelError, TooShort
from serein.frames.audio import SAMPLE_RATE
from serein.frames.blocks import run_blocks
from serein.frames.packed import pack_blocks, run_packed
from serein.frames.pretrained import Checkpoint, fingerprint, load_extractor, load_model

CONVOLUTION_STRIDE = 2  # mel frames a frame


class WhisperEncoder:
    """Whisper's frozen encoder; a :class:`serein.frames.encoder.SpeechEncoder`.

    Whisper was trained on 30 seconds at a time: ``padding=True`` fills a shorter waveform with silence, as
    everybody does, and keeps the frames of the clip. ``padding=False`` cuts the spectrogram and the positions
    to the clip, which is many times faster and gives somewhat other frames. A waveform longer than 30 seconds is
    encoded in consecutive pieces of 30 seconds, each on its own, whose frames are joined.
    """

    longest_seconds = math.inf

    def __init__(self, checkpoint: Checkpoint, layers: tuple[int, ...], device: str, dtype: torch.dtype, padding: bool):
        self._extractor = load_extractor(checkpoint, "WhisperFeatureExtractor")
        self._checkpoint, self._device, self._dtype = checkpoint, device, dtype
        self._cut = max(layers) < checkpoint.blocks
        self._padding = padding
        self._hop = int(self._extractor.hop_length)
        self._piece = int(self._extractor.n_samples)
        self.layers = layers
        self.padded_to = self._piece if padding else 0
        encoder = self._encoder
        positions, frames = len(encoder.embed_positions.weight), self._frames_of_piece(self._piece)
        if frames != positions:
            raise ModelError(
                f"{checkpoint.name}: config.json has {positions} positions, preprocessor_config.json makes "
                f"{frames} frames: the files belong to different models"
            )
        self.name = checkpoint.name
        self.revision = checkpoint.revision
        self.fingerprint = fingerprint(encoder.state_dict())
        self.width = int(checkpoint.config.d_model)
        self.frame_rate = SAMPLE_RATE / (self._hop * CONVOLUTION_STRIDE)
        self.settings: dict[str, Any] = {
            "dtype": str(dtype).removeprefix("torch."),
            "whisper_padding": padding,
        }
        self._convolutions = (encoder.conv1, encoder.conv2)
        self._positions: Tensor = encoder.embed_positions.weight
        self._norm = None if self._cut else encoder.layer_norm
        packed = pack_blocks(encoder.layers, checkpoint.config)
        self._run = partial(run_blocks, encoder.layers) if packed is None else partial(run_packed, packed)

    @property
    def _encoder(self) -> Any:
        """Transformers' own module, read from disk again: beside what it was made into it would fill memory."""
        encoder = load_model(self._checkpoint, self._dtype).encoder
        del encoder.layers[max(self.layers) :]
        if self._cut:
            del encoder.layer_norm
        return encoder.to(self._device)

    def num_frames(self, samples: int) -> int:
        """Frames of a waveform: mel = floor(samples / 160), frames = floor((mel + 1) / 2), each 30 seconds.

        The second is the length torch.nn.Conv1d documents for kernel 3, stride 2 and padding 1. One frame
        from 160 samples on, one more every 320.
        """
        pieces, rest = divmod(samples, self._piece)
        return pieces * self._frames_of_piece(self._piece) + self._frames_of_piece(rest)

    def encode(self, waveforms: Sequence[Float32[np.ndarray, " _"]]) -> list[Float[Tensor, "_ layers width"]]:
        """Frames of each waveform (16 kHz); see :meth:`serein.frames.encoder.SpeechEncoder.encode`."""
        pieces = [self._pieces(waveform) for waveform in waveforms]
        with torch.no_grad():
            entering = [self._enter(piece) for clip in pieces for piece in clip]
            encoded = self._run(entering, self.layers, final_norm=self._norm)
        following = iter(encoded)
        return [torch.cat([next(following)[: self._frames_of_piece(len(piece))] for piece in clip]) for clip in pieces]

    def _frames_of_piece(self, samples: int) -> int:
        return (samples // self._hop + 1) // CONVOLUTION_STRIDE

    def _pieces(self, waveform: Float32[np.ndarray, " _"]) -> list[Float32[np.ndarray, " _"]]:
        pieces = [waveform[start : start + self._piece] for start in range(0, len(waveform), self._piece)]
        pieces = [piece for piece in pieces if self._frames_of_piece(len(piece))]
        if not pieces:
            raise TooShort(f"{len(waveform)} samples are fewer than one frame of {self.name} needs")
        return pieces

    def _enter(self, piece: Float32[np.ndarray, " _"]) -> Float[Tensor, "_ width"]:
        if self._padding:
            mel = self._mel(piece)
        else:  # a window of silence behind the clip is all of the padding that its own spectrogram sees
            mel = self._mel(np.pad(piece, (0, self._extractor.n_fft)), padding=False)[:, :, : len(piece) // self._hop]
        first, second = self._convolutions
        frames: Tensor = gelu(second(gelu(first(mel.to(self._device, self._dtype)))))[0].T
        return frames + self._positions[: len(frames)]

    def _mel(self, samples: Float32[np.ndarray, " _"], **options: Any) -> Float[Tensor, "1 bands windows"]:
        features = self._extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt", **options)
        mel: Tensor = features.input_features
        return mel
