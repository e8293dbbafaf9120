"""Kill extraction or training with SIGKILL at random points, continue, compare with an undisturbed run.

    python tests/kill_loop.py extract TABLE 20
    python tests/kill_loop.py train TABLE 20

Each run is a fork of this process, so that a kill costs no new start of Python. Prints one line a kill.
"""

import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from serein.corpus.corpus import Corpus
from serein.corpus.splits import make_protocol
from serein.frames import extract as extraction
from serein.frames.encoder import load_encoder
from serein.recipe import Recipe
from serein.train.ship import train_model

torch.set_num_threads(1)  # a fork must not inherit another thread's locks

RECIPE = """
[model]
width = 32
blocks = 2
heads = 2
dropout = 0.1
[adapt]
epochs = 6
batch_size = 8
attributes = 16
[finetune]
epochs = 6
batch_size = 8
frame_masking = 0.2
[speed]
checkpoint_seconds = 0
precision = "float32"
"""


def extract(table: Path, folder: Path) -> None:
    extraction.SHARD_UTTERANCES = 4
    extraction.extract(Corpus.from_csv(table), load_encoder("logmel"), folder)


def train(table: Path, folder: Path) -> None:
    corpus = Corpus.from_csv(table)
    store = extraction.extract(corpus, load_encoder("logmel"), table.parent / "kill-loop-frames", pool=2)
    train_model(store, corpus, folder, Recipe.from_toml(RECIPE))


def digest(folder: Path) -> str:
    paths = sorted(folder.glob("*.safetensors"))
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in paths)).hexdigest()


def fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def main() -> int:
    job, table, kills = {"extract": extract, "train": train}[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3])
    assert make_protocol("sessions", Corpus.from_csv(table)).folds
    draws = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        for _ in range(2):  # the first run warms caches, the second one is timed
            start = time.monotonic()
            assert os.waitpid(fork(lambda: job(table, whole)), 0)[1] == 0
            seconds = time.monotonic() - start
            expected = digest(whole)
            if _ == 0:
                for path in whole.iterdir():
                    path.unlink()
        same = 0
        for number in range(kills):
            folder = Path(scratch) / str(number)
            child = fork(lambda folder=folder: job(table, folder))
            time.sleep(draws.uniform(0.02, 0.98) * seconds)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            left = sum(1 for _ in folder.glob("*.safetensors")) if folder.exists() else 0
            assert os.waitpid(fork(lambda folder=folder: job(table, folder)), 0)[1] == 0
            equal = digest(folder) == expected
            same += equal
            print(
                f"kill {number}: {left} files at the kill, {'equal' if equal else 'DIFFERENT'} at the end", flush=True
            )
    print(f"{kills} kills, {same} continued to the same bytes")
    return 0 if same == kills else 1


if __name__ == "__main__":
    sys.exit(main())
