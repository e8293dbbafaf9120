"""On a GPU: extraction with HuBERT-large, then the paper's whole job on a corpus as large as IEMOCAP.

Usage:  python benchmarks/gpu.py [--lengths iemocap_5531.csv]       (less than eight minutes on an H100)
        python benchmarks/gpu.py --device cpu --quick               (the same path with tiny sizes)

Extraction: 5,531 recordings of noise, HuBERT-large with random weights in bfloat16, its last layer, from files on disk
to a store on disk. The job: five folds on noise for frames, adapter training without labels for 100 epochs and
fine-tuning for 100 (batch 96), the refit, test. Lengths are IEMOCAP's: from a table's column ``seconds``, or by the
quantiles in ``synthetic.py``.

Work is counted by torch's flop counter: of the encoder at two lengths, which fixes a linear and a quadratic term; of a
training step on a batch of the mean length. Judging validation and test utterances is not counted as work. A share is
of the bf16 matrix product measured in the same run. Idle is what ``nvidia-smi`` does not call utilisation.
"""

import argparse
import csv
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import measure
import torch
import transformers
from operations import HUBERT_LARGE, cost_of, encoder_flops, job_flops
from synthetic import make_corpus, make_store, speech_seconds, write_audio

from serein.corpus.corpus import Corpus
from serein.corpus.splits import make_protocol
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract
from serein.recipe import Recipe
from serein.train.crossval import cross_validate
from serein.train.machine import peak_memory_bytes

UTTERANCES, TALKERS, WIDTH = 5_531, 10, 1_024
TINY_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
TINY = ["model.width=16", "model.blocks=1", "model.heads=2", "adapt.attributes=16", "adapt.batch_size=8"]


def lengths(table: Path | None, count: int) -> list[float]:
    if table is None:
        return speech_seconds(count)
    with table.open(newline="", encoding="utf-8") as file:
        return [float(row["seconds"]) for row in csv.DictReader(file)][:count]


@contextmanager
def utilization(device: str) -> Iterator[Callable[[], float | None]]:
    """Gives a function that, after the block, says which share of its time the GPU stood idle; None without one."""
    if not device.startswith("cuda") or not which("nvidia-smi"):
        yield lambda: None
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=500"]
    with tempfile.TemporaryFile("w+") as samples:
        watcher = subprocess.Popen(command, stdout=samples)
        try:
            yield lambda: 1 - statistics.mean(values) / 100 if values else None
        finally:
            watcher.terminate()
            watcher.wait()
            samples.seek(0)
            values = [float(line) for line in samples.read().split() if line.isdecimal()]


def extraction(corpus: Corpus, folder: Path, config: dict[str, Any], device: str, peak: float) -> dict[str, Any]:
    transformers.HubertModel(transformers.HubertConfig(**config)).save_pretrained(folder / "encoder")
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    extractor.save_pretrained(folder / "encoder")
    encoder = load_encoder(str(folder / "encoder"), device=device, dtype="bfloat16")
    write_audio(corpus)
    extract(Corpus("warm", corpus.utterances[:16]), encoder, folder / "warm")
    start = time.perf_counter()
    with utilization(device) as idle:
        extract(corpus, encoder, folder / "encoded")
        seconds = time.perf_counter() - start
    audio = [utterance.seconds or 0.0 for utterance in corpus]
    return {
        "hours of speech": sum(audio) / 3600,
        "seconds": seconds,
        "times real time": sum(audio) / seconds,
        "share of the bf16 peak": encoder_flops(config, audio) / seconds / peak,
        "idle": idle(),
        "peak memory, MiB": peak_memory_bytes(torch.device(device)) / 2**20,
    }


def whole_job(corpus: Corpus, folder: Path, recipe: Recipe, width: int, peak: float) -> dict[str, Any]:
    store = make_store(corpus, folder / "frames", width=width)
    protocol = make_protocol("sessions", corpus)
    if recipe.speed.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    with utilization(recipe.speed.device) as idle:
        run = cross_validate(store, corpus, protocol, folder / "run", recipe)
        seconds = time.perf_counter() - start
    work = job_flops(run, store, corpus, protocol, recipe)
    stages, epochs = dict.fromkeys(("adapt", "finetune", "refit", "test"), 0.0), []
    for fold in protocol.folds:
        cost = cost_of(run, fold.name)
        epochs.append(cost["choice"]["epochs"])
        stages = {stage: stages[stage] + cost["seconds"][stage] for stage in stages}
    return {
        "utterances": len(corpus),
        "folds": len(protocol.folds),
        "epochs of each stage": recipe.adapt.epochs,
        "epochs of the refit, mean": statistics.mean(epochs),
        "seconds": seconds,
        **{f"seconds, {stage}": spent for stage, spent in stages.items()},
        "share of the bf16 peak": work / seconds / peak,
        "idle": idle(),
        "peak memory, MiB": peak_memory_bytes(torch.device(recipe.speed.device)) / 2**20,
    }


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    options = measure.parser(__doc__)
    options.add_argument("--device", default="cuda", help="cuda (default), cuda:1, cpu")
    options.add_argument("--lengths", type=Path, metavar="CSV", help="a table with a column seconds")
    options.add_argument("--epochs", type=int, default=100, help="of both stages (default: 100; 1 with --quick)")
    return options.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    start = time.perf_counter()
    peaks = measure.peaks(args.threads, device=args.device, size=256 if args.quick else 8192)
    epochs = 1 if args.quick else args.epochs
    changes = [f"adapt.epochs={epochs}", f"finetune.epochs={epochs}", f"speed.device={args.device}"]
    recipe = Recipe.from_toml("", changes + (TINY if args.quick else []))
    width, config = (16, TINY_ENCODER) if args.quick else (WIDTH, HUBERT_LARGE)
    seconds = lengths(args.lengths, 60 if args.quick else UTTERANCES)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = make_corpus(seconds, TALKERS, folder / "audio")
        facts = {
            "peak, GFLOP/s": peaks,
            "extraction": extraction(corpus, folder, config, args.device, peaks["bf16"] * 1e9),
            "the whole job": whole_job(corpus, folder, recipe, width, peaks["bf16"] * 1e9),
        }
    facts["minutes of all of it"] = (time.perf_counter() - start) / 60
    print(measure.write("gpu", facts, args.results, quick=args.quick))


if __name__ == "__main__":
    measure.run(main)
