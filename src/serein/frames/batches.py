"""Frames in memory, and batches of utterances of similar length."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from serein.errors import StoreError

LEAST = 8  # utterances that batch norm can take for the corpus
BATCHING = 3  # what plan_batches does: trainings begun under another are not continued


class FrameBatch(NamedTuple):
    """Utterances padded to one length.

    Attributes:
        frames: float32, zero at padding, on the device of the array that it comes from.
        lengths: frames of each utterance.
        padding_mask: True = padding; on the CPU.
    """

    frames: Float[Tensor, "batch frames layers width"]
    lengths: Int[Tensor, " batch"]
    padding_mask: Bool[Tensor, "batch frames"]

    def to(self, device: str | torch.device) -> "FrameBatch":
        """The same batch on another device."""
        return FrameBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


@dataclass(frozen=True)
class FrameArray:
    """All frames of a corpus as one array: a batch is one gather, without work per utterance.

    Attributes:
        ids: one an utterance.
        flat: the frames of all utterances, one after the other, as stored (float16).
        lengths: frames of each utterance.
        frame_rate: frames a second.

    Example:
        >>> array = FrameArray(("a", "b"), torch.arange(5.0).half().view(5, 1, 1), torch.tensor([2, 3]), 50.0)
        >>> batch = array.batch(torch.tensor([0, 1]))
        >>> batch.frames[..., 0, 0]
        tensor([[0., 1., 0.],
                [2., 3., 4.]])
        >>> batch.padding_mask
        tensor([[False, False,  True],
                [False, False, False]])
    """

    ids: tuple[str, ...]
    flat: Float[Tensor, "total layers width"]
    lengths: Int[Tensor, " utterances"]
    frame_rate: float

    @property
    def layers(self) -> int:
        """How many encoder layers each frame holds."""
        return self.flat.shape[1]

    @property
    def width(self) -> int:
        """Width of one layer's frame."""
        return self.flat.shape[2]

    def indices(self, ids: Sequence[str]) -> Int[Tensor, " chosen"]:
        """Where these utterances stand; a KeyError names an id that is not here."""
        place = {name: index for index, name in enumerate(self.ids)}
        return torch.tensor([place[name] for name in ids], dtype=torch.long)

    def batch(self, indices: Int[Tensor, " batch"]) -> FrameBatch:
        """Gather utterances into one padded batch."""
        lengths = self.lengths[indices]
        starts = (self.lengths.cumsum(0) - self.lengths)[indices]
        position = torch.arange(int(lengths.max()))
        padding_mask = position >= lengths.unsqueeze(1)
        rows = (starts.unsqueeze(1) + position).masked_fill(padding_mask, 0).flatten().to(self.flat.device)
        padding = padding_mask.flatten().nonzero().flatten().to(self.flat.device)
        frames = self.flat.index_select(0, rows).float().index_fill_(0, padding, 0.0)
        return FrameBatch(frames.view(*padding_mask.shape, self.layers, self.width), lengths, padding_mask)

    def near(self, device: torch.device) -> "FrameArray":
        """The frames on a GPU, where they take less than half of its free memory; else they stay where they are."""
        if device.type != "cuda" or 2 * self.flat.nbytes > torch.cuda.mem_get_info(device)[0]:
            return self
        return replace(self, flat=self.flat.to(device))

    def select(self, ids: Sequence[str]) -> "FrameArray":
        """Only these utterances, in this order."""
        parts = self.flat.split(self.lengths.tolist())
        indices = self.indices(ids)
        return FrameArray(
            tuple(ids), torch.cat([parts[i] for i in indices.tolist()]), self.lengths[indices], self.frame_rate
        )

    def normed_by_talker(self, talkers: Int[Tensor, " utterances"]) -> "FrameArray":
        """Every talker's frames standardised with the mean and deviation of all frames of that talker.

        What a talker sounds like on average is taken away, so this needs audio of each talker to be judged, test
        talkers too, though no labels.

        Args:
            talkers: a number for each utterance's talker.
        """
        groups = [torch.nonzero(talkers == talker).flatten() for talker in talkers.unique()]
        return self.standardised((group, self.moments(group)) for group in groups)

    def standardised(
        self,
        groups: Iterable[tuple[Int[Tensor, " _"], tuple[Float[Tensor, "layers width"], Float[Tensor, "layers width"]]]],
    ) -> "FrameArray":
        """Each group of utterances standardised with a mean and a deviation of its own; others are left as they are."""
        flat = self.flat.clone()
        starts = self.lengths.cumsum(0) - self.lengths
        for indices, (mean, deviation) in groups:
            for start, length in zip(starts[indices].tolist(), self.lengths[indices].tolist(), strict=True):
                frames = self.flat[start : start + length].float()
                flat[start : start + length] = ((frames - mean) / deviation).half()
        return FrameArray(self.ids, flat, self.lengths, self.frame_rate)

    def moments(
        self, indices: Int[Tensor, " chosen"]
    ) -> tuple[Float[Tensor, "layers width"], Float[Tensor, "layers width"]]:
        """Mean and standard deviation of these utterances' frames, in float32.

        Sums are taken in float64, an utterance at a time, so that memory does not grow with the corpus. A dimension
        that never varies gets deviation 1.
        """
        total = torch.zeros(2, self.layers, self.width, dtype=torch.float64)
        starts = self.lengths.cumsum(0) - self.lengths
        for start, length in zip(starts[indices].tolist(), self.lengths[indices].tolist(), strict=True):
            frames = self.flat[start : start + length].double()
            total += torch.stack([frames.sum(0), frames.square().sum(0)])
        mean, square = total / self.lengths[indices].sum()
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        return mean.float(), torch.where(deviation > 1e-6, deviation, 1.0).float()

    def pooled(self, indices: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen 2 layers width"]:
        """Mean (index 0) and standard deviation (index 1) over time of these utterances, in float32."""
        pooled = torch.empty(len(indices), 2, self.layers, self.width)
        starts = self.lengths.cumsum(0) - self.lengths
        spans = zip(starts[indices].tolist(), self.lengths[indices].tolist(), strict=True)
        for place, (start, length) in enumerate(spans):
            frames = self.flat[start : start + length].float()
            pooled[place, 0], pooled[place, 1] = frames.mean(0), frames.std(0, correction=0)
        return pooled


def join(arrays: Sequence[FrameArray]) -> FrameArray:
    """Several arrays as one, in their order.

    Raises:
        StoreError: the arrays hold other layers, another width or another frame rate, or an id stands in two of them.
    """
    first = arrays[0]
    for other in arrays[1:]:
        if (other.layers, other.width, other.frame_rate) != (first.layers, first.width, first.frame_rate):
            raise StoreError(
                f"frames of {first.layers} layers, {first.width} wide, {first.frame_rate:g} a second cannot be joined "
                f"with {other.layers} layers, {other.width} wide, {other.frame_rate:g} a second: extract them alike"
            )
    ids = tuple(name for array in arrays for name in array.ids)
    if len(set(ids)) < len(ids):
        twice = next(name for place, name in enumerate(ids) if name in ids[:place])
        raise StoreError(f"frames of {twice} stand in two stores: give each store once")
    flat, lengths = torch.cat([array.flat for array in arrays]), torch.cat([array.lengths for array in arrays])
    return FrameArray(ids, flat, lengths, first.frame_rate)


def plan_batches(
    lengths: Int[Tensor, " utterances"], budget: int, *, seed: int, epoch: int, mixing: int = 0
) -> list[Int[Tensor, " batch"]]:
    """One epoch: every utterance once, similar lengths together, batches in random order.

    Lengths are rounded up in steps of 1 %, and equal ones are shuffled. Batches are cut from the shortest to the
    longest, before one would hold more than ``budget`` frames, padding included; one that holds half of that also where
    its lengths would differ by more than a fifth; but none with fewer than `LEAST` utterances, or half of what the
    budget holds at mean length. What is left at the end, if it is less than that or than half of the budget, is put
    together with the batch before it, and both are parted evenly if they are too much for one: a step on one or two
    utterances is as long as any other, and batch norm of so few is noise.

    With ``mixing`` each length is taken for one longer by up to that many steps, drawn anew in every epoch, when
    utterances are put in order; the sizes of the batches stay. Batch norm in training takes away whatever the
    utterances of a batch have in common, and in evaluation what all have: where a batch has one length only, all that
    goes with length is missing in training and there in the test.

    A pure function of its arguments; the number of batches is the same in every epoch, so that schedules can count
    steps.

    Args:
        lengths: frames of each utterance, all positive.
        budget: most frames in one batch that could be cut, with mixing up to ``1.01 ** mixing`` times as many.
        seed: of the run.
        epoch: counts from 0.
        mixing: in steps of 1 %.

    Example:
        >>> plan_batches(torch.tensor([4, 9, 4, 9] * 4), budget=80, seed=0, epoch=0)
        [tensor([11,  3, 13, 15,  1,  7,  5,  9]), tensor([ 2,  8,  6,  0, 14,  4, 10, 12])]
    """
    random = np.random.default_rng([seed, epoch])
    steps = np.ceil(np.log(lengths.numpy()) / np.log(1.01) - 1e-9)
    draws = random.random(len(steps))
    order = np.lexsort((draws, steps + mixing * draws))
    rounded = np.floor(1.01 ** np.sort(steps) + 1e-6).astype(np.int64)
    least = min(LEAST, max(1, budget // (2 * math.ceil(rounded.mean()))))
    cuts, first = [0], 0
    for place, longest in enumerate(rounded.tolist()):
        held = longest * (place - first)
        full = held + longest > budget or (2 * held > budget and longest > 1.2 * rounded[first])
        if full and place - first >= least:
            cuts.append(first := place)
    left = len(rounded) - cuts[-1]
    if len(cuts) > 1 and (2 * rounded[-1] * left < budget or left < least):
        cuts[-1:] = (_middle(rounded[cuts[-2] :], budget, least) + cuts[-2]).tolist()
    batches = [torch.from_numpy(part) for part in np.split(order, cuts[1:])]
    return [batches[index] for index in random.permutation(len(batches))]


def _middle(lengths: Int64[np.ndarray, " utterances"], budget: int, least: int) -> Int64[np.ndarray, " cuts"]:
    """Where to cut these sorted lengths so that neither part is much larger; nowhere where all are one batch."""
    places = np.arange(least, len(lengths) - least + 1)
    if lengths[-1] * len(lengths) <= budget or not len(places):
        return places[:0]
    larger = np.maximum(lengths[places - 1] * places, lengths[-1] * (len(lengths) - places))
    return places[[larger.argmin()]]


def frame_budget(lengths: Int[Tensor, " utterances"], batch_size: int) -> int:
    """The budget under which a batch holds ``batch_size`` utterances of mean length."""
    return int(batch_size * lengths.double().mean().ceil())
