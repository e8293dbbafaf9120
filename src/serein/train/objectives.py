"""What a system minimises when it learns from labels: the logits of a batch, and the loss on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor

from serein.baselines.head_k import head_k_loss


@dataclass(frozen=True)
class Labelled:
    """A batch with what may be known about it in training.

    Attributes:
        frames: of the encoder.
        padding_mask: True = padding.
        frame_mask: True = hidden.
        truth: class of each utterance.
        talkers: number of each utterance's talker; None where they are not told.
        weights: of the classes.
        label_smoothing: in [0, 1).
    """

    frames: Float[Tensor, "batch frames layers width"]
    padding_mask: Bool[Tensor, "batch frames"]
    frame_mask: Bool[Tensor, "batch frames"]
    truth: Int[Tensor, " batch"]
    talkers: Int[Tensor, " batch"] | None
    weights: Float[Tensor, " classes"]
    label_smoothing: float

    def cross_entropy(self, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """Weighted and smoothed as the recipe says."""
        return F.cross_entropy(logits.float(), self.truth, self.weights, label_smoothing=self.label_smoothing)


# A system's own methods are called, so the module is Any.
Objective = Callable[[Any, Labelled], tuple[Tensor, Tensor]]


def plain(model: Any, batch: Labelled) -> tuple[Tensor, Tensor]:
    """Cross entropy of the emotions."""
    logits = model(batch.frames, batch.padding_mask, batch.frame_mask)
    return logits, batch.cross_entropy(logits)


def against_talkers(model: Any, batch: Labelled) -> tuple[Tensor, Tensor]:
    """Cross entropy of emotions and of talkers, whose gradient is reversed inside the model (SNP).

    Raises:
        ValueError: the talkers are not told.
    """
    if batch.talkers is None:
        raise ValueError("this objective learns from the talkers: give them")
    logits, talker_logits = model.forward_with_talkers(batch.frames, batch.padding_mask, batch.frame_mask)
    return logits, batch.cross_entropy(logits) + F.cross_entropy(talker_logits.float(), batch.talkers)


def with_quantization(model: Any, batch: Labelled) -> tuple[Tensor, Tensor]:
    """Cross entropy and the loss of a codebook of prototypes (LPMN-style)."""
    logits, quantization = model.forward_with_quantization(batch.frames, batch.padding_mask, batch.frame_mask)
    return logits, batch.cross_entropy(logits) + quantization


def hardest_half(model: Any, batch: Labelled) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of the batch's hardest half (inspired by GLRF's head-k)."""
    logits = model(batch.frames, batch.padding_mask, batch.frame_mask)
    loss = head_k_loss(logits.float(), batch.truth, 0.5, weights=batch.weights, label_smoothing=batch.label_smoothing)
    return logits, loss
