"""Encoders as modules of plain tensor operations, one waveform in and its frames out: what fits into an ONNX graph."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from serein.errors import ModelError
from serein.frames.audio import SAMPLE_RATE
from serein.frames.blocks import run_batch
from serein.frames.encoder import SpeechEncoder
from serein.frames.logmel import FLOOR, HOP, WINDOW, LogMelEncoder
from serein.frames.wav2vec2 import Wav2Vec2Encoder
from serein.frames.whisper import WhisperEncoder


def waveform_graph(encoder: SpeechEncoder, pool: int) -> nn.Module:
    """A module that gives the frames of one waveform as a frame store holds them.

    It takes one waveform at a time, (1, samples), because padding would change what comes out: the group norm of
    wav2vec2-base and HuBERT-base and the loudest value of Whisper's spectrogram are taken over all that goes in.

    Args:
        encoder: as :func:`serein.frames.encoder.load_encoder` gives it, in float32.
        pool: this many consecutive frames are averaged into one.

    Raises:
        ModelError: the encoder computes in another precision than float32.
    """
    if encoder.settings.get("dtype", "float32") != "float32":
        raise ModelError(
            f"{encoder.name}: this model was trained on frames of {encoder.settings['dtype']}, a graph makes them in "
            "float32; train on frames extracted in float32, or export without the encoder"
        )
    if isinstance(encoder, LogMelEncoder):
        return nn.Sequential(_LogMel(encoder), _AsStored(pool))
    if isinstance(encoder, WhisperEncoder):
        return nn.Sequential(_Whisper(encoder), _AsStored(pool))
    assert isinstance(encoder, Wav2Vec2Encoder)
    return nn.Sequential(_Wav2Vec2(encoder), _AsStored(pool))


def check_longest(encoder: SpeechEncoder, longest: int) -> None:
    """Refuse windows of more samples than the graph hears: a Whisper's graph has no frames of what is beyond its piece.

    Raises:
        ModelError: torch would encode the longest window in two pieces, so that the graph's answers would be others.
    """
    if isinstance(encoder, WhisperEncoder) and encoder.num_frames(longest) > encoder.num_frames(encoder._piece):
        raise ModelError(
            f"{encoder.name}: hears {encoder._piece / SAMPLE_RATE:g} seconds at once, and this model takes windows of "
            f"up to {longest / SAMPLE_RATE:.3f} seconds, as long as the recordings that it was trained on; train "
            "without the longest ones, or export without the encoder"
        )


class _AsStored(nn.Module):
    """:func:`serein.frames.extract.as_stored` for a graph."""

    def __init__(self, pool: int) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, frames: Float[Tensor, "1 frames layers width"]) -> Float[Tensor, "1 pooled layers width"]:
        if self.pool > 1:
            length = frames.shape[1]
            full = F.pad(frames, (0, 0, 0, 0, 0, -length % self.pool)).unflatten(1, (-1, self.pool)).sum(2)
            first = torch.arange(0, length, self.pool, device=frames.device)
            frames = full / (length - first).clamp(max=self.pool)[:, None, None]
        return frames.half().float()


class _Power(nn.Module):
    """Power spectrum of windows under a Hann window: the discrete Fourier transform as a convolution."""

    kernel: Tensor

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.hop = hop
        turns = torch.outer(torch.arange(window // 2 + 1), torch.arange(window)) % window
        angles = 2 * math.pi / window * turns.double()
        taper = torch.hann_window(window, dtype=torch.float64)
        kernel = torch.cat([angles.cos(), angles.sin()]) * taper
        self.register_buffer("kernel", kernel.float().unsqueeze(1))

    def forward(self, samples: Float[Tensor, "1 samples"]) -> Float[Tensor, "1 windows bins"]:
        real, imaginary = F.conv1d(samples.unsqueeze(1), self.kernel, stride=self.hop).mT.chunk(2, dim=2)
        return real.square() + imaginary.square()


class _LogMel(nn.Module):
    filters: Tensor

    def __init__(self, encoder: LogMelEncoder) -> None:
        super().__init__()
        self.power = _Power(WINDOW, HOP)
        self.register_buffer("filters", encoder._filters)

    def forward(self, waveform: Float[Tensor, "1 samples"]) -> Float[Tensor, "1 frames 1 bands"]:
        energies: Tensor = self.power(waveform) @ self.filters
        return energies.clamp(min=FLOOR).log().unsqueeze(2)


class _Whisper(nn.Module):
    filters: Tensor

    def __init__(self, encoder: WhisperEncoder) -> None:
        super().__init__()
        extractor = encoder._extractor
        self.window, self.hop, self.piece = extractor.n_fft, extractor.hop_length, extractor.n_samples
        self.power = _Power(self.window, self.hop)
        self.register_buffer("filters", torch.from_numpy(extractor.mel_filters).float())
        self.encoder = encoder._encoder
        self.final_norm = None if encoder._cut else self.encoder.layer_norm
        self.layers, self.padding = encoder.layers, encoder._padding

    def forward(self, waveform: Float[Tensor, "1 samples"]) -> Float[Tensor, "1 frames layers width"]:
        mel_frames = waveform.shape[1] // self.hop
        mel = self._spectrogram(waveform)
        if not self.padding:
            mel = mel[:, :, :mel_frames]
        frames = F.gelu(self.encoder.conv2(F.gelu(self.encoder.conv1(mel)))).mT
        frames = frames + self.encoder.embed_positions.weight[: frames.shape[1]]
        states = run_batch(self.encoder.layers, frames, self.layers, None, self.final_norm, False)
        return states[:, : (mel_frames + 1) // 2]

    def _spectrogram(self, waveform: Float[Tensor, "1 samples"]) -> Float[Tensor, "1 bands windows"]:
        # Beyond a window's width behind the clip there is nothing but silence, which raises no maximum.
        silence = self.piece if self.padding else self.window
        padded = F.pad(waveform, (0, silence))[:, : self.piece]
        padded = F.pad(padded, (self.window // 2, self.window // 2), mode="reflect")
        energies = (self.power(padded) @ self.filters)[:, :-1]
        mel = energies.clamp(min=1e-10).log10()
        return (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0) / 4 + 1).mT


class _Wav2Vec2(nn.Module):
    def __init__(self, encoder: Wav2Vec2Encoder) -> None:
        super().__init__()
        self.normalize = encoder.settings["do_normalize"]
        self.parts = encoder._parts
        self.norm_enters, self.norm_leaves = encoder._norm_enters, encoder._norm_leaves
        self.layers, self.relative_positions = encoder.layers, encoder._relative_positions

    def forward(self, waveform: Float[Tensor, "1 samples"]) -> Float[Tensor, "1 frames layers width"]:
        if self.normalize:
            centred = waveform - waveform.mean()
            waveform = centred / (centred.square().mean() + 1e-7).sqrt()
        projected = self.parts["projection"](self.parts["convolutions"](waveform).mT)
        frames = projected[0] if isinstance(projected, tuple) else projected
        frames = frames + self.parts["positions"](frames)
        if self.norm_enters:
            frames = self.parts["norm"](frames)
        norm = self.parts["norm"] if self.norm_leaves else None
        return run_batch(self.parts["blocks"], frames, self.layers, None, norm, self.relative_positions)
