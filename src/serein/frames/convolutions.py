"""The convolutions in front of a frozen transformer as matrix products, frames in rows and channels in columns."""

from typing import Any

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from serein.frames.frozen import FrozenLinear


class RowConvolutions:
    """Convolutions that are each followed by a layer norm over the channels and GELU, as in HuBERT-large.

    What a kernel sees of a signal in rows is one stretch of memory, so that a convolution is a matrix product,
    and the norm finds the channels of a frame side by side. As torch lays signals out, both need them turned.

    Args:
        layers: transformers' layers, each with ``conv`` and ``layer_norm``.
    """

    def __init__(self, layers: Any) -> None:
        self._layers = [
            (
                FrozenLinear(layer.conv.weight.mT.flatten(1), layer.conv.bias),
                layer.conv.kernel_size[0],
                layer.conv.stride[0],
                layer.layer_norm,
            )
            for layer in layers
        ]

    def __call__(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "frames channels"]:
        """Frames of one waveform."""
        frames = samples.unsqueeze(1)
        for product, kernel, stride, norm in self._layers:
            frames = F.gelu(norm(product(frames.unfold(0, kernel, stride).mT.flatten(1))))
        return frames
