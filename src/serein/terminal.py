"""What the command line shows: progress, tables, one JSON document."""

import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from serein.progress import Report

if TYPE_CHECKING:
    from serein.corpus.audit import Audit
    from serein.frames.scan import Scan

EVENT_SECONDS = 1.0
FILE_COLUMNS = 140


@contextmanager
def progress(stream: TextIO | None = None) -> Iterator[Report]:
    """A report that draws bars on a terminal, and elsewhere writes one JSON line an event to ``stream`` (stderr).

    Elsewhere a stage speaks once a second at most, and at its end.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
        )
        with Progress(*columns, console=Console(file=stream), transient=True) as bars:
            yield _bars(bars)
    else:
        yield _events(stream)


def _bars(bars: Progress) -> Report:
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int, facts: dict[str, Any]) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total, facts="")
        bars.update(tasks[stage], completed=done, total=total, facts=_short(facts))

    return report


def _events(stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Report:
    last: dict[str, float] = {}

    def report(stage: str, done: int, total: int, facts: dict[str, Any]) -> None:
        now = clock()
        if done == total or now - last.get(stage, -EVENT_SECONDS) >= EVENT_SECONDS:
            last[stage] = now
            event = {
                "stage": stage,
                "done": done,
                "total": total,
                **{key: _plain(value) for key, value in facts.items()},
            }
            print(json.dumps(event, allow_nan=False), file=stream, flush=True)

    return report


def _plain(value: Any) -> Any:
    """JSON has no word for a number that is none: say it as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _short(facts: Mapping[str, Any]) -> str:
    return " ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in facts.items()
    )


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; the first column is left-aligned, the others hold numbers."""
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # labels are no markup
    # Into a file or a pipe nobody's window is narrow.
    Console(width=None if sys.stdout.isatty() else FILE_COLUMNS).print(table)


def print_scores(title: str, runs: Sequence[Path]) -> None:
    """The score table of finished runs."""
    from serein.evaluate.runs import load_run
    from serein.evaluate.sections import score_table

    header, *rows = score_table([load_run(run) for run in runs])
    print_table(title, header, rows)


def print_json(document: Any) -> None:
    """One document on stdout, in ASCII: a file's name may hold what the terminal's encoding has not."""
    print(json.dumps(document, indent=2))


def note(text: str) -> None:
    """A line for the reader, on stderr, so that stdout stays what was asked for."""
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)


def note_next(*arguments: object) -> None:
    """The command that comes next, as a shell takes it."""
    note(f"Next: serein {shlex.join(map(str, arguments))}")


def note_failures(failed: Mapping[str, str]) -> None:
    """Name the utterances that have no frames, and why."""
    for name, reason in failed.items():
        note(f"without frames: {name}: {reason}")


def note_scan(found: "Scan") -> None:
    """Name the recordings that were mended and those that cannot be used, and why."""
    for name, mended in found.warnings.items():
        note(f"warning: {name}: {'; '.join(mended)}")
    for file in found.broken:
        note(f"broken: {file.id}: {file.reason}")


def print_audit(found: "Audit") -> None:
    """Classes by talker, then what was found."""
    rows = [
        [talker, *(str(row[label]) for label in found.labels), str(sum(row.values()))]
        for talker, row in found.counts.items()
    ]
    totals = [sum(row[label] for row in found.counts.values()) for label in found.labels]
    rows.append(["all", *map(str, totals), str(sum(totals))])
    length = "unknown length" if found.seconds is None else f"{found.seconds / 60:.1f} minutes"
    print_table(
        f"{found.corpus}: {found.utterances} utterances, {len(found.talkers)} talkers, {length}",
        ["talker", *found.labels, "all"],
        rows,
    )
    for group in found.duplicates:
        note(f"same audio: {', '.join(group)}")
    for sentence in found.warnings:
        note(f"warning: {sentence}")
    for sentence in found.errors:
        note(f"error: {sentence}")
