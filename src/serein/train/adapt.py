"""Adapter training without labels: the loop round :class:`serein.nn.distillation.SelfDistillation`."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from serein.frames.batches import FrameArray, frame_budget, plan_batches
from serein.model import ModelConfig, build_adapter
from serein.nn.attributes import LocalAttributes
from serein.nn.distillation import SelfDistillation
from serein.nn.losses import adapter_loss
from serein.nn.masking import sample_frame_mask
from serein.nn.transformer import WAPTransformer
from serein.progress import Report, quiet
from serein.recipe import Adapt, Recipe
from serein.train.checkpoint import Checkpoint, Row
from serein.train.machine import Stage, autocast, check_finite, generator, pick_device, seed_globally
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


def fresh_adapter(array: FrameArray, indices: Int[Tensor, " chosen"], config: ModelConfig, seed: int) -> WAPTransformer:
    """An untrained adapter that standardises with the moments of these utterances' frames."""
    seed_globally(seed, Stage.INITIAL)
    adapter = build_adapter(config)
    mean, deviation = array.moments(indices)
    adapter.front_end.mean.copy_(mean)
    adapter.front_end.deviation.copy_(deviation)
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
    run that was killed and called again ends in the same bits on one machine.

    Args:
        array: frames in memory.
        indices: which utterances; whose audio this is decides between inductive and transductive.
        config: the network.
        recipe: ``[model]``, ``[adapt]`` and ``[speed]`` are read.
        seed: of the initial weights, masks, order and attributes.
        checkpoint: where to save and continue; None does not save.
        report: told after each step.
    """
    settings, checkpoint = recipe.adapt, checkpoint or Checkpoint()
    device = pick_device(recipe.speed.device)
    lengths = array.lengths[indices]
    budget = frame_budget(lengths, settings.batch_size)

    # model and optimiser
    distillation = _distillation(fresh_adapter(array, indices, config, seed), settings).to(device).train()
    optimizer = torch.optim.AdamW(
        distillation.student.parameters(),
        settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    steps_per_epoch = len(plan_batches(lengths, budget, seed=seed, epoch=0))
    steps = settings.epochs * steps_per_epoch
    done, history = checkpoint.restore(distillation, optimizer)

    batches: list[Tensor] = []
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

        # hide frames, compare student and teacher
        batch = array.batch(indices[batches[place]])
        frame_mask = sample_frame_mask(
            batch.padding_mask, settings.mask_ratio, span=settings.mask_span, generator=draws
        )
        frames, _, padding_mask = batch.to(device)
        with autocast(device, recipe.speed.precision):
            output = distillation(frames, padding_mask, frame_mask.to(device), draws)
        loss = adapter_loss(output.reconstruction, output.pseudo_ce, weight)

        check_finite(loss, "adapt", step, learning_rate)

        # the student moves; teacher and attributes follow
        optimizer.zero_grad()
        loss.backward()
        gradient_norm = torch.nn.utils.get_total_norm(
            [p.grad for p in distillation.student.parameters() if p.grad is not None]
        )
        optimizer.step()
        health = distillation.follow(output, settings.ema_decay, draws)

        history.append(
            {
                "stage": "adapt",
                "epoch": epoch,
                "step": step,
                "loss": loss.item(),
                "learning_rate": learning_rate,
                "gradient_norm": gradient_norm.item(),
                "reconstruction": output.reconstruction.item(),
                "pseudo_cross_entropy": output.pseudo_ce.item(),
                "reconstruction_weight": weight,
                "quantization_error": output.quantization_error.item(),
                "teacher_spread": output.teacher_spread.item(),
                "usage": health.usage,
                "perplexity": health.perplexity,
                "revived": health.revived,
                "agreement": output.agreement.item(),
            }
        )
        checkpoint.save_if_due(distillation, optimizer, step + 1, history)
        report("adapt", step + 1, steps, {"loss": loss.item(), "agreement": output.agreement.item()})

    checkpoint.save(distillation, optimizer, steps, history)
    branch = distillation.teacher if settings.hand_on == "teacher" else distillation.student
    adapter = branch.cpu().requires_grad_(True).train()
    return Adapted(adapter, distillation.attributes.cpu(), history, collapse(history))


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
