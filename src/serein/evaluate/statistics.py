"""How sure a score is: one talker's utterances are alike, so talkers are left out in turn, never utterances."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import atan, cos, nan, pi, sin, sqrt

import numpy as np
from jaxtyping import Float, Int

from serein.errors import CorpusError
from serein.evaluate.metrics import Names, Scores, label_indices, scores_from_confusion


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval; both ends are nan where nothing is known of them, as where there is only one talker."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Intervals:
    """One interval a score."""

    wa: Interval
    ua: Interval
    macro_f1: Interval


_UNKNOWN = Intervals(*[Interval(nan, nan)] * 3)


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
        CorpusError: there are no rows, the columns differ in length, or a value is outside of ``labels``.
    """
    seeds = [0] * len(truth) if training_seeds is None else list(training_seeds)
    lengths = {len(truth), len(prediction), len(talkers), len(seeds)}
    if len(lengths) != 1:
        raise CorpusError(f"truth, prediction, talkers and seeds must be equally long, not {sorted(lengths)} rows")
    if not seeds:
        raise CorpusError("there are no predictions, so there is nothing to score")
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


def talker_intervals(confusions: Int[np.ndarray, "seeds talkers labels labels"], *, level: float = 0.95) -> Intervals:
    """Intervals of `mean_scores`: a jackknife over talkers, with Student's t, on the logit scale.

    Each talker is left out in turn, with every utterance of theirs under every training seed; how far the scores then
    move is their standard error. So the interval speaks of new talkers, which is what a corpus of few talkers is
    unsure about. On the scale of log(score / (1 - score)) it stays between 0 and 1 and is longer towards the middle,
    as the errors of a score near 1 are. Where all talkers are alike, as under a score of 1, nothing measures how far
    another would differ, and it is unknown (nan).

    In simulated corpora of 6 to 60 talkers, all of whom show every label, 94 to 96 % of the 95 % intervals held a true
    UA of 0.65 or 0.9, and of the percentile bootstrap's 90 to 95 %. Where two of 24 talkers show a label, 88 % did,
    where three do, 92 %: ``benchmarks/interval_coverage.py``.

    Args:
        confusions: from `talker_confusions`.
        level: the share of intervals that should hold the true score, between 0 and 1.

    Example:
        >>> truth, prediction, talkers = ["a", "b"] * 4, ["a", "b", "b", "b"] * 2, list("ttuuvvww")
        >>> confusions = talker_confusions(truth, prediction, talkers, labels=["a", "b"])
        >>> interval = talker_intervals(confusions).wa
        >>> mean_scores(confusions).wa, round(interval.low, 3), round(interval.high, 3)
        (0.75, 0.206, 0.972)
    """
    talkers = confusions.shape[1]
    if talkers < 2:
        return _UNKNOWN
    scores = np.array(astuple(mean_scores(confusions)))
    error = _standard_error(_leave_one_out(confusions))
    # without an error the score may be 0 or 1, which have no logit
    alike = error == 0
    inner = np.where(alike, 0.5, scores)
    reach = student_quantile(level, talkers - 1) * error / (inner * (1 - inner))
    logit = np.log(inner / (1 - inner))
    low, high = (np.where(alike, nan, (1 + np.tanh((logit + side * reach) / 2)) / 2) for side in (-1, 1))
    return _intervals(low, high)


def paired_difference(
    first: Int[np.ndarray, "seeds talkers labels labels"],
    second: Int[np.ndarray, "other_seeds other_talkers labels labels"],
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """``mean_scores(first) - mean_scores(second)`` and its standard error: WA, UA and macro F1 each.

    Paired: each talker is left out of both systems at once, so what makes a talker hard for both cancels out.

    Raises:
        CorpusError: the true labels of some talker differ, so these are not the same utterances.
    """
    # one seed stands for all: the truth does not depend on it
    if not np.array_equal(first[0].sum(-1), second[0].sum(-1)):
        raise CorpusError("the two systems were not tested on the same utterances; run both under one protocol")
    difference = np.array(astuple(mean_scores(first))) - np.array(astuple(mean_scores(second)))
    error = _standard_error(_leave_one_out(first) - _leave_one_out(second))
    return _without_dust(difference), error


def difference_intervals(
    first: Int[np.ndarray, "seeds talkers labels labels"],
    second: Int[np.ndarray, "other_seeds other_talkers labels labels"],
    *,
    level: float = 0.95,
) -> Intervals:
    """Intervals of ``mean_scores(first) - mean_scores(second)`` for two systems on the same utterances.

    The difference plus and minus Student's quantile times the standard error of `paired_difference`.

    Where every talker gives the same difference, other than 0, there is no error to measure by. The interval is then
    the point where `least_p` is below ``1 - level``, and unknown (nan) with fewer talkers: so it leaves out 0 exactly
    where `serein.evaluate.significance.talker_p` is below ``1 - level``.

    Raises:
        CorpusError: see `paired_difference`.
    """
    difference, error = paired_difference(first, second)
    if first.shape[1] < 2:
        return _UNKNOWN
    reach = student_quantile(level, first.shape[1] - 1) * error
    if least_p(first.shape[1]) >= 1 - level:
        reach = np.where((error == 0) & (difference != 0), nan, reach)
    return _intervals(np.maximum(difference - reach, -1), np.minimum(difference + reach, 1))


def least_p(talkers: int) -> float:
    """The two-sided p of a sign test where all talkers agree: the least that so few can show without a standard error.

    Between equally good systems each talker is as likely to favour the one as the other, so all favour the same one
    with probability 2 ** (1 - talkers).

    Example:
        >>> least_p(2), least_p(6)
        (0.5, 0.03125)
    """
    return 2.0 ** (1 - talkers)


def student_tails(t: float, freedom: int) -> float:
    """How likely Student's t with that many degrees of freedom lies further from 0 than ``t``, on either side.

    Neither Python nor numpy has it; the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4.

    Example:
        >>> round(student_tails(2.2621571627, freedom=9), 9)
        0.05
    """
    angle = atan(abs(t) / sqrt(freedom))
    odd = freedom % 2
    term, total = (cos(angle) if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * cos(angle) ** 2
    inside = 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
    return max(0.0, 1 - inside)


def student_quantile(level: float, freedom: int) -> float:
    """How far from 0 Student's t stays with probability ``level``, which lies between 0 and 1.

    Example:
        >>> round(student_quantile(0.95, freedom=9), 6)
        2.262157
    """
    low, high = 0.0, 1.0
    while student_tails(high, freedom) > 1 - level:
        high *= 2
    for _ in range(60):  # halvings, down to the last digit
        middle = (low + high) / 2
        low, high = (middle, high) if student_tails(middle, freedom) > 1 - level else (low, middle)
    return high


def _leave_one_out(confusions: Int[np.ndarray, "seeds talkers labels labels"]) -> Float[np.ndarray, "talkers 3"]:
    """The scores without each talker."""
    without = confusions.sum(1, keepdims=True) - confusions
    return np.asarray(scores_from_confusion(without).mean(0))


def _standard_error(left_out: Float[np.ndarray, "talkers 3"]) -> Float[np.ndarray, "3"]:
    talkers = len(left_out)
    variance = (talkers - 1) / talkers * ((left_out - left_out.mean(0)) ** 2).sum(0)
    return _without_dust(np.sqrt(variance))


def _without_dust(values: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Rounding errors taken for zeros: their ratio would pass for a finding."""
    return np.where(np.abs(values) < 1e-12, 0.0, values)


def _intervals(low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"]) -> Intervals:
    return Intervals(*(Interval(*ends) for ends in zip(low.tolist(), high.tolist(), strict=True)))
