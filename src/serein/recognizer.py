"""A trained model on anybody's recording."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from serein.errors import AudioError, ModelError, NonFiniteAudio, TooShort
from serein.frames.audio import MINIMUM_SAMPLES, SAMPLE_RATE, change_speed, load_audio
from serein.frames.encoder import SpeechEncoder, load_encoder
from serein.frames.extract import as_stored
from serein.model import ModelConfig, load_model
from serein.nn.classifier import EmotionClassifier
from serein.nn.committee import Committee
from serein.nn.transformer import WAPTransformer

Scores = list[dict[str, str | float]]
"""``[{"label": "angry", "score": 0.81}, ...]``, best first: what transformers' audio-classification pipeline gives."""


class Recording(NamedTuple):
    """Samples that are already in memory.

    Attributes:
        samples: floating point, mono, or (samples, channels).
        rate: samples a second.
    """

    samples: np.ndarray
    rate: int


Source = str | Path | bytes | Recording


class EmotionRecognizer:
    """Encoder, adapter, pooling and classifier behind one call.

    A recording is heard at each of the model's speeds, and where it is longer than the model's positions it is cut into
    windows of equal length; probabilities and embeddings are averaged over the windows of a speed, then over speeds.

    Args:
        classifier: the network.
        config: its description.
        encoder: the frozen encoder that it was trained on.
    """

    def __init__(self, classifier: EmotionClassifier | Committee, config: ModelConfig, encoder: SpeechEncoder) -> None:
        self.classifier = classifier.eval()
        self.config = config
        self.encoder = encoder

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, encoder: str | None = None, device: str = "cpu"
    ) -> "EmotionRecognizer":
        """Load a model folder that ``serein train`` wrote, and the encoder that it names.

        Args:
            folder: the model.
            encoder: where the encoder is on this machine, if not where it was in training; its weights must be the
                same.
            device: for encoder and classifier.

        Raises:
            ModelError: the folder or the encoder is missing, damaged, or the encoder's weights are others.
        """
        module, config = load_model(folder)
        if isinstance(module, WAPTransformer):
            raise ModelError(
                f"{folder}: is an adapter without a classifier; `serein train --adapter {folder}` adds one"
            )
        wanted = config.encoder
        front = load_encoder(
            encoder or wanted.name,
            layers=wanted.layers,
            revision=None if encoder else wanted.revision or None,
            device=device,
            dtype=wanted.settings.get("dtype", "float32"),
            whisper_padding=wanted.settings.get("whisper_padding", True),
        )
        if front.fingerprint != wanted.fingerprint:
            raise ModelError(f"{front.name}: its weights are not those of the encoder that {folder} was trained on")
        return cls(module.to(device), config, front)

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions that it tells apart."""
        return self.config.labels

    @overload
    def __call__(self, source: Source, *, top_k: int | None = None) -> Scores: ...
    @overload
    def __call__(self, source: list[Source], *, top_k: int | None = None) -> list[Scores]: ...
    def __call__(self, source: Source | list[Source], *, top_k: int | None = None) -> Scores | list[Scores]:
        """Scores of one recording, or of each of several.

        Args:
            source: a path, the bytes of an audio file, a :class:`Recording`, or a list of these.
            top_k: how many labels; None gives all.

        Raises:
            AudioError: a recording cannot be used; says which and why.
        """
        if isinstance(source, list):
            return [self(single, top_k=top_k) for single in source]
        probabilities = self.probabilities(source)
        order = probabilities.argsort(descending=True)[:top_k].tolist()
        return [{"label": self.labels[index], "score": float(probabilities[index])} for index in order]

    @torch.inference_mode()
    def probabilities(self, source: Source) -> Float[Tensor, " classes"]:
        """Probability of each of :attr:`labels`."""
        return self._mean(lambda *window: self.classifier(*window).softmax(1), source)

    @torch.inference_mode()
    def embed(self, source: Source) -> Float[Tensor, " pooled"]:
        """The utterance embedding: attentive statistics of the adapted frames."""
        return self._mean(self.classifier.embed, source)

    def _mean(self, function: Callable[[Tensor, Tensor], Tensor], source: Source) -> Tensor:
        speeds = [torch.cat([function(*window) for window in windows]).mean(0) for windows in self._windows(source)]
        return torch.stack(speeds).mean(0).cpu()

    def _windows(self, source: Source) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Frames and padding mask of each window, a list a speed."""
        samples = _samples(source)
        device = next(self.classifier.parameters()).device
        for speed in self.config.speeds:
            heard = change_speed(samples, speed)
            if len(heard) < MINIMUM_SAMPLES:  # faster, a very short recording has no frame; at its own speed it has
                continue
            (frames,) = self.encoder.encode([heard])
            frames = as_stored(frames, self.config.encoder.pool).float()
            windows = frames.to(device).tensor_split(-(-len(frames) // self.config.max_frames))
            yield [(w.unsqueeze(0), torch.zeros(1, len(w), dtype=torch.bool, device=device)) for w in windows]


def _samples(source: Source) -> np.ndarray:
    if not isinstance(source, Recording):
        return load_audio(source)
    if not np.issubdtype(source.samples.dtype, np.floating):
        raise AudioError("this recording's samples are integers; divide them by full scale (16 bits: 32768.0) first")
    samples = source.samples.astype(np.float32)
    if samples.ndim == 2:
        samples = samples.mean(1)
    if source.rate != SAMPLE_RATE:
        samples = soxr.resample(samples, source.rate, SAMPLE_RATE, quality="HQ")
    if len(samples) < MINIMUM_SAMPLES:
        raise TooShort(f"this recording has {len(samples)} samples at 16 kHz; {MINIMUM_SAMPLES} make one frame")
    if not np.isfinite(samples).all():
        raise NonFiniteAudio("this recording has samples that are not finite numbers")
    return samples
