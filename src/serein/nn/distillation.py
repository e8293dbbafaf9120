"""Adapter training without labels: a student, its EMA teacher, and local attributes (paper, section II-B)."""

from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from serein.nn.attributes import (
    AttributeHealth,
    LocalAttributes,
    Similarity,
    assign,
    attribute_logits,
    quantization_error,
)
from serein.nn.ema import frozen_copy, update_ema
from serein.nn.losses import masked_mse, normalize_target, pseudo_cross_entropy
from serein.nn.transformer import WAPTransformer


class DistillationOutput(NamedTuple):
    """One forward pass.

    Attributes:
        reconstruction: L_rec, eq. (1).
        pseudo_ce: L_pce.
        teacher_frames: Z^t without padding, as the targets are.
        assignments: pseudo-labels of ``teacher_frames``, eq. (4).
        quantization_error: L_VQ of eq. (3), divided by the number of frames.
        agreement: share of the hidden frames where the student's best attribute is the pseudo-label, in [0, 1].
        teacher_spread: standard deviation of Z^t over the batch's frames, averaged over the width, before the target
            norm; a teacher on its way to collapse takes it to 0.
    """

    reconstruction: Float[Tensor, ""]
    pseudo_ce: Float[Tensor, ""]
    teacher_frames: Float[Tensor, "valid width"]
    assignments: Int[Tensor, " valid"]
    quantization_error: Float[Tensor, ""]
    agreement: Float[Tensor, ""]
    teacher_spread: Float[Tensor, ""]


class SelfDistillation(nn.Module):
    """The Siamese structure of figure 1a: masked prediction and self-distillation onto local attributes.

    The teacher sees everything, the student the masked version. The teacher's frames, after ``target_norm``, are at
    once the target of eq. (1) and what the attributes are learned from.

    Args:
        adapter: becomes the student; the teacher starts as its copy.
        attributes: K prototypes of the adapter's width.
        temperature: divides the student's logits.
        similarity: cosine, or negative squared distance.
        target_norm: see :func:`serein.nn.losses.normalize_target`.
    """

    def __init__(
        self,
        adapter: WAPTransformer,
        attributes: LocalAttributes,
        *,
        temperature: float = 0.1,
        similarity: Similarity = "cosine",
        target_norm: Literal["none", "layer"] = "none",
    ) -> None:
        super().__init__()
        self.student = adapter
        self.teacher = cast(WAPTransformer, frozen_copy(adapter))
        self.attributes = attributes
        self.temperature = temperature
        self.similarity: Similarity = similarity
        self.target_norm: Literal["none", "layer"] = target_norm
        self._started = False

    def train(self, mode: bool = True) -> "SelfDistillation":
        """Training mode for the student; the teacher never drops units out."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(
        self,
        frames: Float[Tensor, "batch frames layers input_width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"],
        generator: torch.Generator,
    ) -> DistillationOutput:
        """Both losses for one batch; the first call starts the attributes on this batch's teacher frames.

        The student's last block and its MLP see hidden frames only, since both losses do. With masks on the CPU
        nothing here waits for a GPU.

        Args:
            frames: the encoder's frames.
            padding_mask: True = padding.
            frame_mask: M, the hidden frames.
            generator: on the CPU; used when the attributes start.
        """
        valid, hidden = _places(~padding_mask), _places(frame_mask)
        hidden_of_valid = _places(frame_mask.flatten()[valid]).to(frames.device)
        with torch.no_grad():
            raw = self.teacher(frames, padding_mask, wanted=valid.to(frames.device)).float()
            teacher_frames = normalize_target(raw, self.target_norm)
            # Whether they have started is asked of the device once, not at every step.
            if not self._started and not self.attributes.started:
                self.attributes.start(teacher_frames, generator)
            self._started = True
            # Attributes lie closer together than bf16 can tell: distances stay in float32 under mixed precision.
            with torch.autocast(frames.device.type, enabled=False):
                assignments = assign(teacher_frames, self.attributes.prototypes)
            pseudo_labels = assignments[hidden_of_valid]
        student = self.student(frames, padding_mask, frame_mask, hidden.to(frames.device)).float()
        with torch.autocast(frames.device.type, enabled=False):
            logits = attribute_logits(student, self.attributes.prototypes, self.temperature, self.similarity)
        return DistillationOutput(
            reconstruction=masked_mse(student, teacher_frames[hidden_of_valid]),
            pseudo_ce=pseudo_cross_entropy(logits, pseudo_labels),
            teacher_frames=teacher_frames,
            assignments=assignments,
            quantization_error=quantization_error(teacher_frames, self.attributes.prototypes, assignments)
            / len(assignments),
            agreement=(logits.argmax(1) == pseudo_labels).float().mean(),
            teacher_spread=raw.std(0, correction=0).mean(),
        )

    def follow(self, output: DistillationOutput, decay: float, generator: torch.Generator) -> AttributeHealth:
        """After the student's step: the teacher follows, eq. (2), and the attributes follow the teacher, eq. (5)."""
        update_ema(self.teacher, self.student, decay)
        return self.attributes.update(output.teacher_frames, output.assignments, generator)


def _places(mask: Bool[Tensor, "*frames"]) -> Int[Tensor, " true"]:
    """Where a mask is True, counted through the whole batch."""
    return mask.flatten().nonzero().squeeze(1)
