import runpy
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t, ttest_rel

from serein.errors import CorpusError
from serein.evaluate.metrics import scores, scores_from_confusion
from serein.evaluate.statistics import (
    Interval,
    difference_intervals,
    mean_scores,
    paired_difference,
    student_quantile,
    student_tails,
    talker_confusions,
    talker_intervals,
)

COVERAGE = Path(__file__).parents[2] / "benchmarks" / "interval_coverage.py"
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


def slow_scores(truth, prediction, talkers, seeds, keep):
    """WA, UA and macro F1 of the kept talkers, seed by seed."""
    kept = np.isin(talkers, keep)
    chosen = [kept & (seeds == seed) for seed in np.unique(seeds)]
    return np.mean([astuple(scores(truth[rows], prediction[rows], LABELS)) for rows in chosen], axis=0)


def slow_error(truth, talkers, seeds, prediction, other=None):
    """The jackknife as textbooks write it, with a loop over talkers."""
    names = np.unique(talkers)
    left_out = []
    for name in names:
        keep = names[names != name]
        score = slow_scores(truth, prediction, talkers, seeds, keep)
        left_out.append(score - (0 if other is None else slow_scores(truth, other, talkers, seeds, keep)))
    return np.sqrt((len(names) - 1) * np.var(left_out, axis=0))


def test_intervals_equal_those_of_a_slow_jackknife_on_the_logit_scale():
    truth, prediction, talkers, seeds = random_rows(np.random.default_rng(0))
    found = talker_intervals(talker_confusions(truth, prediction, talkers, LABELS, seeds), level=0.8)
    score = slow_scores(truth, prediction, talkers, seeds, talkers)
    reach = t.ppf(0.9, 6) * slow_error(truth, talkers, seeds, prediction) / (score * (1 - score))
    for column, interval in enumerate((found.wa, found.ua, found.macro_f1)):
        expected = expit(logit(score[column]) - reach[column]), expit(logit(score[column]) + reach[column])
        assert (interval.low, interval.high) == pytest.approx(expected)


def test_paired_differences_equal_those_of_a_slow_jackknife():
    rng = np.random.default_rng(1)
    truth, prediction, talkers, seeds = random_rows(rng)
    other = rng.choice(LABELS, len(truth))
    first = talker_confusions(truth, prediction, talkers, LABELS, seeds)
    second = talker_confusions(truth, other, talkers, LABELS, seeds)
    difference, error = paired_difference(first, second)
    one, two = (slow_scores(truth, guess, talkers, seeds, talkers) for guess in (prediction, other))
    assert difference == pytest.approx(one - two)
    assert error == pytest.approx(slow_error(truth, talkers, seeds, prediction, other))
    found = difference_intervals(first, second).ua
    reach = t.ppf(0.975, 6) * error[1]
    assert (found.low, found.high) == pytest.approx((difference[1] - reach, difference[1] + reach))


def test_equally_many_utterances_of_each_talker_make_it_a_paired_t_test():
    rng = np.random.default_rng(8)
    right = rng.binomial(10, 0.6, size=(2, 9))
    first, second = (
        np.array([[[[count, 10 - count], [0, 0]] for count in of_system]], dtype=np.int64) for of_system in right
    )
    found = difference_intervals(first, second, level=0.9).wa
    expected = ttest_rel(right[0] / 10, right[1] / 10).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_jackknifes_error_is_about_the_bootstraps():
    rng = np.random.default_rng(9)
    first = talker_confusions(*random_rows(rng, talkers=200, seeds=1)[:3], LABELS)
    second = first[:, :, :, [1, 2, 0]]  # a system that takes each label for the next
    times = rng.multinomial(200, np.full(200, 1 / 200), size=4000)
    one, two = (scores_from_confusion(np.einsum("dt,stij->dij", times, of)) for of in (first, second))
    assert paired_difference(first, second)[1] == pytest.approx((one - two).std(0), rel=0.1)


def test_two_talkers_one_right_one_wrong_may_be_anything():
    confusions = talker_confusions(["sad"] * 4, ["sad", "sad", "happy", "happy"], ["f", "f", "m", "m"], LABELS)
    assert mean_scores(confusions).wa == 0.5
    interval = talker_intervals(confusions).wa
    assert (interval.low, interval.high) == pytest.approx((0, 1), abs=1e-9)


@pytest.mark.parametrize("talkers", ["ab", "abcde", "abcdefghijklmnopqrstuvwx"])
@pytest.mark.parametrize("said", ["sad", "happy"])
def test_talkers_who_are_all_alike_do_not_show_how_far_others_would_differ(talkers, said):
    truth, prediction = ["sad", "happy"] * len(talkers), ["sad", said] * len(talkers)
    confusions = talker_confusions(truth, prediction, [talker for talker in talkers for _ in range(2)], LABELS)
    interval = talker_intervals(confusions).ua
    assert np.isnan([interval.low, interval.high]).all()


def test_no_predictions_are_no_score():
    with pytest.raises(CorpusError, match="nothing to score"):
        talker_confusions([], [], [], LABELS)


def test_one_talker_has_no_interval():
    confusions = talker_confusions(["sad", "happy"], ["sad", "sad"], ["a", "a"], LABELS)
    assert np.isnan([talker_intervals(confusions).ua.low, talker_intervals(confusions).macro_f1.high]).all()


def test_copies_of_an_utterance_do_not_narrow_the_interval():
    truth, prediction, talkers, _ = random_rows(np.random.default_rng(2), seeds=1)
    once = talker_intervals(talker_confusions(truth, prediction, talkers, LABELS))
    often = talker_intervals(talker_confusions(*(np.tile(x, 50) for x in (truth, prediction, talkers)), LABELS))
    assert astuple(once.wa) == pytest.approx(astuple(often.wa))


def test_a_score_near_one_is_surer_above_than_below():
    prediction = ["sad"] * 20
    prediction[3] = "happy"
    interval = talker_intervals(talker_confusions(["sad"] * 20, prediction, list("aabbccddee" * 2), LABELS)).wa
    assert interval.low < 0.95 < interval.high < 1
    assert interval.high - 0.95 < 0.95 - interval.low


def test_more_seeds_average_and_keep_talkers_together():
    truth, prediction, talkers, _ = random_rows(np.random.default_rng(3), seeds=1)
    one = talker_confusions(truth, prediction, talkers, LABELS)
    same_twice = np.concatenate([one, one])
    assert mean_scores(same_twice) == mean_scores(one)
    assert talker_intervals(same_twice) == talker_intervals(one)


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


def test_one_talker_leaves_every_difference_open():
    confusions = talker_confusions(["sad", "happy"], ["sad", "sad"], ["a", "a"], LABELS)
    assert np.isnan(difference_intervals(confusions, confusions).ua.low)


def test_a_difference_never_leaves_minus_one_to_one():
    first = talker_confusions(["sad"] * 3, ["sad", "sad", "happy"], list("abb"), LABELS)
    second = talker_confusions(["sad"] * 3, ["happy", "sad", "sad"], list("abb"), LABELS)
    assert difference_intervals(first, second).wa == Interval(-1.0, 1.0)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 23, 90, 1251])
def test_students_t_is_scipys(freedom: int):
    for distance in (0.0, 0.3, 1.0, -2.5, 7.0):
        assert student_tails(distance, freedom) == pytest.approx(2 * t.sf(abs(distance), freedom), abs=1e-13)
    for level in (0.5, 0.9, 0.95, 0.999):
        assert student_quantile(level, freedom) == pytest.approx(t.ppf((1 + level) / 2, freedom), rel=1e-9)


def test_no_distance_is_too_far_for_students_t():
    assert student_tails(1e9, 30) == pytest.approx(0, abs=1e-12)
    assert student_tails(-1e9, 30) >= 0


@pytest.mark.parametrize("concentration", [6.0, 18.0])
def test_about_as_many_intervals_hold_the_truth_as_they_say(concentration):
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(300):
        right = rng.binomial(10, rng.beta(concentration * 2 / 3, concentration / 3, size=(10, 3)))
        confusions = np.zeros((1, 10, 3, 3), dtype=int)
        confusions[0, :, range(3), range(3)] = right.T
        confusions[0, :, range(3), [1, 2, 0]] = 10 - right.T
        interval = talker_intervals(confusions).ua
        held += interval.low <= 2 / 3 <= interval.high
    assert 0.92 <= held / 300 <= 0.98


def test_the_simulation_prints_what_it_found_of_intervals_and_p(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["interval_coverage.py", "--corpora=10", "--draws=50"])
    runpy.run_path(str(COVERAGE), run_name="__main__")
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    rows = [row for row in rows if len(row) > 3 and row[2].isdigit()]
    assert len(rows) == 2 * 24
    assert 90 < np.mean([float(row[3]) for row in rows]) < 99


def test_the_simulated_systems_are_equally_good_and_their_p_below_5_percent_in_five_of_a_hundred():
    simulation = runpy.run_path(str(COVERAGE))
    zeros, below_5, below_50 = simulation["two_systems"]("each label apart, UA 0.65", 10, True, 400)
    assert zeros == pytest.approx(1 - below_5)  # an interval leaves out zero exactly where p is below 0.05
    assert 0.02 <= below_5 <= 0.08
    assert 0.42 <= below_50 <= 0.58
    held, below = simulation["rare_label"](24, 200)
    assert held >= 0.9
    assert below <= 0.1
