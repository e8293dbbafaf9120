"""Which frames are hidden from the student, and from a classifier in training."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def sample_frame_mask(
    padding_mask: Bool[Tensor, "batch frames"],
    ratio: float,
    *,
    span: float = 1.0,
    generator: torch.Generator,
) -> Bool[Tensor, "batch frames"]:
    """Draw the set M of eq. (1): which frames to hide (True), never a padding frame.

    Args:
        padding_mask: True = padding.
        ratio: share of each utterance's frames to hide, in (0, 1). With ``span`` 1 it is
            ``ratio * length`` rounded, at least 1; with longer spans that share is expected, and 1 at least.
        span: mean length of a hidden stretch, in frames. 1 draws positions independently, as the paper does; more
            alternates hidden and visible stretches of geometric lengths.
        generator: on the CPU, so that the draw is the same on every device.

    Example:
        >>> padding = torch.tensor([[False] * 10, [False] * 5 + [True] * 5])
        >>> sample_frame_mask(padding, 0.4, generator=torch.Generator().manual_seed(0)).sum(1)
        tensor([4, 2])
    """
    if not 0 < ratio < 1:
        raise ValueError(f"ratio must be in (0, 1), not {ratio}")
    if span < 1 or (span > 1 and span * (1 - ratio) < ratio):
        raise ValueError(
            f"span must be at least {max(1.0, ratio / (1 - ratio)):.2f} frames for ratio {ratio}, not {span}"
        )
    draw = _independent if span == 1 else _spans
    return draw(padding_mask.cpu(), ratio, span, generator).to(padding_mask.device)


def replace_frames(
    frames: Float[Tensor, "batch frames width"],
    frame_mask: Bool[Tensor, "batch frames"],
    embedding: Float[Tensor, " width"],
) -> Float[Tensor, "batch frames width"]:
    """X' of the paper: hidden frames replaced by the learnable embedding e_[M]; the input stays as it is."""
    return torch.where(frame_mask.unsqueeze(-1), embedding.to(frames.dtype), frames)


def _independent(padding_mask: Tensor, ratio: float, span: float, generator: torch.Generator) -> Tensor:
    lengths = (~padding_mask).sum(1, keepdim=True)
    hidden = (ratio * lengths).round().clamp(min=1)
    scores = torch.rand(padding_mask.shape, generator=generator).masked_fill(padding_mask, 2.0)
    ranks = scores.argsort(1).argsort(1)
    return (ranks < hidden) & ~padding_mask


def _spans(padding_mask: Tensor, ratio: float, span: float, generator: torch.Generator) -> Tensor:
    batch, frames = padding_mask.shape
    # Column 2j is a hidden stretch, 2j + 1 a visible one; as many columns as frames always reach the end.
    mean = torch.tensor([span, span * (1 - ratio) / ratio]).repeat((frames + 1) // 2 + 1).expand(batch, -1)
    uniform = torch.rand(mean.shape, generator=generator).clamp(min=1e-12)
    stop = (1 / mean).clamp(max=1 - 1e-6)
    stretches = (uniform.log() / torch.log1p(-stop)).ceil().clamp(min=1)
    # The first frame is hidden as often as any other.
    start = torch.rand(batch, generator=generator)
    stretches[start >= ratio, 0] = 0
    ends = stretches.cumsum(1)
    position = torch.arange(frames, dtype=ends.dtype).expand(batch, -1).contiguous()
    mask = torch.searchsorted(ends, position, right=True) % 2 == 0
    mask &= ~padding_mask
    # An utterance whose draw hid nothing would teach nothing: it hides one frame, any. Its start is even on [ratio, 1).
    lengths = (~padding_mask).sum(1)
    anywhere = ((start - ratio) / (1 - ratio) * lengths).long().clamp(max=lengths - 1)
    nothing = (~mask.any(1) & (lengths > 0)).nonzero().flatten()
    mask[nothing, anywhere[nothing]] = True
    return mask
