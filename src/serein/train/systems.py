"""What can be cross-validated: each system learns one fold and gives probabilities for its test utterances."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from serein.baselines.inputs import masked_mean
from serein.baselines.linear_probe import fit_linear_probes
from serein.baselines.lpmn import selection
from serein.errors import Diverged
from serein.model import ModelConfig, build_classifier
from serein.nn.classifier import EmotionClassifier
from serein.nn.committee import Committee
from serein.nn.transformer import WAPTransformer, standardise_with
from serein.progress import Report, quiet
from serein.recipe import Recipe
from serein.train.adapt import adapt, fresh_adapter
from serein.train.checkpoint import Row
from serein.train.finetune import best_row, finetune, in_batches
from serein.train.heads import HEADS, Head
from serein.train.machine import Stage, pick_device, seed_globally
from serein.train.objectives import Objective, plain
from serein.train.task import Outcome, Task, logits_over_views, mean_over_views, scores_of_logits, timed


class Start(NamedTuple):
    """What fine-tuning starts from.

    Attributes:
        adapter: for a seed.
        history: of adapter training.
        collapse: what happened to its teacher, or "".
    """

    adapter: Callable[[int], WAPTransformer]
    history: list[Row]
    collapse: str


PROBE_C = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
SELECTED_SHARE = 0.6


def linear_probe(task: Task, report: Report = quiet) -> Outcome:
    """Logistic regression on pooled frames; C is chosen on the validation talkers."""
    array, labels = task.array, task.labels
    classes = task.config.labels
    _, validation, test = task.parts()
    train, known = task.with_views(task.labelled()), task.with_views(task.known())
    seconds: dict[str, float] = {}
    statistics = array.pooled(task.own).flatten(1)
    with timed(seconds, "finetune"):
        scores = {}
        probes = fit_linear_probes(statistics[train], labels[train], len(classes), *PROBE_C)
        for done, (c, probe) in enumerate(zip(PROBE_C, probes, strict=True), start=1):
            logits = logits_over_views(probe.read(statistics[task.judged(validation)]), len(validation))
            scores[c] = scores_of_logits(logits, labels[validation], classes)
            report("finetune", done, len(PROBE_C), {"C": c, "validation_ua": scores[c].ua})
    best = max(scores, key=lambda c: (scores[c].ua, -c))
    with timed(seconds, "refit"):
        (probe,) = fit_linear_probes(statistics[known], labels[known], len(classes), best)
    with timed(seconds, "test"):
        probabilities = mean_over_views(probe.read(statistics[task.judged(test)]).softmax(1), len(test))
    return Outcome(
        model=probe,
        probabilities=probabilities,
        embeddings={"encoder": statistics[test, : array.layers * array.width]},
        choice={"C": best, "validation_ua": scores[best].ua, "validation_wa": scores[best].wa},
        parameters={"head": sum(p.numel() for p in probe.parameters())},
        seconds=seconds,
    )


def adapter(task: Task, report: Report = quiet) -> Outcome:
    """The paper's system: an adapter, trained without labels or fresh, then fine-tuned with labels."""
    seconds: dict[str, float] = {}
    start = start_of(task, seconds, report)
    rates = (task.recipe.finetune.head_learning_rate,)
    outcome = _choose_and_refit(
        task, lambda seed: fresh_classifier(task.config, task.recipe, start.adapter(seed), seed), plain, rates, report
    )
    outcome.history = start.history + outcome.history
    outcome.seconds = seconds | outcome.seconds
    outcome.collapse = start.collapse
    if task.fold.test:
        outcome.embeddings |= _spaces_before_labels(task, start)
    return outcome


def baseline(head: Head, task: Task, report: Report = quiet) -> Outcome:
    """A head on the frozen frames, trained with labels by the same loop as the adapter, at a rate that it chooses."""
    moments = _moments(task)

    def build(seed: int) -> nn.Module:
        seed_globally(seed, Stage.FINETUNE)
        module = head.build(task)
        standardise_with(module.front_end, moments)
        return cast(nn.Module, module)

    rates = task.recipe.finetune.baseline_learning_rates
    return _choose_and_refit(task, build, head.objective, rates, report, shared=f"{head.name}-" if head.shared else "")


def selected_prototypes(task: Task, report: Report = quiet) -> Outcome:
    """LPMN-style, of whose prototypes three in five are kept after training."""
    outcome = baseline(HEADS["lpmn"], task, report)
    members = outcome.model.members if isinstance(outcome.model, Committee) else [outcome.model]
    selected = [selection(member, SELECTED_SHARE) for member in members]  # type: ignore[arg-type]
    outcome.model = selected[0] if len(selected) == 1 else Committee(selected)
    test = task.parts().test
    probabilities = in_batches(outcome.model, task.array, task.judged(test), task.recipe.speed).softmax(1)
    outcome.probabilities = mean_over_views(probabilities, len(test))
    return outcome


def fresh_classifier(config: ModelConfig, recipe: Recipe, start: WAPTransformer, seed: int) -> EmotionClassifier:
    """A classifier with a fresh head on a copy of this adapter."""
    seed_globally(seed, Stage.FINETUNE)
    return build_classifier(config, copy.deepcopy(start), recipe.finetune.head_dropout)


def _choose_and_refit(
    task: Task, build: Callable[[int], nn.Module], objective: Objective, rates: Sequence[float], report: Report,
    *, shared: str = "",
) -> Outcome:  # fmt: skip
    """Train, choose rate and number of epochs on the validation talkers, train again with them, read the test once.

    One training at each of the head's learning rates chooses for all members of a committee; the refit is what makes
    them several. The steps of rates that were not chosen are in the history as stage "tried". A rate at which one
    of these trainings diverges is passed over, and counted in the choice, unless all do.

    An oracle, whose validation is its test, is scored at the epoch that was best on it: training again without it
    gives the same bits on a CPU, and on a GPU, which sums in no fixed order, nearly the same.
    """
    array, plan, talkers, speed = task.array, task.finetuning(), task.trained_talkers(), task.recipe.speed
    _, validation, test = task.parts()
    seconds: dict[str, float] = {}

    def train_once(
        name: str, seed: int, rate: float, indices: Tensor, stage: Stage, *,
        judges: Tensor | None = None, epochs: int | None = None,
    ) -> tuple[nn.Module, list[Row]]:  # fmt: skip
        model = build(seed)
        checkpoint = task.checkpoint(f"{shared}{name}-{seed}-{rate}", share=bool(shared))
        settings = plan.finetune.model_copy(update={"head_learning_rate": rate})
        recipe = plan.model_copy(update={"finetune": settings})
        try:
            rows = finetune(
                model, array, task.labels, task.with_views(indices), recipe,
                classes=task.config.labels, talkers=talkers, objective=objective, validation=judges,
                validation_views=task.views if recipe.model.test_views else 1, stop_after=epochs, stage=stage,
                seed=seed, checkpoint=checkpoint, report=report,
            )  # fmt: skip
        finally:
            seconds[name] = round(seconds.get(name, 0.0) + checkpoint.spent(), 3)
        return model, [{"member": seed, **row} for row in rows]

    rates = list(dict.fromkeys(rates))
    tried: dict[float, list[Row]] = {}
    refused: set[float] = set()  # at which a refit diverged
    judges = task.judged(validation)
    for rate in rates:
        try:
            _, tried[rate] = train_once("finetune", task.seed, rate, task.labelled(), Stage.FINETUNE, judges=judges)
        except Diverged:
            if not tried and rate == rates[-1]:
                raise
    stage = Stage.FINETUNE if task.oracle else Stage.REFIT
    refits: list[tuple[nn.Module, list[Row]]] = []
    while not refits:
        left = [rate for rate in tried if rate not in refused]
        best = max(left, key=lambda rate: best_row(tried[rate])["validation_ua"])  # the first where several tie
        epochs = best_row(tried[best])["epoch"] + 1
        try:
            refits = [
                train_once("refit", seed, best, task.known(), stage, epochs=epochs) for seed in task.member_seeds()
            ]
        except Diverged:
            refused.add(best)
            if refused == tried.keys():
                raise
    choice: dict[str, float] = {"epochs": epochs}
    if len(rates) > 1:
        choice["learning_rate"] = best
    if diverged := {*rates} - tried.keys() | refused:
        choice["diverged_rates"] = len(diverged)
    model = refits[0][0] if len(refits) == 1 else Committee([member for member, _ in refits])
    histories = [rows if rate == best else [row | {"stage": "tried"} for row in rows] for rate, rows in tried.items()]
    if not task.oracle:
        histories += [rows for _, rows in refits]
    with timed(seconds, "test"):
        encoded = array.pooled(test)[:, 0, : len(task.config.encoder.layers)]
        embeddings = in_batches(model.embed, array, test, speed)  # type: ignore[arg-type]
        probabilities = in_batches(model, array, task.judged(test), speed).softmax(1)
    return Outcome(
        model=model,
        probabilities=mean_over_views(probabilities, len(test)),
        embeddings={"encoder": encoded.flatten(1), "system": embeddings},
        choice=choice,
        parameters=_parameters(model),
        history=[row for rows in histories for row in rows],
        seconds=seconds,
    )


def _fresh(task: Task) -> Callable[[int], WAPTransformer]:
    moments = _moments(task)
    return lambda seed: fresh_adapter(task.config, moments, seed)


def _moments(task: Task) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the training talkers' frames, at all speeds."""
    return task.array.moments(task.with_views(task.parts().train))


def _spaces_before_labels(task: Task, start: Start) -> dict[str, Tensor]:
    """The test utterances' mean frames under an adapter that nothing trained, and under the trained one if there is."""
    trained = start.history or task.pretrained is not None
    adapters = {"fresh adapter": (_fresh(task) if trained else start.adapter)(task.seed)}
    if trained:
        adapters["adapter without labels"] = start.adapter(task.seed)
    test, speed = task.parts().test, task.recipe.speed
    return {space: in_batches(_mean_frame(each, task), task.array, test, speed) for space, each in adapters.items()}


def _mean_frame(adapter: WAPTransformer, task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    adapter = copy.deepcopy(adapter).to(pick_device(task.recipe.speed.device)).eval()
    return lambda frames, padding_mask: masked_mean(adapter(frames, padding_mask), padding_mask)


def _parameters(model: nn.Module) -> dict[str, int]:
    counts = {"adapter": 0, "head": 0}
    for name, parameter in model.named_parameters():
        counts["adapter" if ".adapter." in f".{name}" else "head"] += parameter.numel()
    return {part: count for part, count in counts.items() if count}


def start_of(task: Task, seconds: dict[str, float], report: Report) -> Start:
    """What fine-tuning starts from; members that start fresh each start from their own draws."""
    train, validation, test = task.parts()
    data = task.recipe.adapt.data
    if (pretrained := task.pretrained) is not None:
        given = copy.deepcopy(pretrained)
        standardise_with(given.front_end, _moments(task))  # it has those of the frames that it heard
        return Start(lambda _: given, [], "")
    if data == "none":
        return Start(_fresh(task), [], "")
    own = {
        "inductive": train,
        "transductive": torch.cat([train, validation, test]).unique(),
        "elsewhere": train[:0],
    }[data]
    heard = torch.cat([task.with_views(own), *task.elsewhere])
    array = task.array
    if task.elsewhere:  # else what tells one corpus from another, microphone and room, would be learned first
        moments = array.moments(task.with_views(own)) if len(own) else _moments(task)
        array = array.standardised(
            [(task.own, moments), *((others, array.moments(others)) for others in task.elsewhere)]
        )
    checkpoint = task.adapter_checkpoint(heard)
    adapted = adapt(array, heard, task.config, task.recipe, seed=task.seed, checkpoint=checkpoint, report=report)
    seconds["adapt"] = checkpoint.spent()
    if task.elsewhere:
        standardise_with(adapted.adapter.front_end, moments)
    return Start(lambda _: adapted.adapter, adapted.history, adapted.collapse)


SYSTEMS: dict[str, Callable[[Task, Report], Outcome]] = {
    "linear": linear_probe,
    **{name: partial(baseline, head) for name, head in HEADS.items()},
    "lpmn-selected": selected_prototypes,
    "adapter": adapter,
}
"""The systems by the name that ``serein crossval --system`` takes."""
