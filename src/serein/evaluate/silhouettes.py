"""How well the true labels part a space of embeddings, and how sure that is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from jaxtyping import Float

from serein.evaluate.metrics import mean_of_defined
from serein.evaluate.statistics import Interval, student_quantile

_LEVEL = 0.95
_MOST_GROUPS = 100  # of talkers left out together, so that time does not grow with their number squared
_DUST = 1e-12  # cosine distances below are rounding errors: their ratio would pass for a finding


@dataclass(frozen=True, slots=True)
class Embedded:
    """What one fold embedded under one training seed.

    Attributes:
        spaces: a vector an utterance, by the space's name; the first space is the one that others are held against.
        truth: the true label of each utterance.
        talkers: who speaks in each utterance.
    """

    spaces: Mapping[str, Float[np.ndarray, "utterances _"]]
    truth: Sequence[str]
    talkers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval, clustered by talker; nan where undefined."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Silhouette:
    """A space's.

    Attributes:
        score: averaged over folds and seeds.
        minus_first: the same minus that of the first space, paired; None for the first.
    """

    score: Estimate
    minus_first: Estimate | None


def silhouette(points: Float[np.ndarray, "utterances width"], truth: Sequence[str]) -> float:
    """How well the true labels part the points, -1 to 1: mean silhouette, cosine distance (Rousseeuw 1987).

    nan where it is undefined: for a single label, or where no two utterances share one. An utterance that is alone with
    its label counts as 0.

    Example:
        >>> silhouette(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 4.0]]), ["sad", "sad", "happy", "happy"])
        1.0
    """
    names, label = np.unique(np.array(truth, dtype=str), return_inverse=True)
    if not 2 <= len(names) < len(label):
        return nan
    exact = points.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    units = exact / np.where(norms == 0, 1, norms)
    is_own = np.eye(len(names), dtype=bool)[label]
    sizes = is_own.sum(0)
    # 1 - u.v summed over a label's v is its size minus u times their sum, so no table of all pairs is needed
    sums = sizes - units @ (units.T @ is_own)
    to_itself = 1 - (units**2).sum(1)
    within = (sums[is_own] - to_itself) / np.maximum(sizes[label] - 1, 1)
    nearest = np.where(is_own, np.inf, sums / sizes).min(1)
    larger = np.maximum(within, nearest)
    counts = (larger > _DUST) & (sizes[label] > 1)
    return float(np.where(counts, (nearest - within) / np.where(counts, larger, 1), 0.0).mean())


def silhouettes(parts: Iterable[Embedded]) -> dict[str, Silhouette]:
    """The silhouette of each space, by its name, averaged over folds and seeds.

    The interval is a jackknife over talkers with Student's t, as in `serein.evaluate.statistics.talker_intervals`: each
    talker is left out of every fold and seed at once; beyond 100 talkers, they are left out in 100 groups. A fold that
    is undefined, as one may be without a talker, is left out of the mean. An interval is unknown (nan) for a single
    talker, and where too few talkers are left to define anything. With two talkers a fold it is too wide rather than
    too narrow: without one of them, what is left of the fold is a single voice, and further from the rest than one
    talker fewer makes it.

    Args:
        parts: one a fold and seed, read one after the other; a space that is not in all of them is left out.
    """
    wholes: dict[str, list[float]] = {}
    without: dict[str, list[dict[int, float]]] = {}
    groups: dict[str, int] = {}
    count = 0
    for part in parts:
        count += 1
        group = np.array([groups.setdefault(talker, len(groups) % _MOST_GROUPS) for talker in part.talkers])
        for space, points in part.spaces.items():
            wholes.setdefault(space, []).append(silhouette(points, part.truth))
            without.setdefault(space, []).append(
                {number: _of_some(points, part.truth, group != number) for number in np.unique(group).tolist()}
            )
    scores = {space: _jackknife(wholes[space], without[space]) for space in wholes if len(wholes[space]) == count}
    first, *_ = scores
    return {
        space: Silhouette(
            _estimate(of_space, most=1.0),
            None if space == first else _estimate(of_space - scores[first], most=2.0),
        )
        for space, of_space in scores.items()
    }


def _of_some(points: Float[np.ndarray, "utterances width"], truth: Sequence[str], chosen: np.ndarray) -> float:
    return silhouette(points[chosen], [label for label, is_chosen in zip(truth, chosen, strict=True) if is_chosen])


def _jackknife(wholes: Sequence[float], without: Sequence[Mapping[int, float]]) -> Float[np.ndarray, " groups_and_1"]:
    """The mean over the parts, of everybody and then without each group of talkers."""
    numbers = sorted({number for part in without for number in part})
    table = [wholes] + [
        [part.get(number, whole) for whole, part in zip(wholes, without, strict=True)] for number in numbers
    ]
    return mean_of_defined(np.array(table))


def _estimate(scores: Float[np.ndarray, " groups_and_1"], most: float) -> Estimate:
    value, left_out = float(scores[0]), scores[1:]
    if len(left_out) < 2:
        return Estimate(value, Interval(nan, nan))
    freedom = len(left_out) - 1
    reach = student_quantile(_LEVEL, freedom) * sqrt(freedom * left_out.var())
    return Estimate(value, Interval(max(value - reach, -most), min(value + reach, most)))
