"""HuBERT, wav2vec 2.0, WavLM, data2vec audio, UniSpeech-SAT: convolutions and a transformer on the waveform."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from serein.errors import TooShort
from serein.frames.audio import SAMPLE_RATE
from serein.frames.blocks import run_blocks
from serein.frames.convolutions import RowConvolutions
from serein.frames.packed import pack_blocks, run_packed
from serein.frames.pretrained import Checkpoint, fingerprint, load_extractor, load_model


class Wav2Vec2Encoder:
    """A frozen encoder of the wav2vec 2.0 family; a :class:`serein.frames.encoder.SpeechEncoder`.

    Normalisation of the waveform, convolutions, projection and positions run on each utterance alone, so that
    padding reaches neither the group norm of the first convolution (wav2vec2-base, HuBERT-base) nor the
    positional convolutions (data2vec stacks them; some HuBERTs have a batch norm in front).
    """

    padded_to = 0
    longest_seconds = 300.0  # of so many the first convolution alone makes 2 GB

    def __init__(self, checkpoint: Checkpoint, layers: tuple[int, ...], device: str, dtype: torch.dtype):
        config = checkpoint.config
        self._extractor = load_extractor(checkpoint, "Wav2Vec2FeatureExtractor")
        self._checkpoint, self._device, self._dtype = checkpoint, device, dtype
        # one norm, in one of two places: before the first block, or after the last ("stable layer norm")
        self._norm_enters = not getattr(config, "do_stable_layer_norm", False)
        self._norm_leaves = not self._norm_enters and max(layers) == checkpoint.blocks
        self._relative_positions = config.model_type == "wavlm"
        self._kernels = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.name = checkpoint.name
        self.revision = checkpoint.revision
        self.layers = layers
        self.width = int(config.hidden_size)
        self.frame_rate = SAMPLE_RATE / math.prod(config.conv_stride)
        self.settings: dict[str, Any] = {
            "dtype": str(dtype).removeprefix("torch."),
            "do_normalize": bool(self._extractor.do_normalize),
        }
        parts = self._parts
        self.fingerprint = fingerprint(parts.state_dict())
        self._convolve = _convolutions(parts["convolutions"], config)
        self._projection = parts["projection"]
        self._positions = _without_weight_norm(parts["positions"])
        self._norm: Any = parts["norm"] if self._norm_enters or self._norm_leaves else None
        self._run = _runner(parts["blocks"], config)

    @property
    def _parts(self) -> Any:
        """Transformers' own modules, read from disk again: beside what they were made into they would fill memory."""
        model = load_model(self._checkpoint, self._dtype)
        parts = {
            "convolutions": model.feature_extractor,
            "projection": model.feature_projection,
            "positions": model.encoder.pos_conv_embed,
            "blocks": model.encoder.layers[: max(self.layers)],
        }
        if self._norm_enters or self._norm_leaves:
            parts["norm"] = model.encoder.layer_norm
        return nn.ModuleDict(parts).to(self._device)

    def num_frames(self, samples: int) -> int:
        """Frames of a waveform: n <- floor((n - kernel) / stride) + 1 for each convolution.

        That is the length torch.nn.Conv1d documents, without padding or dilation. With the released kernels
        (10, 3, 3, 3, 3, 2, 2) and strides (5, 2, 2, 2, 2, 2, 2): one frame from 400 samples on, one more
        every 320.
        """
        for kernel, stride in self._kernels:
            samples = max(0, (samples - kernel) // stride + 1)
        return samples

    def encode(self, waveforms: Sequence[Float32[np.ndarray, " _"]]) -> list[Float[Tensor, "_ layers width"]]:
        """Frames of each waveform (16 kHz); see :meth:`serein.frames.encoder.SpeechEncoder.encode`."""
        with torch.no_grad():
            entering = [self._enter(waveform) for waveform in waveforms]
            norm = self._norm if self._norm_leaves else None
            return self._run(entering, self.layers, final_norm=norm)

    def _enter(self, waveform: Float32[np.ndarray, " _"]) -> Float[Tensor, "_ width"]:
        if not self.num_frames(len(waveform)):
            raise TooShort(f"{len(waveform)} samples are fewer than one frame of {self.name} needs")
        prepared = self._extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
        projected = self._projection(self._convolve(prepared[0].to(self._device, self._dtype))[None])
        # all but HuBERT also return what went into the projection
        frames: Tensor = projected[0] if isinstance(projected, tuple) else projected
        frames = frames + self._positions(frames)
        if self._norm_enters:
            frames = self._norm(frames)
        return frames[0]


def _convolutions(module: Any, config: Any) -> Callable[[Tensor], Tensor]:
    """The front end on one waveform, (samples) -> (frames, channels); group norm needs transformers' own."""
    if getattr(config, "feat_extract_norm", "layer") == "layer" and config.feat_extract_activation == "gelu":
        return RowConvolutions(module.conv_layers)

    def turned(samples: Tensor) -> Tensor:
        frames: Tensor = module(samples[None])[0].T
        return frames

    return turned


def _without_weight_norm(positions: Any) -> Any:
    """The same convolutions with their weights computed once, not at every call."""
    for module in positions.modules():
        if is_parametrized(module, "weight"):
            remove_parametrizations(module, "weight")
    return positions


def _runner(blocks: nn.ModuleList, config: Any) -> Callable[..., list[Tensor]]:
    packed = pack_blocks(blocks, config)
    if packed is None:
        return partial(run_blocks, blocks, relative_positions=config.model_type == "wavlm")
    return partial(run_packed, packed)
