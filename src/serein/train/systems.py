"""What can be cross-validated: each system learns one fold and gives probabilities for its test utterances."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor, nn

from serein.baselines.linear_probe import fit_linear_probe
from serein.corpus.protocol import Fold
from serein.evaluate.metrics import unweighted_accuracy
from serein.frames.batches import FrameArray
from serein.model import ModelConfig, build_classifier
from serein.nn.classifier import EmotionClassifier
from serein.nn.transformer import WAPTransformer
from serein.progress import Report, quiet
from serein.recipe import Recipe
from serein.train.adapt import adapt, fresh_adapter
from serein.train.checkpoint import Checkpoint, Row, digest
from serein.train.finetune import best_epoch, finetune, in_batches
from serein.train.machine import Stage, pick_device, pick_precision, seed_globally

PROBE_C = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Task:
    """One fold and seed, with all that a system may look at.

    Attributes:
        array: frames of the corpus.
        labels: class of each utterance of the array, -1 where the protocol has none.
        fold: utterance ids of training, validation and test.
        config: the network, with its labels.
        recipe: the settings.
        seed: of this repetition.
        folder: where checkpoints may stand.
        pretrained: an adapter that was trained elsewhere, instead of adapter training here.
    """

    array: FrameArray
    labels: Int[Tensor, " utterances"]
    fold: Fold
    config: ModelConfig
    recipe: Recipe
    seed: int
    folder: Path
    pretrained: WAPTransformer | None = None

    def checkpoint(self, name: str) -> Checkpoint:
        """Where a stage of this task saves itself."""
        path = self.folder / f"{name}.checkpoint.safetensors"
        return Checkpoint(path, self.recipe.speed.checkpoint_seconds, self._purpose())

    def _purpose(self) -> str:
        start = self.pretrained.state_dict() if self.pretrained else {}
        device = pick_device(self.recipe.speed.device)
        machine = (device.type, pick_precision(device, self.recipe.speed.precision))
        return digest(self.recipe, self.seed, self.config, self.fold, self.labels.tolist(), save(start), machine)


@dataclass
class Outcome:
    """What a system leaves of a task.

    Attributes:
        model: trained on training and validation talkers together, with what was chosen on the validation talkers.
        probabilities: of the test utterances, in the fold's order.
        embeddings: of the test utterances, by name; "encoder" is the frozen encoder's mean frame.
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


def linear_probe(task: Task, report: Report = quiet) -> Outcome:
    """Logistic regression on pooled frames; C is chosen on the validation talkers."""
    array, labels = task.array, task.labels
    classes = task.config.labels
    train, validation, test = _parts(task)
    seconds: dict[str, float] = {}
    statistics = array.pooled(torch.arange(len(array.ids))).flatten(1)
    with _timed(seconds, "finetune"):
        scores = {}
        for done, c in enumerate(PROBE_C, start=1):
            probe = fit_linear_probe(statistics[train], labels[train], len(classes), c)
            scores[c] = _ua(probe.classify(statistics[validation]), labels[validation], classes)
            report("finetune", done, len(PROBE_C), {"C": c, "validation_ua": scores[c]})
    best = max(scores, key=lambda c: (scores[c], -c))
    with _timed(seconds, "refit"):
        known = _all_but_test(task)
        probe = fit_linear_probe(statistics[known], labels[known], len(classes), best)
    with _timed(seconds, "test"):
        probabilities = probe.classify(statistics[test]).softmax(1)
    return Outcome(
        model=probe,
        probabilities=probabilities,
        embeddings={"encoder": statistics[test, : array.layers * array.width]},
        choice={"C": best, "validation_ua": scores[best]},
        parameters={"head": sum(p.numel() for p in probe.parameters())},
        seconds=seconds,
    )


def adapter(task: Task, report: Report = quiet) -> Outcome:
    """The paper's system: an adapter, trained without labels or fresh, then fine-tuned with labels.

    The number of epochs is chosen on the validation talkers; then the same adapter is fine-tuned again on training and
    validation talkers together for that many epochs, and reads the test utterances once. An oracle, whose validation
    is its test, is scored at the epoch that was best on it: training again without it gives the same bits.
    """
    array, labels, recipe = task.array, task.labels, task.recipe
    train, validation, test = _parts(task)
    seconds: dict[str, float] = {}
    start, history, collapse = _start(task, seconds, report)

    def train_once(name: str, indices: Tensor, stage: Stage, **how: Any) -> tuple[EmotionClassifier, list[Row]]:
        model = fresh_classifier(task.config, recipe, start, task.seed)
        checkpoint = task.checkpoint(name)
        rows = finetune(
            model, array, labels, indices, recipe,
            classes=task.config.labels, stage=stage, seed=task.seed, checkpoint=checkpoint, report=report, **how,
        )  # fmt: skip
        seconds[name] = checkpoint.spent()
        return model, rows

    _, rows = train_once("finetune", train, Stage.FINETUNE, validation=validation)
    epochs = best_epoch(rows)
    if set(task.fold.validation) == set(task.fold.test):
        model, _ = train_once("refit", train, Stage.FINETUNE, stop_after=epochs)
        history += rows
    else:
        model, refit_rows = train_once("refit", _all_but_test(task), Stage.REFIT, stop_after=epochs)
        history += rows + refit_rows
    with _timed(seconds, "test"):
        embeddings = in_batches(model.embed, array, test, recipe.speed)
        probabilities = in_batches(model, array, test, recipe.speed).softmax(1)
    head = sum(p.numel() for p in [*model.pooling.parameters(), *model.output.parameters()])
    return Outcome(
        model=model,
        probabilities=probabilities,
        embeddings={"encoder": array.pooled(test)[:, 0].flatten(1), "system": embeddings},
        choice={"epochs": epochs},
        parameters={"adapter": sum(p.numel() for p in model.adapter.parameters()), "head": head},
        history=history,
        seconds=seconds,
        collapse=collapse,
    )


def _start(task: Task, seconds: dict[str, float], report: Report) -> tuple[WAPTransformer, list[Row], str]:
    """The adapter that fine-tuning starts from, with the history of its training."""
    train, validation, test = _parts(task)
    if task.pretrained is not None:
        return task.pretrained, [], ""
    if task.recipe.adapt.data == "none":
        return fresh_adapter(task.array, train, task.config, task.seed), [], ""
    seen = torch.cat([train, validation, test]).unique() if task.recipe.adapt.data == "transductive" else train
    checkpoint = task.checkpoint("adapt")
    adapted = adapt(task.array, seen, task.config, task.recipe, seed=task.seed, checkpoint=checkpoint, report=report)
    seconds["adapt"] = checkpoint.spent()
    return adapted.adapter, adapted.history, adapted.collapse


def fresh_classifier(config: ModelConfig, recipe: Recipe, start: WAPTransformer, seed: int) -> EmotionClassifier:
    """A classifier with a fresh head on a copy of this adapter."""
    seed_globally(seed, Stage.FINETUNE)
    return build_classifier(config, copy.deepcopy(start), recipe.finetune.head_dropout)


def _parts(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    fold = task.fold
    return task.array.indices(fold.train), task.array.indices(fold.validation), task.array.indices(fold.test)


def _all_but_test(task: Task) -> Tensor:
    """What the refit learns from: training and validation, of which an oracle's validation is test and stays out."""
    test = set(task.fold.test)
    return task.array.indices([name for name in (*task.fold.train, *task.fold.validation) if name not in test])


def _ua(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> float:
    names = np.array(classes)
    return unweighted_accuracy(names[labels.numpy()], names[logits.argmax(1).numpy()], classes)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 3)


SYSTEMS: dict[str, Callable[[Task, Report], Outcome]] = {"linear": linear_probe, "adapter": adapter}
"""The systems by the name that ``serein crossval --system`` takes."""
