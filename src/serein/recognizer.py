"""A trained model on anybody's recording."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import overload

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from serein.answers import Answer, rank
from serein.errors import AudioError, ModelError
from serein.files import write_atomically
from serein.frames.audio import SAMPLE_RATE
from serein.frames.encoder import SpeechEncoder, load_encoder
from serein.frames.extract import as_stored
from serein.frames.sources import Source, load_source, load_sources
from serein.frames.streaming import stream_source
from serein.frames.windows import group, hear, longest_of
from serein.hub import find_model, push_model
from serein.model import CARD_FILE, Classifier, ModelConfig, load_model, save_model
from serein.nn.transformer import WAPTransformer
from serein.streaming import EmotionStream
from serein.timeline import QUIET, Silent, Timeline

BATCH_SECONDS = 60  # of audio, padding included, that encoder and classifier compute at once
JudgeWindows = Callable[[list[Float32[np.ndarray, " _"]]], Float64[Tensor, "windows classes"]]
"""Logarithms of each window's probabilities: :meth:`EmotionRecognizer.judge`, or what asks it."""


class EmotionRecognizer:
    """Encoder and network, from a recording to its emotions, behind one call.

    A recording is heard at each of the model's speeds, and where it is longer than :attr:`longest_window` it is cut
    into windows of equal length, each of which goes through encoder and network on its own. Probabilities and
    embeddings are averaged over the windows of a speed, then over speeds. Padding is masked: in float32 a recording's
    logits are the same, to 1e-4, in whatever company it is judged.

    Args:
        classifier: the network.
        config: its description.
        encoder: the frozen encoder that it was trained on.
        card: the model card, as Markdown.
    """

    def __init__(self, classifier: Classifier, config: ModelConfig, encoder: SpeechEncoder, card: str = "") -> None:
        self.classifier = classifier.eval()
        self.config = config
        self.encoder = encoder
        self.card = card

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        encoder: str | None = None,
        device: str = "cpu",
    ) -> "EmotionRecognizer":
        """Load a model folder that ``serein train`` wrote, and the encoder that it names.

        Args:
            folder: the model, or its id on the Hub.
            revision: branch, tag or commit on the Hub.
            token: for private and gated repositories; by default that of ``HF_TOKEN`` or ``hf auth login``.
            encoder: where the same encoder, weights and settings, is on this machine, if not where it was in training.
            device: for encoder and classifier.

        Raises:
            ModelError: the model or the encoder is missing, damaged, or the encoder another than in training.
            UsageError: there is no such device.
        """
        found = find_model(folder, revision=revision, token=token)
        module, config = load_model(found)
        if isinstance(module, WAPTransformer):
            raise ModelError(
                f"{folder}: is an adapter without a classifier; `serein train --adapter {folder}` adds one"
            )
        wanted = config.encoder
        front = load_encoder(
            encoder or wanted.name,
            layers=wanted.layers,
            revision=None if encoder or Path(wanted.name).is_dir() else wanted.revision or None,
            device=device,
            dtype=wanted.settings.get("dtype", "float32"),
            whisper_padding=wanted.settings.get("whisper_padding", True),
            token=token,
        )
        asked = {"weights": wanted.fingerprint, **wanted.settings}
        offered = {"weights": front.fingerprint, **front.settings}
        differing = sorted(name for name in asked | offered if asked.get(name) != offered.get(name))
        if differing:
            names = " and ".join(differing)
            raise ModelError(f"{front.name}: differs from the encoder that {folder} was trained on in its {names}")
        card = found / CARD_FILE
        text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else ""
        return cls(module.to(device), config, front, text)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model folder that :meth:`from_pretrained` reads: configuration, weights and card.

        Raises:
            UsageError: the folder has a README.md, and is no model's.
        """
        save_model(folder, self.classifier, self.config)
        card = Path(folder) / CARD_FILE
        if self.card:
            write_atomically(card, self.card.encode())
        else:
            card.unlink(missing_ok=True)  # it would be another model's

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | None = None, revision: str | None = None
    ) -> str:
        """Share the model on the Hugging Face Hub; returns its address there. See :func:`serein.hub.push_model`."""
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_model(folder, repo_id, private=private, token=token, revision=revision)

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions that it tells apart."""
        return self.config.labels

    @cached_property
    def longest_window(self) -> int:
        """Most samples (16 kHz) that are judged at once: of an adapter, those whose frames it has positions for."""
        return longest_of(self.encoder.num_frames, self.config.max_frames * self.config.encoder.pool)

    @overload
    def __call__(self, source: Source, *, top_k: int | None = None) -> Answer: ...
    @overload
    def __call__(self, source: list[Source], *, top_k: int | None = None) -> list[Answer]: ...
    def __call__(self, source: Source | list[Source], *, top_k: int | None = None) -> Answer | list[Answer]:
        """Scores of one recording, or of each of several, which are computed together.

        Args:
            source: a path, the bytes of an audio file, a :class:`serein.frames.sources.Recording`, or a list of these.
            top_k: how many labels, at least 1; None gives all.

        Raises:
            AudioError: a recording cannot be used; says which and why.
            UsageError: ``top_k`` is below 1, or the source is none of these.
        """
        if not isinstance(source, list):
            return rank(self.labels, self.probabilities(source).tolist(), top_k)
        return [rank(self.labels, row, top_k) for row in self.probabilities_of(load_sources(source)).tolist()]

    def sure(self, scores: Answer) -> bool:
        """Whether the best score reaches the model's ``abstain_below``; below it the model should not be believed."""
        return float(scores[0]["score"]) >= self.config.abstain_below

    def probabilities(self, source: Source) -> Float[Tensor, " classes"]:
        """Probability of each of :attr:`labels`."""
        return self.probabilities_of([load_source(source)])[0]

    def embed(self, source: Source) -> Float[Tensor, " pooled"]:
        """The utterance embedding: statistics of the adapted frames, or a linear probe's of the frames as they are."""
        return self._averaged(partial(self._computed, self.classifier.embed), _mean, [load_source(source)])[0].float()

    def probabilities_of(
        self, recordings: list[Float32[np.ndarray, " _"]], *, judge: JudgeWindows | None = None
    ) -> Float[Tensor, "recordings classes"]:
        """Calibrated probabilities of recordings that are decoded already: mono, 16 kHz, of any length.

        Args:
            recordings: what to judge.
            judge: asked in place of :meth:`judge`, as by a server, which judges windows of several people together.

        Raises:
            AudioError: a recording has less than one frame, or is far too loud for the encoder; says which of several,
                counted from 0, but for the second not where another ``judge`` is asked, which knows only windows.
        """
        return self.logits_of(recordings, judge=judge).softmax(1)

    def logits_of(
        self, recordings: list[Float32[np.ndarray, " _"]], *, judge: JudgeWindows | None = None
    ) -> Float[Tensor, "recordings classes"]:
        """Logarithms of the averaged probabilities, over the model's temperature; see :meth:`probabilities_of`."""
        if not recordings:
            return torch.empty(0, len(self.labels))
        compute = partial(self._computed, self._log_probabilities)
        mean = self._averaged((lambda windows, _: judge(windows)) if judge else compute, _mean_of_logs, recordings)
        return (mean / self.config.temperature).float()

    def judge(self, windows: list[Float32[np.ndarray, " _"]]) -> Float64[Tensor, "windows classes"]:
        """Logarithms of each window's probabilities, not calibrated; one or more, none over :attr:`longest_window`."""
        return self._computed(self._log_probabilities, windows, [""] * len(windows))

    def timeline(self, source: Source, window: float = 4.0, hop: float = 1.0, *, silent: Silent = QUIET) -> Timeline:
        """Emotions along a recording of any length: a file is decoded as it is judged, and memory stays flat.

        Args:
            source: a path, the bytes of an audio file, or a :class:`serein.frames.sources.Recording`.
            window: seconds that are judged at once.
            hop: seconds from one window's start to the next one's; at most ``window``.
            silent: tells samples (mono float32, 16 kHz) in which nobody speaks: by default those that stay below -50 dB
                (:func:`serein.timeline.quieter_than`); a voice activity detector may be given.

        Raises:
            AudioError: the recording cannot be used.
            UsageError: window and hop do not fit each other, or the source is none of these.
        """
        stream = self.stream(window, hop, silent=silent)  # first, for it may refuse, and a source takes long to open
        with stream_source(source) as (blocks, warnings):
            return stream.follow(blocks, warnings)

    def stream(
        self, window: float = 4.0, hop: float = 1.0, *, rate: int | float = SAMPLE_RATE, silent: Silent = QUIET
    ) -> EmotionStream:
        """Emotions along sound that is still coming in: the windows and scores of :meth:`timeline`.

        Args:
            window: seconds that are judged at once.
            hop: seconds from one window's start to the next one's; at most ``window``.
            rate: of the samples that will be fed, in Hz; a whole number.
            silent: see :meth:`timeline`.

        Raises:
            AudioError: nobody records at this rate.
            UsageError: window and hop do not fit each other.
        """
        return EmotionStream(
            lambda pieces: self.probabilities_of(pieces).tolist(), self.labels, window, hop, rate=rate, silent=silent
        )

    def _log_probabilities(self, frames: Tensor, padding_mask: Tensor) -> Tensor:
        logits: Tensor = self.classifier(frames, padding_mask)
        return logits.cpu().double().log_softmax(1)

    def _averaged(
        self,
        compute: Callable[[list[Float32[np.ndarray, " _"]], list[str]], Tensor],
        average: Callable[[Tensor], Tensor],
        recordings: list[Float32[np.ndarray, " _"]],
    ) -> Float64[Tensor, "recordings values"]:
        """What is computed for each window, averaged over the windows of a speed, then over speeds."""
        names = [f"recording {number}: " if len(recordings) > 1 else "" for number in range(len(recordings))]
        heard = []
        for name, samples in zip(names, recordings, strict=True):
            with _named(name):
                heard.append(hear(samples, self.config.speeds, self.longest_window))
        windows = [window for speeds in heard for windows in speeds for window in windows]
        owners = [name for name, speeds in zip(names, heard, strict=True) for windows in speeds for _ in windows]
        values = iter(compute(windows, owners).split([len(windows) for speeds in heard for windows in speeds]))
        return torch.stack([average(torch.stack([average(next(values)) for _ in speeds])) for speeds in heard])

    @torch.inference_mode()
    def _computed(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        windows: list[Float32[np.ndarray, " _"]],
        owners: Sequence[str],
    ) -> Float64[Tensor, "windows values"]:
        """What the function gives for each window's frames and padding mask, many windows at a time."""
        device = next(self.classifier.parameters()).device
        rows: dict[int, Tensor] = {}
        lengths = [max(len(window), self.encoder.padded_to) for window in windows]
        for indices in group(lengths, BATCH_SECONDS * SAMPLE_RATE):
            frames = []
            for index, encoded in zip(indices, self.encoder.encode([windows[i] for i in indices]), strict=True):
                with _named(owners[index]):
                    frames.append(as_stored(encoded, self.config.encoder.pool).float())
            counts = torch.tensor([len(window) for window in frames])
            padded = pad_sequence(frames, batch_first=True)
            padding_mask = torch.arange(padded.shape[1]) >= counts[:, None]
            computed = function(padded.to(device), padding_mask.to(device)).cpu().double()
            rows.update(zip(indices, computed, strict=True))
        return torch.stack([rows[index] for index in range(len(windows))])


def _mean(values: Float64[Tensor, "several values"]) -> Float64[Tensor, " values"]:
    return values.mean(0)


def _mean_of_logs(logs: Float64[Tensor, "several values"]) -> Float64[Tensor, " values"]:
    """Logarithms of the mean of probabilities, from their logarithms; no probability vanishes on the way."""
    return logs.logsumexp(0) - math.log(len(logs))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """An error within begins with this name."""
    try:
        yield
    except AudioError as error:
        raise type(error)(f"{name}{error}") from error
