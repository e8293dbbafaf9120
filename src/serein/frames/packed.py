"""Frozen transformer blocks on utterances of mixed lengths: all their frames in one matrix, none of it padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from serein.frames.frozen import FrozenLinear

LONGEST_SCORES = 2048  # frames; beyond, a matrix of all scores would not fit the caches, nor at last the memory


@dataclass(frozen=True)
class PackedBlock:
    """One block: attention within each utterance, then two linear layers on each frame, both added to what came in.

    Attributes:
        norms: before attention and before the linear layers, or after them where ``norm_first`` is false.
        query_key_value: the three projections as one, heads in order, queries scaled already.
        output: of attention.
        inner: the first linear layer, with its GELU.
        outer: the second.
        heads: of attention.
        norm_first: whether norms stand before what they belong to ("stable layer norm", and Whisper).
    """

    norms: tuple[nn.Module, nn.Module]
    query_key_value: FrozenLinear
    output: FrozenLinear
    inner: FrozenLinear
    outer: FrozenLinear
    heads: int
    norm_first: bool

    def __call__(self, frames: Float[Tensor, "frames width"], lengths: Sequence[int]) -> Float[Tensor, "frames width"]:
        """Frames of utterances one after the other, of so many frames each."""
        before, after = self.norms
        if self.norm_first:
            frames = frames + self._attention(before(frames), lengths)
            return frames + self.outer(self.inner(after(frames)))
        frames = before(frames + self._attention(frames, lengths))
        normed: Tensor = after(frames + self.outer(self.inner(frames)))
        return normed

    def _attention(
        self, frames: Float[Tensor, "frames width"], lengths: Sequence[int]
    ) -> Float[Tensor, "frames width"]:
        entries = self.query_key_value(frames).unflatten(1, (3, self.heads, -1))
        attended = attend_alone(entries, lengths) if frames.device.type == "cpu" else attend_masked(entries, lengths)
        return self.output(attended.flatten(1))


def pack_blocks(blocks: nn.ModuleList, config: Any) -> list[PackedBlock] | None:
    """The same blocks for packed frames, taken out of ``blocks``, so that no weight is in memory twice.

    None, and nothing taken, where blocks do more than this module knows: WavLM's, with their relative positions, and
    wav2vec 2.0's with an adapter for each language.
    """
    whisper = config.model_type == "whisper"
    activation = config.activation_function if whisper else config.hidden_act
    if activation != "gelu" or config.model_type == "wavlm" or getattr(config, "adapter_attn_dim", None) is not None:
        return None
    norm_first = whisper or bool(getattr(config, "do_stable_layer_norm", False))
    return [_pack(blocks.pop(0), norm_first) for _ in range(len(blocks))]


def run_packed(
    blocks: Sequence[PackedBlock],
    entering: Sequence[Float[Tensor, "_ width"]],
    layers: Sequence[int],
    *,
    final_norm: nn.Module | None = None,
) -> list[Float[Tensor, "_ layers width"]]:
    """What :func:`serein.frames.blocks.run_blocks` gives, of blocks that :func:`pack_blocks` made."""
    if not entering:
        return []
    lengths = [len(frames) for frames in entering]
    frames = torch.cat(list(entering))
    kept = torch.empty(len(frames), len(layers), frames.shape[1], device=frames.device)
    for number in range(len(blocks) + 1):
        if number:
            frames = blocks[number - 1](frames, lengths)
        if number in layers:
            norm = final_norm if number == len(blocks) else None
            kept[:, layers.index(number)] = norm(frames) if norm else frames
    return list(kept.cpu().split(lengths))


def attend_alone(
    entries: Float[Tensor, "frames 3 heads size"], lengths: Sequence[int]
) -> Float[Tensor, "frames heads size"]:
    """Attention of utterance after utterance, from queries (scaled already), keys and values."""
    attended = torch.empty_like(entries[:, 0])
    for start, end in pairwise(_bounds(lengths)):
        queries, keys, values = entries[start:end].permute(1, 2, 0, 3).contiguous()
        if end - start > LONGEST_SCORES or entries.dtype == torch.float32:
            mixed = F.scaled_dot_product_attention(queries[None], keys[None], values[None], scale=1.0)[0]
        else:  # torch's fused attention is only half as fast in bfloat16 on a CPU
            mixed = torch.bmm(torch.bmm(queries, keys.mT).softmax(-1), values)
        attended[start:end] = mixed.transpose(0, 1)
    return attended


def attend_masked(
    entries: Float[Tensor, "frames 3 heads size"], lengths: Sequence[int]
) -> Float[Tensor, "frames heads size"]:
    """The same for all utterances at once, padded and masked: on a GPU a call costs more than the padding."""
    padded = pad_sequence(list(entries.split(list(lengths))), batch_first=True)
    real = torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]
    real = real.to(entries.device)
    queries, keys, values = padded.permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=real[:, None, None], scale=1.0)
    return mixed.transpose(1, 2)[real]


def _bounds(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:number]) for number in range(len(lengths) + 1)]


def _pack(block: Any, norm_first: bool) -> PackedBlock:
    whisper = hasattr(block, "self_attn")
    attention = block.self_attn if whisper else block.attention
    inner, outer = (
        (block.fc1, block.fc2) if whisper else (block.feed_forward.intermediate_dense, block.feed_forward.output_dense)
    )
    queries, keys, values = attention.q_proj, attention.k_proj, attention.v_proj
    scale = (queries.out_features // attention.num_heads) ** -0.5
    no_bias = torch.zeros_like(values.bias)  # Whisper's keys have none
    return PackedBlock(
        norms=(block.self_attn_layer_norm if whisper else block.layer_norm, block.final_layer_norm),
        query_key_value=FrozenLinear(
            torch.cat([queries.weight * scale, keys.weight, values.weight]),
            torch.cat([queries.bias * scale, no_bias if keys.bias is None else keys.bias, values.bias]),
        ),
        output=FrozenLinear(attention.out_proj.weight, attention.out_proj.bias),
        inner=FrozenLinear(inner.weight, inner.bias, gelu=True),
        outer=FrozenLinear(outer.weight, outer.bias),
        heads=attention.num_heads,
        norm_first=norm_first,
    )
