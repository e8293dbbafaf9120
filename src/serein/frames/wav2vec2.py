"""HuBERT, wav2vec 2.0, WavLM, data2vec audio, UniSpeech-SAT: convolutions and a transformer on the waveform."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from serein.errors import TooShort
from serein.frames.audio import SAMPLE_RATE
from serein.frames.blocks import run_blocks
from serein.frames.pretrained import Checkpoint, fingerprint, load_extractor, load_model


class Wav2Vec2Encoder:
    """A frozen encoder of the wav2vec 2.0 family; a :class:`serein.frames.encoder.SpeechEncoder`.

    Normalisation of the waveform, convolutions, projection and positions run on each utterance alone, so that
    padding reaches neither the group norm of the first convolution (wav2vec2-base, HuBERT-base) nor the
    positional convolutions (data2vec stacks them; some HuBERTs have a batch norm in front).
    """

    def __init__(self, checkpoint: Checkpoint, layers: tuple[int, ...], device: str, dtype: torch.dtype):
        self._extractor = load_extractor(checkpoint, "Wav2Vec2FeatureExtractor")
        model = load_model(checkpoint, dtype)
        config = checkpoint.config
        highest = max(layers)
        # one norm, in one of two places: before the first block, or after the last ("stable layer norm")
        self._norm_enters = not getattr(config, "do_stable_layer_norm", False)
        self._norm_leaves = not self._norm_enters and highest == checkpoint.blocks
        parts = {
            "convolutions": model.feature_extractor,
            "projection": model.feature_projection,
            "positions": model.encoder.pos_conv_embed,
            "blocks": model.encoder.layers[:highest],
        }
        if self._norm_enters or self._norm_leaves:
            parts["norm"] = model.encoder.layer_norm
        self._parts: Any = nn.ModuleDict(parts).to(device)
        self._relative_positions = config.model_type == "wavlm"
        self._convolutions = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self._device, self._dtype = device, dtype
        self.name = checkpoint.name
        self.revision = checkpoint.revision
        self.fingerprint = fingerprint(self._parts.state_dict())
        self.layers = layers
        self.width = int(config.hidden_size)
        self.frame_rate = SAMPLE_RATE / math.prod(config.conv_stride)
        self.settings: dict[str, Any] = {
            "dtype": str(dtype).removeprefix("torch."),
            "do_normalize": bool(self._extractor.do_normalize),
        }

    def num_frames(self, samples: int) -> int:
        """Frames of a waveform: n <- floor((n - kernel) / stride) + 1 for each convolution.

        That is the length torch.nn.Conv1d documents, without padding or dilation. With the released kernels
        (10, 3, 3, 3, 3, 2, 2) and strides (5, 2, 2, 2, 2, 2, 2): one frame from 400 samples on, one more
        every 320.
        """
        for kernel, stride in self._convolutions:
            samples = max(0, (samples - kernel) // stride + 1)
        return samples

    def encode(self, waveforms: Sequence[Float32[np.ndarray, " _"]]) -> list[Float[Tensor, "_ layers width"]]:
        """Frames of each waveform (16 kHz); see :meth:`serein.frames.encoder.SpeechEncoder.encode`."""
        with torch.inference_mode():
            encoded = run_blocks(
                self._parts["blocks"],
                [self._enter(waveform) for waveform in waveforms],
                self.layers,
                final_norm=self._parts["norm"] if self._norm_leaves else None,
                relative_positions=self._relative_positions,
            )
        return [frames.clone() for frames in encoded]  # a copy made out here may enter a trainable network

    def _enter(self, waveform: Float32[np.ndarray, " _"]) -> Float[Tensor, "_ width"]:
        if not self.num_frames(len(waveform)):
            raise TooShort(f"{len(waveform)} samples are fewer than one frame of {self.name} needs")
        prepared = self._extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
        convolved = self._parts["convolutions"](prepared.to(self._device, self._dtype))
        projected = self._parts["projection"](convolved.transpose(1, 2))
        # all but HuBERT also return what went into the projection
        frames: Tensor = projected[0] if isinstance(projected, tuple) else projected
        frames = frames + self._parts["positions"](frames)
        if self._norm_enters:
            frames = self._parts["norm"](frames)
        return frames[0]
