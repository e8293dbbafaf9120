"""The baselines that are trained step by step: how each is built for a task, and what it minimises."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serein.baselines.co_attention import CoAttentionHead
from serein.baselines.emobox import EmoBoxHead
from serein.baselines.emotion2vec import Emotion2vecHead
from serein.baselines.lpmn import LocalPrototypeMapping
from serein.baselines.pepino import PepinoHead
from serein.baselines.speaker_normalization import SpeakerNormalizedHead
from serein.baselines.superb import SuperbHead
from serein.frames.logmel import BANDS, LogMelEncoder
from serein.train.objectives import Objective, against_talkers, hardest_half, plain, with_quantization
from serein.train.task import Task


@dataclass(frozen=True)
class Head:
    """A baseline.

    Attributes:
        name: in tables.
        build: a fresh module for a task, with its ``front_end`` still to be standardised.
        objective: what it minimises.
        shared: several systems are made of its training, which a study therefore keeps for them.
    """

    name: str
    build: Callable[[Task], Any]
    objective: Objective = plain
    shared: bool = False


def _of(module: Callable[..., Any]) -> Callable[[Task], Any]:
    return lambda task: module(task.array.layers, task.array.width, len(task.config.labels))


def _speaker_normalized(task: Task) -> SpeakerNormalizedHead:
    talkers = int(task.trained_talkers().max()) + 1
    return SpeakerNormalizedHead(task.array.layers, task.array.width, len(task.config.labels), talkers)


def _co_attention(task: Task) -> CoAttentionHead:
    layers, steps = len(task.config.encoder.layers), round(LogMelEncoder.frame_rate / task.array.frame_rate)
    return CoAttentionHead(layers, task.array.width, len(task.config.labels), steps, BANDS)


HEADS = {
    "superb": Head("SUPERB head", _of(SuperbHead)),
    "emobox": Head("EmoBox head", _of(EmoBoxHead)),
    "emotion2vec": Head("emotion2vec head", _of(Emotion2vecHead)),
    "w2v2-pt": Head("W2v2-PT", _of(PepinoHead)),
    "snp": Head("Spk-norm (SNP)", _speaker_normalized, against_talkers),
    "head-k": Head("EmoBox head, head-k-inspired loss", _of(EmoBoxHead), hardest_half),
    "co-att": Head("Co-att", _co_attention),
    "lpmn": Head("LPMN-style", _of(LocalPrototypeMapping), with_quantization, shared=True),
}
"""By the name that ``serein crossval --system`` takes."""
