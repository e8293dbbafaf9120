"""Several runs side by side: which they are, their scores, and their differences to the first."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int

from serein.errors import CorpusError
from serein.evaluate.runs import Run, load_run
from serein.evaluate.significance import holm, talker_p
from serein.evaluate.statistics import Interval, difference_intervals, paired_difference, talker_confusions
from serein.evaluate.summary import Summary, summarise

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
        holm_p: adjusted for all the differences of the study; both are nan where there is only one talker.
    """

    ua: float
    interval: Interval
    p: float
    holm_p: float = nan


@dataclass(frozen=True)
class Row:
    """A variant's numbers.

    Attributes:
        name: the variant's.
        run: where they come from.
        summary: its scores.
        minus_first: None for the first, and where nothing can be said.
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


def save_study(folder: Path, kind: Kind, title: str, runs: Sequence[tuple[str, Path]]) -> None:
    """Write ``study.json``: each variant's name and its run's folder, relative to the study's."""
    content = {
        "format": FORMAT,
        "kind": kind,
        "title": title,
        "runs": [{"name": name, "folder": Path(os.path.relpath(run, folder)).as_posix()} for name, run in runs],
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{FILE}.partial"
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / FILE)


def load_study(folder: str | Path) -> Study:
    """Read the runs of a study and compute their scores and differences.

    Raises:
        CorpusError: ``study.json`` is missing or damaged, or a run is unfinished or damaged.
    """
    folder = Path(folder)
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = content["format"] == FORMAT and content["kind"] in get_args(Kind)
        kind, title = content["kind"], str(content["title"])
        named = [(str(run["name"]), folder / run["folder"]) for run in content["runs"]]
    except OSError as error:
        raise CorpusError(
            f"{path}: cannot be read ({error.strerror}); serein benchmark, ablate and inflation make studies, and "
            "serein study makes one of finished runs"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path}: is not a study that serein saved ({error!r}); make it anew") from error
    if not known or not named:
        raise CorpusError(f"{path}: is not a study that this serein reads (format {FORMAT}); make it anew")
    return Study(folder, kind, title, _rows([(name, load_run(run)) for name, run in named], kind == "inflation"))


def name_runs(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """Finished runs by their systems' names, with the folder where that is needed to tell them apart.

    Raises:
        CorpusError: see `serein.evaluate.runs.load_run`.
    """
    names = [load_run(folder).name for folder in folders]
    uses = Counter(names)
    return [
        (name if uses[name] == 1 else f"{name} ({folder})", folder) for name, folder in zip(names, folders, strict=True)
    ]


def subtract(run: Run, first: Run) -> Paired:
    """UA of ``run`` minus UA of ``first``, whatever their protocols, paired over talkers; without Holm's p.

    Raises:
        CorpusError: the two did not test the same utterances, or with other talkers, truths or labels.
    """
    if _tested(run) != _tested(first) or run.protocol.labels != first.protocol.labels:
        raise CorpusError(f"{run.folder} and {first.folder} did not test the same utterances; nothing can be paired")
    one, other = _confusions(run), _confusions(first)
    difference, _ = paired_difference(one, other)
    return Paired(float(difference[1]), difference_intervals(one, other).ua, talker_p(one, other))


def _rows(runs: Sequence[tuple[str, Run]], across_protocols: bool) -> tuple[Row, ...]:
    """Scores of different protocols are no pair, except where the study is about what the protocol does."""
    (_, first), *others = runs
    differences = [
        subtract(run, first) if across_protocols or run.protocol.hash == first.protocol.hash else None
        for _, run in others
    ]
    adjusted = iter(holm([found.p for found in differences if found and not isnan(found.p)]))
    differences = [
        found and Paired(found.ua, found.interval, found.p, nan if isnan(found.p) else next(adjusted))
        for found in differences
    ]
    return tuple(
        Row(name, run, summarise(run), found) for (name, run), found in zip(runs, [None, *differences], strict=True)
    )


def _tested(run: Run) -> set[tuple[str, str, str]]:
    return {(row.id, row.talker, row.truth) for row in run.predictions}


def _confusions(run: Run) -> Int[np.ndarray, "seeds talkers labels labels"]:
    rows = run.predictions
    return talker_confusions(
        [row.truth for row in rows],
        [row.prediction for row in rows],
        [row.talker for row in rows],
        run.protocol.labels,
        [row.seed for row in rows],
    )
