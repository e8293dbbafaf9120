"""Serving: eight clients at once beside the same requests one by one, and what gathering them gains.

Usage:  python benchmarks/serving.py MODEL RECORDINGS [--encoder FOLDER] [--quick]

`serein serve` runs in a process of its own on a loopback port; 200 recordings of a corpus table, or of a folder, are
sent to it by eight clients at once, then by one after another, in turns. Every answer is held against what
`serein predict --json` prints for that file: a probability that differs by more than 1e-4 fails the benchmark.

In the same rounds, on the same recordings and in this process, the network's work alone: the encoder, and the head
(adapter, pooling and classifier, on frames that are ready), one recording at a time and as many at once as the server
gathered in a batch on average. The server computes one batch at a time on all threads, so eight clients cannot be
served faster than the encoder takes for their batches. "The rest" is HTTP and decoding; with eight clients much of it
passes while the network computes, and it may come out below nothing.
"""

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import measure
import numpy as np
import torch
from long_recording import recordings_of
from server_process import ServerProcess, exchange, started
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from serein.frames.audio import load_audio
from serein.frames.extract import as_stored
from serein.recognizer import EmotionRecognizer

CLIENTS = 8
MOST_DIFFERENCE = 1e-4
HEAD_GOAL = 1.5
HEAD_PASSES = 10  # in each round: one takes a few tenths of a second, too little to be told from noise
Scores = dict[str, float]


class Pass(NamedTuple):
    """All recordings sent once.

    Attributes:
        latencies: seconds from sending each to having its answer.
        answers: probabilities by label.
        gathered: recordings in each batch, on average.
    """

    latencies: list[float]
    answers: list[Scores]
    gathered: float


def by_label(scores: list[dict[str, Any]]) -> Scores:
    return {score["label"]: score["score"] for score in scores}


def predicted(model: Path, recordings: Sequence[Path], encoder: Path | None, threads: int) -> list[Scores]:
    """What the command says of each."""
    command = [sys.executable, "-m", "serein", "predict", str(model), *map(str, recordings), "--json"]
    command += ["--encoder", str(encoder)] if encoder else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    return [by_label(found["scores"]) for found in json.loads(done.stdout)]


def send(server: ServerProcess, bodies: Sequence[bytes], clients: int) -> Pass:
    """Each client sends the next body as soon as it has its answer, over a connection that stays open."""
    idle: SimpleQueue[http.client.HTTPConnection] = SimpleQueue()
    connections = [server.connection() for _ in range(clients)]
    for connection in connections:
        idle.put(connection)

    def ask(body: bytes) -> tuple[float, Scores]:
        connection = idle.get()
        start = time.perf_counter()
        reply = exchange(connection, "POST", "/v1/predict", body)
        seconds = time.perf_counter() - start
        idle.put(connection)
        if reply.status != 200:
            raise SystemExit(f"the server answered {reply.status}: {reply.body.decode()}")
        return seconds, by_label(json.loads(reply.body)["scores"])

    before = _batches(server)
    with ThreadPoolExecutor(clients) as threads:
        latencies, answers = zip(*threads.map(ask, bodies), strict=True)
    for connection in connections:
        connection.close()
    recordings, batches = (after - start for start, after in zip(before, _batches(server), strict=True))
    return Pass(list(latencies), list(answers), recordings / batches)


def _batches(server: ServerProcess) -> tuple[float, float]:
    return server.metric("serein_batch_recordings_sum"), server.metric("serein_batch_recordings_count")


def largest_difference(found: Sequence[Scores], expected: Sequence[Scores]) -> float:
    """Between two probabilities of one label of one recording; infinite where the labels are not the same."""
    return max(
        max(abs(one[label] - other[label]) for label in other) if one.keys() == other.keys() else float("inf")
        for one, other in zip(found, expected, strict=True)
    )


def side(passes: Sequence[Pass], seconds: Sequence[float]) -> dict[str, Any]:
    """A row: how one way of sending did."""
    row = {"requests a second": [len(each.latencies) / taken for each, taken in zip(passes, seconds, strict=True)]}
    for percent in (50, 95):
        row[f"p{percent}, ms"] = [1e3 * float(np.percentile(each.latencies, percent)) for each in passes]
    row["recordings a batch"] = [each.gathered for each in passes]
    return {name: measure.summary(values) for name, values in row.items()}


class Network:
    """The encoder and the head on recordings, so many at once, as the recognizer calls them."""

    def __init__(self, recognizer: EmotionRecognizer, recordings: Sequence[Path]) -> None:
        self._recognizer = recognizer
        self._waveforms = [load_audio(path) for path in recordings]
        self._frames = [self._encode([waveform])[0] for waveform in self._waveforms]

    def encoder(self, size: int) -> None:
        """Give the frames of all recordings."""
        for first in range(0, len(self._waveforms), size):
            self._encode(self._waveforms[first : first + size])

    @torch.inference_mode()
    def head(self, size: int) -> None:
        """Give the probabilities of all recordings, from their frames."""
        for first in range(0, len(self._frames), size):
            frames = self._frames[first : first + size]
            lengths = torch.tensor([len(each) for each in frames])
            padded = pad_sequence(frames, batch_first=True)
            self._recognizer.classifier(padded, torch.arange(padded.shape[1]) >= lengths[:, None]).softmax(1)

    def _encode(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        encoded = self._recognizer.encoder.encode(waveforms)
        return [as_stored(frames, self._recognizer.config.encoder.pool).float() for frames in encoded]


def shares(seconds: Mapping[str, Sequence[float]], way: str, requests: int) -> dict[str, dict[str, Any]]:
    """What a request takes, the requests' whole time over their number, and how much of it is the network's."""
    parts = {name: np.array(seconds[f"{name} {way}"]) for name in ("encoder", "head")}
    whole = np.array(seconds[way])
    parts["the rest"] = whole - sum(parts.values())
    return {
        name: {
            "milliseconds": measure.summary((1e3 * part / requests).tolist()),
            "share": measure.summary((part / whole).tolist()),
        }
        for name, part in parts.items()
    }


def compare(args: argparse.Namespace) -> dict[str, Any]:
    requests, repeats = (16, 1) if args.quick else (200, 3)
    every = recordings_of(args.recordings)
    chosen = random.Random(0).sample(every, min(requests, len(every)))
    bodies = [path.read_bytes() for path in chosen]
    expected = predicted(args.model, chosen, args.encoder, args.threads)
    torch.set_num_threads(args.threads)
    recognizer = EmotionRecognizer.from_pretrained(args.model, encoder=args.encoder and str(args.encoder))
    network = Network(recognizer, chosen)
    command = [sys.executable, "-m", "serein", "serve", str(args.model)]
    command += ["--encoder", str(args.encoder)] if args.encoder else []
    alone: list[Pass] = []
    together: list[Pass] = []
    with started(command, args.threads) as server:

        def gathered() -> int:
            return max(1, round(together[0].gathered))

        seconds = measure.alternate(
            {
                "alone": lambda: alone.append(send(server, bodies, 1)),
                "together": lambda: together.append(send(server, bodies, CLIENTS)),
                "encoder alone": lambda: network.encoder(1),
                "encoder together": lambda: network.encoder(gathered()),
                "head alone": lambda: [network.head(1) for _ in range(HEAD_PASSES)],
                "head together": lambda: [network.head(gathered()) for _ in range(HEAD_PASSES)],
            },
            repeats,
        )
    for way in ("head alone", "head together"):
        seconds[way] = [passes / HEAD_PASSES for passes in seconds[way]]
    difference = max(largest_difference(each.answers, expected) for each in alone + together)
    gain = measure.ratio(seconds["head alone"], seconds["head together"])
    return {
        "model": args.model.name,
        "encoder": recognizer.config.encoder.without_folder().name,
        "recordings": len(chosen),
        "answers compared": len(chosen) * (len(alone) + len(together)),
        "recordings at once below": gathered(),
        "times as many requests a second": measure.ratio(seconds["alone"], seconds["together"]),
        "times at most, were there the encoder alone": measure.ratio(seconds["alone"], seconds["encoder together"]),
        "serving": {
            "one by one": side(alone[1:], seconds["alone"]),
            f"{CLIENTS} clients at once": side(together[1:], seconds["together"]),
        },
        "the network's work on all recordings": {
            name: {
                "one at a time, s": measure.summary(seconds[f"{name} alone"]),
                "several at once, s": measure.summary(seconds[f"{name} together"]),
                "times as fast": measure.ratio(seconds[f"{name} alone"], seconds[f"{name} together"]),
            }
            for name in ("encoder", "head")
        },
        "where a request's time goes, one by one": shares(seconds, "alone", len(chosen)),
        f"where a request's time goes, {CLIENTS} clients at once": shares(seconds, "together", len(chosen)),
        "goals": {
            "the head's work, times as fast": measure.goal(gain["median"], at_least=HEAD_GOAL),
            "largest difference from `serein predict`": measure.goal(difference, at_most=MOST_DIFFERENCE),
        },
    }


def main(arguments: Sequence[str]) -> None:
    options = measure.parser(__doc__)
    options.add_argument("model", type=Path, metavar="MODEL", help="a model's folder")
    options.add_argument("recordings", type=Path, metavar="RECORDINGS", help="a corpus table, or a folder")
    options.add_argument("--encoder", type=Path, help="where the encoder is, if not where it was in training")
    args = options.parse_args(arguments)
    facts = compare(args)
    print(measure.write("serving", facts, args.results, quick=args.quick))
    answers = facts["goals"]["largest difference from `serein predict`"]
    print(f"largest difference from `serein predict`: {answers['is']:.2g}")
    if not answers["met"]:
        raise SystemExit("the server does not say what `serein predict` says")


if __name__ == "__main__":
    measure.run(main)
