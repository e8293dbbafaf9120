"""Whether a difference between two systems stands."""

from collections.abc import Sequence
from math import isnan, nan

import numpy as np
from jaxtyping import Bool, Int

from serein.evaluate.statistics import least_p, paired_difference, student_tails


def talker_p(
    first: Int[np.ndarray, "seeds talkers labels labels"],
    second: Int[np.ndarray, "other_seeds other_talkers labels labels"],
) -> float:
    """How likely equally good systems differ in UA by at least this much: two-sided, paired, clustered by talker.

    Student's t of the difference over its standard error. Where all talkers give the same difference that error is 0,
    which shows no more than that they agree: p is then `serein.evaluate.statistics.least_p`, 0.5 for two talkers. It is
    below ``1 - level`` exactly where the interval of `serein.evaluate.statistics.difference_intervals` is known and
    leaves out zero. nan where there is only one talker.

    Args:
        first: from `serein.evaluate.statistics.talker_confusions`.
        second: another system's, on the same utterances.

    Raises:
        CorpusError: see `serein.evaluate.statistics.paired_difference`.
    """
    differences, errors = paired_difference(first, second)
    difference, error = differences[1], errors[1]
    if first.shape[1] < 2:
        return nan
    if error == 0:
        return 1.0 if difference == 0 else least_p(first.shape[1])
    return student_tails(difference / error, first.shape[1] - 1)


def mcnemar(
    first_right: Bool[np.ndarray, "seeds utterances"], second_right: Bool[np.ndarray, "seeds utterances"]
) -> float:
    """McNemar's exact test: two-sided binomial p of the utterances that only one of two systems gets right.

    With several training seeds an utterance counts for the system that gets it right under more of them, and for none
    where both do under equally many: a sign test, which for a single seed is McNemar's. It is fair to systems with
    equally many seeds, and unlike one test a seed it uses each utterance once and gives one number.

    It takes the utterances as independent. Those of one talker are not, so its p is often too small: read it beside
    other papers', and let `talker_p` decide.

    Args:
        first_right: whether the first system's prediction is right.
        second_right: the second system's, for the same utterances in the same order.

    Example:
        >>> mcnemar(np.array([[True] * 5 + [False]]), np.array([[False] * 5 + [False]]))
        0.0625
    """
    lead = first_right.sum(0) - second_right.sum(0)
    ahead, behind = int((lead > 0).sum()), int((lead < 0).sum())
    discordant = ahead + behind
    # binomial coefficients as whole numbers of any size: nothing overflows or is rounded before the division
    coefficient = tail = 1
    for count in range(min(ahead, behind)):
        coefficient = coefficient * (discordant - count) // (count + 1)
        tail += coefficient
    return min(1.0, 2 * tail / (1 << discordant))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values: with all below 0.05 called findings, one is false in at most 5 % of cases.

    The k-th smallest of n is multiplied by n + 1 - k, and none may be smaller than one before it (Holm 1979). What is
    undefined (nan) stays so and does not count.

    Example:
        >>> [round(p, 3) for p in holm([0.04, 0.01, 0.03])]
        [0.06, 0.03, 0.06]
    """
    adjusted = [nan] * len(p_values)
    defined = [index for index, p in enumerate(p_values) if not isnan(p)]
    largest = 0.0
    for rank, index in enumerate(sorted(defined, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(defined) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
