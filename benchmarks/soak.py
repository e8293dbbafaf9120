"""Bad input: two thousand requests of a hundred kinds, and what they leave behind in the server.

Usage:  python benchmarks/soak.py MODEL [--encoder FOLDER] [--quick]

The bodies, forms, types and queries are those of `tests/serve/test_bad_input.py`, with the answers that they get there;
added are what takes a real connection (slow, endless and half-sent bodies, half-closed sockets, no HTTP at all) and
streams over WebSockets. The server is a process of its own, with limits so small that the kinds reach them. Eight
clients send the kinds in a random order: first all of them four times, until allocators and caches are full, then the
two thousand. Memory, descriptors, processes and files of the server at rest are compared before and after those.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import measure
import torch
from bad_requests import PREDICT, Kind, kinds, sound
from server_process import ServerProcess, eventually, exchange, started

CLIENTS = 8
KINDS_GOAL, GROWTH_GOAL = 40, 50.0
MB = 1e6
SETTLE_SECONDS = 2.0  # for connections that are being closed


def bombard(server: ServerProcess, every: Sequence[Kind], requests: int) -> Counter[tuple[str, str]]:
    """Send so many requests; counts of kind and answer."""
    order = list(islice(cycle(every), requests))
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(CLIENTS) as threads:
        answers = threads.map(lambda kind: (kind.name, kind.send(server)), order)
        return Counter(answers)


def at_rest(server: ServerProcess) -> dict[str, float]:
    """What the server holds when nobody is served."""
    eventually(lambda: server.metric("serein_busy") == 0 and server.metric("serein_streams") == 0)
    time.sleep(SETTLE_SECONDS)
    return {
        "memory, MB": server.resident() / MB,
        "descriptors": server.open_files(),
        "processes below it": len(server.children()),
        "files in the temporary folder": len(list(server.scratch.rglob("*"))),
    }


def good_answer(server: ServerProcess) -> list[dict[str, Any]]:
    connection = server.connection()
    reply = exchange(connection, "POST", PREDICT, sound())
    connection.close()
    if reply.status != 200:
        raise SystemExit(f"a good recording got {reply.status}: {reply.body.decode()}")
    scores: list[dict[str, Any]] = json.loads(reply.body)["scores"]
    return scores


def compare(args: argparse.Namespace) -> dict[str, Any]:
    every = kinds()
    requests, rounds = (2 * len(every), 1) if args.quick else (2000, 4)
    command = [sys.executable, __file__, str(args.model), "--serve", "--threads", str(args.threads)]
    command += ["--encoder", str(args.encoder)] if args.encoder else []
    with started(command, args.threads) as server:
        good = good_answer(server)
        counts = bombard(server, every, rounds * len(every))
        before = at_rest(server)
        found = bombard(server, every, requests)
        after = at_rest(server)
        same = good_answer(server) == good
        children = server.children()
        status = server.stop()
        orphans = sum(Path(f"/proc/{pid}").exists() for pid in children)
        printed = server.log.read_text(encoding="utf-8")
    if "Traceback" in printed:
        print(printed, file=sys.stderr)
    expected = {kind.name: kind.expected for kind in every}
    faults = [answer for _, answer in (counts + found).elements() if answer.startswith("5")]
    wrong = sum(answer not in expected[name] for name, answer in (counts + found).elements())
    growth = after["memory, MB"] - before["memory, MB"]
    goals: dict[str, tuple[float, float, bool]] = {
        "kinds, at least": (len(every), KINDS_GOAL, len(every) >= KINDS_GOAL),
        "answers of 500 and above": (len(faults), 0, not faults),
        "other answers than the right ones": (wrong, 0, not wrong),
        "memory grown by, MB, at most": (growth, GROWTH_GOAL, growth < GROWTH_GOAL),
        "tracebacks in the log": (printed.count("Traceback"), 0, "Traceback" not in printed),
        "processes left when it had stopped": (orphans, 0, not orphans),
        "exit status": (status, 0, not status),
    }
    goals |= {
        f"more {name}": (after[name] - before[name], 0, after[name] <= before[name])
        for name in ("descriptors", "processes below it", "files in the temporary folder")
    }
    return {
        "model": args.model.name,
        "kinds": len(every),
        "requests": found.total(),
        "requests before, to warm up": counts.total(),
        "a good recording gets the same answer before and after": same,
        "the server at rest": {
            name: {"before": before[name], "after": after[name], "more": after[name] - before[name]} for name in before
        },
        "goals": {name: {"is": value, "goal": goal, "met": met} for name, (value, goal, met) in goals.items()},
        "answers": [
            {"kind": name, "answer": answer, "requests": count, "right": answer in expected[name]}
            for (name, answer), count in sorted(found.items())
        ],
    }


def serve_here(args: argparse.Namespace) -> None:
    """Be the server, with limits that are quickly reached."""
    from serein.recognizer import EmotionRecognizer
    from serein.serve import server
    from serein.serve.app import make_app
    from serein.serve.limits import Limits

    torch.set_num_threads(args.threads)
    limits = Limits(
        body_bytes=2_000_000, audio_seconds=60.0, body_seconds=1.0, idle_seconds=1.0, message_bytes=100_000
    )  # those of the tests
    server.HEADER_SECONDS = 1.0
    recognizer = EmotionRecognizer.from_pretrained(args.model, encoder=args.encoder and str(args.encoder))
    server.make_server(make_app(recognizer, limits), "127.0.0.1", args.port).run()


def main(arguments: Sequence[str]) -> None:
    options = measure.parser(__doc__)
    options.add_argument("model", type=Path, metavar="MODEL", help="a model's folder")
    options.add_argument("--encoder", type=Path, help="where the encoder is, if not where it was in training")
    options.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = options.parse_args(arguments)
    if args.serve:
        serve_here(args)
        return
    facts = compare(args)
    torch.set_num_threads(args.threads)  # the server's: the result names them
    print(measure.write("soak", facts, args.results, quick=args.quick))
    missed = [name for name, goal in facts["goals"].items() if not goal["met"]]
    if missed or not facts["a good recording gets the same answer before and after"]:
        raise SystemExit(f"missed: {', '.join(missed) or 'a good recording got another answer'}")


if __name__ == "__main__":
    measure.run(main)
