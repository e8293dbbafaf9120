"""What the benchmarks beside this file share: alternating timings, the machine's peaks, and results on disk.

A benchmark times all its sides in one run on the same inputs, in turn, and says what the machine could do at that time.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from serein.errors import SereinError

RESULTS = Path(__file__).parent / "results"


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark; ``description`` is its module's docstring."""
    options = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    options.add_argument("--quick", action="store_true", help="two minutes at most; the result goes to results/quick")
    options.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    options.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the JSON file goes")
    return options


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Call a script's main function with its arguments; an error of serein is a line and its exit code."""
    try:
        main(sys.argv[1:])
    except SereinError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def alternate(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call of each side; every round calls all sides, after one round that is not measured.

    A side that uses a GPU waits for it (``torch.cuda.synchronize``) before it returns.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def ratio(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    """How many times as long one side takes: the ratio of the medians, and the lowest and highest of the rounds'."""
    rounds = [slow / fast for slow, fast in zip(slower, faster, strict=True)]
    return {**summary(rounds), "median": statistics.median(slower) / statistics.median(faster)}


def goal(value: float, *, at_least: float | None = None, at_most: float | None = None) -> dict[str, float | bool]:
    """A row of a benchmark's goals: what was measured, its limit, and whether that is kept, before any rounding."""
    if at_least is not None:
        return {"is": value, "at least": at_least, "met": value >= at_least}
    assert at_most is not None
    return {"is": value, "at most": at_most, "met": value <= at_most}


def peaks(threads: int, *, device: str = "cpu", size: int = 4096, repeats: int = 5) -> dict[str, float]:
    """GFLOP/s of a large square matrix product in ``fp32`` and in ``bf16``, the fastest of several measured now.

    Sets torch's threads, and leaves them so for what is measured next.
    """
    import torch

    torch.set_num_threads(threads)
    best = {}
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

        def product(one: Any = one, other: Any = other) -> None:
            torch.mm(one, other)
            if one.is_cuda:
                torch.cuda.synchronize()

        best[name] = 2 * size**3 / min(alternate({name: product}, repeats)[name]) / 1e9
    return best


def own_process(script: str, *arguments: str) -> Any:
    """What a Python script prints as JSON, run in a fresh process, so that its time and memory are its own."""
    done = subprocess.run([sys.executable, script, *arguments], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def write(name: str, facts: Mapping[str, Any], folder: Path = RESULTS, *, quick: bool = False) -> Path:
    """Write ``NAME.json``: the facts, with the command, the machine and the versions; no date and no user's path.

    A quick result goes to the folder ``quick`` inside, where it replaces no real one.
    """
    from serein.files import write_atomically
    from serein.train.machine import environment

    given = [Path(argument).name if Path(argument).is_absolute() else argument for argument in sys.argv[1:]]
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *given])
    path = (folder / "quick" if quick else folder) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"benchmark": name, "command": command, "machine": environment(), **facts}
    write_atomically(path, (json.dumps(document, indent=2) + "\n").encode())
    return path
