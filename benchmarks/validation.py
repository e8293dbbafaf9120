"""What finished runs reached on their validation talkers: the number that a setting may be chosen by.

Usage:  python benchmarks/validation.py RUN [RUN...]

Prints a Markdown table: of each run and training seed, the best ``validation_ua`` of each fold's training, averaged
over the folds, and the learning rates that folds chose, where they had a choice. No prediction for a test utterance
goes into it.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import measure
import numpy as np

from serein.errors import UsageError
from serein.evaluate.runs import Run, load_run


def mean_best(run: Run, seed: int) -> float:
    """Of a training seed, in [0, 1].

    Raises:
        UsageError: the system is not trained step by step.
    """
    histories = [done.history for done in run.fold_runs if done.seed == seed]
    if not all("finetune" in history for history in histories):
        raise UsageError(f"{run.folder}: {run.name} has no epochs that validation talkers judged")
    return float(np.mean([np.nanmax(history["finetune"]["validation_ua"]) for history in histories]))


def rates(run: Run, seed: int) -> str:
    """The learning rates that the folds of a training seed chose, with the number of folds: "0.003: 1, 0.01: 4"."""
    chosen = Counter(
        done.choice["learning_rate"] for done in run.fold_runs if done.seed == seed and "learning_rate" in done.choice
    )
    return ", ".join(f"{rate:g}: {number}" for rate, number in sorted(chosen.items()))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    args = parser.parse_args(arguments)
    print("| Run | Seed | Validation UA % | Rates: folds |\n| --- | ---: | ---: | --- |")
    for folder in args.runs:
        run = load_run(folder)
        for seed in run.seeds:
            print(f"| {folder.name} | {seed} | {100 * mean_best(run, seed):.1f} | {rates(run, seed)} |", flush=True)


if __name__ == "__main__":
    measure.run(main)
