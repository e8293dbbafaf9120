"""Layers of an encoder beside each other: how well each is read, and which cannot be told from the best."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from serein.evaluate import document
from serein.evaluate.comparison import THRESHOLD, ends, in_points, in_thousandths
from serein.evaluate.document import Block, Details, Paragraph, Picture, Table, Title
from serein.evaluate.metrics import Scores
from serein.evaluate.predictions import Prediction
from serein.evaluate.significance import holm, talker_p
from serein.evaluate.statistics import (
    Interval,
    difference_intervals,
    mean_scores,
    paired_difference,
    talker_confusions,
    talker_intervals,
)
from serein.files import as_json, write_atomically

FORMAT = 1
HEADER = ("Layer", "UA % [95 %]", "WA %", "Macro F1 %", "UA minus best", "p (Holm)", "Folds that would choose it")
READING = (
    "A linear probe of each layer: fitted on a fold's training talkers, read on those who validate, with the best of "
    "its few regularisations there. So all scores are a little too high, and the best layer's most, for these very "
    "scores made it the best: take the layers that cannot be told from it for the place where the best one is, and no "
    "difference for a finding.",
    "A fold's test talkers take no part in its choice, but under most protocols they validate another fold: a layer "
    "that only the folds together choose was chosen with everybody's help. Where a fold would choose it by itself, "
    "nothing of its test was given away.",
)


@dataclass(frozen=True, slots=True)
class ProbedLayer:
    """How well one layer was read.

    Attributes:
        layer: its number, 0 being what enters the first block.
        scores: over the validation utterances of all folds.
        interval: of UA, 95 %, clustered by talker.
        minus_best: its UA minus that of the best layer; 0 for that one.
        difference: paired 95 % interval of ``minus_best``, clustered by talker.
        p: of that difference, adjusted by Holm for the number of layers; nan for the best, and for all where a single
            talker validates.
        folds: those whose own validation talkers would choose it.
    """

    layer: int
    scores: Scores
    interval: Interval
    minus_best: float
    difference: Interval
    p: float
    folds: tuple[str, ...]


def score_layers(predictions: Mapping[int, Sequence[Prediction]], labels: Sequence[str]) -> list[ProbedLayer]:
    """Score each layer, and hold it against the best; of equal ones the lowest is the best.

    Args:
        predictions: by layer, one or more, what it said of the validation utterances of each fold.
        labels: every emotion.

    Raises:
        CorpusError: the layers were not read on the same utterances.
    """
    confusions = {layer: _confusions(rows, labels) for layer, rows in predictions.items()}
    best = _best({layer: mean_scores(counts).ua for layer, counts in confusions.items()})
    others = [layer for layer in predictions if layer != best]
    p = dict(zip(others, holm([talker_p(confusions[layer], confusions[best]) for layer in others]), strict=True))
    folds = list(dict.fromkeys(row.fold for row in predictions[best]))
    choice = {fold: _best({layer: _ua_of(rows, fold, labels) for layer, rows in predictions.items()}) for fold in folds}
    return [
        ProbedLayer(
            layer=layer,
            scores=mean_scores(counts),
            interval=talker_intervals(counts).ua,
            minus_best=float(paired_difference(counts, confusions[best])[0][1]),
            difference=difference_intervals(counts, confusions[best]).ua,
            p=p.get(layer, nan),
            folds=tuple(fold for fold in folds if choice[fold] == layer),
        )
        for layer, counts in confusions.items()
    ]


def best_of(layers: Sequence[ProbedLayer]) -> ProbedLayer:
    """The layer with the highest UA."""
    best = _best({probed.layer: probed.scores.ua for probed in layers})
    return next(probed for probed in layers if probed.layer == best)


def rows_of(layers: Sequence[ProbedLayer]) -> list[list[str]]:
    """A row a layer, under `HEADER`."""
    best = best_of(layers)
    folds = sum(len(probed.folds) for probed in layers)
    return [
        [
            str(probed.layer),
            f"{100 * probed.scores.ua:.1f} [{ends(probed.interval, between=', ')}]",
            f"{100 * probed.scores.wa:.1f}",
            f"{100 * probed.scores.macro_f1:.1f}",
            "" if probed is best else in_points(probed.minus_best, probed.difference),
            "" if probed is best else in_thousandths(probed.p),
            f"{len(probed.folds)} of {folds}" if probed.folds else "",
        ]
        for probed in layers
    ]


def verdict(layers: Sequence[ProbedLayer]) -> str:
    """Which layer is best, and which others cannot be told from it."""
    best = best_of(layers)
    others = [probed for probed in layers if probed is not best]
    alike = ", ".join(str(probed.layer) for probed in others if not probed.p < THRESHOLD)
    if not others:
        rest = ", being the only one"
    elif any(isnan(probed.p) for probed in others):
        rest = "; a single talker validates, who tells nothing of others"
    else:
        rest = f"; {alike} cannot be told from it" if alike else ", and stands above all others"
    return f"Layer {best.layer} is read best{rest}."


def write_layers(folder: Path, facts: Mapping[str, Any], layers: Sequence[ProbedLayer]) -> Path:
    """Write ``layers.html``, ``layers.md``, ``layers.json`` and ``figures/layers.svg``; returns the page.

    Matplotlib must be there.

    Args:
        folder: where to; made where it is missing.
        facts: what was probed, on whom and how, among them its ``corpus``.
        layers: from `score_layers`.
    """
    from serein.evaluate.study_plots import dots  # needs matplotlib, which scoring does not

    best = best_of(layers)
    picture = dots(
        [f"layer {probed.layer}" for probed in layers],
        [(probed.scores.ua, probed.interval) for probed in layers],
        [None if probed is best else (probed.minus_best, probed.difference) for probed in layers],
        against=layers.index(best),
        called="the best",
    )
    title = f"Which layer carries emotion ({facts['corpus']})"
    known = [[name, value if isinstance(value, str) else json.dumps(value)] for name, value in facts.items()]
    blocks: list[Block] = [
        Title(title),
        Paragraph(verdict(layers)),
        Picture("layers", picture, "UA of a linear probe of each layer, and its difference to the best, paired."),
        Table(list(HEADER), rows_of(layers)),
        *map(Paragraph, READING),
        Details("What was probed", [Table(["", ""], known, text_columns=2)]),
    ]
    page = folder / "layers.html"
    numbers = {"format": FORMAT, **facts, "layers": [asdict(probed) for probed in layers]}
    contents = {
        folder / "figures" / "layers.svg": picture,
        folder / "layers.md": f"{document.markdown(blocks)}\n",
        folder / "layers.json": as_json(numbers),
        page: document.page(title, blocks, "All numbers are in layers.json."),
    }
    for path, content in contents.items():
        write_atomically(path, content.encode())
    return page


def _confusions(rows: Sequence[Prediction], labels: Sequence[str]) -> Int[np.ndarray, "seeds talkers labels labels"]:
    truth, prediction, talkers = zip(*((row.truth, row.prediction, row.talker) for row in rows), strict=True)
    return talker_confusions(truth, prediction, talkers, labels)


def _ua_of(rows: Sequence[Prediction], fold: str, labels: Sequence[str]) -> float:
    return mean_scores(_confusions([row for row in rows if row.fold == fold], labels)).ua


def _best(ua: Mapping[int, float]) -> int:
    return max(ua, key=lambda layer: (ua[layer], -layer))
