import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from sklearn.metrics import f1_score, precision_recall_fscore_support, recall_score

from serein.errors import CorpusError
from serein.evaluate.metrics import (
    confusion_matrix,
    f1,
    macro_f1,
    precision,
    recall,
    scores,
    scores_from_confusion,
    unweighted_accuracy,
    weighted_accuracy,
)

LABELS = ["angry", "happy", "neutral", "sad"]


def assert_equal_to_sklearn(truth: Sequence[str], prediction: Sequence[str]) -> None:
    settings = {"labels": LABELS, "average": "macro", "zero_division": np.nan}
    found = scores(truth, prediction, LABELS)
    assert found.wa == pytest.approx(np.mean(np.array(truth) == np.array(prediction)), abs=1e-12)
    assert found.ua == pytest.approx(recall_score(truth, prediction, **settings), abs=1e-12)
    assert found.macro_f1 == pytest.approx(f1_score(truth, prediction, **settings), abs=1e-12)


def test_equal_to_sklearn_on_random_predictions_with_absent_labels():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = rng.integers(1, 30)
        truth = rng.choice(rng.choice(LABELS, rng.integers(1, 5)), size)
        prediction = rng.choice(rng.choice(LABELS, rng.integers(1, 5)), size)
        assert_equal_to_sklearn(truth.tolist(), prediction.tolist())


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=6))
def test_equal_to_sklearn_in_the_corners(rows: list[tuple[str, str]]):
    truth, prediction = map(list, zip(*rows, strict=True))
    assert_equal_to_sklearn(truth, prediction)


def test_recall_precision_and_f1_of_each_label_equal_sklearn():
    rng = np.random.default_rng(1)
    truth, prediction = rng.choice(LABELS[:3], 20), rng.choice(LABELS[1:], 20)
    counts = confusion_matrix(truth, prediction, LABELS)
    np.testing.assert_array_equal(counts, sklearn_confusion_matrix(truth, prediction, labels=LABELS))
    expected = precision_recall_fscore_support(truth, prediction, labels=LABELS, zero_division=np.nan)
    for score, of_sklearn in zip((precision, recall, f1), expected[:3], strict=True):
        np.testing.assert_allclose(score(counts), of_sklearn)


def test_a_stack_gives_what_each_matrix_gives_alone():
    stack = np.random.default_rng(2).integers(0, 5, size=(3, 7, 4, 4))
    together = scores_from_confusion(stack)
    for index in np.ndindex(3, 7):
        np.testing.assert_array_equal(together[index], scores_from_confusion(stack[index]))


def test_the_order_of_the_rows_and_of_the_labels_does_not_matter():
    rng = np.random.default_rng(3)
    truth, prediction, order = rng.choice(LABELS, 50), rng.choice(LABELS, 50), rng.permutation(50)
    one = scores(truth, prediction, LABELS)
    other = scores(truth[order], prediction[order], LABELS[::-1])
    assert (one.wa, one.ua, one.macro_f1) == pytest.approx((other.wa, other.ua, other.macro_f1))


def test_a_label_that_is_predicted_but_never_true_lowers_recall_only_where_it_was_missed():
    # audmetric, which takes its labels from what occurs, calls this 0.25
    assert unweighted_accuracy(["sad", "sad"], ["sad", "angry"], LABELS) == 0.5
    assert macro_f1(["sad", "sad"], ["sad", "angry"], LABELS) == pytest.approx((2 / 3 + 0) / 2)
    assert weighted_accuracy(["sad", "sad"], ["sad", "angry"], LABELS) == 0.5


def test_nothing_to_score_is_undefined_and_warns_nobody():
    assert np.isnan(scores_from_confusion(np.zeros((4, 4), dtype=int))).all()
    assert np.isnan(weighted_accuracy([], [], LABELS))


@pytest.mark.parametrize(
    ("truth", "prediction", "labels", "said"),
    [
        (["calm"], ["sad"], LABELS, "truth holds calm, outside of the labels angry, happy"),
        (["sad"], ["calm"], LABELS, "prediction holds calm"),
        ([f"x{index:02}" for index in range(12)], ["sad"] * 12, LABELS, "x09 and 2 more"),
        (["sad"], [], LABELS, "1 truths and 0 predictions"),
        (["sad"], ["sad"], ["sad", "sad"], "unique"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(truth, prediction, labels, said):
    with pytest.raises(CorpusError, match=said):
        confusion_matrix(truth, prediction, labels)


def test_metrics_and_statistics_need_neither_torch_nor_the_report_extra():
    code = (
        "import sys; import serein.evaluate.statistics, serein.evaluate.sections; "
        "print([name for name in ('torch', 'matplotlib', 'sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
