"""WAP-Transformer: the light backbone of the adapter (paper, section II-A.2 and III-B)."""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from serein.nn.masking import replace_frames

LayerMix = Literal["softmax", "joined"]


def attend(
    q: Float[Tensor, "batch heads frames width"],
    k: Float[Tensor, "batch heads frames width"],
    v: Float[Tensor, "batch heads frames width"],
    visible: Bool[Tensor, "batch 1 1 frames"] | None,
) -> Float[Tensor, "batch heads frames width"]:
    """softmax(q k^T / sqrt(width)) v over the visible frames (None = all)."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    # On a CPU torch's fused attention is no faster in bf16 than in float32, and its backward much slower: two plain
    # products, with the mask as what the first one is added to, take half the time.
    batch, heads, frames, width = q.shape
    q, k, v = (part.reshape(batch * heads, frames, width) for part in (q, k, v))
    hidden = q.new_zeros(1, 1, 1)
    if visible is not None:
        hidden = q.new_zeros(visible.shape).masked_fill(~visible, -torch.inf)
        hidden = hidden.expand(batch, heads, 1, frames).reshape(batch * heads, 1, frames)
    scores = torch.baddbmm(hidden, q, k.mT, alpha=width**-0.5)
    return (scores.softmax(-1) @ v).view(batch, heads, frames, width)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and GELU feed-forward (4 x width), each round a residual path.

    Dropout acts on what each of the two adds to the residual path, and nowhere else: drawing it for attention weights
    and hidden units as well took two fifths of a training step on a CPU.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be parted into {heads} heads")
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.dropout = dropout

    def forward(
        self,
        x: Float[Tensor, "batch frames width"],
        visible: Bool[Tensor, "batch 1 1 frames"] | None,
        wanted: Int[Tensor, " wanted"] | None = None,
    ) -> Float[Tensor, "*output width"]:
        """One block; ``visible`` says which frames may be attended to, ``wanted`` whose output matters (None = all)."""
        batch, frames, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, frames, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, frames, width / heads)
        attended = attend(q, k, v, visible).transpose(1, 2).reshape(batch, frames, width)
        x, attended = pick(x, wanted), pick(attended, wanted)
        x = x + F.dropout(self.out(attended), self.dropout, self.training)
        hidden = F.gelu(self.up(self.feed_forward_norm(x)))
        return x + F.dropout(self.down(hidden), self.dropout, self.training)


def pick(
    x: Float[Tensor, "batch frames width"], wanted: Int[Tensor, " wanted"] | None
) -> Float[Tensor, "*output width"]:
    """The wanted frames, counted through the whole batch, one after the other; None = all, as they are."""
    return x if wanted is None else x.flatten(0, 1).index_select(0, wanted)


class WeightedAverage(nn.Module):
    """Z = sum over l of w_l X^l, with w = softmax of learnable scores, so that it stays an average.

    Example:
        >>> average = WeightedAverage(2)
        >>> average([torch.zeros(1, 3), torch.ones(1, 3)])
        tensor([[0.5000, 0.5000, 0.5000]], grad_fn=...)
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(inputs))

    def forward(self, outputs: list[Float[Tensor, "*batch"]]) -> Float[Tensor, "*batch"]:
        """Average tensors of one shape."""
        weights = self.scores.softmax(0)
        average = weights[0] * outputs[0]
        for weight, output in zip(weights[1:], outputs[1:], strict=True):
            average = torch.addcmul(average, weight, output)
        return average


class FrameFrontEnd(nn.Module):
    """What stands before the adapter: each encoder layer standardised, then all of them mixed.

    ``mean`` and ``deviation`` belong to the frames that are trained on (``FrameArray.moments``);
    they are buffers, so they travel with the weights. With one layer there is nothing to mix.

    Args:
        layers: how many.
        width: of one layer's frame.
        mix: ``"softmax"`` averages the layers with learned weights, ``"joined"`` puts them side by side.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, layers: int, width: int, mix: LayerMix = "softmax") -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(layers, width))
        self.register_buffer("deviation", torch.ones(layers, width))
        self.mix = nn.Parameter(torch.zeros(layers)) if layers > 1 and mix == "softmax" else None
        self.output_width = width if mix == "softmax" else layers * width

    def forward(self, frames: Float[Tensor, "batch frames layers width"]) -> Float[Tensor, "batch frames mixed"]:
        """Standardise and mix."""
        frames = (frames - self.mean).div_(self.deviation)
        if self.mix is None:
            return frames.flatten(2)
        return torch.einsum("btlw,l->btw", frames, self.mix.softmax(0))


def standardise_with(
    front_end: nn.Module, moments: tuple[Float[Tensor, "layers width"], Float[Tensor, "layers width"]]
) -> None:
    """Give a front end the mean and the deviation that it is to standardise frames with."""
    for name, moment in zip(("mean", "deviation"), moments, strict=True):
        front_end.get_buffer(name).copy_(moment)


class WAPTransformer(nn.Module):
    """Frames of a frozen encoder in, enriched frames Z out: "weighted average pooling" over transformer blocks.

    Patch embedding to ``width``, learnable 1-D positions, ``blocks`` transformer blocks, the softmax-weighted average
    of the blocks' outputs, and an MLP of three linear layers on it.

    Args:
        input_width: width of the encoder's frames.
        input_layers: how many of the encoder's layers come in.
        width: D of the paper (384).
        blocks: L of the paper (3).
        heads: attention heads of a block; the paper does not say (6 here).
        dropout: inside the blocks, in training only.
        layer_mix: see :class:`FrameFrontEnd`.
        max_frames: how many positions there are; longer input is an error, so cut it into windows first.

    Example:
        >>> adapter = WAPTransformer(input_width=16, input_layers=2, width=12, blocks=3, heads=2).eval()
        >>> padding_mask = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
        >>> adapter(torch.randn(2, 7, 2, 16), padding_mask).shape
        torch.Size([2, 7, 12])
    """

    def __init__(
        self,
        input_width: int,
        input_layers: int = 1,
        *,
        width: int = 384,
        blocks: int = 3,
        heads: int = 6,
        dropout: float = 0.0,
        layer_mix: LayerMix = "softmax",
        max_frames: int = 1500,
    ) -> None:
        super().__init__()
        self.width = width
        self.front_end = FrameFrontEnd(input_layers, input_width, layer_mix)
        self.embed = nn.Linear(self.front_end.output_width, width)
        self.mask_embedding = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.mask_embedding, std=0.02)
        # From zero: positions that no training utterance reached stay neutral, and how many there are changes no draw.
        self.positions = nn.Parameter(torch.zeros(max_frames, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(blocks))
        self.average = WeightedAverage(blocks)
        self.mlp = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(
        self,
        frames: Float[Tensor, "batch frames layers input_width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
        wanted: Int[Tensor, " wanted"] | None = None,
    ) -> Float[Tensor, "*output width"]:
        """Enrich frames.

        Masks may stay on the CPU while the frames are on a GPU: then nothing here waits for it.

        Args:
            frames: the encoder's frames; which finite numbers stand at padding positions does not matter.
            padding_mask: True = padding. Output at padding positions means nothing.
            frame_mask: True = replaced by the learnable embedding before positions are added.
            wanted: the frames whose output is asked for, counted through the whole batch, on the device of ``frames``;
                what only the others need is not computed. None asks for all.

        Returns:
            (batch, frames, width), or (wanted, width).

        Raises:
            ValueError: more frames than learned positions.
        """
        length = frames.shape[1]
        if length > len(self.positions):
            raise ValueError(
                f"{length} frames, but there are {len(self.positions)} positions: cut the input into windows"
            )
        x = self.embed(self.front_end(frames))
        if frame_mask is not None:
            x = replace_frames(x, frame_mask.to(x.device), self.mask_embedding)
        x = x + self.positions[:length]
        visible = ~padding_mask[:, None, None, :].to(x.device) if padding_mask.any() else None
        outputs = []
        for block in self.blocks[:-1]:
            x = block(x, visible)
            outputs.append(pick(x, wanted))
        outputs.append(self.blocks[-1](x, visible, wanted))
        output: Tensor = self.mlp(self.average(outputs))
        return output
