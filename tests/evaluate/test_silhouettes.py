from dataclasses import astuple
from math import isnan

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import silhouette_score

from serein.evaluate.silhouettes import Embedded, silhouette, silhouettes

LABELS = ("angry", "happy", "sad")


def clusters(size: int, *, width: int = 5, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    label = rng.integers(len(LABELS), size=size)
    points = np.eye(width)[label] + noise * rng.normal(size=(size, width))
    return points.astype(np.float32), [LABELS[index] for index in label]


def part(talkers: str, *, seed: int = 0, noises: tuple[float, ...] = (1.0, 0.3), each: int = 12) -> Embedded:
    made = [clusters(each * len(talkers), noise=noise, seed=seed) for noise in noises]
    spaces = {f"space {number}": points for number, (points, _) in enumerate(made)}
    return Embedded(spaces, made[0][1], [*talkers] * each)


def by_sklearn(parts: list[Embedded], space: str, without: str = "") -> float:
    """The mean over the parts that have talkers left."""
    scores = []
    for one in parts:
        keep = [talker != without for talker in one.talkers]
        truth = [label for label, is_kept in zip(one.truth, keep, strict=True) if is_kept]
        if 2 <= len(set(truth)) < len(truth):
            scores.append(silhouette_score(one.spaces[space][keep], truth, metric="cosine"))
    return float(np.mean(scores)) if scores else float("nan")


@pytest.mark.parametrize("seed", range(5))
def test_a_silhouette_is_sklearns(seed):
    points, truth = clusters(40, noise=0.7, seed=seed)
    truth[0] = "alone"  # counts as 0
    points[5] = 0.0  # no direction: as far from all
    points[7] = 3 * points[8]  # the same direction
    assert silhouette(points, truth) == pytest.approx(silhouette_score(points, truth, metric="cosine"), abs=1e-6)


def test_points_of_one_direction_are_parted_by_nothing():
    points = np.outer(np.arange(1.0, 7), [0.1, 0.7, 0.3])
    assert silhouette(points, ["sad", "happy"] * 3) == 0.0


@pytest.mark.parametrize("truth", [["sad"] * 3, ["angry", "happy", "sad"]])
def test_a_silhouette_is_undefined_where_nothing_is_parted(truth):
    assert isnan(silhouette(np.eye(3), truth))


@pytest.mark.parametrize(
    "parts",
    [
        [part("ab", seed=0), part("cd", seed=1), part("ef", seed=2)],  # pairs of talkers
        [part("a", seed=0), part("b", seed=1), part("c", seed=2)],  # a talker a fold: without its talker it is gone
        [part("abcd", seed=0, noises=(1.0, 0.6, 0.2)), part("cde", seed=1, noises=(1.0, 0.6, 0.2))],  # some in both
    ],
)
def test_intervals_leave_each_talker_out_of_everything(parts):
    found = silhouettes(iter(parts))
    talkers = sorted({talker for one in parts for talker in one.talkers})
    quantile = stats.t.ppf(0.975, len(talkers) - 1)

    def jackknife(value: float, left_out: np.ndarray) -> list[float]:
        error = np.sqrt((len(talkers) - 1) / len(talkers) * ((left_out - left_out.mean()) ** 2).sum())
        return [value, value - quantile * error, value + quantile * error]

    values = {space: by_sklearn(parts, space) for space in found}
    without = {space: np.array([by_sklearn(parts, space, talker) for talker in talkers]) for space in found}
    for space, of_space in found.items():
        score, minus = of_space.score, of_space.minus_first
        expected = jackknife(values[space], without[space])
        assert [score.value, *astuple(score.interval)] == pytest.approx(expected, abs=1e-6)
        if space == "space 0":
            assert minus is None
        else:
            expected = jackknife(values[space] - values["space 0"], without[space] - without["space 0"])
            assert [minus.value, *astuple(minus.interval)] == pytest.approx(expected, abs=1e-6)


def test_a_fold_seen_twice_is_no_more_sure():
    once, twice = silhouettes([part("abc")]), silhouettes([part("abc"), part("abc")])
    for space in once:
        score, again = once[space].score, twice[space].score
        assert [again.value, *astuple(again.interval)] == pytest.approx([score.value, *astuple(score.interval)])


def test_the_same_space_twice_differs_by_nothing():
    found = silhouettes([part("abc", noises=(0.5, 0.5))])["space 1"].minus_first
    assert (found.value, *astuple(found.interval)) == (0.0, 0.0, 0.0)


def test_beyond_a_hundred_talkers_groups_are_left_out():
    points, truth = clusters(303, noise=0.7)
    talkers = [f"talker {number % 101}" for number in range(303)]
    found = silhouettes([Embedded({"space": points}, truth, talkers)])["space"].score
    groups = np.array([number % 101 % 100 for number in range(303)])  # the last talker joins the first one's group
    left_out = [silhouette(points[groups != one], np.array(truth)[groups != one].tolist()) for one in range(100)]
    reach = stats.t.ppf(0.975, 99) * np.sqrt(99 * np.var(left_out))
    whole = silhouette(points, truth)
    assert (found.interval.low, found.interval.high) == pytest.approx((whole - reach, whole + reach))


def test_a_space_that_some_folds_lack_is_left_out():
    mixed = [part("abc", noises=(1.0, 0.5, 0.2)), part("def", seed=1, noises=(1.0, 0.5))]
    both = [part("abc", noises=(1.0, 0.5)), part("def", seed=1, noises=(1.0, 0.5))]
    assert silhouettes(mixed) == silhouettes(both)


def test_a_single_talker_tells_nothing_of_others():
    found = silhouettes([part("a"), part("a", seed=1)])
    for estimate in (found["space 0"].score, found["space 1"].score, found["space 1"].minus_first):
        assert not isnan(estimate.value)
        assert all(map(isnan, astuple(estimate.interval)))


def test_one_label_leaves_all_undefined():
    one = part("ab")
    found = silhouettes([Embedded(one.spaces, ["sad"] * len(one.truth), one.talkers)])["space 1"]
    assert all(map(isnan, (found.score.value, found.minus_first.value, *astuple(found.minus_first.interval))))


def test_where_one_talker_alone_has_a_label_the_others_may_have_nothing_to_part():
    points, _ = clusters(20)
    truth, talkers = ["sad", "happy"] * 5 + ["sad"] * 10, ["a"] * 10 + ["b"] * 10
    found = silhouettes([Embedded({"only": points}, truth, talkers)])["only"].score
    assert found.value == pytest.approx(silhouette_score(points, truth, metric="cosine"), abs=1e-6)
    assert all(map(isnan, astuple(found.interval)))


def test_intervals_stay_within_what_can_be():
    points = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.9, 0.2], [1.0, 0.0], [0.5, 1.0]])
    spaces = {"first": points, "turned": points[::-1].copy()}
    found = silhouettes([Embedded(spaces, ["sad", "happy"] * 4, [*"aaaabbbb"])])["turned"]
    assert astuple(found.score.interval) == (-1.0, 1.0)
    assert astuple(found.minus_first.interval) == (-2.0, 2.0)
