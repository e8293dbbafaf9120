from math import isnan, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from serein.evaluate.calibration import (
    COLDEST,
    HOTTEST,
    calibrate,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
    soften,
    soften_by_others,
)
from serein.evaluate.metrics import unweighted_accuracy


def drawn(seed: int, utterances: int, temperature: float, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities of a model that is too sure by this temperature, and truths drawn from what it should say."""
    random = np.random.default_rng(seed)
    honest = log_softmax(2 * random.standard_normal((utterances, classes)), axis=1)
    truth = np.array([random.choice(classes, p=np.exp(row)) for row in honest])
    return log_softmax(honest * temperature, axis=1), truth


def test_calibration_error_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.38, 0.62], [0.55, 0.45], [0.45, 0.55]])
    truth = np.array([0, 1, 1, 0, 0])
    # bins of 1/15: 0.95 is in (14/15, 1], 0.62 in (9/15, 10/15], 0.55 in (8/15, 9/15]
    expected = (2 / 5) * abs(0.95 - 0.5) + (1 / 5) * abs(0.62 - 1) + (2 / 5) * abs(0.55 - 0.5)
    assert calibration_error(np.log(probabilities), truth) == pytest.approx(expected)


def test_certainty_falls_into_the_last_bin():
    with np.errstate(divide="ignore"):
        sure = np.log(np.array([[1.0, 0.0], [0.99, 0.01]]))
    assert calibration_error(sure, np.array([0, 0])) == pytest.approx(0.005)


def test_a_model_that_means_what_it_says_has_nearly_no_error_and_a_boaster_its_boast():
    honest, truth = drawn(0, 40_000, 1.0)
    assert calibration_error(honest, truth) < 0.01
    sure = np.log(np.tile([0.9, 0.1], (10_000, 1)))
    right = np.random.default_rng(1).random(10_000) < 0.7
    assert calibration_error(sure, np.where(right, 0, 1)) == pytest.approx(0.2, abs=3 * sqrt(0.21 / 10_000))


def test_negative_log_likelihood_by_hand():
    log_probabilities = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))
    assert negative_log_likelihood(log_probabilities, np.array([0, 0])) == pytest.approx((log(2) + log(4)) / 2)


@given(st.floats(0.3, 7.0), st.integers(0, 1000))
def test_softening_keeps_order_and_sums_and_is_the_softmax_of_divided_logits(temperature, seed):
    logits = np.random.default_rng(seed).normal(0, 5, (6, 3))
    softened = soften(log_softmax(logits, axis=1), temperature)
    assert np.allclose(softened, log_softmax(logits / temperature, axis=1))
    assert np.allclose(np.exp(softened).sum(1), 1)
    assert (softened.argmax(1) == logits.argmax(1)).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 4.0])
def test_the_temperature_that_spoilt_the_probabilities_is_found_again(temperature):
    log_probabilities, truth = drawn(3, 20_000, temperature)
    found = fit_temperature(log_probabilities, truth)
    assert found == pytest.approx(temperature, rel=0.05)
    assert calibration_error(soften(log_probabilities, found), truth) < 0.015


@pytest.mark.parametrize("seed", range(8))
def test_the_fit_is_where_scipy_finds_the_least_likelihood(seed):
    log_probabilities, truth = drawn(seed, 60, [0.6, 1.5, 3.0][seed % 3])
    found = fit_temperature(log_probabilities, truth)
    best = minimize_scalar(
        lambda inverse: negative_log_likelihood(log_softmax(log_probabilities * inverse, axis=1), truth),
        bounds=(1 / HOTTEST, 1 / COLDEST), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    assert found == pytest.approx(1 / best.x, rel=1e-4)


def test_where_the_likelihood_knows_no_end_the_temperature_stays_in_its_bounds():
    log_probabilities = np.log(np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert fit_temperature(log_probabilities, np.array([0, 1])) == pytest.approx(COLDEST)
    assert fit_temperature(log_probabilities, np.array([1, 0])) == pytest.approx(HOTTEST)


def test_the_smallest_probability_that_a_float_holds_is_fitted_without_a_warning():
    log_probabilities = np.log(np.array([[1.0, 1.2e-38], [0.6, 0.4], [0.3, 0.7]]))
    assert fit_temperature(log_probabilities, np.array([1, 0, 1])) == pytest.approx(HOTTEST)


def test_each_talker_is_softened_by_the_others_alone():
    log_probabilities, truth = drawn(5, 90, 2.0)
    talkers = ["a"] * 30 + ["b"] * 30 + ["c"] * 30
    softened = soften_by_others(log_probabilities, truth, talkers)
    for start in (0, 30, 60):
        own = np.zeros(90, dtype=bool)
        own[start : start + 30] = True
        temperature = fit_temperature(log_probabilities[~own], truth[~own])
        assert np.allclose(softened[own], soften(log_probabilities[own], temperature))
    wrong = truth.copy()
    wrong[:30] = (wrong[:30] + 1) % 4  # what a is said to have felt changes nothing for a
    again = soften_by_others(log_probabilities, wrong, talkers)
    assert np.array_equal(again[:30], softened[:30])
    assert not np.allclose(again[30:], softened[30:])
    assert soften_by_others(log_probabilities, truth, ["a"] * 90) is None


def test_calibration_says_before_and_honestly_after():
    log_probabilities, truth = drawn(7, 3_000, 2.5)
    talkers = [f"{index % 6}" for index in range(3_000)]
    found = calibrate(log_probabilities, truth, talkers, threshold=0.6)
    softened = soften_by_others(log_probabilities, truth, talkers)
    assert found.temperature == fit_temperature(log_probabilities, truth)
    assert (found.talkers, found.utterances) == (6, 3_000)
    assert found.error_before == calibration_error(log_probabilities, truth)
    assert found.error_after == calibration_error(softened, truth)
    assert found.error_after < found.error_before / 3
    assert found.nll_after < found.nll_before

    kept = np.exp(softened).max(1) >= 0.6
    names = np.array(["w", "x", "y", "z"])
    assert found.coverage == kept.mean()
    assert 0 < found.coverage < 1
    assert found.ua == unweighted_accuracy(names[truth[kept]], names[softened[kept].argmax(1)], list("wxyz"))
    assert found.wa == pytest.approx((softened[kept].argmax(1) == truth[kept]).mean())
    everything = calibrate(log_probabilities, truth, talkers)
    assert everything.coverage == 1.0
    assert everything.wa < found.wa


def test_a_probability_that_equals_the_threshold_reaches_it():
    even = np.log(np.full((4, 2), 0.5))
    assert calibrate(even, np.array([0, 1, 0, 1]), ["a", "a", "b", "b"], threshold=0.5).coverage == 1.0


def test_a_threshold_that_nothing_reaches_leaves_no_score():
    log_probabilities, truth = drawn(9, 40, 0.3)
    found = calibrate(log_probabilities, truth, ["a", "b"] * 20, threshold=0.9999999)
    assert found.coverage == 0.0
    assert isnan(found.ua)
    assert isnan(found.wa)


def test_of_one_talker_only_before_is_known():
    log_probabilities, truth = drawn(11, 50, 2.0)
    found = calibrate(log_probabilities, truth, ["a"] * 50)
    assert found.temperature == fit_temperature(log_probabilities, truth)
    assert found.error_before > 0
    assert all(isnan(value) for value in (found.error_after, found.nll_after, found.coverage, found.ua, found.wa))
