"""Whether probabilities mean what they say, and the one number, a temperature, that makes them mean it.

Guo et al., "On calibration of modern neural networks", ICML 2017. A temperature T divides the logarithms of the
probabilities, which are then normalised again: above 1 the model becomes less sure, below 1 surer. What it answers best
stays the best.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from jaxtyping import Float, Int

from serein.evaluate.metrics import scores

BINS = 15
COLDEST, HOTTEST = 0.25, 8.0  # where all are right, the likelihood knows no end of being sure
HALVINGS = 60

LogProbabilities = Float[np.ndarray, "utterances classes"]
Truth = Int[np.ndarray, " utterances"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a temperature did to the probabilities of some talkers' utterances.

    Attributes:
        temperature: fitted on all of them.
        error_before: expected calibration error as the model spoke.
        error_after: with each talker softened by what the others ask for (:func:`soften_by_others`), as are the
            numbers below but ``nll_before``; nan where there is one talker only.
        nll_before: negative log likelihood as the model spoke, nats.
        nll_after: afterwards.
        coverage: share of the utterances whose best probability reaches the threshold.
        ua: unweighted accuracy on these; nan where there are none.
        wa: weighted accuracy on these; nan where there are none.
        talkers: how many.
        utterances: how many.
    """

    temperature: float
    error_before: float
    error_after: float
    nll_before: float
    nll_after: float
    coverage: float
    ua: float
    wa: float
    talkers: int
    utterances: int


def calibrate(
    log_probabilities: LogProbabilities, truth: Truth, talkers: Sequence[str], *, threshold: float = 0.0
) -> Calibration:
    """Fit the temperature, and measure honestly what it does.

    Args:
        log_probabilities: of utterances that the model has not learned from; finite, normalised.
        truth: the class of each utterance.
        talkers: who speaks in each.
        threshold: the best probability below which the model is not sure.
    """
    after = soften_by_others(log_probabilities, truth, talkers)
    coverage, ua, wa = (nan, nan, nan) if after is None else _sure(after, truth, threshold)
    return Calibration(
        temperature=fit_temperature(log_probabilities, truth),
        error_before=calibration_error(log_probabilities, truth),
        error_after=nan if after is None else calibration_error(after, truth),
        nll_before=negative_log_likelihood(log_probabilities, truth),
        nll_after=nan if after is None else negative_log_likelihood(after, truth),
        coverage=coverage,
        ua=ua,
        wa=wa,
        talkers=len(set(talkers)),
        utterances=len(truth),
    )


def soften(log_probabilities: LogProbabilities, temperature: float) -> LogProbabilities:
    """The log probabilities at a temperature.

    Example:
        >>> soften(np.log([[0.8, 0.2]]), 2.0).round(2)  # the odds, 4, become their root
        array([[-0.41, -1.1 ]])
    """
    scaled = log_probabilities / temperature
    scaled = scaled - scaled.max(1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(1, keepdims=True)))


def calibration_error(log_probabilities: LogProbabilities, truth: Truth) -> float:
    """Expected calibration error: how far sureness and accuracy are apart, between 0 and 1.

    The best probabilities fall into 15 bins of equal width over (0, 1], of which each has a mean probability and a
    share of right answers; the error is the mean of their absolute differences, weighted by how many utterances are in
    the bin (Guo et al., eq. 3). On few utterances it is above 0 for a perfectly calibrated model too.

    Args:
        log_probabilities: finite, normalised, in the order of the classes.
        truth: the class of each utterance.

    Example:
        >>> round(calibration_error(np.log([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])), 2)  # 90 % sure, 50 % right
        0.4
    """
    sure = np.exp(log_probabilities.max(1))
    right = log_probabilities.argmax(1) == truth
    bins = np.clip(np.ceil(sure * BINS) - 1, 0, BINS - 1).astype(int)
    excess = np.bincount(bins, weights=sure - right, minlength=BINS)
    return float(np.abs(excess).sum() / len(truth))


def negative_log_likelihood(log_probabilities: LogProbabilities, truth: Truth) -> float:
    """Mean of minus the logarithm of the true class's probability, in nats."""
    return float(-log_probabilities[np.arange(len(truth)), truth].mean())


def fit_temperature(log_probabilities: LogProbabilities, truth: Truth) -> float:
    """The temperature between 1/4 and 8 at which the negative log likelihood is least.

    The likelihood is convex in 1/T, and its slope there is how much more log probability the model expects of its own
    answer than the truth gets: halving the interval finds where that is 0.

    Args:
        log_probabilities: finite, in the order of the classes.
        truth: the class of each utterance.
    """
    true = log_probabilities[np.arange(len(truth)), truth]

    def slope(inverse: float) -> float:
        probabilities = np.exp(soften(log_probabilities, 1 / inverse))
        return float(((probabilities * log_probabilities).sum(1) - true).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def soften_by_others(
    log_probabilities: LogProbabilities, truth: Truth, talkers: Sequence[str]
) -> LogProbabilities | None:
    """Each talker's log probabilities at the temperature that the other talkers ask for: nothing is fitted on itself.

    Returns:
        the softened log probabilities, or None where there is one talker only.
    """
    names = np.array(talkers)
    if len(set(talkers)) < 2:
        return None
    softened = np.empty_like(log_probabilities)
    for talker in sorted(set(talkers)):
        own = names == talker
        softened[own] = soften(log_probabilities[own], fit_temperature(log_probabilities[~own], truth[~own]))
    return softened


def _sure(log_probabilities: LogProbabilities, truth: Truth, threshold: float) -> tuple[float, float, float]:
    """How often the best probability reaches the threshold, and UA and WA where it does."""
    kept = np.exp(log_probabilities.max(1)) >= threshold
    classes = [str(index) for index in range(log_probabilities.shape[1])]
    names = np.array(classes)
    found = scores(names[truth[kept]], names[log_probabilities[kept].argmax(1)], classes)
    return float(kept.mean()), found.ua, found.wa
