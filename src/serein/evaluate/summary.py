"""Every number of a report, computed from the predictions of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from math import nan

import numpy as np
from jaxtyping import Bool, Float, Int

from serein.errors import CorpusError
from serein.evaluate.metrics import Scores, f1, mean_of_defined, precision, recall, scores_from_confusion
from serein.evaluate.predictions import Prediction
from serein.evaluate.runs import Run
from serein.evaluate.significance import mcnemar, talker_p
from serein.evaluate.statistics import (
    Intervals,
    difference_intervals,
    mean_scores,
    paired_difference,
    talker_confusions,
    talker_intervals,
)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """One label's scores, averaged over the training seeds; nan where undefined under every seed."""

    recall: float
    precision: float
    f1: float
    utterances: int


@dataclass(frozen=True)
class Summary:
    """The scores of a run.

    Attributes:
        pooled: all folds' test utterances together, averaged over the training seeds.
        intervals: 95 % intervals of ``pooled``, clustered by talker.
        seed_sd: standard deviation of the pooled scores over the training seeds; nan for a single seed.
        folds: each fold's scores, averaged over the training seeds.
        fold_mean: the mean of ``folds``.
        fold_sd: their standard deviation; nan for a single fold.
        classes: by label.
        confusion: counts summed over the training seeds, rows are the truth.
    """

    pooled: Scores
    intervals: Intervals
    seed_sd: Scores
    folds: Mapping[str, Scores]
    fold_mean: Scores
    fold_sd: Scores
    classes: Mapping[str, ClassScores]
    confusion: Int[np.ndarray, "labels labels"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One run against another on the same utterances.

    Attributes:
        scores: pooled scores of the one minus those of the other.
        intervals: paired 95 % intervals of ``scores``, clustered by talker.
        p: of the difference in UA, see `serein.evaluate.significance.talker_p`.
        mcnemar_p: see `serein.evaluate.significance.mcnemar`, over as many seeds as both have.
    """

    scores: Scores
    intervals: Intervals
    p: float
    mcnemar_p: float


def summarise(run: Run) -> Summary:
    """Compute all scores of a run."""
    labels = run.protocol.labels
    confusions = _confusions(run.predictions, labels)
    by_seed = confusions.sum(1)
    folds = {
        fold.name: mean_scores(_confusions([row for row in run.predictions if row.fold == fold.name], labels))
        for fold in run.protocol.folds
    }
    fold_scores = np.array([astuple(scores) for scores in folds.values()])
    return Summary(
        pooled=mean_scores(confusions),
        intervals=talker_intervals(confusions),
        seed_sd=_standard_deviation(scores_from_confusion(by_seed)),
        folds=folds,
        fold_mean=Scores(*fold_scores.mean(0).tolist()),
        fold_sd=_standard_deviation(fold_scores),
        classes=_class_scores(by_seed, labels),
        confusion=by_seed.sum(0),
    )


def compare(run: Run, other: Run) -> Difference | None:
    """How much better ``run`` is than ``other``; None where their protocols differ: nothing can be said then.

    Raises:
        CorpusError: one protocol, but other talkers or true labels: the corpus was changed between the runs.
    """
    return subtract(run, other) if run.protocol.hash == other.protocol.hash else None


def subtract(run: Run, other: Run) -> Difference:
    """How much better ``run`` is than ``other``, whatever their protocols, paired over talkers.

    Raises:
        CorpusError: the two did not test the same utterances, or with other talkers, truths or labels.
    """
    if run.truths() != other.truths() or run.protocol.labels != other.protocol.labels:
        raise CorpusError(f"{run.folder} and {other.folder} did not test the same utterances; nothing can be paired")
    first, second = (_confusions(one.predictions, one.protocol.labels) for one in (run, other))
    difference, _ = paired_difference(first, second)
    seeds = min(len(run.seeds), len(other.seeds))
    return Difference(
        scores=Scores(*difference.tolist()),
        intervals=difference_intervals(first, second),
        p=talker_p(first, second),
        mcnemar_p=mcnemar(_right(run)[:seeds], _right(other)[:seeds]),
    )


def _confusions(rows: Sequence[Prediction], labels: Sequence[str]) -> Int[np.ndarray, "seeds talkers labels labels"]:
    return talker_confusions(
        [row.truth for row in rows],
        [row.prediction for row in rows],
        [row.talker for row in rows],
        labels,
        [row.seed for row in rows],
    )


def _right(run: Run) -> Bool[np.ndarray, "seeds utterances"]:
    """Whether each prediction is right, utterances in the order of their ids: no utterance is tested in two folds."""
    rows = sorted(run.predictions, key=lambda row: (row.seed, row.id))
    return np.array([row.prediction == row.truth for row in rows]).reshape(len(run.seeds), -1)


def _standard_deviation(scores: Float[np.ndarray, "samples 3"]) -> Scores:
    return Scores(*scores.std(0, ddof=1).tolist()) if len(scores) > 1 else Scores(nan, nan, nan)


def _class_scores(by_seed: Int[np.ndarray, "seeds labels labels"], labels: Sequence[str]) -> dict[str, ClassScores]:
    columns = [mean_of_defined(score(by_seed).T).tolist() for score in (recall, precision, f1)]
    utterances = by_seed[0].sum(1).tolist()
    return {label: ClassScores(*values) for label, *values in zip(labels, *columns, utterances, strict=True)}
