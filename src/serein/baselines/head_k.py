"""A loss over the hardest utterances of a batch, inspired by "head-k pooling"; no reproduction of GLRF.

Source: Ding et al. 2023, "Stable Speech Emotion Recognition with Head-k-Pooling Loss". Neither code nor a definition of
the loss was found, so nothing of it is reproduced but the idea that its name suggests. All of this is ours: the mean of
the k largest cross entropies of a batch, the average top-k loss of Fan et al. 2017.
"""

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor


def head_k_loss(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    k_share: float,
    weights: Float[Tensor, " classes"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean of the k largest cross entropies of a batch; inspired by head-k pooling, see above.

    Args:
        logits: one row an utterance.
        labels: their classes.
        k_share: k over the batch size, in (0, 1]; k is rounded, and at least 1. With 1 this is the plain cross entropy.
        weights: of the classes; the mean is then the weighted one, as in ``torch.nn.functional.cross_entropy``.
        label_smoothing: as there.

    Raises:
        ValueError: a share outside (0, 1].
    """
    if not 0 < k_share <= 1:
        raise ValueError(f"k_share must be in (0, 1], not {k_share}")
    losses = F.cross_entropy(logits.float(), labels, weights, reduction="none", label_smoothing=label_smoothing)
    largest, places = losses.topk(max(1, round(k_share * len(losses))))
    return largest.mean() if weights is None else largest.sum() / weights[labels[places]].sum()
