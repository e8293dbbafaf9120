"""A long recording: peak memory and speed of `serein timeline` on hours of speech, beside minutes of it.

Usage:  python benchmarks/long_recording.py MODEL RECORDINGS [--hours 10] [--minutes 10] [--encoder FOLDER] [--quick]

The recordings of a corpus table, or of a folder, follow each other, from the first again when all are used up, in WAV
files of 16-bit samples at 16 kHz, which are written in a temporary folder (10 hours take 1.2 GB). Each file is followed
by a command in a process of its own, with the command's own window and hop (4 s every second: each second is judged
four times). Peak memory is what the system counts for that process, the model and torch included; where this process
has ever been larger than that one, it is this one's instead, so this one reads in blocks and loads no torch.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import measure
import numpy as np
import soundfile

from serein.corpus.corpus import Corpus
from serein.frames.audio import SAMPLE_RATE, load_audio

GOAL = 1.2
SUFFIXES = {".wav", ".flac", ".mp3", ".ogg"}
MIB = 2**20


def recordings_of(place: Path) -> list[Path]:
    """The files that a corpus table names, or that are in a folder and those below it."""
    if place.is_dir():
        return sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
    return [utterance.path for utterance in Corpus.from_csv(place)]


def concatenate(recordings: Sequence[Path], seconds: float, file: Path) -> None:
    """Write a recording of so many seconds; memory holds one of the recordings at a time."""
    left = round(seconds * SAMPLE_RATE)
    with soundfile.SoundFile(file, "w", SAMPLE_RATE, 1, "PCM_16") as long:
        for samples in _samples(recordings):
            long.write(samples[:left])
            left -= min(left, len(samples))
            if not left:
                return


def _samples(recordings: Sequence[Path]) -> Iterator[np.ndarray]:
    return (load_audio(path) for path in cycle(recordings))


def follow(model: Path, file: Path, encoder: Path | None, threads: int) -> dict[str, float]:
    """One row: the command, in a process of its own."""
    command = [sys.executable, "-m", "serein", "timeline", str(model), str(file), "-o", f"{file}.csv"]
    command += ["--encoder", str(encoder)] if encoder else []
    start = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"`serein timeline` ended with {process.returncode}")
    heard = soundfile.info(file).duration
    rows = Path(f"{file}.csv").read_text(encoding="utf-8").count("\n") - 1
    return {
        "windows": rows,
        "seconds": seconds,
        "times real time": heard / seconds,
        "peak memory, MiB": usage.ru_maxrss * 1024 / MIB,
    }


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """A row for each length, and what the longer one takes more."""
    recordings = recordings_of(args.recordings)
    if not recordings:
        raise SystemExit(f"{args.recordings}: holds no recordings")
    minutes, hours = args.minutes, args.hours
    with tempfile.TemporaryDirectory() as temporary:
        rows = {}
        for name, seconds in {f"{minutes:g} minutes": minutes * 60, f"{hours:g} hours": hours * 3600}.items():
            file = Path(temporary, "recording.wav")
            concatenate(recordings, seconds, file)
            rows[name] = follow(args.model, file, args.encoder, args.threads)
    short, long = rows.values()
    grown = long["peak memory, MiB"] / short["peak memory, MiB"]
    more = (hours * 3600 - minutes * 60) / (long["seconds"] - short["seconds"])
    return {
        "model": args.model.name,
        "recordings": len(recordings),
        "times real time, once it has started": more,
        "timeline": rows,
        "goals": {"peak memory": {"grows by": grown, "at most": GOAL, "met": grown <= GOAL}},
    }


def main(arguments: Sequence[str]) -> None:
    options = measure.parser(__doc__)
    options.add_argument("model", type=Path, metavar="MODEL", help="a model's folder")
    options.add_argument("recordings", type=Path, metavar="RECORDINGS", help="a corpus table, or a folder")
    options.add_argument("--hours", type=float, help="of the long recording (default: 10; 0.05 with --quick)")
    options.add_argument("--minutes", type=float, help="of the short one (default: 10; 1 with --quick)")
    options.add_argument("--encoder", type=Path, help="where the encoder is, if not where it was in training")
    args = options.parse_args(arguments)
    args.hours = args.hours or (0.05 if args.quick else 10.0)
    args.minutes = args.minutes or (1.0 if args.quick else 10.0)
    facts = compare(args)
    import torch  # now that it cannot be counted as memory of the commands

    torch.set_num_threads(args.threads)  # the commands': the result names them
    print(measure.write("long_recording", facts, args.results, quick=args.quick))


if __name__ == "__main__":
    measure.run(main)
