from dataclasses import astuple

import numpy as np
import pytest
from scipy.stats import norm, t

from serein.errors import CorpusError
from serein.evaluate.metrics import scores
from serein.evaluate.statistics import (
    Interval,
    difference_intervals,
    expanded_tail,
    mean_scores,
    talker_confusions,
    talker_intervals,
)

LABELS = ["angry", "happy", "sad"]


def random_rows(rng, talkers=7, utterances=6, seeds=2, accuracy=0.6):
    """Equal utterances under each seed; the last label is rare, so that some draws lack it."""
    spoken = [(f"t{talker}", LABELS[0 if talker % 3 else rng.integers(3)]) for talker in range(talkers)] * utterances
    rows = [
        (truth, truth if rng.random() < accuracy else LABELS[rng.integers(3)], talker, seed)
        for seed in range(seeds)
        for talker, truth in spoken
    ]
    return [np.array(column) for column in zip(*rows, strict=True)]


def naive_draws(truth, prediction, talkers, seeds, draws, seed):
    names = np.unique(talkers)
    all_times = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    for times in all_times:
        drawn = np.repeat(names, times)
        yield np.mean(
            [
                astuple(
                    scores(
                        np.concatenate([truth[(talkers == name) & (seeds == of_seed)] for name in drawn]),
                        np.concatenate([prediction[(talkers == name) & (seeds == of_seed)] for name in drawn]),
                        LABELS,
                    )
                )
                for of_seed in np.unique(seeds)
            ],
            axis=0,
        )


def test_intervals_equal_those_of_a_slow_resampling_of_whole_talkers():
    truth, prediction, talkers, seeds = random_rows(np.random.default_rng(0))
    confusions = talker_confusions(truth, prediction, talkers, LABELS, seeds)
    found = talker_intervals(confusions, draws=150, seed=3, level=0.8)
    tail = expanded_tail(0.8, 7)
    slow = np.array(list(naive_draws(truth, prediction, talkers, seeds, draws=150, seed=3)))
    low, high = np.quantile(slow, [tail, 1 - tail], axis=0)
    for column, interval in enumerate((found.wa, found.ua, found.macro_f1)):
        assert (interval.low, interval.high) == pytest.approx((low[column], high[column]))


def test_paired_differences_equal_those_of_a_slow_resampling():
    rng = np.random.default_rng(1)
    truth, prediction, talkers, seeds = random_rows(rng)
    other = rng.choice(LABELS, len(truth))
    first = talker_confusions(truth, prediction, talkers, LABELS, seeds)
    second = talker_confusions(truth, other, talkers, LABELS, seeds)
    found = difference_intervals(first, second, draws=100, seed=5)
    one, two = (
        np.array(list(naive_draws(truth, guess, talkers, seeds, draws=100, seed=5))) for guess in (prediction, other)
    )
    tail = expanded_tail(0.95, 7)
    assert (found.ua.low, found.ua.high) == pytest.approx(tuple(np.quantile((one - two)[:, 1], [tail, 1 - tail])))


def test_two_talkers_one_right_one_wrong_may_be_anything():
    confusions = talker_confusions(["sad"] * 4, ["sad", "sad", "happy", "happy"], ["f", "f", "m", "m"], LABELS)
    assert mean_scores(confusions).wa == 0.5
    assert talker_intervals(confusions).wa == Interval(0.0, 1.0)


def test_talkers_who_are_all_alike_leave_nothing_unsure():
    confusions = talker_confusions(["sad", "happy"] * 5, ["sad", "sad"] * 5, list("aabbccddee"), LABELS)
    assert talker_intervals(confusions).ua == Interval(0.5, 0.5)


def test_one_talker_has_no_interval():
    confusions = talker_confusions(["sad", "happy"], ["sad", "sad"], ["a", "a"], LABELS)
    assert np.isnan([talker_intervals(confusions).ua.low, talker_intervals(confusions).macro_f1.high]).all()


def test_copies_of_an_utterance_do_not_narrow_the_interval():
    truth, prediction, talkers, _ = random_rows(np.random.default_rng(2), seeds=1)
    once = talker_intervals(talker_confusions(truth, prediction, talkers, LABELS))
    often = talker_intervals(talker_confusions(*(np.tile(x, 50) for x in (truth, prediction, talkers)), LABELS))
    assert astuple(once.wa) == pytest.approx(astuple(often.wa))


def test_more_seeds_average_and_keep_talkers_together():
    truth, prediction, talkers, _ = random_rows(np.random.default_rng(3), seeds=1)
    one = talker_confusions(truth, prediction, talkers, LABELS)
    same_twice = np.concatenate([one, one])
    assert mean_scores(same_twice) == mean_scores(one)
    assert talker_intervals(same_twice) == talker_intervals(one)


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    confusions = talker_confusions(*random_rows(np.random.default_rng(4), seeds=1)[:3], LABELS)
    assert talker_intervals(confusions, draws=50) == talker_intervals(confusions, draws=50)
    assert talker_intervals(confusions, draws=50) != talker_intervals(confusions, draws=50, seed=1)


def test_a_system_differs_from_itself_by_nothing():
    confusions = talker_confusions(*random_rows(np.random.default_rng(5), seeds=1)[:3], LABELS)
    assert difference_intervals(confusions, confusions).macro_f1 == Interval(0.0, 0.0)


def test_pairing_needs_the_same_utterances():
    one = talker_confusions(["sad", "happy"], ["sad", "sad"], ["a", "b"], LABELS)
    other = talker_confusions(["sad", "sad"], ["sad", "sad"], ["a", "b"], LABELS)
    with pytest.raises(CorpusError, match="same utterances"):
        difference_intervals(one, other)


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(CorpusError, match="equally long"):
        talker_confusions(["sad"], ["sad"], ["a", "b"], LABELS)


@pytest.mark.parametrize("talkers", [5, 10, 24, 91])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_tail_is_that_of_students_t(talkers: int, level: float):
    expected = norm.cdf(-t.ppf((1 + level) / 2, talkers - 1) * np.sqrt(talkers / (talkers - 1)))
    assert expanded_tail(level, talkers) == pytest.approx(expected, rel=0.05)


def test_about_as_many_intervals_hold_the_truth_as_they_say():
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(200):
        right = rng.binomial(10, rng.beta(12, 6, size=(10, 3)))  # talkers differ: 12 / (12 + 6) on average
        confusions = np.zeros((1, 10, 3, 3), dtype=int)
        confusions[0, :, range(3), range(3)] = right.T
        confusions[0, :, range(3), [1, 2, 0]] = 10 - right.T
        interval = talker_intervals(confusions, draws=400).ua
        held += interval.low <= 12 / 18 <= interval.high
    assert 0.89 <= held / 200 <= 0.99
