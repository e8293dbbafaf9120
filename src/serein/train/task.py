"""One fold and seed: what a system may look at, and what it leaves."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor, nn

from serein.corpus.protocol import Fold
from serein.evaluate.metrics import Scores, scores
from serein.frames.batches import FrameArray, frame_budget, plan_batches
from serein.model import ModelConfig
from serein.nn.transformer import WAPTransformer
from serein.recipe import Recipe
from serein.train.checkpoint import Checkpoint, Row, digest
from serein.train.machine import Stage, arithmetic, generator

MEMBER_STRIDE = 1_000  # seeds stay below it, so that no two committees share a member
CHECKPOINT_SUFFIX = ".checkpoint.safetensors"


class Parts(NamedTuple):
    """Where the parts of a fold stand in the frame array."""

    train: Int[Tensor, " train"]
    validation: Int[Tensor, " validation"]
    test: Int[Tensor, " test"]


@dataclass(frozen=True)
class Task:
    """One fold and seed, with all that a system may look at.

    Attributes:
        array: frames of the corpus; after them its further views, in the same order; after those the frames of other
            corpora that were given without labels.
        labels: class of each utterance of the array, -1 where the protocol has none.
        talkers: a number for the talker of each utterance of the array.
        fold: utterance ids of training, validation and test.
        config: the network, with its labels.
        recipe: the settings.
        seed: of this repetition.
        folder: where checkpoints may stand.
        frames: digests of the stores that the array was loaded from; a checkpoint of other frames is not continued.
        views: how many times each utterance of the corpus stands in the array, at different speeds; the further views
            are for training, and with ``model.test_views`` for judging too.
        elsewhere: of each other corpus, its utterances in the array.
        pretrained: an adapter that was trained elsewhere, instead of adapter training here.
        shared: where trainings are kept for other tasks that need the same: adapters without labels, and heads that
            several systems are made of.
    """

    array: FrameArray
    labels: Int[Tensor, " utterances"]
    talkers: Int[Tensor, " utterances"]
    fold: Fold
    config: ModelConfig
    recipe: Recipe
    seed: int
    folder: Path
    frames: Sequence[str] = ()
    views: int = 1
    elsewhere: Sequence[Int[Tensor, " others"]] = ()
    pretrained: WAPTransformer | None = None
    shared: Path | None = None

    @property
    def oracle(self) -> bool:
        """Whether choices are made on the test utterances."""
        return set(self.fold.validation) == set(self.fold.test)

    @property
    def own(self) -> Int[Tensor, " own"]:
        """The corpus's utterances, at all speeds."""
        return torch.arange(len(self.array.ids) - sum(map(len, self.elsewhere)))

    def parts(self) -> Parts:
        """Training, validation and test utterances."""
        return Parts(*(self.array.indices(ids) for ids in (self.fold.train, self.fold.validation, self.fold.test)))

    def with_views(self, indices: Int[Tensor, " chosen"]) -> Int[Tensor, " viewed"]:
        """These utterances of the corpus, and after them their further views."""
        corpus = len(self.own) // self.views
        return torch.cat([indices + view * corpus for view in range(self.views)])

    def judged(self, indices: Int[Tensor, " chosen"]) -> Int[Tensor, " judged"]:
        """What is heard to judge these utterances: themselves, with ``model.test_views`` followed by their views."""
        return self.with_views(indices) if self.recipe.model.test_views else indices

    def trained_talkers(self) -> Int[Tensor, " utterances"]:
        """The talker of each utterance, numbered from 0 among those of :meth:`known` at all speeds.

        Nobody else is trained on; their number is 0 and says nothing.
        """
        known = self.talkers[self.with_views(self.known())].unique()
        numbers = torch.searchsorted(known, self.talkers).clamp(max=len(known) - 1)
        return numbers.where(known[numbers] == self.talkers, 0)

    def labelled(self) -> Int[Tensor, " train"]:
        """Training utterances whose labels may be used: all, or ``finetune.label_share`` of each class."""
        return self._share(self.parts().train)

    def known(self) -> Int[Tensor, " known"]:
        """What the refit learns from: training and validation, of which an oracle's validation is test and stays out.

        With a ``finetune.label_share`` below 1, that share of each: no label that :meth:`labelled` left out comes in.
        """
        train, validation, _ = self.parts()
        return self._share(train) if self.oracle else torch.cat([self._share(train), self._share(validation)])

    def finetuning(self) -> Recipe:
        """The recipe, with epochs enough for ``finetune.min_steps`` on :meth:`labelled` at all speeds.

        Every training of the task is laid out for these, the refit too, so that an epoch that was chosen stands at the
        same place of the schedule.
        """
        settings = self.recipe.finetune
        lengths = self.array.lengths[self.with_views(self.labelled())]
        batches = plan_batches(lengths, frame_budget(lengths, settings.batch_size), seed=self.seed, epoch=0)
        epochs = max(settings.epochs, math.ceil(settings.min_steps / len(batches)))
        return self.recipe.model_copy(update={"finetune": settings.model_copy(update={"epochs": epochs})})

    def member_seeds(self) -> list[int]:
        """A seed for each member of the committee; the first is the task's own."""
        return [self.seed + MEMBER_STRIDE * member for member in range(self.recipe.model.members)]

    def checkpoint(self, name: str, *, share: bool = False) -> Checkpoint:
        """Where a stage of this task saves itself; one to share in :attr:`shared`, by all that it depends on."""
        purpose = self._purpose()
        if share and self.shared is not None:
            path = self.shared / f"{name}-{purpose[:16]}{CHECKPOINT_SUFFIX}"
        else:
            path = self.folder / f"{name}{CHECKPOINT_SUFFIX}"
        return Checkpoint(path, self.recipe.speed.checkpoint_seconds, purpose)

    def adapter_checkpoint(self, heard: Int[Tensor, " heard"]) -> Checkpoint:
        """Where adapter training on these utterances saves itself: in :attr:`shared` by all that it depends on."""
        if self.shared is None:
            return self.checkpoint("adapt")
        recipe, config = self.recipe, self.config
        shape = recipe.model.model_dump(
            include={"width", "blocks", "heads", "dropout", "layer_mix", "talker_statistics"}
        )
        ids = [self.array.ids[index] for index in heard.tolist()]
        shape_and_data = (
            shape, recipe.adapt, config.encoder, config.max_frames, self.frames, ids, self.talkers.tolist(),
            *([len(others)] for others in self.elsewhere),
        )  # fmt: skip
        purpose = digest(Recipe(), self.seed, *shape_and_data, arithmetic(recipe.speed))
        return Checkpoint(self.shared / f"{purpose[:16]}{CHECKPOINT_SUFFIX}", recipe.speed.checkpoint_seconds, purpose)

    def _share(self, indices: Tensor) -> Tensor:
        share = self.recipe.finetune.label_share
        if share == 1:
            return indices
        # another draw in each fold: folds of one size would else keep the same places, lucky or not, in all of them
        draws = generator(self.seed, Stage.LABELS, crc32(self.fold.name.encode()))
        shuffled = indices[torch.randperm(len(indices), generator=draws)]
        kept = []
        for label in self.labels[indices].unique():
            members = shuffled[self.labels[shuffled] == label]
            kept.append(members[: max(1, round(share * len(members)))])
        return torch.cat(kept)

    def _purpose(self) -> str:
        start = hashlib.sha256(save(self.pretrained.state_dict())).hexdigest() if self.pretrained else save({})
        parted = [len(others) for others in self.elsewhere]
        whose = (self.array.ids, self.labels.tolist(), self.talkers.tolist(), *([parted] if parted else []))
        facts = (self.config, self.fold, self.frames, *whose, start)
        return digest(self.recipe, self.seed, *facts, arithmetic(self.recipe.speed))


def remove_checkpoints(folder: Path) -> None:
    """Delete what :meth:`Task.checkpoint` left in a task's folder, once its outcome is saved."""
    for path in folder.glob(f"*{CHECKPOINT_SUFFIX}"):
        path.unlink()


@dataclass
class Outcome:
    """What a system leaves of a task.

    Attributes:
        model: trained on training and validation talkers together, with what was chosen on the validation talkers.
        probabilities: of the test utterances, in the fold's order.
        embeddings: of the test utterances, by name: "encoder" is the frozen encoder's mean frame, "fresh adapter" that
            of an adapter which nothing trained, "adapter without labels" that of the trained one which fine-tuning
            started from, "system" what the output layer sees.
        choice: what was chosen on validation talkers.
        history: one row a step.
        seconds: by stage.
        parameters: trainable parameters by part.
        collapse: what happened to the teacher, or "".
    """

    model: nn.Module
    probabilities: Float[Tensor, "test classes"]
    embeddings: dict[str, Tensor]
    choice: dict[str, Any]
    parameters: dict[str, int]
    history: list[Row] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    collapse: str = ""


def mean_over_views(
    probabilities: Float[Tensor, "judged classes"], utterances: int
) -> Float[Tensor, "utterances classes"]:
    """One row an utterance, of rows for :meth:`Task.judged`."""
    views = len(probabilities) // utterances if utterances else 1
    mean: Tensor = probabilities.view(views, utterances, probabilities.shape[1]).mean(0)
    return mean


def logits_over_views(logits: Float[Tensor, "judged classes"], utterances: int) -> Float[Tensor, "utterances classes"]:
    """Logits whose softmax is :func:`mean_over_views`; as they are, where each utterance has one row."""
    return logits if len(logits) == utterances else mean_over_views(logits.softmax(1), utterances).log()


def scores_of_logits(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """What the largest logits score."""
    names = np.array(classes)
    return scores(names[labels.numpy()], names[logits.argmax(1).numpy()], classes)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note the wall time of a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 3)
