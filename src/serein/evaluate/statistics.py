"""How sure a score is: one talker's utterances are alike, so talkers are resampled, never utterances."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

from serein.errors import CorpusError
from serein.evaluate.metrics import Names, Scores, label_indices, scores_from_confusion


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval; both ends are nan where there is only one talker."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Intervals:
    """One interval a score, all from the same draws."""

    wa: Interval
    ua: Interval
    macro_f1: Interval


def talker_confusions(
    truth: Names,
    prediction: Names,
    talkers: Names,
    labels: Sequence[str],
    training_seeds: Sequence[int] | np.ndarray | None = None,
) -> Int[np.ndarray, "seeds talkers labels labels"]:
    """One confusion matrix (rows are the truth) a training seed and talker, both in sorted order.

    Args:
        truth: the true label of each row.
        prediction: the predicted label of each row.
        talkers: who speaks in each row.
        labels: every label that may occur.
        training_seeds: the training seed that each row comes from; None where there is one only.

    Raises:
        CorpusError: the columns differ in length, or a value is outside of ``labels``.
    """
    seeds = [0] * len(truth) if training_seeds is None else list(training_seeds)
    lengths = {len(truth), len(prediction), len(talkers), len(seeds)}
    if len(lengths) != 1:
        raise CorpusError(f"truth, prediction, talkers and seeds must be equally long, not {sorted(lengths)} rows")
    seed_names, seed_index = np.unique(np.array(seeds), return_inverse=True)
    talker_names, talker_index = np.unique(np.array(talkers, dtype=str), return_inverse=True)
    shape = (len(seed_names), len(talker_names), len(labels), len(labels))
    counts = np.zeros(shape, dtype=np.int64)
    cells = (
        seed_index,
        talker_index,
        label_indices(truth, labels, "truth"),
        label_indices(prediction, labels, "prediction"),
    )
    np.add.at(counts, cells, 1)
    return counts


def mean_scores(confusions: Int[np.ndarray, "seeds talkers labels labels"]) -> Scores:
    """The scores over all talkers' utterances together, averaged over the training seeds."""
    return Scores(*scores_from_confusion(confusions.sum(1)).mean(0).tolist())


def talker_intervals(
    confusions: Int[np.ndarray, "seeds talkers labels labels"],
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Intervals:
    """Percentile bootstrap intervals of `mean_scores`, clustered by talker.

    Each draw takes as many talkers as there are, with replacement, and every utterance of theirs under every
    training seed; so the interval speaks of new talkers, which is what a corpus of few talkers is unsure about.
    Of simulated corpora of 6, 10, 24 and 60 talkers, 92, 93, 94 and 95 % had the true UA in their 95 % interval.

    Args:
        confusions: from `talker_confusions`.
        level: the share of intervals that should hold the true score, between 0 and 1.
        draws: how many resampled corpora.
        seed: of the draws.

    Example:
        >>> truth, prediction, talkers = ["a", "b"] * 4, ["a", "b", "b", "b"] * 2, list("ttuuvvww")
        >>> confusions = talker_confusions(truth, prediction, talkers, labels=["a", "b"])
        >>> mean_scores(confusions).wa, talker_intervals(confusions).wa
        (0.75, Interval(low=0.5, high=1.0))
    """
    return _percentiles(_resampled_scores(confusions, draws, seed), confusions.shape[1], level)


def difference_intervals(
    first: Int[np.ndarray, "seeds talkers labels labels"],
    second: Int[np.ndarray, "other_seeds other_talkers labels labels"],
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Intervals:
    """Intervals of ``mean_scores(first) - mean_scores(second)`` for two systems on the same utterances.

    Paired: each draw takes the same talkers from both, so what makes a talker hard for both cancels out.

    Raises:
        CorpusError: the true labels of some talker differ, so these are not the same utterances.
    """
    # one seed stands for all: the truth does not depend on it
    if not np.array_equal(first[0].sum(-1), second[0].sum(-1)):
        raise CorpusError("the two systems were not tested on the same utterances; run both under one protocol")
    differences = _resampled_scores(first, draws, seed) - _resampled_scores(second, draws, seed)
    return _percentiles(differences, first.shape[1], level)


def expanded_tail(level: float, talkers: int) -> float:
    """The share of draws to cut off at either end, so that few talkers do not look like more than they are.

    Percentiles of a bootstrap over n independent talkers are too narrow twice: the draws have ``(n - 1) / n`` of
    the variance, and a normal takes the place of Student's t. Both are undone by reading the percentiles at
    ``Phi(-sqrt(n / (n - 1)) * t)`` (Hesterberg 2015, "What teachers should know about the bootstrap").

    Example:
        >>> [round(expanded_tail(0.95, talkers), 4) for talkers in (6, 10, 24, 1000)]
        [0.0025, 0.0086, 0.0173, 0.0248]
    """
    normal = NormalDist()
    z, freedom = normal.inv_cdf((1 + level) / 2), talkers - 1
    # Student's quantile, which neither Python nor numpy has: Abramowitz and Stegun 26.7.5
    t = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
    return normal.cdf(-t * sqrt(talkers / freedom))


def _resampled_scores(
    confusions: Int[np.ndarray, "seeds talkers labels labels"], draws: int, seed: int
) -> Float[np.ndarray, "draws 3"]:
    seeds, talkers, labels, _ = confusions.shape
    times_drawn = np.random.default_rng(seed).multinomial(talkers, np.full(talkers, 1 / talkers), size=draws)
    # in float64, where counts are exact, because integer matrix products have no fast path
    flat = confusions.swapaxes(0, 1).reshape(talkers, -1).astype(np.float64)
    resampled = (times_drawn.astype(np.float64) @ flat).reshape(draws, seeds, labels, labels)
    return np.asarray(scores_from_confusion(resampled).mean(1))


def _percentiles(resampled: Float[np.ndarray, "draws 3"], talkers: int, level: float) -> Intervals:
    if talkers < 2:
        return Intervals(*[Interval(nan, nan)] * 3)
    tail = expanded_tail(level, talkers)
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0).tolist()
    return Intervals(*(Interval(*ends) for ends in zip(low, high, strict=True)))
