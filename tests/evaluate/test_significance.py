import numpy as np
import pytest
from scipy.stats import binomtest, t, ttest_rel

from serein.evaluate.significance import holm, mcnemar, talker_p
from serein.evaluate.statistics import difference_intervals, paired_difference, talker_confusions

LABELS = ("angry", "sad")


def simulated(rng, talkers=10, utterances=8, advantage=0.0):
    """Two systems on the same utterances of talkers who are easy or hard for both: right or not, and who speaks."""
    ease = rng.beta(6, 4, size=(talkers, 1, 1))
    chances = np.concatenate([ease, ease + (1 - ease) * advantage], axis=1).repeat(utterances, axis=2)
    chances = rng.beta(8 * chances[..., :1], 8 * (1 - chances[..., :1]) + 1e-9).repeat(utterances, axis=2)
    return rng.random(chances.shape) < chances


def confusions(right):
    """Of one system, ``right`` by talker and utterance; the labels alternate."""
    truth = np.broadcast_to(np.arange(right.shape[1]) % 2, right.shape)
    guess = np.where(right, truth, 1 - truth)
    talkers = np.repeat(np.arange(len(right)), right.shape[1]).astype(str)
    names = np.array(LABELS)
    return talker_confusions(names[truth.ravel()], names[guess.ravel()], talkers, LABELS)


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_of_one_seed_is_scipys_binomial_test_of_the_discordant_pairs(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.random((1, 60)) < 0.6, rng.random((1, 60)) < 0.75
    only_first, only_second = (first & ~second).sum(), (second & ~first).sum()
    expected = binomtest(int(only_first), int(only_first + only_second), 0.5).pvalue
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_mcnemar_without_discordant_pairs_is_one():
    same = np.array([[True, False, True]])
    assert mcnemar(same, same) == 1.0


def test_mcnemar_holds_for_corpora_of_any_size():
    ahead = np.repeat([True, False], [5200, 4800])[None]
    assert mcnemar(ahead, ~ahead) == pytest.approx(binomtest(5200, 10_000, 0.5).pvalue)


def test_more_seeds_do_not_make_more_utterances():
    first = np.array([[True] * 7 + [False]])
    assert mcnemar(first.repeat(5, axis=0), ~first.repeat(5, axis=0)) == mcnemar(first, ~first)


def test_an_utterance_counts_for_the_system_that_gets_it_right_under_more_seeds():
    first = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 0, 0], [0, 1, 0, 1, 0]], dtype=bool)  # 2 3 1 2 0
    second = np.array([[0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 1, 0, 0, 0]], dtype=bool)  # 0 3 2 1 0
    assert mcnemar(first, second) == binomtest(2, 3, 0.5).pvalue


def test_the_first_seed_counts_no_more_than_the_others():
    first = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]], dtype=bool)  # two of three each
    assert mcnemar(first, ~first) == binomtest(6, 6, 0.5).pvalue


def test_the_p_of_ua_is_that_of_a_paired_t_test_where_talkers_speak_equally_much():
    right = simulated(np.random.default_rng(1), talkers=9)
    first, second = right[:, 0], right[:, 1]
    expected = ttest_rel(first.mean(1), second.mean(1)).pvalue
    assert talker_p(confusions(first), confusions(second)) == pytest.approx(expected)


def test_the_p_of_ua_is_not_that_of_wa_where_labels_are_uneven():
    right = simulated(np.random.default_rng(1), talkers=9, utterances=7)  # four of the one label, three of the other
    first, second = (confusions(right[:, system]) for system in (0, 1))
    p_values = [2 * t.sf(abs(d / e), 8) for d, e in zip(*paired_difference(first, second), strict=True)]
    assert talker_p(first, second) == pytest.approx(p_values[1])
    assert p_values[1] != pytest.approx(p_values[0])


def test_p_is_below_5_percent_exactly_where_the_95_percent_interval_leaves_out_zero():
    rng = np.random.default_rng(2)
    decided = []
    for _ in range(30):
        right = simulated(rng, talkers=6, advantage=rng.uniform(0, 0.6))
        first, second = (confusions(right[:, system]) for system in (0, 1))
        interval = difference_intervals(first, second).ua
        decided.append(not interval.low <= 0 <= interval.high)
        assert (talker_p(first, second) < 0.05) == decided[-1]
    assert {True, False} == set(decided)


def test_equally_good_systems_are_rarely_told_apart():
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(1500):
        right = simulated(rng)
        p_values.append(talker_p(confusions(right[:, 0]), confusions(right[:, 1])))
    assert 0.03 <= np.mean(np.array(p_values) < 0.05) <= 0.07
    assert 0.45 <= np.mean(np.array(p_values) < 0.5) <= 0.55


def test_mcnemar_is_too_sure_where_talkers_suit_one_system_or_the_other():
    rng = np.random.default_rng(4)
    found = []
    for _ in range(100):
        right = simulated(rng, utterances=40)
        found.append(mcnemar(right[:, 0].reshape(1, -1), right[:, 1].reshape(1, -1)))
    assert np.mean(np.array(found) < 0.05) > 0.2


def test_a_better_system_is_found():
    right = simulated(np.random.default_rng(5), talkers=24, utterances=40, advantage=0.5)
    assert talker_p(confusions(right[:, 1]), confusions(right[:, 0])) < 0.01


def test_p_at_the_edges():
    some = np.array([[True, False], [True, True]])
    assert talker_p(confusions(some), confusions(some)) == 1.0
    all_right, none = np.ones((4, 2), dtype=bool), np.zeros((4, 2), dtype=bool)
    assert talker_p(confusions(all_right), confusions(none)) == 0.125
    assert np.isnan(talker_p(confusions(some[:1]), confusions(some[:1])))


@pytest.mark.parametrize("talkers", range(2, 9))
@pytest.mark.parametrize("level", [0.75, 0.95])
def test_talkers_who_all_agree_show_no_more_than_a_sign_test_of_so_few(talkers, level):
    all_right, none = (confusions(np.full((talkers, 2), right)) for right in (True, False))
    p, interval = talker_p(all_right, none), difference_intervals(all_right, none, level=level).ua
    assert p == pytest.approx(binomtest(talkers, talkers, 0.5).pvalue)
    assert np.isnan(interval.low) == np.isnan(interval.high) == (p >= 1 - level)
    assert (interval.low > 0) == (p < 1 - level)  # nan is not above 0


def test_a_score_without_an_error_does_not_hide_the_interval_of_another():
    all_right = np.ones((2, 3), dtype=bool)  # angry, sad, angry
    worse = np.array([[False, True, True], [True, False, True]])
    unequal = difference_intervals(confusions(all_right), confusions(worse))
    assert np.isnan(unequal.wa.low)  # a third for either talker
    assert not np.isnan(unequal.ua.low)  # half of a label, and a whole one


def test_rounding_errors_are_no_finding():
    all_right = np.ones((7, 6), dtype=bool)
    misses = {label: all_right & (np.arange(6) != label) for label in (0, 1)}
    assert talker_p(confusions(misses[0]), confusions(misses[1])) == 1.0
    assert paired_difference(confusions(all_right), confusions(misses[0]))[1].tolist() == [0, 0, 0]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([]) == []


def test_what_is_undefined_does_not_count_for_holm():
    adjusted = holm([0.04, float("nan"), 0.01])
    assert np.isnan(adjusted[1])
    assert [adjusted[0], adjusted[2]] == pytest.approx([0.04, 0.02])
