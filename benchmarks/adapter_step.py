"""A step of adapter training at the paper's size, against the same step as plain PyTorch (`plain_adapter.py`).

Usage:  python benchmarks/adapter_step.py [--lengths iemocap_5531.csv] [--batch-size 96] [--quick]

All sides step in turn, on the same utterances: noise for frames, lengths from a table's column ``seconds`` (or the
quantiles in ``synthetic.py``), 50 frames a second. The batch is one of similar lengths, as serein plans them, of the
middle of its plan; the plain side steps on it too, and on one drawn at random, as from a shuffling loader: "shuffled",
of other utterances and at most 24 of them. All sides keep the memory that a step frees, as serein's training does. The
share of the peak is of what torch.nn.Linear reaches in the same run at the adapter's own shapes, forward and backward;
work is that of eq. 1 to 6 on frames that are no padding. Then both sides train a smaller network, in float32 and in
bfloat16, on the same batches from the same weights, and their losses are compared step by step. How far bfloat16 alone
carries two trainings apart is told by a third one, plain, whose weights start a millionth away.
"""

import csv
import statistics
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import measure
import torch
from plain_adapter import PlainTraining
from synthetic import speech_seconds
from torch.utils.flop_counter import FlopCounterMode

from serein.frames.batches import FrameArray, frame_budget, plan_batches
from serein.nn.attributes import LocalAttributes
from serein.nn.distillation import SelfDistillation
from serein.nn.masking import sample_frame_mask
from serein.nn.transformer import WAPTransformer
from serein.recipe import Recipe
from serein.train.adapt import take_step
from serein.train.machine import generator, keep_freed_memory
from serein.train.schedules import cosine, linear

FRAME_RATE, INPUT = 50, 1024
LOADER = 24  # utterances in a shuffled batch at most: 96 padded to the longest do not fit into 24 GiB
PAPER = {"width": 384, "blocks": 3, "heads": 6}
SMALL = {"width": 96, "blocks": 3, "heads": 3}
NUDGE = 1e-6
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def noise(lengths: torch.Tensor, width: int) -> FrameArray:
    """Random frames, each utterance round a centre of its own, so that there is something to learn."""
    draws = torch.Generator().manual_seed(0)
    centre = torch.randn(len(lengths), 1, width, generator=draws).repeat_interleave(lengths, 0)
    flat = (centre + torch.randn(centre.shape, generator=draws)).half()
    return FrameArray(tuple(map(str, range(len(lengths)))), flat, lengths, float(FRAME_RATE))


class Sides:
    """The same network from the same weights, trained by serein and plainly; revival is off, which the paper lacks.

    ``nudge`` moves the weights that both start from by as much of their own size, drawn at random.
    """

    def __init__(
        self,
        array: FrameArray,
        size: dict[str, int],
        attributes: int,
        precision: str,
        steps: int,
        nudge: float = 0.0,
    ) -> None:
        changes = [f"adapt.attributes={attributes}", "adapt.revive_below=0", f"speed.precision={precision}"]
        self.recipe = Recipe.from_toml("", [*changes, "adapt.target_norm=none", "speed.device=cpu"])
        settings = self.recipe.adapt
        self.array, self.steps, self.numbers = array, steps, {"serein": 0, "plain": 0}
        torch.manual_seed(0)
        adapter = WAPTransformer(array.width, **size, max_frames=int(array.lengths.max()))
        for parameter in adapter.parameters() if nudge else ():
            parameter.data *= 1 + nudge * torch.randn_like(parameter)
        self.plain = PlainTraining(
            adapter,
            attributes=attributes,
            decay=settings.attribute_decay,
            ema=settings.ema_decay,
            temperature=settings.temperature,
            precision=PRECISIONS[precision],
        )
        self.utterances = list(array.flat.split(array.lengths.tolist()))
        table = LocalAttributes(attributes, adapter.width, decay=settings.attribute_decay, revive_below=0.0)
        self.ours = SelfDistillation(adapter, table, temperature=settings.temperature, target_norm="none").train()
        self.optimizer = torch.optim.AdamW(adapter.parameters(), 1e-4, weight_decay=0.0, fused=True)

    def serein(self, chosen: torch.Tensor) -> float:
        """A step of ours; the loss."""
        rate, weight, draws = self._schedule("serein")
        self.optimizer.param_groups[0]["lr"] = rate
        facts = take_step(self.ours, self.optimizer, self.array.batch(chosen), self.recipe, weight, draws)
        return facts["loss"].item()

    def plainly(self, chosen: torch.Tensor) -> float:
        """The same step plainly; the loss."""
        rate, weight, draws = self._schedule("plain")
        lengths = self.array.lengths[chosen]
        padding_mask = torch.arange(int(lengths.max())) >= lengths.unsqueeze(1)
        frame_mask = sample_frame_mask(padding_mask, self.recipe.adapt.mask_ratio, generator=draws)
        return self.plain.step([self.utterances[i] for i in chosen.tolist()], frame_mask, weight, rate, draws)

    def _schedule(self, side: str) -> tuple[float, float, torch.Generator]:
        step = self.numbers[side]
        self.numbers[side] += 1
        return cosine(step, self.steps, 1e-4), linear(step, self.steps, 1.0, 0.5), generator(0, 1, step)


def flops(
    lengths: Sequence[int],
    hidden: Sequence[int],
    size: dict[str, int],
    attributes: int,
    *,
    padded_to: int | None = None,
) -> float:
    """FLOP of one step on these utterances: what eq. 1 to 6 need, and what serein spends on padding to a length.

    Forward and, where there is one, backward cost 2 FLOP a weight each (backward: twice that, to input and to weights).
    Behind the last block's attention both networks leave padding out, and the student also what is not hidden.
    """
    width, blocks = size["width"], size["blocks"]
    padded = [length if padded_to is None else padded_to for length in lengths]
    frames, valid, masked = sum(padded), sum(lengths), sum(hidden)
    square, table, block = width * width, width * attributes, 12 * width * width
    attention = 4 * width * sum(length**2 for length in padded)
    up_to_attention, behind = (blocks - 1) * block + 3 * square, 9 * square + 3 * square
    teacher = 2 * (frames * (INPUT * width + up_to_attention) + valid * (behind + table)) + blocks * attention
    through = frames * up_to_attention + masked * behind
    student = frames * 4 * INPUT * width + 3 * (2 * through + blocks * attention) + masked * 4 * table
    return float(teacher + student)


def linear_peaks(frames: int, size: dict[str, int], repeats: int) -> dict[str, float]:
    """GFLOP/s of torch.nn.Linear, forward and backward, at the adapter's shapes together."""
    width = size["width"]
    shapes = [(INPUT, width), (width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    peaks = {}
    for name, dtype in PRECISIONS.items():
        seconds = 0.0
        for inputs, outputs in shapes:
            layer = torch.nn.Linear(inputs, outputs, dtype=dtype)
            x = torch.randn(frames, inputs, dtype=dtype, requires_grad=True)
            gradient = torch.randn(frames, outputs, dtype=dtype)

            def once(layer: torch.nn.Linear = layer, x: Any = x, gradient: torch.Tensor = gradient) -> None:
                torch.autograd.grad(layer(x), (x, layer.weight, layer.bias), gradient)

            seconds += min(measure.alternate({"": once}, repeats)[""])
        peaks[name] = 6 * frames * sum(i * o for i, o in shapes) / seconds / 1e9
    return peaks


def pace(lengths: torch.Tensor, batch_size: int, repeats: int, attributes: int = 1024) -> dict[str, Any]:
    """Frames a second of all sides, shares of the peak, and padding."""
    plan = plan_batches(lengths, frame_budget(lengths, batch_size), seed=0, epoch=0)
    batches = sorted(((int(lengths[batch].max()), batch) for batch in plan), key=itemgetter(0))
    _, middle = batches[len(plan) // 2]
    shuffled = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0))[: min(batch_size, LOADER)]
    kept = torch.cat([middle, shuffled])
    planned, random = torch.arange(len(kept)).split([len(middle), len(shuffled)])
    array = noise(lengths[kept], INPUT)

    trained = {name: Sides(array, PAPER, attributes, name, 1000) for name in PRECISIONS}
    sides = {f"serein, {name}": lambda own=own: own.serein(planned) for name, own in trained.items()}
    sides |= {f"plain, {name}": lambda own=own: own.plainly(planned) for name, own in trained.items()}
    sides |= {f"plain, shuffled, {name}": lambda own=own: own.plainly(random) for name, own in trained.items()}
    seconds = measure.alternate(sides, repeats)
    frames = {name: int(array.lengths[random if "shuffled" in name else planned].sum()) for name in seconds}

    hidden = sample_frame_mask(array.batch(planned).padding_mask, 0.4, generator=torch.Generator()).sum(1).tolist()
    work = flops(array.lengths[planned].tolist(), hidden, PAPER, attributes)
    with FlopCounterMode(display=False) as counter:
        trained["bfloat16"].serein(planned)
    linear = linear_peaks(frames["serein, bfloat16"], PAPER, repeats)
    a_frame = {name: [second / frames[name] for second in taken] for name, taken in seconds.items()}
    rows = {
        name: {"frames_a_second": frames[name] / statistics.median(s), **measure.summary(s)}
        for name, s in seconds.items()
    }
    return {
        "batch": {
            "utterances": len(planned),
            "frames": int(array.lengths[planned].sum()),
            "longest": int(array.lengths[planned].max()),
        },
        "sides": rows,
        "times as fast, by time a frame": {
            f"serein, {own}": {
                other: measure.ratio(a_frame[other], a_frame[f"serein, {own}"]) for other in seconds if "plain" in other
            }
            for own in PRECISIONS
        },
        "flop": {"useful": work, "counted": counter.get_total_flops()},
        "linear_peak": linear,
        "share_of_linear_peak": {
            name: work / rows[f"serein, {name}"]["median"] / 1e9 / peak for name, peak in linear.items()
        },
        "padding": {
            "share of the frames": 1 - int(lengths.sum()) / sum(longest * len(batch) for longest, batch in batches),
            "share of the work": wasted([(longest, lengths[batch].tolist()) for longest, batch in batches], attributes),
            "batches": len(plan),
        },
    }


def wasted(batches: Sequence[tuple[int, list[int]]], attributes: int) -> float:
    """The share of an epoch's FLOP that is spent on padding, of batches by (length padded to, lengths)."""
    useful = total = 0.0
    for longest, lengths in batches:
        hidden = [max(1, round(0.4 * length)) for length in lengths]
        useful += flops(lengths, hidden, PAPER, attributes)
        total += flops(lengths, hidden, PAPER, attributes, padded_to=longest)
    return 1 - useful / total


def curves(lengths: torch.Tensor, steps: int) -> dict[str, Any]:
    """Losses of all trainings on the same batches, and how far from the plain one they are."""
    array = noise(lengths, INPUT)
    plan = plan_batches(lengths, frame_budget(lengths, 8), seed=0, epoch=0)
    batches = [plan[step % len(plan)] for step in range(steps)]
    found: dict[str, Any] = {}
    for name in PRECISIONS:
        both, other = Sides(array, SMALL, 64, name, steps), Sides(array, SMALL, 64, name, steps, NUDGE)
        plain = [both.plainly(batch) for batch in batches]
        losses = {"serein": list(map(both.serein, batches)), "plain, nudged": list(map(other.plainly, batches))}
        found[f"plain, {name}"] = {"losses": plain}
        for side, own in losses.items():
            found[f"{side}, {name}"] = {"losses": own, "from plain": measure.summary(_apart(own, plain))}
    return found


def _apart(losses: Sequence[float], reference: Sequence[float]) -> list[float]:
    return [abs(one - other) / abs(other) for one, other in zip(losses, reference, strict=True)]


def table_lengths(path: Path | None) -> torch.Tensor:
    """Frames of each utterance."""
    if path is None:
        seconds = list(speech_seconds(5531))
    else:
        with path.open(encoding="utf-8", newline="") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return torch.tensor([max(1, int(second * FRAME_RATE)) for second in seconds])


def goals(facts: dict[str, Any]) -> dict[str, dict[str, float | bool]]:
    """What a step should reach, on the same batch as the plain side and against its shuffled one."""
    rows = {}
    for name, times in {"float32": 3.0, "bfloat16": 1.6}.items():
        for way in ("plain, shuffled", "plain"):
            measured = facts["times as fast, by time a frame"][f"serein, {name}"][f"{way}, {name}"]["median"]
            rows[f"{name}: times {way}"] = measure.goal(measured, at_least=times)
        apart = facts["curves"][f"serein, {name}"]["from plain"]["highest"]
        rows[f"{name}: losses from plain"] = measure.goal(apart, at_most=0.02)
    fastest = facts["times as fast, by time a frame"]["serein, bfloat16"]["plain, float32"]["median"]
    return rows | {
        "bfloat16: times plain, float32": measure.goal(fastest, at_least=3.0),
        "bfloat16: share of Linear's peak": measure.goal(facts["share_of_linear_peak"]["bfloat16"], at_least=0.65),
        "padding: share of the work": measure.goal(facts["padding"]["share of the work"], at_most=0.03),
    }


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    options = measure.parser(__doc__)
    options.add_argument("--lengths", type=Path, metavar="TABLE", help="CSV with a column seconds")
    options.add_argument("--batch-size", type=int, help="utterances of mean length (default: 96; quick: 16)")
    options.add_argument("--steps", type=int, help="of the compared curves (default: 200; quick: 20)")
    args = options.parse_args(arguments)
    batch_size = args.batch_size or (16 if args.quick else 96)
    steps = args.steps or (20 if args.quick else 200)
    keep_freed_memory(torch.device("cpu"))
    facts: dict[str, Any] = {"peaks": measure.peaks(args.threads)}
    lengths = table_lengths(args.lengths)
    facts |= pace(lengths, batch_size, 3 if args.quick else 5)
    facts["curves"] = curves(lengths[:: len(lengths) // 64].clamp(max=150), steps)
    facts["goals"] = goals(facts)
    for name, row in facts["sides"].items():
        spread = f"{row['median']:.2f} s ({row['lowest']:.2f}-{row['highest']:.2f})"
        print(f"{name:28s} {row['frames_a_second']:10.0f} frames/s  {spread}")
    for name, row in facts["goals"].items():
        print(f"{name:40s} {row['is']:.4g}  {'met' if row['met'] else 'missed'}")
    print(measure.write("adapter_step", facts, args.results, quick=args.quick))


if __name__ == "__main__":
    measure.run(main)
