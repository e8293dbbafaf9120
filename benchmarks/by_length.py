"""Whether a system takes length for emotion: what it says of short and of long utterances, beside what they are.

Usage:  python benchmarks/by_length.py STORE RUN [RUN...]

Prints a Markdown table: of each run, for each quarter of its test utterances from the shortest to the longest, how far
the shares of the predicted labels are from those of the true ones (total variation: the least share of predictions
that would have to change for the two to be the same), and the accuracy. All seeds are counted together.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import measure
import numpy as np

from serein.evaluate.predictions import Prediction
from serein.evaluate.runs import load_run
from serein.frames.store import FrameStore

QUARTERS = 4


def by_length(
    predictions: Sequence[Prediction], lengths: Mapping[str, int], labels: Sequence[str]
) -> list[tuple[float, float]]:
    """Total variation and accuracy, both in [0, 1], of each quarter, the shortest utterances first."""
    frames = np.array([lengths[row.id] for row in predictions])
    quarter = np.searchsorted(np.quantile(frames, np.arange(1, QUARTERS) / QUARTERS), frames)
    codes = {label: code for code, label in enumerate(labels)}
    truth = np.array([codes[row.truth] for row in predictions])
    said = np.array([codes[row.prediction] for row in predictions])
    found = []
    for number in range(QUARTERS):
        mine = quarter == number
        shares = [np.bincount(of[mine], minlength=len(labels)) / max(1, mine.sum()) for of in (truth, said)]
        found.append((float(abs(shares[0] - shares[1]).sum() / 2), float((truth == said)[mine].mean())))
    return found


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path, metavar="STORE")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    args = parser.parse_args(arguments)
    array = FrameStore(args.store).load()
    lengths = dict(zip(array.ids, array.lengths.tolist(), strict=True))
    parts = ["shortest", "second", "third", "longest"]
    header = ["Run", *(f"{part}: off by %" for part in parts), *(f"{part}: WA %" for part in parts)]
    print("| " + " | ".join(header) + " |\n| --- |" + " ---: |" * (2 * QUARTERS))
    for folder in args.runs:
        run = load_run(folder)
        off, right = zip(*by_length(run.predictions, lengths, run.protocol.labels), strict=True)
        print("| " + " | ".join([folder.name, *(f"{100 * x:.1f}" for x in (*off, *right))]) + " |", flush=True)


if __name__ == "__main__":
    measure.run(main)
