"""Adapter, attentive statistics pooling and a linear layer: the network that names an emotion."""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor, nn

from serein.nn.pooling import AttentiveStatisticsPooling
from serein.nn.transformer import WAPTransformer


class OutputLayer(nn.Linear):
    """A linear layer that stays in float32 under mixed precision: in bf16 the two best of near logits would tie."""

    def forward(self, input: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch classes"]:
        """Logits, in float32."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class EmotionClassifier(nn.Module):
    """Frames to logits (paper, section II-C).

    Args:
        adapter: fresh, or trained without labels.
        pooling: of the adapter's width.
        classes: number of emotions.
        dropout: on the pooled vector, in training only.
    """

    def __init__(
        self, adapter: WAPTransformer, pooling: AttentiveStatisticsPooling, classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.adapter = adapter
        self.pooling = pooling
        self.output = OutputLayer(pooling.output_width, classes)
        self.dropout = dropout

    def embed(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch pooled"]:
        """The utterance embedding: pooled statistics, before the linear layer."""
        pooled: Tensor = self.pooling(self.adapter(frames, padding_mask, frame_mask), padding_mask)
        return pooled

    def forward(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Logits, one row an utterance."""
        pooled = self.embed(frames, padding_mask, frame_mask)
        logits: Tensor = self.output(F.dropout(pooled, self.dropout, self.training))
        return logits
