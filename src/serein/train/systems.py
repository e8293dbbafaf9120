"""What can be cross-validated: each system learns one fold and gives probabilities for its test utterances."""

import copy
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from serein.baselines.linear_probe import fit_linear_probes
from serein.baselines.lpmn import selection
from serein.model import ModelConfig, build_classifier
from serein.nn.classifier import EmotionClassifier
from serein.nn.transformer import WAPTransformer
from serein.progress import Report, quiet
from serein.recipe import Recipe
from serein.train.adapt import adapt, fresh_adapter
from serein.train.checkpoint import Row
from serein.train.finetune import best_epoch, finetune, in_batches
from serein.train.heads import HEADS, Head
from serein.train.machine import Stage, seed_globally
from serein.train.objectives import Objective, plain
from serein.train.task import Outcome, Task, logits_over_views, mean_over_views, timed, ua_of_logits

PROBE_C = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
SELECTED_SHARE = 0.6


def linear_probe(task: Task, report: Report = quiet) -> Outcome:
    """Logistic regression on pooled frames; C is chosen on the validation talkers."""
    array, labels = task.array, task.labels
    classes = task.config.labels
    _, validation, test = task.parts()
    train, known = task.with_views(task.labelled()), task.with_views(task.known())
    seconds: dict[str, float] = {}
    statistics = array.pooled(torch.arange(len(array.ids) - len(task.elsewhere))).flatten(1)
    with timed(seconds, "finetune"):
        scores = {}
        probes = fit_linear_probes(statistics[train], labels[train], len(classes), *PROBE_C)
        for done, (c, probe) in enumerate(zip(PROBE_C, probes, strict=True), start=1):
            logits = logits_over_views(probe.classify(statistics[task.judged(validation)]), len(validation))
            scores[c] = ua_of_logits(logits, labels[validation], classes)
            report("finetune", done, len(PROBE_C), {"C": c, "validation_ua": scores[c]})
    best = max(scores, key=lambda c: (scores[c], -c))
    with timed(seconds, "refit"):
        (probe,) = fit_linear_probes(statistics[known], labels[known], len(classes), best)
    with timed(seconds, "test"):
        probabilities = mean_over_views(probe.classify(statistics[task.judged(test)]).softmax(1), len(test))
    return Outcome(
        model=probe,
        probabilities=probabilities,
        embeddings={"encoder": statistics[test, : array.layers * array.width]},
        choice={"C": best, "validation_ua": scores[best]},
        parameters={"head": sum(p.numel() for p in probe.parameters())},
        seconds=seconds,
    )


def adapter(task: Task, report: Report = quiet) -> Outcome:
    """The paper's system: an adapter, trained without labels or fresh, then fine-tuned with labels."""
    seconds: dict[str, float] = {}
    start, history, collapse = _start(task, seconds, report)
    outcome = _choose_and_refit(
        task, lambda: fresh_classifier(task.config, task.recipe, start, task.seed), plain, report
    )
    outcome.history = history + outcome.history
    outcome.seconds = seconds | outcome.seconds
    outcome.collapse = collapse
    return outcome


def baseline(head: Head, task: Task, report: Report = quiet) -> Outcome:
    """A head on the frozen frames, trained with labels by the same loop as the adapter."""

    def build() -> nn.Module:
        seed_globally(task.seed, Stage.FINETUNE)
        module = head.build(task)
        mean, deviation = task.array.moments(task.with_views(task.parts().train))
        module.front_end.mean.copy_(mean)
        module.front_end.deviation.copy_(deviation)
        return cast(nn.Module, module)

    return _choose_and_refit(task, build, head.objective, report)


def selected_prototypes(task: Task, report: Report = quiet) -> Outcome:
    """LPMN-style, of whose prototypes three in five are kept after training."""
    outcome = baseline(HEADS["lpmn"], task, report)
    outcome.model = selection(outcome.model, SELECTED_SHARE)  # type: ignore[arg-type]
    test = task.parts().test
    probabilities = in_batches(outcome.model, task.array, task.judged(test), task.recipe.speed).softmax(1)
    outcome.probabilities = mean_over_views(probabilities, len(test))
    return outcome


def fresh_classifier(config: ModelConfig, recipe: Recipe, start: WAPTransformer, seed: int) -> EmotionClassifier:
    """A classifier with a fresh head on a copy of this adapter."""
    seed_globally(seed, Stage.FINETUNE)
    return build_classifier(config, copy.deepcopy(start), recipe.finetune.head_dropout)


def _choose_and_refit(task: Task, build: Callable[[], nn.Module], objective: Objective, report: Report) -> Outcome:
    """Train, choose the number of epochs on the validation talkers, train again with them, read the test once.

    An oracle, whose validation is its test, is scored at the epoch that was best on it: training again without it
    gives the same bits.
    """
    array, recipe, talkers = task.array, task.recipe, task.trained_talkers()
    _, validation, test = task.parts()
    seconds: dict[str, float] = {}

    def train_once(
        name: str, indices: Tensor, stage: Stage, *, judges: Tensor | None = None, epochs: int | None = None
    ) -> tuple[nn.Module, list[Row]]:
        model = build()
        checkpoint = task.checkpoint(name)
        rows = finetune(
            model, array, task.labels, task.with_views(indices), recipe,
            classes=task.config.labels, talkers=talkers, objective=objective, validation=judges,
            validation_views=task.views if recipe.model.test_views else 1, stop_after=epochs, stage=stage,
            seed=task.seed, checkpoint=checkpoint, report=report,
        )  # fmt: skip
        seconds[name] = checkpoint.spent()
        return model, rows

    _, rows = train_once("finetune", task.labelled(), Stage.FINETUNE, judges=task.judged(validation))
    epochs = best_epoch(rows)
    stage = Stage.FINETUNE if task.oracle else Stage.REFIT
    model, refit_rows = train_once("refit", task.known(), stage, epochs=epochs)
    with timed(seconds, "test"):
        embeddings = in_batches(model.embed, array, test, recipe.speed)  # type: ignore[arg-type]
        probabilities = in_batches(model, array, task.judged(test), recipe.speed).softmax(1)
    return Outcome(
        model=model,
        probabilities=mean_over_views(probabilities, len(test)),
        embeddings={"encoder": array.pooled(test)[:, 0].flatten(1), "system": embeddings},
        choice={"epochs": epochs},
        parameters=_parameters(model),
        history=rows if task.oracle else rows + refit_rows,
        seconds=seconds,
    )


def _parameters(model: nn.Module) -> dict[str, int]:
    counts = {"adapter": 0, "head": 0}
    for name, parameter in model.named_parameters():
        counts["adapter" if name.startswith("adapter.") else "head"] += parameter.numel()
    return {part: count for part, count in counts.items() if count}


def _start(task: Task, seconds: dict[str, float], report: Report) -> tuple[WAPTransformer, list[Row], str]:
    """The adapter that fine-tuning starts from, with the history of its training."""
    train, validation, test = task.parts()
    data = task.recipe.adapt.data
    if task.pretrained is not None:
        return task.pretrained, [], ""
    if data == "none":
        return fresh_adapter(task.array, task.with_views(train), task.config, task.seed), [], ""
    own = {
        "inductive": train,
        "transductive": torch.cat([train, validation, test]).unique(),
        "elsewhere": train[:0],
    }[data]
    heard = torch.cat([task.with_views(own), task.elsewhere])
    checkpoint = task.checkpoint("adapt")
    adapted = adapt(task.array, heard, task.config, task.recipe, seed=task.seed, checkpoint=checkpoint, report=report)
    seconds["adapt"] = checkpoint.spent()
    return adapted.adapter, adapted.history, adapted.collapse


SYSTEMS: dict[str, Callable[[Task, Report], Outcome]] = {
    "linear": linear_probe,
    **{name: partial(baseline, head) for name, head in HEADS.items()},
    "lpmn-selected": selected_prototypes,
    "adapter": adapter,
}
"""The systems by the name that ``serein crossval --system`` takes."""
