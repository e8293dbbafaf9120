"""From frames to one vector an utterance: attentive statistics pooling, eq. (7)."""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor, nn

Variance = Literal["corrected", "printed"]
PooledNorm = Literal["l2", "batch"]


def attentive_statistics(
    frames: Float[Tensor, "batch frames width"],
    attention: Float[Tensor, "batch frames heads"],
    variance: Variance = "corrected",
) -> tuple[Float[Tensor, "batch width heads"], Float[Tensor, "batch width heads"]]:
    """Eq. (7): attention-weighted mean and variance over time, for each head.

    mu = Z^T A.  The paper prints sigma^2 = Z^T (A * A) - (Z^T A * Z^T A), which weighs Z where a variance needs Z * Z,
    and can be negative; ``"corrected"`` is (Z * Z)^T A - mu * mu, ``"printed"`` is the paper's text. Where a head
    nearly sits on one frame its variance is a small difference all the same, of fewer right digits the nearer it sits.

    Args:
        frames: Z.
        attention: A; each head sums to 1 over time, and is 0 on padding.
        variance: which second line of eq. (7).

    Example:
        >>> z = torch.tensor([[[1.0], [3.0]]])
        >>> [statistic.item() for statistic in attentive_statistics(z, torch.full((1, 2, 1), 0.5))]
        [2.0, 1.0]
    """
    mean = frames.mT @ attention
    if variance == "printed":
        return mean, frames.mT @ attention.square() - mean.square()
    # A variance is that of the frames less any constant. Less their mean, it is no small difference of large squares.
    centred = frames - mean.mean(2).unsqueeze(1)
    return mean, centred.square().mT @ attention - (centred.mT @ attention).square()


class AttentiveStatisticsPooling(nn.Module):
    """A 1x1 convolution gives each head its weights over time; means and variances are normalised and joined.

    Args:
        width: width of the frames.
        heads: K of the paper's A (4).
        variance: see :func:`attentive_statistics`.
        norm: ``"l2"`` is the paper's: each head's means, and its variances, to length 1. ``"batch"`` joins means and
            standard deviations (0.01 at least) and gives each number mean 0 and variance 1 over the training batch (in
            evaluation over the batches of training), so that a number that hardly varies can speak as loudly as one
            that does.
    """

    def __init__(self, width: int, heads: int = 4, variance: Variance = "corrected", norm: PooledNorm = "l2") -> None:
        super().__init__()
        self.variance: Variance = variance
        self.output_width = 2 * width * heads
        self.batch_norm = nn.BatchNorm1d(self.output_width) if norm == "batch" else None
        self.score = nn.Linear(width, heads)  # on (batch, frames, width) a linear layer is the 1x1 convolution

    def forward(
        self, frames: Float[Tensor, "batch frames width"], padding_mask: Bool[Tensor, "batch frames"]
    ) -> Float[Tensor, "batch pooled"]:
        """Pool over time; padding weighs nothing."""
        padding = padding_mask.unsqueeze(-1)
        frames = frames.float().masked_fill(padding, 0.0)
        # A difference of squares needs more digits than the bf16 of mixed precision has.
        with torch.autocast(frames.device.type, enabled=False):
            attention = self.score(frames).masked_fill(padding, -torch.inf).softmax(1)
            mean, variance = attentive_statistics(frames, attention, self.variance)
            if self.batch_norm is not None:
                deviation = variance.clamp(min=1e-4).sqrt()
                return self._normed(torch.cat([mean.flatten(1), deviation.flatten(1)], dim=1))
        return torch.cat([F.normalize(mean, dim=1).flatten(1), F.normalize(variance, dim=1).flatten(1)], dim=1)

    def _normed(self, pooled: Tensor) -> Tensor:
        norm = self.batch_norm
        assert norm is not None
        if self.training and len(pooled) == 1:  # one utterance has no variance: take that of the batches before
            return F.batch_norm(pooled, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        normed: Tensor = norm(pooled)
        return normed
