"""WA, UA and macro F1 over an explicit list of labels, for one confusion matrix or for thousands at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real

from serein.errors import CorpusError

Names = Sequence[str] | np.ndarray


@dataclass(frozen=True, slots=True)
class Scores:
    """The three scores of a set of predictions, each between 0 and 1."""

    wa: float
    ua: float
    macro_f1: float


def label_indices(values: Names, labels: Sequence[str], role: str) -> Int[np.ndarray, " rows"]:
    """Where each value stands in the list of labels.

    Raises:
        CorpusError: a label stands twice in the list, or a value is not in it; ``role`` ("truth") names the
            values.
    """
    position = {label: index for index, label in enumerate(labels)}
    if len(position) != len(labels):
        raise CorpusError(f"labels must be unique, these are not: {list(labels)}")
    unknown = sorted({str(value) for value in values if value not in position})
    if unknown:
        shown = ", ".join(unknown[:10]) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        raise CorpusError(f"{role} holds {shown}, outside of the labels {', '.join(labels)}; name all that may occur")
    return np.array([position[value] for value in values], dtype=np.int64)


def confusion_matrix(truth: Names, prediction: Names, labels: Sequence[str]) -> Int[np.ndarray, "labels labels"]:
    """Count utterances by true label (row) and predicted label (column), in the order of ``labels``.

    Raises:
        CorpusError: the two differ in length, or hold something outside of ``labels``.

    Example:
        >>> confusion_matrix(["sad", "sad", "angry"], ["sad", "angry", "angry"], ["angry", "sad"])
        array([[1, 0],
               [1, 1]])
    """
    if len(truth) != len(prediction):
        raise CorpusError(f"{len(truth)} truths and {len(prediction)} predictions: there must be one each an utterance")
    cells = label_indices(truth, labels, "truth") * len(labels) + label_indices(prediction, labels, "prediction")
    return np.bincount(cells, minlength=len(labels) ** 2).reshape(len(labels), len(labels))


def recall(confusion: Real[np.ndarray, "*stack labels labels"]) -> Float[np.ndarray, "*stack labels"]:
    """``tp / (tp + fn)`` of each label; nan where no utterance truly has it."""
    return _ratio(_diagonal(confusion), confusion.sum(-1))


def precision(confusion: Real[np.ndarray, "*stack labels labels"]) -> Float[np.ndarray, "*stack labels"]:
    """``tp / (tp + fp)`` of each label; nan where it was never predicted."""
    return _ratio(_diagonal(confusion), confusion.sum(-2))


def f1(confusion: Real[np.ndarray, "*stack labels labels"]) -> Float[np.ndarray, "*stack labels"]:
    """``2 tp / (2 tp + fp + fn)`` of each label; nan only where it is neither true nor predicted anywhere."""
    return _ratio(2 * _diagonal(confusion), confusion.sum(-1) + confusion.sum(-2))


def scores_from_confusion(
    confusion: Real[np.ndarray, "*stack labels labels"],
) -> Float[np.ndarray, "*stack 3"]:
    """WA, UA and macro F1 (the fields of `Scores`, in order) of every matrix of a stack; rows are the truth.

    Labels without a recall, or without an F1, are left out of that mean. An empty matrix gives nan.

    Example:
        >>> scores_from_confusion(np.array([[3, 1], [2, 2]])).round(3)
        array([0.625, 0.625, 0.619])
    """
    wa = _ratio(np.asarray(_diagonal(confusion).sum(-1)), np.asarray(confusion.sum((-2, -1))))
    return np.stack([wa, mean_of_defined(recall(confusion)), mean_of_defined(f1(confusion))], axis=-1)


def mean_of_defined(values: Float[np.ndarray, "*stack values"]) -> Float[np.ndarray, "*stack"]:
    """Mean over the last axis, nan left out; nan, and no warning unlike numpy's, where nothing is defined."""
    defined = ~np.isnan(values)
    return _ratio(np.asarray(np.where(defined, values, 0.0).sum(-1)), np.asarray(defined.sum(-1)))


def scores(truth: Names, prediction: Names, labels: Sequence[str]) -> Scores:
    """WA, UA and macro F1 at once; see the three functions below.

    Raises:
        CorpusError: see `confusion_matrix`.
    """
    return Scores(*scores_from_confusion(confusion_matrix(truth, prediction, labels)).tolist())


def weighted_accuracy(truth: Names, prediction: Names, labels: Sequence[str]) -> float:
    """WA, the plain accuracy: utterances predicted right / all utterances.

    Raises:
        CorpusError: see `confusion_matrix`.

    Example:
        >>> weighted_accuracy(["sad", "sad", "sad", "angry"], ["sad"] * 4, ["angry", "sad"])
        0.75
    """
    return scores(truth, prediction, labels).wa


def unweighted_accuracy(truth: Names, prediction: Names, labels: Sequence[str]) -> float:
    """UA, the mean recall: each label's share of utterances predicted right, averaged over the given labels.

    A label that no utterance truly has is left out of the mean, so predicting it costs the true label's recall
    and nothing else. Equals scikit-learn's ``recall_score(average="macro", labels=labels, zero_division=nan)``.

    Raises:
        CorpusError: see `confusion_matrix`.

    Example:
        >>> unweighted_accuracy(["sad", "sad", "sad", "angry"], ["sad"] * 4, ["angry", "sad"])
        0.5
        >>> unweighted_accuracy(["sad", "sad"], ["sad", "angry"], ["angry", "sad"])
        0.5
    """
    return scores(truth, prediction, labels).ua


def macro_f1(truth: Names, prediction: Names, labels: Sequence[str]) -> float:
    """Macro F1: ``2 tp / (2 tp + fp + fn)`` of each label, averaged over the given labels.

    A label that is neither true nor predicted anywhere is left out of the mean; one that is predicted but never
    true counts as 0. Equals scikit-learn's ``f1_score(average="macro", labels=labels, zero_division=nan)``.

    Raises:
        CorpusError: see `confusion_matrix`.

    Example:
        >>> macro_f1(["sad", "sad"], ["sad", "angry"], ["angry", "happy", "sad"])
        0.333...
    """
    return scores(truth, prediction, labels).macro_f1


def _diagonal(confusion: Real[np.ndarray, "*stack labels labels"]) -> Real[np.ndarray, "*stack labels"]:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(above: Real[np.ndarray, "*shape"], below: Real[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return np.asarray(np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0))
