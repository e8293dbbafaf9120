"""Several runs side by side: which they are, their scores, and their differences to the first."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, Literal, get_args

from serein.errors import CorpusError, UsageError
from serein.evaluate.runs import Run, distinct_names, label_share, load_run
from serein.evaluate.significance import holm
from serein.evaluate.statistics import Interval
from serein.evaluate.summary import Difference, Summary, compare, subtract, summarise
from serein.files import parse_json, write_atomically

FORMAT = 1
FILE = "study.json"
Kind = Literal["benchmark", "ablation", "inflation", "runs"]


@dataclass(frozen=True, slots=True)
class Paired:
    """A variant's UA minus the first variant's, on the same utterances.

    Attributes:
        ua: the difference.
        interval: its paired 95 % interval, clustered by talker.
        p: see `serein.evaluate.significance.talker_p`.
        holm_p: adjusted for all the differences of the study, and what decides; both are nan where there is only one
            talker.
    """

    ua: float
    interval: Interval
    p: float
    holm_p: float


@dataclass(frozen=True)
class Row:
    """A variant's numbers.

    Attributes:
        name: the variant's.
        run: where they come from.
        summary: its scores.
        minus_first: None for the first, where nothing can be said, and in a study of fewer labels, whose runs are held
            against the one with as many (`serein.evaluate.study_curves`).
    """

    name: str
    run: Run
    summary: Summary
    minus_first: Paired | None


@dataclass(frozen=True)
class Study:
    """Runs that are looked at together, the first of which is the reference.

    Attributes:
        folder: where ``study.json`` lies.
        kind: what was varied: the system, the recipe, the protocol, or anything.
        title: the page's.
        rows: in the order of every table.
    """

    folder: Path
    kind: Kind
    title: str
    rows: tuple[Row, ...]

    @property
    def fewer_labels(self) -> bool:
        """Whether the runs differ in the share of labels that they may use."""
        return _shares_differ([row.run for row in self.rows])


def save_study(folder: Path, kind: Kind, title: str, runs: Sequence[tuple[str, Path]]) -> None:
    """Write ``study.json``: each variant's name and its run's folder, relative to the study's.

    Raises:
        UsageError: the folder holds another study; of the same kind and title it is the same with other runs, but a
            study of finished runs may get another title.
        CorpusError: ``study.json`` is there and damaged.
    """
    if (folder / FILE).exists():
        present = _read(folder)
        if present["kind"] != kind or (kind != "runs" and present["title"] != title):
            raise UsageError(f"{folder}: holds another study ({present['title']}); give another folder")
    content = {
        "format": FORMAT,
        "kind": kind,
        "title": title,
        "runs": [{"name": name, "folder": Path(os.path.relpath(run, folder)).as_posix()} for name, run in runs],
    }
    write_atomically(folder / FILE, (json.dumps(content, indent=2) + "\n").encode())


def load_study(folder: str | Path) -> Study:
    """Read the runs of a study and compute their scores and differences.

    Raises:
        CorpusError: ``study.json`` is missing or damaged, or a run is unfinished or damaged.
    """
    folder = Path(folder)
    content = _read(folder)
    runs = [(name, load_run(folder / run)) for name, run in content["runs"]]
    return Study(folder, content["kind"], content["title"], _rows(runs, content["kind"] == "inflation"))


def name_runs(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """Finished runs by their systems' names, with the folder where that is needed to tell them apart.

    Raises:
        CorpusError: see `serein.evaluate.runs.load_run`.
    """
    return list(zip(distinct_names([load_run(folder) for folder in folders]), folders, strict=True))


def paired(differences: Sequence[Difference | None]) -> list[Paired | None]:
    """What a table says of each difference, p adjusted for all of them."""
    adjusted = holm([found.p if found else nan for found in differences])
    return [
        Paired(found.scores.ua, found.intervals.ua, found.p, holm_p) if found else None
        for found, holm_p in zip(differences, adjusted, strict=True)
    ]


def _read(folder: Path) -> dict[str, Any]:
    """Kind, title, and each run's name and folder."""
    path = folder / FILE
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        known = content["format"] == FORMAT and content["kind"] in get_args(Kind)
        runs = [(str(run["name"]), str(run["folder"])) for run in content["runs"]]
        found = {"kind": content["kind"], "title": str(content["title"]), "runs": runs}
    except OSError as error:
        raise CorpusError(
            f"{path}: cannot be read ({error.strerror}); serein benchmark, ablate and inflation make studies, and "
            "serein study makes one of finished runs"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path}: is not a study that serein saved ({error!r}); make it anew") from error
    if not known or not runs:
        raise CorpusError(f"{path}: is not a study that this serein reads (format {FORMAT}); make it anew")
    return found


def _shares_differ(runs: Sequence[Run]) -> bool:
    return len({label_share(run) for run in runs}) > 1


def _rows(runs: Sequence[tuple[str, Run]], across_protocols: bool) -> tuple[Row, ...]:
    """Scores of different protocols are no pair, except where the study is about what the protocol does.

    Nor are those of different shares of labels: whoever has more has more.
    """
    (_, first), *others = runs
    pair = subtract if across_protocols else compare
    alone = _shares_differ([run for _, run in runs])
    minus_first = paired([None if alone else pair(run, first) for _, run in others])
    return tuple(
        Row(name, run, summarise(run), found) for (name, run), found in zip(runs, [None, *minus_first], strict=True)
    )
