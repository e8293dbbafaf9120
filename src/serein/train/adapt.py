"""Adapter training without labels: the loop round :class:`serein.nn.distillation.SelfDistillation`."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from serein.frames.batches import FrameArray, FrameBatch, frame_budget, plan_batches
from serein.model import ModelConfig, build_adapter
from serein.nn.attributes import LocalAttributes
from serein.nn.distillation import SelfDistillation
from serein.nn.losses import adapter_loss
from serein.nn.masking import sample_frame_mask
from serein.nn.transformer import WAPTransformer, standardise_with
from serein.progress import Report, quiet
from serein.recipe import Adapt, Recipe
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
from serein.train.schedules import cosine, linear


class Adapted(NamedTuple):
    """What adapter training leaves.

    Attributes:
        adapter: the branch that is handed on, on the CPU.
        attributes: the local attributes, on the CPU.
        history: one row a step.
        collapse: why the teacher counts as collapsed, or "".
    """

    adapter: WAPTransformer
    attributes: LocalAttributes
    history: list[Row]
    collapse: str


def fresh_adapter(
    config: ModelConfig, moments: tuple[Float[Tensor, "layers width"], Float[Tensor, "layers width"]], seed: int
) -> WAPTransformer:
    """An untrained adapter that standardises with these moments (:meth:`serein.frames.batches.FrameArray.moments`)."""
    seed_globally(seed, Stage.INITIAL)
    adapter = build_adapter(config)
    standardise_with(adapter.front_end, moments)
    return adapter


def adapt(
    array: FrameArray,
    indices: Int[Tensor, " chosen"],
    config: ModelConfig,
    recipe: Recipe,
    *,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    report: Report = quiet,
) -> Adapted:
    """Train an adapter on the frames of these utterances; their labels are not looked at.

    Every draw is a pure function of (seed, step), and the checkpoint holds all that the next step depends on, so a
    run that was killed and called again ends in the same bits on one CPU (a GPU sums in no fixed order). On a CPU the
    process keeps the memory that a step frees (:func:`serein.train.machine.keep_freed_memory`).

    Args:
        array: frames in memory.
        indices: which utterances; whose audio this is decides between inductive and transductive.
        config: the network.
        recipe: ``[model]``, ``[adapt]`` and ``[speed]`` are read.
        seed: of the initial weights, masks, order and attributes.
        checkpoint: where to save and continue; None does not save.
        report: told after each step.

    Raises:
        Diverged: a loss or a weight is no longer finite.
        StoreError: the checkpoint is damaged or of another training.
        UsageError: there is no such device.
    """
    settings, checkpoint = recipe.adapt, checkpoint or Checkpoint()
    device = pick_device(recipe.speed.device)
    lengths = array.lengths[indices]
    budget = frame_budget(lengths, settings.batch_size)

    # model and optimiser
    keep_freed_memory(device)
    distillation = _distillation(fresh_adapter(config, array.moments(indices), seed), settings).to(device).train()
    optimizer = torch.optim.AdamW(
        distillation.student.parameters(),
        settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    steps_per_epoch = len(plan_batches(lengths, budget, seed=seed, epoch=0))
    steps = settings.epochs * steps_per_epoch
    done, history = checkpoint.restore(distillation, optimizer)

    array = array.near(device)
    batches: list[Tensor] = []
    unread: list[Row] = []
    read_at = 0.0
    for step in range(done, steps):
        epoch, place = divmod(step, steps_per_epoch)
        if not batches or place == 0:
            batches = plan_batches(lengths, budget, seed=seed, epoch=epoch)
        draws = generator(seed, Stage.ADAPT, step)
        seed_globally(seed, Stage.ADAPT, step)

        # schedules
        learning_rate = cosine(step, steps, settings.learning_rate, warmup=settings.warmup)
        weight = linear(step, steps, settings.reconstruction_start, settings.reconstruction_end)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate

        batch = array.batch(indices[batches[place]])
        facts = take_step(distillation, optimizer, batch, recipe, weight, draws)
        unread.append(
            {
                "stage": "adapt",
                "epoch": epoch,
                "step": step,
                "learning_rate": learning_rate,
                "reconstruction_weight": weight,
                **facts,
            }
        )

        # Reading a number makes the CPU wait for a GPU to finish the step: there it is done once a second.
        if device.type == "cpu" or step + 1 == steps or time.monotonic() - read_at >= min(1, checkpoint.seconds):
            history += read(unread)
            unread, read_at = [], time.monotonic()
            checkpoint.save_if_due(distillation, optimizer, step + 1, history)
            report("adapt", step + 1, steps, {name: history[-1][name] for name in ("loss", "agreement")})

    check_weights(distillation.state_dict().values(), "adapt", learning_rate=settings.learning_rate)
    checkpoint.save(distillation, optimizer, steps, history)
    branch = distillation.teacher if settings.hand_on == "teacher" else distillation.student
    adapter = branch.cpu().requires_grad_(True).train()
    return Adapted(adapter, distillation.attributes.cpu(), history, collapse(history))


def take_step(
    distillation: SelfDistillation,
    optimizer: torch.optim.Optimizer,
    batch: FrameBatch,
    recipe: Recipe,
    weight: float,
    draws: torch.Generator,
) -> dict[str, Tensor]:
    """One step on one batch: the student learns, teacher and attributes follow. Nothing here waits for a GPU.

    Args:
        distillation: what is trained, on its device.
        optimizer: of the student's parameters, with this step's learning rate.
        batch: its frames are moved to the device, its masks are not.
        recipe: ``[adapt]`` and ``[speed]`` are read.
        weight: lambda of eq. (6).
        draws: on the CPU; for hidden frames and attributes.

    Returns:
        what the history says of the step, each a number still on the device.
    """
    settings, device = recipe.adapt, distillation.attributes.prototypes.device
    frame_mask = sample_frame_mask(batch.padding_mask, settings.mask_ratio, span=settings.mask_span, generator=draws)
    frames = batch.frames.to(device, non_blocking=True)
    with autocast(device, recipe.speed.precision):
        output = distillation(frames, batch.padding_mask, frame_mask, draws)
    loss = adapter_loss(output.reconstruction, output.pseudo_ce, weight)

    optimizer.zero_grad()
    loss.backward()
    gradient_norm = torch.nn.utils.get_total_norm(
        [p.grad for p in distillation.student.parameters() if p.grad is not None]
    )
    optimizer.step()
    health = distillation.follow(output, settings.ema_decay, draws)
    return {
        "loss": loss.detach(),
        "gradient_norm": gradient_norm,
        "reconstruction": output.reconstruction.detach(),
        "pseudo_cross_entropy": output.pseudo_ce.detach(),
        "quantization_error": output.quantization_error,
        "teacher_spread": output.teacher_spread,
        "agreement": output.agreement,
        **health._asdict(),
    }


def read(rows: Sequence[Row]) -> list[Row]:
    """The same rows with numbers in place of tensors, brought from the device in one copy.

    Raises:
        Diverged: the training has diverged at one of these steps.
    """
    names = [name for name, value in rows[0].items() if isinstance(value, Tensor)]
    values = torch.stack([torch.stack([row[name].double() for name in names]) for row in rows]).cpu()
    for row, loss in zip(rows, values[:, names.index("loss")], strict=True):
        check_finite(loss, "adapt", row["step"], learning_rate=row["learning_rate"])
    return [row | dict(zip(names, numbers, strict=True)) for row, numbers in zip(rows, values.tolist(), strict=True)]


def collapse(history: Sequence[Row]) -> str:
    """Say in one sentence whether the teacher or its attributes collapsed, or "".

    Collapsed: the teacher's frames spread less than a tenth of what they did at the start, or fewer than 5 % of the
    attributes are in use; means over the first and the last tenth of the steps.
    """
    tenth = math.ceil(len(history) / 10)
    if not tenth:
        return ""
    first, last = (
        {name: sum(row[name] for row in rows) / tenth for name in ("teacher_spread", "usage")}
        for rows in (history[:tenth], history[-tenth:])
    )
    if not last["teacher_spread"] >= 0.1 * first["teacher_spread"]:  # also when it is not a number
        return f"the teacher's spread fell from {first['teacher_spread']:.3g} to {last['teacher_spread']:.3g}"
    if last["usage"] < 0.05:
        return f"only {last['usage']:.1%} of the attributes are in use"
    return ""


def _distillation(adapter: WAPTransformer, settings: Adapt) -> SelfDistillation:
    attributes = LocalAttributes(
        settings.attributes,
        adapter.width,
        decay=settings.attribute_decay,
        eta=settings.attribute_eta,
        revive_below=settings.revive_below,
    )
    return SelfDistillation(
        adapter,
        attributes,
        temperature=settings.temperature,
        similarity=settings.similarity,
        target_norm=settings.target_norm,
    )
