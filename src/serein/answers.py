"""How an answer is written: labels with their probabilities, best first."""

from collections.abc import Sequence

from serein.errors import UsageError

Answer = list[dict[str, str | float]]
"""``[{"label": "angry", "score": 0.81}, ...]``, best first: what transformers' audio-classification pipeline gives."""


def rank(labels: Sequence[str], probabilities: Sequence[float], top_k: int | None = None) -> Answer:
    """Labels by falling probability; equal ones stay in their order.

    Raises:
        UsageError: ``top_k`` is below 1.

    Example:
        >>> rank(("angry", "happy", "sad"), (0.2, 0.5, 0.3), top_k=2)
        [{'label': 'happy', 'score': 0.5}, {'label': 'sad', 'score': 0.3}]
    """
    if top_k is not None and top_k < 1:
        raise UsageError(f"top_k {top_k}: ask for one label or more, or leave it out for all")
    pairs = sorted(zip(labels, probabilities, strict=True), key=lambda pair: pair[1], reverse=True)
    return [{"label": label, "score": float(probability)} for label, probability in pairs[:top_k]]
