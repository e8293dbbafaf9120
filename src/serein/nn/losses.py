"""The two objectives of adapter training, eq. (1) and the pseudo cross entropy, and their sum, eq. (6)."""

from typing import Literal

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor


def masked_mse(student: Float[Tensor, "hidden width"], teacher: Float[Tensor, "hidden width"]) -> Float[Tensor, ""]:
    """Eq. (1): L_rec = 1/|M| * sum over i in M of ||z_i^t - z_i^s||_2^2.

    The squared distance is summed over the width, as printed, and averaged over the hidden frames.

    Args:
        student: z^s of the hidden frames M.
        teacher: z^t of the same frames.
    """
    return (teacher - student).square().sum(-1).mean()


def normalize_target(
    teacher: Float[Tensor, "*batch width"], norm: Literal["none", "layer"]
) -> Float[Tensor, "*batch width"]:
    """The target of eq. (1): as the teacher gives it ("none"), or each frame with mean 0 and variance 1 ("layer")."""
    return F.layer_norm(teacher, teacher.shape[-1:]) if norm == "layer" else teacher


def pseudo_cross_entropy(
    logits: Float[Tensor, "hidden attributes"], pseudo_labels: Int[Tensor, " hidden"]
) -> Float[Tensor, ""]:
    """L_pce: cross entropy of the student's logits against the teacher's pseudo-labels of eq. (4), on hidden frames."""
    return F.cross_entropy(logits.float(), pseudo_labels)


def adapter_loss(reconstruction: Float[Tensor, ""], pseudo_ce: Float[Tensor, ""], weight: float) -> Float[Tensor, ""]:
    """Eq. (6): L = lambda * L_rec + (1 - lambda) * L_pce.

    Args:
        reconstruction: L_rec.
        pseudo_ce: L_pce.
        weight: lambda, in [0, 1]; the paper ramps it from 1.0 down to 0.5.
    """
    return weight * reconstruction + (1 - weight) * pseudo_ce
