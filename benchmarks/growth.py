"""Growth: time an utterance and peak memory of extraction, of an epoch of adapter training, and of a report.

Usage:  python benchmarks/growth.py [--quick]

At 1,000, 10,000 and 100,000 utterances, each in a process of its own. Recordings last half a second (fifty files, which
the utterances share), the encoder is logmel, and the networks are tiny, so that what is measured is serein's own work
around them and not matrix products. A talker speaks a hundred utterances, so talkers grow in number too. A report's
cost an utterance falls, since parts of it stop growing: it draws 2,000 utterances at most, and makes the intervals of
its silhouettes from 100 groups of talkers at most.

Peak memory is the process's; "own" leaves out the pages of mapped files, which the system takes back when others need
memory. Each is above that of the same process after the same work on 100 or 200 utterances. Own memory is looked at
after each step of the work; a report tells of none, so there it is what is left at the end. Linux tells both.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measure

SIZES = (1_000, 10_000, 100_000)
QUICK_SIZES = (500, 1_000, 4_000)
UTTERANCES_A_TALKER = 100
RECORDINGS = 50
SECONDS = 0.5
WIDTH = 32
GOAL = 1.15
MIB = 2**20
RECIPE = """
[model]
width = 16
blocks = 1
heads = 2
[adapt]
epochs = 1
attributes = 16
[speed]
device = "cpu"
"""


class Watch:
    """Time, and the most memory of its own that the process held at any of the steps it was told of."""

    def __init__(self) -> None:
        self.before = memory()
        self.own = self.before["own"]
        self.start = time.perf_counter()

    def __call__(self, stage: str, done: int, total: int, facts: dict[str, Any]) -> None:
        """A `serein.progress.Report`."""
        self.own = max(self.own, memory()["own"])

    def facts(self, utterances: int) -> dict[str, float]:
        """A row, when the work is done."""
        seconds = time.perf_counter() - self.start
        self("", 1, 1, {})
        return {
            "milliseconds an utterance": 1e3 * seconds / utterances,
            "peak memory, MiB": (memory()["peak"] - self.before["peak"]) / MIB,
            "own memory, MiB": (self.own - self.before["own"]) / MIB,
        }


def memory() -> dict[str, int]:
    """Bytes: ``peak`` of the process so far, mapped files included, and its ``own`` now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return {name: int(status[key].split()[0]) * 1024 for name, key in (("peak", "VmHWM"), ("own", "RssAnon"))}


def corpus_of(utterances: int, folder: Path) -> Any:
    from synthetic import SESSIONS, make_corpus

    talkers = max(SESSIONS, utterances // UTTERANCES_A_TALKER // SESSIONS * SESSIONS)
    return make_corpus([SECONDS] * utterances, talkers, folder / "audio", files=RECORDINGS)


def extraction(utterances: int, folder: Path) -> dict[str, float]:
    from synthetic import write_audio

    from serein.frames.encoder import load_encoder
    from serein.frames.extract import extract

    corpus, encoder = corpus_of(utterances, folder), load_encoder("logmel")
    write_audio(corpus)
    extract(corpus_of(100, folder), encoder, folder / "warm", pool=2)
    watch = Watch()
    extract(corpus, encoder, folder / "frames", pool=2, report=watch)
    return watch.facts(utterances)


def adapter_epoch(utterances: int, folder: Path) -> dict[str, float]:
    return _epoch(utterances, folder, mapped=False)


def mapped_adapter_epoch(utterances: int, folder: Path) -> dict[str, float]:
    return _epoch(utterances, folder, mapped=True)


def _epoch(utterances: int, folder: Path, *, mapped: bool) -> dict[str, float]:
    import torch
    from synthetic import make_store

    from serein.recipe import Recipe
    from serein.train.adapt import adapt
    from serein.train.crossval import model_config

    recipe = Recipe.from_toml(RECIPE)
    warm = make_store(corpus_of(200, folder), folder / "warm", width=WIDTH).load()
    store = make_store(corpus_of(utterances, folder), folder / "frames", width=WIDTH)
    config = model_config(store, warm, recipe, ("angry", "sad"))
    adapt(warm, torch.arange(len(warm.ids)), config, recipe)
    watch = Watch()
    array = store.load(mapped=mapped)
    adapt(array, torch.arange(len(array.ids)), config, recipe, report=watch)
    return watch.facts(utterances)


def report(utterances: int, folder: Path) -> dict[str, float]:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from serein.evaluate.report import write_report

    # not in this process: the memory that a cross-validation leaves free would hide what the report takes
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        warm, run = other.map(_finished_run, (200, utterances), (folder / "warm", folder / "whole"))
    write_report(warm)
    watch = Watch()
    write_report(run)
    return watch.facts(utterances)


def _finished_run(utterances: int, folder: Path) -> Path:
    """A linear probe's run: the report of an adapter's has two more spaces to draw."""
    from synthetic import make_store

    from serein.corpus.splits import make_protocol
    from serein.recipe import Recipe
    from serein.train.crossval import cross_validate

    corpus = corpus_of(utterances, folder)
    store = make_store(corpus, folder / "frames", width=WIDTH)
    protocol = make_protocol("sessions", corpus)
    return cross_validate(store, corpus, protocol, folder / "run", Recipe.from_toml(RECIPE), system="linear")


TASKS: dict[str, Callable[[int, Path], dict[str, float]]] = {
    "extraction": extraction,
    "adapter epoch": adapter_epoch,
    "adapter epoch, mapped store": mapped_adapter_epoch,
    "report": report,
}


def in_process(task: str, utterances: int, threads: int) -> dict[str, float]:
    """One row, in a process of its own."""
    words = ["--task", task, "--utterances", str(utterances), "--threads", str(threads)]
    facts: dict[str, float] = measure.own_process(__file__, *words)
    return facts


def run_here(task: str, utterances: int, threads: int) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)
    folder = Path(tempfile.mkdtemp())
    try:
        return TASKS[task](utterances, folder)
    finally:
        shutil.rmtree(folder)


def grown(rows: dict[str, dict[str, float]]) -> dict[str, float | bool]:
    """Time an utterance at the most utterances over that at the fewest."""
    first, *_, last = (row["milliseconds an utterance"] for row in rows.values())
    return measure.goal(last / first, at_most=GOAL)


def main(arguments: Sequence[str]) -> None:
    options = measure.parser(__doc__)
    options.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options.add_argument("--utterances", type=int, default=0, help=argparse.SUPPRESS)
    args = options.parse_args(arguments)
    if args.task:
        print(json.dumps(run_here(args.task, args.utterances, args.threads)))
        return
    sizes = QUICK_SIZES if args.quick else SIZES
    tables = {task: {f"{size:,} utterances": in_process(task, size, args.threads) for size in sizes} for task in TASKS}
    goals = {f"{task}: time an utterance grows by": grown(rows) for task, rows in tables.items()}
    print(measure.write("growth", {**tables, "goals": goals}, args.results, quick=args.quick))


if __name__ == "__main__":
    measure.run(main)
