"""What training costs: the whole encoder, LoRA, and serein's adapter on frames that were extracted once.

Usage:  python benchmarks/cost.py CORPUS.csv --encoder PATH --layers 2,3,4 --pool 4 --steps N

Needs ``pip install 'serein[peft]'``. Runs on the CPU in float32 and prints a markdown table, then the sizes alone of
HuBERT-large, whose architecture is built without weights. Two minutes with whisper-base and three steps on one thread.

All rows: the paper's network, the same batch size, every utterance once an epoch, Whisper cut to the clips. Extraction
computes no block above the highest layer asked for; the other encoders run to their end.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from measure import run
from operations import HUBERT_LARGE
from transformers import HubertConfig, HubertModel

from serein.corpus.corpus import Corpus
from serein.errors import CorpusError, SereinError
from serein.frames.audio import load_audio
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract
from serein.frames.store import FrameStore
from serein.nn.classifier import EmotionClassifier
from serein.nn.pooling import AttentiveStatisticsPooling
from serein.nn.transformer import WAPTransformer
from serein.recipe import Recipe
from serein.train.adapt import adapt, fresh_adapter
from serein.train.crossval import classes_of, model_config
from serein.train.finetune import finetune
from serein.train.machine import peak_memory_bytes
from serein.train.systems import fresh_classifier
from serein.train.whole_encoder import (
    WholeEncoder,
    add_lora,
    load_whole,
    make_optimizer,
    shipped_numbers,
    train_all,
    train_epoch,
    trainable_parameters,
)

MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """One row.

    Attributes:
        seconds: of one epoch over the corpus (extraction: of the corpus, once), scaled; None where only counted.
        peak_memory: bytes, of a process that did nothing else; None where only counted.
        trainable: parameters.
        shipped: numbers that reach the user beside the pretrained encoder.
    """

    seconds: float | None
    peak_memory: int | None
    trainable: int
    shipped: int


class Clock:
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def __call__(self, stage: str, done: int, total: int, facts: dict[str, Any]) -> None:
        """A :data:`serein.progress.Report`."""
        self.stamps.append(time.perf_counter())

    def seconds(self) -> float:
        """All steps at the mean pace of those after the first, which also warms up."""
        timed = len(self.stamps) - 1
        return (self.stamps[-1] - self.stamps[0]) / timed * len(self.stamps)


def sample(corpus: Corpus, utterances: int) -> tuple[Corpus, float]:
    """Random labelled utterances, and how many times as long all labelled utterances last."""
    labelled = [utterance for utterance in corpus if utterance.emotion]
    if any(utterance.seconds is None for utterance in labelled):
        raise CorpusError(f"corpus {corpus.name}: lengths are missing; `serein corpus` measures them")
    drawn = random.Random(0).sample(labelled, min(utterances, len(labelled)))
    seconds = [sum(utterance.seconds or 0.0 for utterance in some) for some in (labelled, drawn)]
    return Corpus(corpus.name, tuple(drawn)), seconds[0] / seconds[1]


def measure(row: str, args: argparse.Namespace) -> Cost:
    """Run one row in this process; the rows of serein's training read what its extraction left in ``args.store``."""
    torch.set_num_threads(args.threads)
    corpus, scale = sample(Corpus.from_csv(args.corpus), (args.steps + 1) * args.batch_size)
    if len(corpus) < 2 * args.batch_size:
        raise CorpusError(f"corpus {corpus.name}: {len(corpus)} utterances are no two batches; lower --batch-size")
    return ROWS[row](corpus, scale, args)


def full_fine_tuning(corpus: Corpus, scale: float, args: argparse.Namespace) -> Cost:
    return _from_audio(train_all(load_whole(args.encoder, len(corpus.labels))), corpus, scale, args)


def lora(corpus: Corpus, scale: float, args: argparse.Namespace) -> Cost:
    return _from_audio(add_lora(load_whole(args.encoder, len(corpus.labels))), corpus, scale, args)


def extraction(corpus: Corpus, scale: float, args: argparse.Namespace) -> Cost:
    encoder = load_encoder(args.encoder, layers=args.layers, whisper_padding=False)
    start = time.perf_counter()
    extract(corpus, encoder, args.store, pool=args.pool)
    return Cost((time.perf_counter() - start) * scale, peak_memory_bytes(torch.device("cpu")), 0, 0)


def adapter_training(corpus: Corpus, scale: float, args: argparse.Namespace) -> Cost:
    recipe, clock = _recipe(args.batch_size), Clock()
    store = FrameStore(args.store)
    array = store.load()
    config = model_config(store, array, recipe, corpus.labels)
    adapted = adapt(array, torch.arange(len(array.ids)), config, recipe, report=clock)
    return _on_frames(adapted.adapter, array.flat.nbytes, clock, scale)


def fine_tuning(corpus: Corpus, scale: float, args: argparse.Namespace) -> Cost:
    recipe, clock = _recipe(args.batch_size), Clock()
    store = FrameStore(args.store)
    array = store.load()
    everyone = torch.arange(len(array.ids))
    config = model_config(store, array, recipe, corpus.labels)
    model = fresh_classifier(config, recipe, fresh_adapter(config, array.moments(everyone), 0), 0)
    labels = classes_of(array.ids, corpus, corpus.labels)
    finetune(model, array, labels, everyone, recipe, classes=corpus.labels, report=clock)
    return _on_frames(model, array.flat.nbytes, clock, scale)


ROWS = {
    "full fine-tuning": full_fine_tuning,
    "LoRA": lora,
    "serein: extraction, once": extraction,
    "serein: adapter, without labels": adapter_training,
    "serein: fine-tuning": fine_tuning,
}


def _from_audio(model: WholeEncoder, corpus: Corpus, scale: float, args: argparse.Namespace) -> Cost:
    clock = Clock()
    waveforms = [load_audio(utterance.path) for utterance in corpus]
    labels = torch.tensor([corpus.labels.index(utterance.emotion) for utterance in corpus])
    train_epoch(model, make_optimizer(model), waveforms, labels, batch_size=args.batch_size, report=clock)
    peak = peak_memory_bytes(torch.device("cpu"))
    return Cost(clock.seconds() * scale, peak, trainable_parameters(model), shipped_numbers(model))


def _on_frames(model: EmotionClassifier | WAPTransformer, frames: int, clock: Clock, scale: float) -> Cost:
    """The frames of the whole corpus stay in memory: those that the sample lacks are added to the peak."""
    peak = peak_memory_bytes(torch.device("cpu")) + round(frames * (scale - 1))
    return Cost(clock.seconds() * scale, peak, trainable_parameters(model), shipped_numbers(model))


def _recipe(batch_size: int) -> Recipe:
    """The paper's network for one epoch; without copies, so that an epoch shows every utterance once in all rows."""
    same = [f"{stage}.{key}" for stage in ("adapt", "finetune") for key in (f"batch_size={batch_size}", "epochs=1")]
    return Recipe.from_toml("", [*same, "finetune.balance=none", "speed.precision=float32", "speed.device=cpu"])


def hubert_large(classes: int, layers: int, pool: int) -> dict[str, Cost]:
    """Sizes alone, on torch's meta device, which holds shapes and no numbers."""
    config = HubertConfig(**HUBERT_LARGE)

    def build() -> WholeEncoder:
        return WholeEncoder(HubertModel(config), None, classes)

    with torch.device("meta"):
        adapter = WAPTransformer(config.hidden_size, layers, max_frames=30 * 50 // pool)
        classifier = EmotionClassifier(adapter, AttentiveStatisticsPooling(adapter.width), classes)
        models = {
            "full fine-tuning": train_all(build()),
            "LoRA": add_lora(build()),
            "serein: adapter, without labels": adapter,
            "serein: fine-tuning": classifier,
        }
    return {
        name: Cost(None, None, trainable_parameters(model), shipped_numbers(model)) for name, model in models.items()
    }


def table(rows: dict[str, Cost]) -> str:
    """The rows in markdown; MB are millions of bytes."""
    head = ("", "seconds an epoch", "peak memory, MiB", "trainable parameters", "shipped MB, float32", "float16")
    lines = [head, ("---", *["---:"] * 5)]
    for name, cost in rows.items():
        seconds = "" if cost.seconds is None else f"{cost.seconds:.1f}"
        peak = "" if cost.peak_memory is None else f"{cost.peak_memory / MIB:.0f}"
        shipped = (f"{bytes_each * cost.shipped / 1e6:.2f}" for bytes_each in (4, 2))
        lines.append((name, seconds, peak, f"{cost.trainable:,}", *shipped))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def in_fresh_process(row: str, arguments: Sequence[str]) -> Cost:
    """A process's peak never falls again: each row gets one of its own."""
    command = [sys.executable, __file__, *arguments, "--row", row]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SereinError(f"{row}: could not be measured, see above")
    return Cost(**json.loads(done.stdout))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--encoder", required=True, help="Hub id or folder")
    parser.add_argument("--layers", type=lambda text: [int(layer) for layer in text.split(",")], default=[-1])
    parser.add_argument("--pool", type=int, default=1, help="frames that serein averages into one")
    parser.add_argument("--steps", type=int, default=4, help="timed steps; one before them warms up")
    parser.add_argument("--batch-size", type=int, default=16, help="utterances of mean length in a batch, in all rows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--row", choices=ROWS, help="measure this one only, in this process, and print it as JSON")
    parser.add_argument("--store", type=Path, help="with --row: serein's frames, written by its extraction")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    if args.row:
        print(json.dumps(asdict(measure(args.row, args))))
        return
    idle = peak_memory_bytes(torch.device("cpu"))
    labels = Corpus.from_csv(args.corpus).labels
    with tempfile.TemporaryDirectory() as folder:
        rows = {row: in_fresh_process(row, [*arguments, "--store", f"{folder}/frames"]) for row in ROWS}
    print(f"{args.corpus.stem}, {Path(args.encoder).name}, layers {args.layers}, pool {args.pool}:\n")
    print(table(rows))
    print(
        f"\nMeasured over {args.steps} steps of {args.batch_size} utterances on {args.threads} thread(s), float32, "
        f"and scaled to the corpus's audio. Peaks include {idle / MIB:.0f} MiB of Python and its libraries, and for "
        f"serein's training the frames of the whole corpus. Audio is decoded outside the clock, for extraction inside."
    )
    print("\nHuBERT-large, counted:\n")
    print(table(hubert_large(len(labels), len(args.layers), args.pool)))


if __name__ == "__main__":
    run(main)
