"""A whole cross-validation beside the compute of its steps, and where the rest of its time goes.

Usage:  python benchmarks/crossval.py [--quick] [--recipe FILE] [--set TABLE.KEY=VALUE ...]

Five folds of a corpus as large as RAVDESS (1,440 utterances of 3.7 s on average, 25 talkers, 12.5 frames a second,
1,024 wide, noise): adapter training without labels, fine-tuning, refit, test. Without a recipe the settings are
the paper's, for few epochs; then what a fold costs once, such as the moments of its frames, weighs more than in a
whole run.

A step's compute is the network forward and backward, the losses, the optimiser, and the teacher and attributes that
follow. "Judging" is the network on validation and test utterances. The other parts are serein's own work around them.
Shares of the peak are of the steps' useful operations, without padding and without the products inside of attention.
"""

import argparse
import cProfile
import functools
import pstats
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import measure
import numpy as np
import torch
from operations import job_flops, judged_epochs
from synthetic import make_corpus, make_store

from serein.corpus.corpus import Corpus
from serein.corpus.protocol import Protocol
from serein.corpus.splits import make_protocol
from serein.frames.batches import FrameArray
from serein.frames.store import FrameStore
from serein.nn.classifier import EmotionClassifier
from serein.nn.distillation import SelfDistillation
from serein.nn.transformer import WAPTransformer
from serein.recipe import Recipe
from serein.train import adapt, finetune
from serein.train.checkpoint import Checkpoint
from serein.train.crossval import cross_validate
from serein.train.machine import pick_device, pick_precision

UTTERANCES, TALKERS, WIDTH, FRAME_RATE = 1_440, 25, 1_024, 12.5
GOAL = 1.15
SHOWN = 15

# What a call of each counts as; a call inside of another one counts there.
COMPUTE = {
    "adapter training, forward": [(SelfDistillation, "forward")],
    "teacher and attributes follow": [(SelfDistillation, "follow")],
    "fine-tuning, forward": [(EmotionClassifier, "forward")],
    "losses": [(torch.nn.functional, "cross_entropy")],
    "backward": [(torch.Tensor, "backward")],
    "optimiser": [(torch.optim.AdamW, "step")],
}
JUDGING = {"judging": [(EmotionClassifier, "forward"), (EmotionClassifier, "embed"), (WAPTransformer, "forward")]}
AROUND = {
    "loading the store": [(FrameStore, "load")],
    "gathering batches": [(FrameArray, "batch")],
    "moments of the frames": [(FrameArray, "moments")],
    "means of the frames": [(FrameArray, "pooled")],
    "choosing frames to hide": [(loop, "sample_frame_mask") for loop in (adapt, finetune)],
    "seeds": [(loop, "seed_globally") for loop in (adapt, finetune)],
    "size of the gradient": [(torch.nn.utils, "get_total_norm")],
    "checkpoints": [(Checkpoint, "save")],
}


class Stopwatch:
    """Seconds by part, of outermost calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running = False

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function on the clock; only a network that is not asked for gradients judges."""

        @functools.wraps(function)
        def on_the_clock(*args: Any, **kwargs: Any) -> Any:
            if self._running or (part in JUDGING and torch.is_grad_enabled()):
                return function(*args, **kwargs)
            self._running = True
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.perf_counter() - start
                self._running = False

        return on_the_clock


def watched(run: Callable[[], object]) -> dict[str, float]:
    """Seconds of each part of a run, ``other`` among them: what no part explains."""
    watch = Stopwatch()
    with ExitStack() as patches:
        # What is patched last is asked first: without gradients a classifier's forward pass is taken for judging.
        for part, functions in (COMPUTE | AROUND | JUDGING).items():
            for owner, name in functions:
                patches.enter_context(patch.object(owner, name, watch.timed(part, getattr(owner, name))))
        start = time.perf_counter()
        run()
        whole = time.perf_counter() - start
    return {**watch.seconds, "other": whole - sum(watch.seconds.values())}


def profile(run: Callable[[], object]) -> list[dict[str, str | float | int]]:
    """The functions that take most time themselves, by cProfile, which slows Python down and so overstates it."""
    profiler = cProfile.Profile()
    profiler.runcall(run)
    stats = pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
    total = sum(own for _, (_, _, own, _, _) in stats)
    most = sorted(stats, key=lambda item: item[1][2], reverse=True)[:SHOWN]
    return [
        {"function": _place(*function), "calls": calls, "seconds": own, "share": own / total}
        for function, (_, calls, own, _, _) in most
    ]


def _place(path: str, line: int, function: str) -> str:
    return function if path == "~" else f"{'/'.join(Path(path).parts[-2:])}:{line} {function}"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    options = measure.parser(__doc__)
    options.add_argument("--recipe", type=Path, help="TOML file (default: the paper's values)")
    options.add_argument("--set", action="append", default=[], help="change a setting of the recipe, as serein does")
    options.add_argument("--utterances", type=int, help=f"(default: {UTTERANCES:,}; 75 with --quick)")
    return options.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    utterances = args.utterances or (75 if args.quick else UTTERANCES)
    fewer = [] if args.recipe else ["adapt.epochs=3", "finetune.epochs=3"]
    fewer = ["adapt.epochs=1", "finetune.epochs=1"] if args.quick else fewer
    changes = [*fewer, *args.set, "speed.device=cpu"]
    recipe = Recipe.read(args.recipe, changes) if args.recipe else Recipe.from_toml("", changes)
    peaks = measure.peaks(args.threads, size=256 if args.quick else 4096)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = make_corpus(np.linspace(2.9, 4.5, utterances).tolist(), TALKERS, folder / "audio")
        store = make_store(corpus, folder / "frames", width=WIDTH, frame_rate=FRAME_RATE)
        protocol = make_protocol("sessions", corpus)
        facts = _measured(store, corpus, protocol, recipe, folder, peaks, quick=args.quick)
        epochs = max(judged_epochs(folder / "run-0", fold.name) for fold in protocol.folds)
    sizes = {
        "utterances": utterances,
        "folds": len(protocol.folds),
        "epochs without labels": recipe.adapt.epochs if recipe.adapt.data != "none" else 0,
        "epochs with labels, at most": epochs,
    }
    facts = {**sizes, "peak, GFLOP/s": peaks, **facts}
    name = f"crossval-{args.recipe.stem}" if args.recipe else "crossval"
    print(measure.write(name, facts, args.results, quick=args.quick))


def _measured(
    store: FrameStore,
    corpus: Corpus,
    protocol: Protocol,
    recipe: Recipe,
    folder: Path,
    peaks: dict[str, float],
    *,
    quick: bool,
) -> dict[str, Any]:
    def run(name: str, folds: Protocol = protocol) -> Callable[[], object]:
        return lambda: cross_validate(store, corpus, folds, folder / name, recipe)

    runs = [watched(run(f"run-{number}")) for number in range(1 if quick else 3)]
    wholes = [sum(parts.values()) for parts in runs]
    steps = [sum(parts[part] for part in COMPUTE if part in parts) for parts in runs]
    networks = [compute + parts["judging"] for compute, parts in zip(steps, runs, strict=True)]
    in_bfloat16 = pick_precision(pick_device(recipe.speed.device), recipe.speed.precision) == "bfloat16"
    peak = "bf16" if in_bfloat16 else "fp32"
    work = job_flops(folder / "run-0", store, corpus, protocol, recipe) / peaks[peak] / 1e9
    over_steps, over_networks = measure.ratio(wholes, steps), measure.ratio(wholes, networks)
    return {
        "the whole, over": {"its steps": over_steps, "its steps and judging": over_networks},
        f"share of the {peak} peak": {
            "its steps": measure.summary([work / seconds for seconds in steps]),
            "the whole": measure.summary([work / seconds for seconds in wholes]),
        },
        "goals": {
            "the whole, over its steps": measure.goal(over_steps["median"], at_most=GOAL),
            "the whole, over its steps and judging": measure.goal(over_networks["median"], at_most=GOAL),
        },
        "where the time goes": {
            part: {
                "seconds": measure.summary([parts.get(part, 0.0) for parts in runs]),
                "share": measure.summary([parts.get(part, 0.0) / sum(parts.values()) for parts in runs]),
            }
            for part in [*COMPUTE, *JUDGING, *AROUND, "other"]
        },
        "profile of one fold": profile(run("profiled", replace(protocol, folds=protocol.folds[:1]))),
    }


if __name__ == "__main__":
    measure.run(main)
