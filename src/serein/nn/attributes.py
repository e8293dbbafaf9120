"""Local attributes: K prototypes of the teacher's frames, learned online without labels (paper, section II-B.2)."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn

Similarity = Literal["cosine", "distance"]


class AttributeHealth(NamedTuple):
    """How well the attributes are used, from the smoothed counts of frames that they really got.

    Tensors of no dimension, so that a GPU is not waited for before they are read.

    Attributes:
        usage: share of the attributes that get at least a tenth of their even share, in [0, 1].
        perplexity: exp of the entropy of the assignments, over K, in [1/K, 1]; 1 = all are used alike.
        revived: how many attributes the last update moved onto fresh frames.
    """

    usage: Float[Tensor, ""]
    perplexity: Float[Tensor, ""]
    revived: Int[Tensor, ""]


def assign(
    frames: Float[Tensor, "frames width"], attributes: Float[Tensor, "attributes width"]
) -> Int[Tensor, " frames"]:
    """Eq. (4): i = argmin over k of ||z^t - p_k||_2^2, as one matrix product.

    ||z||^2 is the same for every k, so that the nearest attribute is the one with the least ||p||^2 - 2 z.p.
    """
    return torch.addmm(attributes.square().sum(1), frames, attributes.T, alpha=-2).argmin(1)


def quantization_error(
    frames: Float[Tensor, "frames width"],
    attributes: Float[Tensor, "attributes width"],
    assignments: Int[Tensor, " frames"],
) -> Float[Tensor, ""]:
    """Eq. (3): L_VQ = sum over k, over the frames nearest to p_k, of ||z^t - p_k||_2^2."""
    return (frames - attributes[assignments]).square().sum()


def attribute_logits(
    frames: Float[Tensor, "frames width"],
    attributes: Float[Tensor, "attributes width"],
    temperature: float,
    similarity: Similarity = "cosine",
) -> Float[Tensor, "frames attributes"]:
    """The student's logits, over temperature: cosine similarity (II-B.3) or negative squared distance (II-B.1)."""
    if similarity == "cosine":
        return F.normalize(frames, dim=1) @ F.normalize(attributes, dim=1).T / temperature
    return -torch.cdist(frames, attributes).square() / temperature


class LocalAttributes(nn.Module):
    """The K prototypes P and the counts that set their step size.

    Eq. (5), p_i <- p_i + eta_t (z^t - p_i), is applied for all frames of a batch at once: with n_i frames of mean m_i,
    p_i <- p_i + eta_i (m_i - p_i). The paper gives no eta_t. By default it is the online k-means step with forgetting:
    c_i <- decay * c_i + n_i and eta_i = n_i / c_i, so each attribute is the weighted mean of its recent frames. A fixed
    ``eta`` is the same step for every attribute that got a frame.

    Start: K real frames of the first batch. Revival: an attribute whose smoothed count falls under ``revive_below`` of
    its even share moves onto a random frame of the batch, with an even share as its count: a fraction of uniform
    usage does not depend on the batch size or on K.

    Args:
        count: K.
        width: width of the teacher's frames.
        decay: forgetting of the counts, in [0, 1).
        eta: a fixed step size in (0, 1], or None for eta_i = n_i / c_i.
        revive_below: fraction of uniform usage; 0 never revives.
    """

    prototypes: Tensor
    counts: Tensor
    got: Tensor
    started: Tensor

    def __init__(
        self,
        count: int,
        width: int,
        *,
        decay: float = 0.99,
        eta: float | None = None,
        revive_below: float = 0.02,
    ) -> None:
        super().__init__()
        self.decay, self.eta, self.revive_below = decay, eta, revive_below
        self.register_buffer("prototypes", torch.zeros(count, width))
        self.register_buffer("counts", torch.zeros(count))
        self.register_buffer("got", torch.zeros(count))  # as counts, but revival does not touch it
        self.register_buffer("started", torch.tensor(False))

    @torch.no_grad()
    def start(self, frames: Float[Tensor, "frames width"], generator: torch.Generator) -> None:
        """Put every attribute on a frame of a random order, which begins again where frames are fewer than K."""
        order = torch.randperm(len(frames), generator=generator).to(frames.device)
        self.prototypes.copy_(frames[order[torch.arange(len(self.prototypes), device=frames.device) % len(frames)]])
        self.counts.fill_(len(frames) / len(self.prototypes))
        self.got.zero_()
        self.started.fill_(True)

    @torch.no_grad()
    def update(
        self,
        frames: Float[Tensor, "frames width"],
        assignments: Int[Tensor, " frames"],
        generator: torch.Generator,
    ) -> AttributeHealth:
        """Eq. (5) for one batch of teacher frames, then revival.

        Args:
            frames: the teacher's frames, no padding among them.
            assignments: eq. (4) for these frames, under the prototypes as they are now.
            generator: on the CPU; draws the frames that revive attributes.
        """
        new = torch.zeros_like(self.counts).index_add_(0, assignments, torch.ones_like(assignments).to(self.counts))
        sums = torch.zeros_like(self.prototypes).index_add_(0, assignments, frames.to(self.prototypes))
        self.counts.mul_(self.decay).add_(new)
        self.got.mul_(self.decay).add_(new)
        eta = new / self.counts if self.eta is None else (new > 0) * self.eta
        means = sums / new.clamp(min=1).unsqueeze(1)
        self.prototypes.lerp_(means, torch.where(new > 0, eta, 0.0).unsqueeze(1))
        even = self.counts.mean()
        idle = self.counts < self.revive_below * even
        # The n-th idle attribute takes the n-th frame of a random order: how many are idle need not be known here.
        order = torch.randperm(len(frames), generator=generator).to(frames.device)
        fresh = frames[order[(idle.cumsum(0) - 1) % len(frames)]].to(self.prototypes)
        self.prototypes.copy_(torch.where(idle.unsqueeze(1), fresh, self.prototypes))
        self.counts.copy_(torch.where(idle, even, self.counts))
        return self.health()._replace(revived=idle.sum())

    def health(self) -> AttributeHealth:
        """Usage and perplexity, of the frames that the attributes got (a revived one has not got any yet)."""
        shares = self.got / self.got.sum()
        entropy = -(shares * shares.clamp(min=1e-12).log()).sum()
        usage = (shares * len(shares) >= 0.1).float().mean()
        return AttributeHealth(usage, entropy.exp() / len(shares), torch.zeros_like(usage).long())
