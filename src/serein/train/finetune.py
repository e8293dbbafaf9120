"""Training with labels: the loop round any module that maps frames to logits (paper, section II-C)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from serein.frames.batches import FrameArray, frame_budget, plan_batches
from serein.nn.masking import sample_frame_mask
from serein.progress import Report, quiet
from serein.recipe import Finetune, Recipe, Speed
from serein.train.checkpoint import Checkpoint, Row
from serein.train.machine import (
    Stage,
    autocast,
    check_finite,
    check_weights,
    generator,
    keep_freed_memory,
    pick_device,
    seed_globally,
)
from serein.train.objectives import Labelled, Objective, plain
from serein.train.schedules import cosine
from serein.train.task import logits_over_views, scores_of_logits

MIXING = 40  # steps of 1 %: lengths up to 1.5 times apart share a batch, for a fifth more frames where they vary much


class Examples(NamedTuple):
    """What one epoch shows.

    Attributes:
        indices: utterances of the frame array; a minority class's utterances come several times.
        copies: True = a copy, shown with part of its frames hidden.
    """

    indices: Int[Tensor, " examples"]
    copies: Bool[Tensor, " examples"]


def balanced_examples(
    indices: Int[Tensor, " chosen"], labels: Int[Tensor, " chosen"], draws: torch.Generator
) -> Examples:
    """Every utterance once, and random copies of minority classes until all classes are as large as the largest.

    Example:
        >>> examples = balanced_examples(torch.tensor([7, 8, 9]), torch.tensor([0, 0, 1]), torch.Generator())
        >>> examples.indices, examples.copies
        (tensor([7, 8, 9, 9]), tensor([False, False, False, True]))
    """
    counts = torch.bincount(labels)
    copied = []
    for label in torch.nonzero(counts).flatten():
        members = indices[labels == label]
        picks = torch.randint(len(members), (int(counts.max() - counts[label]),), generator=draws)
        copied.append(members[picks])
    extra = torch.cat(copied)
    copies = torch.arange(len(indices) + len(extra)) >= len(indices)
    return Examples(torch.cat([indices, extra]), copies)


def finetune(
    model: nn.Module,
    array: FrameArray,
    labels: Int[Tensor, " utterances"],
    train: Int[Tensor, " train"],
    recipe: Recipe,
    *,
    classes: Sequence[str],
    talkers: Int[Tensor, " utterances"] | None = None,
    objective: Objective = plain,
    validation: Int[Tensor, " validation"] | None = None,
    validation_views: int = 1,
    stop_after: int | None = None,
    stage: Stage = Stage.FINETUNE,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    report: Report = quiet,
) -> list[Row]:
    """Train any module that maps (frames, padding mask, frame mask) to logits, in place.

    See :func:`best_row` for the choice that the history allows. On a CPU the process keeps the memory that a step
    frees (:func:`serein.train.machine.keep_freed_memory`).

    Args:
        model: a classifier, or a baseline; it ends on the recipe's device, in evaluation mode.
        array: frames in memory.
        labels: class of each utterance of the array (whatever stands at others than train and validation is not read).
        train: utterances to learn from.
        recipe: ``[finetune]`` and ``[speed]`` are read.
        classes: names of the labels, for validation scores.
        talkers: a number for each utterance's talker, for an objective that learns from it.
        objective: what is minimised.
        validation: utterances scored after each epoch.
        validation_views: how many times each of them stands in ``validation``, as :meth:`serein.train.task.Task.judged`
            lists them; their probabilities are averaged.
        stop_after: epochs to train, of a schedule that is laid out for ``recipe.finetune.epochs``; None: all.
        stage: keeps the draws of the first training and of the refit apart.
        seed: of order, masks, copies and dropout.
        checkpoint: where to save and continue; None does not save.
        report: told after each step.

    Returns:
        one row a step; the last row of an epoch has validation scores.

    Raises:
        Diverged: a loss, or a weight after the last step, is infinite or not a number.
        StoreError: the checkpoint is damaged or of another training.
        UsageError: there is no such device.
    """
    settings, checkpoint = recipe.finetune, checkpoint or Checkpoint()
    device = pick_device(recipe.speed.device)
    name = stage.name.lower()
    examples = _examples(train, labels, settings, seed, stage)
    lengths = array.lengths[examples.indices]
    budget = frame_budget(lengths, settings.batch_size)
    weights = _class_weights(labels[train], len(classes), settings).to(device)

    keep_freed_memory(device)
    model.to(device).train()
    parameters = list(model.parameters())
    optimizer = _optimizer(model, settings)
    rates = [group["lr"] for group in optimizer.param_groups]
    steps_per_epoch = len(plan_batches(lengths, budget, seed=seed, epoch=0, mixing=MIXING))
    steps = settings.epochs * steps_per_epoch
    planned = steps_per_epoch * (settings.epochs if stop_after is None else stop_after)
    done, history = checkpoint.restore(model, optimizer)

    array = array.near(device)
    batches: list[Tensor] = []
    for step in range(done, planned):
        epoch, place = divmod(step, steps_per_epoch)
        if not batches or place == 0:
            batches = plan_batches(lengths, budget, seed=seed, epoch=epoch, mixing=MIXING)
        seed_globally(seed, stage, step)

        # schedules
        progress = cosine(step, steps, 1.0, warmup=settings.warmup)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * progress

        # forward
        chosen = batches[place]
        batch = array.batch(examples.indices[chosen])
        frame_mask = _hide(batch.padding_mask, examples.copies[chosen], settings, generator(seed, stage, step))
        frames, _, padding_mask = batch.to(device)
        truth = labels[examples.indices[chosen]].to(device)
        talking = None if talkers is None else talkers[examples.indices[chosen]].to(device)
        shown = Labelled(frames, padding_mask, frame_mask.to(device), truth, talking, weights, settings.label_smoothing)
        with autocast(device, recipe.speed.precision):
            logits, loss = objective(model, shown)
        check_finite(
            loss, name, step,
            learning_rate=settings.learning_rate * progress, head_learning_rate=settings.head_learning_rate * progress,
        )  # fmt: skip

        # step
        optimizer.zero_grad()
        loss.backward()
        gradient_norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        optimizer.step()

        row: Row = {
            "stage": name,
            "epoch": epoch,
            "step": step,
            "loss": loss.item(),
            "learning_rate": rates[0] * progress,
            "gradient_norm": gradient_norm.item(),
            "train_accuracy": (logits.argmax(1) == truth).float().mean().item(),
        }
        if validation is not None and place == steps_per_epoch - 1:
            row |= _validate(model, array, labels, validation, validation_views, classes, recipe.speed)
            model.train()
        history.append(row)
        checkpoint.save_if_due(model, optimizer, step + 1, history)
        report(name, step + 1, planned, {"loss": row["loss"], **_scores(row)})
    check_weights(
        parameters, name, learning_rate=settings.learning_rate, head_learning_rate=settings.head_learning_rate
    )
    checkpoint.save(model, optimizer, planned, history)
    model.eval()
    return history


def best_row(history: Sequence[Row]) -> Row:
    """The end of the epoch with the best validation UA, the earliest where several tie."""
    scored = [row for row in history if "validation_ua" in row]
    return max(scored, key=lambda row: (row["validation_ua"], -row["epoch"]))


@torch.no_grad()
def in_batches(
    function: Callable[[Tensor, Tensor], Tensor],
    array: FrameArray,
    indices: Int[Tensor, " chosen"],
    speed: Speed,
    budget: int = 4_000,
) -> Float[Tensor, "chosen values"]:
    """``function(frames, padding_mask)`` for these utterances, in their order, in float32 on the CPU.

    Args:
        function: a classifier, or its ``embed``, on the device of ``speed``.
        array: frames in memory.
        indices: which utterances.
        speed: device and precision.
        budget: most frames in one batch.
    """
    if not len(indices):
        return torch.empty(0, 0)
    device = pick_device(speed.device)
    batches = plan_batches(array.lengths[indices], budget, seed=0, epoch=0)
    results = []
    for chosen in batches:
        frames, _, padding_mask = array.batch(indices[chosen]).to(device)
        with autocast(device, speed.precision):
            results.append(function(frames, padding_mask).float().cpu())
    return torch.cat(results)[torch.cat(batches).argsort()]


def _examples(train: Tensor, labels: Tensor, settings: Finetune, seed: int, stage: Stage) -> Examples:
    if settings.balance == "masked-copies":
        # The same copies in every epoch, hidden differently each time: then epochs have the same number of steps.
        return balanced_examples(train, labels[train], generator(seed, stage))
    return Examples(train, torch.zeros(len(train), dtype=torch.bool))


def _class_weights(labels: Tensor, classes: int, settings: Finetune) -> Tensor:
    if settings.balance != "class-weights":
        return torch.ones(classes)
    counts = torch.bincount(labels, minlength=classes)
    # a class that nobody has weighs nothing: label smoothing would teach it
    return torch.where(counts > 0, len(labels) / ((counts > 0).sum() * counts.clamp(min=1)), 0.0)


def _optimizer(model: nn.Module, settings: Finetune) -> torch.optim.Optimizer:
    """A module's ``adapter`` has a rate of its own; a baseline is a head from front to end."""
    parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        parts[name.startswith("adapter.")].append(parameter)
    rates = {True: settings.learning_rate, False: settings.head_learning_rate}
    groups = [{"params": parts[part], "lr": rates[part]} for part in (True, False) if parts[part]]
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)


def _hide(padding_mask: Tensor, copies: Tensor, settings: Finetune, draws: torch.Generator) -> Tensor:
    mask = torch.zeros_like(padding_mask)
    if settings.frame_masking:
        mask = sample_frame_mask(padding_mask, settings.frame_masking, generator=draws)
    if copies.any():
        mask[copies] = sample_frame_mask(padding_mask[copies], settings.copy_mask_ratio, generator=draws)
    return mask


def _validate(
    model: nn.Module,
    array: FrameArray,
    labels: Tensor,
    validation: Tensor,
    views: int,
    classes: Sequence[str],
    speed: Speed,
) -> Row:
    logits = in_batches(model.eval(), array, validation, speed)
    validation = validation[: len(validation) // views]
    logits = logits_over_views(logits, len(validation))
    scores = scores_of_logits(logits, labels[validation], classes)
    return {
        "validation_ua": scores.ua,
        "validation_wa": scores.wa,
        "validation_loss": F.cross_entropy(logits, labels[validation]).item(),
    }


def _scores(row: Row) -> Row:
    return {name: row[name] for name in ("validation_ua",) if name in row}
