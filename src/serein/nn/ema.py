"""The teacher: a frozen copy of the student that follows it slowly."""

import copy

import torch
from torch import nn


def frozen_copy(student: nn.Module) -> nn.Module:
    """A copy that takes no gradients and never drops units out."""
    teacher = copy.deepcopy(student).requires_grad_(False)
    return teacher.eval()


@torch.no_grad()
def update_ema(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Eq. (2): theta_t <- decay * theta_t + (1 - decay) * theta_s, for every parameter, in place.

    Args:
        teacher: the module that moves.
        student: a module with the same parameters in the same order.
        decay: alpha of the paper, in [0, 1]; 1 freezes the teacher, 0 copies the student.
    """
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - decay)
