"""What adapter training without labels did, from first step to last, in finished runs.

Usage:  python benchmarks/adaptation.py RUN [RUN...]

Prints a Markdown table: of each run, means over folds and training seeds of the number of steps, of L_rec of eq. 1, of
the spread of the teacher's frames (standard deviation over the frames of a batch, averaged over the width), of the
share of hidden frames whose pseudo-label the student names, and of the share of the attributes in use.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import measure
import numpy as np

from serein.errors import UsageError
from serein.evaluate.runs import load_run

FACTS = ("reconstruction", "teacher_spread", "agreement", "usage")


def first_and_last(folder: Path) -> tuple[float, dict[str, tuple[float, float]]]:
    """Steps, and each fact over the first and the last tenth of them.

    Raises:
        UsageError: nothing was trained without labels.
    """
    histories = [done.history["adapt"] for done in load_run(folder).fold_runs if "adapt" in done.history]
    if not histories:
        raise UsageError(f"{folder}: has no adapter training")
    steps = [len(history["step"]) for history in histories]
    tenths = [math.ceil(number / 10) for number in steps]  # as serein.train.adapt.collapse has it
    facts = {
        name: (
            float(np.mean([np.mean(history[name][:tenth]) for history, tenth in zip(histories, tenths, strict=True)])),
            float(np.mean([np.mean(history[name][-tenth:]) for history, tenth in zip(histories, tenths, strict=True)])),
        )
        for name in FACTS
    }
    return float(np.mean(steps)), facts


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    args = parser.parse_args(arguments)
    print("| Run | Steps | L_rec | Spread | Agreement % | In use % |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for folder in args.runs:
        steps, facts = first_and_last(folder)
        decimals = [f"{first:.3g} to {last:.3g}" for first, last in (facts["reconstruction"], facts["teacher_spread"])]
        percents = [f"{100 * first:.0f} to {100 * last:.0f}" for first, last in (facts["agreement"], facts["usage"])]
        print(f"| {folder.name} | {steps:.0f} | {' | '.join([*decimals, *percents])} |", flush=True)


if __name__ == "__main__":
    measure.run(main)
