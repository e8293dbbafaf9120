"""What the variance of an encoder's frames is about: within an utterance, or between emotions, talkers, texts, batches.

Usage:  python benchmarks/variance.py STORE [STORE...]

Prints a Markdown table. A share is the sum of squares between the groups' means over the sum of squares in all, each
dimension standardised first: of the frames, and of the utterances' mean frames. By chance: the share that G groups of N
independent values would have, (G - 1) / (N - 1); frames of an utterance are not independent, so theirs says too little
but for the row of utterances. An objective that predicts frames, as adapter training without labels does, is asked for
the first kind. What lies between batches of 32, sorted by length or mixed as they are in training with labels, a batch
norm takes away in training and not in the test.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import measure
import torch
from jaxtyping import Float
from torch import Tensor

from serein.corpus.corpus import Utterance
from serein.frames.batches import frame_budget, plan_batches
from serein.frames.store import FrameStore
from serein.train.finetune import MIXING

PROPERTIES = ("emotion", "talker", "text")
BATCHES = {"batch, by length": 0, "batch, mixed": MIXING}
BATCH_SIZE = 32


def share_between(values: Float[Tensor, "rows width"], groups: Sequence[object]) -> float:
    """Sum of squares between the groups' means over the sum of squares in all, in [0, 1]."""
    order = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    index = torch.tensor([order[group] for group in groups])
    counts = torch.bincount(index).unsqueeze(1)
    means = torch.zeros(len(order), values.shape[1]).index_add_(0, index, values) / counts
    centred, between = values - values.mean(0), means - values.mean(0)
    return float((between.square() * counts).sum() / centred.square().sum())


def rows(store: FrameStore) -> list[list[str]]:
    """A row a property that the corpus knows of more than one value, and a row a way to make batches."""
    array, known = store.load(), store.corpus().by_id()
    frames = array.flat.float().flatten(1)
    frames = (frames - frames.mean(0)) / frames.std(0).clamp(min=1e-6)
    place = torch.repeat_interleave(torch.arange(len(array.ids)), array.lengths)
    means = torch.zeros(len(array.ids), frames.shape[1]).index_add_(0, place, frames) / array.lengths.unsqueeze(1)
    name = store.settings["corpus"]["name"]
    by_chance = (len(means) - 1) / (len(frames) - 1)
    table = [[name, "utterance", f"{share_between(frames, place.tolist()):.1%}", f"{by_chance:.1%}", "", ""]]
    for property_ in PROPERTIES:
        values = [_value(known[id_], property_) for id_ in array.ids]
        if len(set(values)) > 1:
            of_frames = share_between(frames, [values[number] for number in place.tolist()])
            of_means, by_chance = share_between(means, values), (len(set(values)) - 1) / (len(means) - 1)
            table.append([name, property_, f"{of_frames:.1%}", "", f"{of_means:.1%}", f"{by_chance:.1%}"])
    for kind, mixing in BATCHES.items():
        budget = frame_budget(array.lengths, BATCH_SIZE)
        plan = plan_batches(array.lengths, budget, seed=0, epoch=0, mixing=mixing)
        batch = torch.repeat_interleave(torch.arange(len(plan)), torch.tensor([len(batch) for batch in plan]))
        of_means, by_chance = share_between(means[torch.cat(plan)], batch.tolist()), (len(plan) - 1) / (len(means) - 1)
        table.append([name, kind, "", "", f"{of_means:.1%}", f"{by_chance:.1%}"])
    return table


def _value(utterance: Utterance, property_: str) -> str:
    return str(getattr(utterance, property_))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stores", type=Path, nargs="+", metavar="STORE")
    args = parser.parse_args(arguments)
    header = ["Corpus", "Between", "Of the frames' variance", "By chance", "Of the mean frames' variance", "By chance"]
    print("| " + " | ".join(header) + " |\n| --- | --- |" + " ---: |" * 4)
    for folder in args.stores:
        for row in rows(FrameStore(folder)):
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    measure.run(main)
