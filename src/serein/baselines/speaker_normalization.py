"""SNP: a projector that is trained for emotion and against the talker.

Source: Gat et al. 2022, "Speaker Normalization for Self-supervised Speech Emotion Recognition" (no official code). Its
SNP variant trains a non-linear projector on a frozen encoder. Its other variant, TAP, trains the encoder as well: it
cannot be had on frozen frames, and it is the one whose score Table I quotes. Reproduced: projector, pooling over time,
an emotion and a talker output, and talker gradients that reach the projector times -lambda, lambda = 1e-3.

Ours: the source alternates a step for emotion with a step for the talker (descent for the talker output, ascent times
lambda for the projector); here both are one step, with gradient reversal between pooling and talker output. So are the
projector's shape (one layer with ReLU), the mean as pooling, a single linear layer as either output (the source has a
non-linear projection in each), the layer mix and the standardised frames.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from serein.baselines.inputs import hide_frames, masked_mean
from serein.nn.classifier import OutputLayer
from serein.nn.transformer import FrameFrontEnd


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def reverse_gradient(x: Float[Tensor, "*shape"], strength: float) -> Float[Tensor, "*shape"]:
    """The same values; on the way back the gradient is multiplied by ``-strength``."""
    reversed_: Tensor = _GradientReversal.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_


class SpeakerNormalizedHead(nn.Module):
    """Projector and mean over time; what is left of the talker in it is pushed out while training.

    Args:
        layers: how many of the encoder's layers come in.
        input_width: width of the encoder's frames.
        classes: number of emotions.
        talkers: how many talkers it learns to tell apart: only those that it is trained on.
        width: of the projector.
        strength: lambda, >= 0; 0 trains the projector for emotion alone.
    """

    def __init__(
        self,
        layers: int,
        input_width: int,
        classes: int,
        talkers: int,
        *,
        width: int = 256,
        strength: float = 1e-3,
    ) -> None:
        super().__init__()
        self.front_end = FrameFrontEnd(layers, input_width)
        self.projector = nn.Linear(input_width, width)
        self.output = OutputLayer(width, classes)
        self.talker_output = OutputLayer(width, talkers)
        self.strength = strength

    def embed(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch projected"]:
        """The mean projected frame."""
        projected = torch.relu(self.projector(hide_frames(self.front_end(frames), frame_mask)))
        return masked_mean(projected, padding_mask)

    def forward_with_talkers(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch talkers"]]:
        """Logits of emotions and of talkers, for training: minimise the sum of both cross entropies."""
        pooled = self.embed(frames, padding_mask, frame_mask)
        return self.output(pooled), self.talker_output(reverse_gradient(pooled, self.strength))

    def forward(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Logits of emotions, one row an utterance."""
        logits: Tensor = self.output(self.embed(frames, padding_mask, frame_mask))
        return logits
