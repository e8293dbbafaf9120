"""What systems reach with fewer labels: the runs of a study as curves over ``finetune.label_share``."""

import json
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from serein.evaluate.comparison import ends, in_points, in_thousandths
from serein.evaluate.document import Block, Paragraph, Picture, Table
from serein.evaluate.remarks import share_in_percent
from serein.evaluate.runs import Run, label_share
from serein.evaluate.sections import percent
from serein.evaluate.study import Paired, Row, Study, paired
from serein.evaluate.summary import compare

HEADER = ("Labels", "Series", "UA %", "UA minus first series", "p", "p (Holm)")
TEXT_COLUMNS = 2


@dataclass(frozen=True)
class Point:
    """A run of a study as a point of a curve.

    Attributes:
        series: which curve.
        share: of each class's training labels, those that may be used: above 0, up to 1.
        row: the run and its scores.
        reference: the first series' run with the same share; None where there is none, and in the first series.
        minus_reference: the difference to it, with a p adjusted for all points; None also where protocols differ.
    """

    series: str
    share: float
    row: Row
    reference: Row | None
    minus_reference: Paired | None


@dataclass(frozen=True)
class Curves:
    """A study's points, from the smallest share to the largest.

    Attributes:
        series: systems' names in the study's order, the first of which the others are held against; runs of a system
            under other settings, or again with the same share, are series of their own with a number.
        points: of all series.
    """

    series: tuple[str, ...]
    points: tuple[Point, ...]


def label_curves(study: Study) -> Curves | None:
    """The runs of a study by share of labels; None where all have the same.

    Raises:
        CorpusError: see `serein.evaluate.summary.compare`.
    """
    if not study.fewer_labels:
        return None
    shared = [(label_share(row.run), row) for row in study.rows]
    rows = {(share, name): row for (share, row), name in zip(shared, _series_of(shared), strict=True)}
    series = tuple(dict.fromkeys(name for _, name in rows))
    references = [rows.get((share, series[0])) if name != series[0] else None for share, name in rows]
    found = [
        compare(row.run, reference.run) if reference else None
        for row, reference in zip(rows.values(), references, strict=True)
    ]
    points = [
        Point(name, share, row, reference, minus_reference)
        for ((share, name), row), reference, minus_reference in zip(
            rows.items(), references, paired(found), strict=True
        )
    ]
    return Curves(series, tuple(sorted(points, key=lambda point: (point.share, series.index(point.series)))))


def curve_blocks(curves: Curves, drawn: Picture) -> list[Block]:
    """The curves' picture, their table, and how to read them."""
    compared = (
        f" UA minus first series: minus the UA of {curves.series[0]} with the same share of labels, in points, with a "
        "paired 95 % interval over the same talkers. p: how likely these trained models, were the series equally good, "
        "would differ by at least this much with such talkers; Holm's is adjusted for the number of differences in "
        "this table, and it decides: below 0.05 one series is called better, else the two cannot be told apart. What "
        "other draws of labels and other seeds would score is in no interval and no p."
    )
    reading = (
        "Labels: the share of each class's training labels that may be used. Which those are is drawn by the training "
        "seed, so one seed is one draw. Adapter training hears all training audio whatever the share, and the "
        "validation talkers who choose epochs or C keep all their labels."
    )
    return [
        drawn,
        Table(HEADER, [_cells(point, curves) for point in curves.points], TEXT_COLUMNS),
        Paragraph(reading + (compared if len(curves.series) > 1 else "")),
    ]


def curve_picture(curves: Curves) -> Picture:
    """UA by the share of labels and the difference to the first series, a line a series."""
    from serein.evaluate import study_plots  # needs matplotlib, which the table does not

    scores: dict[str, list[study_plots.Place]] = {name: [] for name in curves.series}
    differences: dict[str, list[study_plots.Place]] = {name: [] for name in curves.series}
    for point in curves.points:
        summary, minus = point.row.summary, point.minus_reference
        scores[point.series].append((point.share, (summary.pooled.ua, summary.intervals.ua)))
        if minus:
            differences[point.series].append((point.share, (minus.ua, minus.interval)))
    text = "UA of each series by the share of training labels that may be used, with 95 % intervals."
    if any(differences.values()):
        text += f" On the right its difference to {curves.series[0]} with the same share, with paired intervals."
    return Picture("labels", study_plots.curves(scores, differences), text)


def curve_numbers(curves: Curves) -> list[dict[str, Any]]:
    """The points as JSON has them, but for what is undefined, which is nan; scores stand with the variant."""
    return [
        {
            "series": point.series,
            "label_share": point.share,
            "variant": point.row.name,
            "minus_first_series": point.minus_reference and asdict(point.minus_reference),
        }
        for point in curves.points
    ]


def _series_of(rows: Sequence[tuple[float, Row]]) -> list[str]:
    """Each row's series: its system, trained alike but for the share of labels and the epochs that go with it."""
    kinds: dict[str, list[tuple[str, int]]] = {}
    uses: Counter[tuple[float, str, str]] = Counter()
    series = []
    for share, row in rows:
        name, settings = row.run.name, _settings(row.run)
        uses[share, name, settings] += 1
        kind = (settings, uses[share, name, settings])
        known = kinds.setdefault(name, [])
        if kind not in known:
            known.append(kind)
        number = 1 + known.index(kind)
        series.append(name if number == 1 else f"{name} ({number})")
    return series


def _settings(run: Run) -> str:
    """The recipe without what a share of labels changes, and without ``[speed]``, which changes no run."""
    recipe = tomllib.loads(run.recipe) | {"speed": {}}
    varied = ("label_share", "epochs")
    finetune = {key: value for key, value in recipe.get("finetune", {}).items() if key not in varied}
    return json.dumps(recipe | {"finetune": finetune}, sort_keys=True)


def _cells(point: Point, curves: Curves) -> list[str]:
    summary, found = point.row.summary, point.minus_reference
    minus = ["not comparable" if point.reference else "", "", ""]
    if found:
        minus = [in_points(found.ua, found.interval), in_thousandths(found.p), in_thousandths(found.holm_p)]
    return [
        share_in_percent(point.share),
        point.series,
        f"{percent(summary.pooled.ua)} [{ends(summary.intervals.ua, between=', ')}]",
        *minus,
    ]
