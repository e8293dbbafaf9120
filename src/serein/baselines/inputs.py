"""What the baselines share between the frames and the output: hidden frames, and the mean over time.

Standardising and mixing the encoder's layers is the adapter's own front end, so that all systems see the same frames.
"""

from jaxtyping import Bool, Float
from torch import Tensor


def hide_frames(
    frames: Float[Tensor, "batch frames width"], frame_mask: Bool[Tensor, "batch frames"] | None
) -> Float[Tensor, "batch frames width"]:
    """Put 0 at hidden frames (True): after standardising, that is the mean frame of the training talkers."""
    return frames if frame_mask is None else frames.masked_fill(frame_mask.unsqueeze(-1), 0.0)


def masked_mean(
    frames: Float[Tensor, "batch frames width"], padding_mask: Bool[Tensor, "batch frames"]
) -> Float[Tensor, "batch width"]:
    """Mean over time, padding left out, in float32.

    Example:
        >>> import torch
        >>> frames = torch.tensor([[[1.0], [3.0], [99.0]]])
        >>> masked_mean(frames, torch.tensor([[False, False, True]])).tolist()
        [[2.0]]
    """
    total = frames.float().masked_fill(padding_mask.unsqueeze(-1), 0.0).sum(1)
    return total / (~padding_mask).sum(1, keepdim=True)
