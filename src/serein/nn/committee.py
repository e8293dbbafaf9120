"""Several classifiers as one."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Committee(nn.Module):
    """Members that learned the same thing from different draws; their probabilities are averaged.

    Args:
        members: classifiers with ``embed``, as :class:`serein.nn.classifier.EmotionClassifier` is.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def embed(
        self, frames: Float[Tensor, "batch frames layers width"], padding_mask: Bool[Tensor, "batch frames"]
    ) -> Float[Tensor, "batch pooled"]:
        """The members' embeddings side by side."""
        return torch.cat([member.embed(frames, padding_mask) for member in self.members], dim=1)  # type: ignore[operator]

    def forward(
        self, frames: Float[Tensor, "batch frames layers width"], padding_mask: Bool[Tensor, "batch frames"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits whose softmax is the mean of the members' probabilities."""
        logits = torch.stack([member(frames, padding_mask) for member in self.members])
        return logits.float().log_softmax(2).logsumexp(0) - math.log(len(self.members))
