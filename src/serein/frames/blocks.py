"""Transformer blocks on utterances of mixed lengths: no frame can tell with whom it was batched."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence


def run_blocks(
    blocks: nn.ModuleList,
    entering: Sequence[Float[Tensor, "_ width"]],
    layers: Sequence[int],
    *,
    final_norm: nn.Module | None = None,
    relative_positions: bool = False,
) -> list[Float[Tensor, "_ layers width"]]:
    """Run utterances through transformers' blocks and keep some layers.

    Whatever looks across frames before the first block (convolutions, positions) has been done already, on
    each utterance alone; in here frames meet in attention only, and that is masked.

    Args:
        blocks: as many as the highest layer asks for.
        entering: what enters the first block (layer 0), one tensor an utterance.
        layers: which outputs to keep: k is block k's.
        final_norm: applied to the last block's output.
        relative_positions: WavLM's blocks, which hand their position bias on. They run in groups of equal
            length: the padding mask that transformers puts beside that bias is of a kind torch deprecates.

    Returns:
        One float32 tensor on the CPU an utterance.
    """
    kept: dict[int, Tensor] = {}
    for group in _groups(entering, relative_positions):
        lengths = [len(entering[index]) for index in group]
        frames = pad_sequence([entering[index] for index in group], batch_first=True)
        mask = _attention_mask(lengths, frames)
        stacked = run_batch(blocks, frames, layers, mask, final_norm, relative_positions).float().cpu()
        for index, length, utterance in zip(group, lengths, stacked, strict=True):
            kept[index] = utterance[:length]
    return [kept[index] for index in range(len(entering))]


def run_batch(
    blocks: nn.ModuleList,
    frames: Float[Tensor, "batch frames width"],
    layers: Sequence[int],
    attention_mask: Float[Tensor, "batch 1 1 frames"] | None,
    final_norm: nn.Module | None,
    relative_positions: bool,
) -> Float[Tensor, "batch frames layers width"]:
    """The same for one padded batch; ``attention_mask`` is added to attention's scores (None: no padding)."""
    states = {0: frames}
    bias = None
    for number, block in enumerate(blocks, start=1):
        if relative_positions:
            frames, bias = block(frames, position_bias=bias)
        else:
            frames = block(frames, attention_mask=attention_mask)
        if number in layers:
            states[number] = frames
    if final_norm is not None:
        states[len(blocks)] = final_norm(frames)
    return torch.stack([states[layer] for layer in layers], dim=2)


def _groups(entering: Sequence[Tensor], equal_lengths: bool) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for index, frames in enumerate(entering):
        groups.setdefault(len(frames) if equal_lengths else 0, []).append(index)
    return list(groups.values())


def _attention_mask(
    lengths: Sequence[int], frames: Float[Tensor, "batch frames width"]
) -> Float[Tensor, "batch 1 1 frames"] | None:
    """What is added to attention scores: the lowest number of the type at padding, 0 elsewhere."""
    if min(lengths) == frames.shape[1]:
        return None
    padding_mask = torch.arange(frames.shape[1]) >= torch.tensor(lengths)[:, None]
    scores = torch.zeros(padding_mask.shape, dtype=frames.dtype)
    return scores.masked_fill(padding_mask, torch.finfo(frames.dtype).min)[:, None, None].to(frames.device)
