"""LPMN-style: how close an utterance comes to each prototype of a codebook.

Source: Xi et al. 2024, "An Effective Local Prototypical Mapping Network for Speech Emotion Recognition"; its abstract
only, no code was found. Reproduced from it: a codebook of prototypes of frame-level features, an utterance embedding of
the closest matches between frames and prototypes, training with cross entropy and a quantisation loss, and a selection
of prototypes afterwards; 1024 prototypes, as Table I of the paper names the system.

Ours, for want of a definition: the linear projection; cosine as the similarity; the mean of the top 3 frames for each
prototype; VQ-VAE's two terms (van den Oord et al. 2017, commitment 0.25), on vectors of length 1, since with a cosine a
projection that only shrinks would lower the loss and change nothing else; and selection by the norm of the output
weights. The paper's "s60" is not defined; a share of 0.6 is our reading.
"""

import copy

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor, nn

from serein.baselines.inputs import hide_frames
from serein.nn.classifier import OutputLayer
from serein.nn.transformer import FrameFrontEnd

COMMITMENT = 0.25


def top_mean(
    similarities: Float[Tensor, "batch frames prototypes"], padding_mask: Bool[Tensor, "batch frames"], top: int
) -> Float[Tensor, "batch prototypes"]:
    """Mean of each prototype's ``top`` largest similarities over time; of all, where an utterance has fewer frames.

    Example:
        >>> similarities = torch.tensor([[[0.2], [0.8], [0.4], [0.9]]])
        >>> top_mean(similarities, torch.tensor([[False, False, False, True]]), top=2)
        tensor([[0.6000]])
    """
    top = min(top, similarities.shape[1])
    largest = similarities.float().masked_fill(padding_mask.unsqueeze(-1), -torch.inf).topk(top, dim=1).values
    counts = (~padding_mask).sum(1, keepdim=True).clamp(max=top)
    real = torch.arange(top, device=counts.device) < counts
    return largest.masked_fill(~real.unsqueeze(-1), 0.0).sum(1) / counts


def quantization_loss(
    frames: Float[Tensor, "frames width"], prototypes: Float[Tensor, "frames width"]
) -> Float[Tensor, ""]:
    """VQ-VAE's codebook and commitment terms: ||sg[z] - p||^2 + 0.25 ||z - sg[p]||^2, averaged over frames.

    Args:
        frames: z.
        prototypes: p, the prototype nearest to each frame.
    """
    codebook = (frames.detach() - prototypes).square().sum(1).mean()
    commitment = (frames - prototypes.detach()).square().sum(1).mean()
    return codebook + COMMITMENT * commitment


class LocalPrototypeMapping(nn.Module):
    """Project frames, compare them with every prototype, keep the closest few, classify.

    Args:
        layers: how many of the encoder's layers come in.
        input_width: width of the encoder's frames.
        classes: number of emotions.
        prototypes: K.
        width: of the projected frames and of the prototypes.
        top: how many frames speak for a prototype.
    """

    def __init__(
        self,
        layers: int,
        input_width: int,
        classes: int,
        *,
        prototypes: int = 1024,
        width: int = 256,
        top: int = 3,
    ) -> None:
        super().__init__()
        self.front_end = FrameFrontEnd(layers, input_width)
        self.projector = nn.Linear(input_width, width)
        self.prototypes = nn.Parameter(torch.randn(prototypes, width) * width**-0.5)
        self.output = OutputLayer(prototypes, classes)
        self.top = top

    def embed(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch prototypes"]:
        """How close the utterance comes to each prototype, in [-1, 1]."""
        _, _, similarities = self._compare(frames, frame_mask)
        return top_mean(similarities, padding_mask, self.top)

    def forward(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Logits, one row an utterance."""
        logits: Tensor = self.output(self.embed(frames, padding_mask, frame_mask))
        return logits

    def forward_with_quantization(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, ""]]:
        """Logits and the quantisation loss of the frames that are no padding, for training."""
        projected, prototypes, similarities = self._compare(frames, frame_mask)
        valid = ~padding_mask
        nearest = similarities[valid].argmax(1)  # of vectors of length 1: also the nearest in Euclidean distance
        # indexing would sum its gradient in another order every time
        loss = quantization_loss(projected[valid], F.embedding(nearest, prototypes))
        return self.output(top_mean(similarities, padding_mask, self.top)), loss

    def _compare(self, frames: Tensor, frame_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Projected frames and prototypes, all of length 1, and their cosines."""
        projected = F.normalize(self.projector(hide_frames(self.front_end(frames), frame_mask)).float(), dim=-1)
        prototypes = F.normalize(self.prototypes, dim=-1)
        with torch.autocast(frames.device.type, enabled=False):  # the nearest of 1,024 is told by small differences
            return projected, prototypes, projected @ prototypes.T


@torch.no_grad()
def selection(module: LocalPrototypeMapping, share: float) -> LocalPrototypeMapping:
    """A copy that listens only to the prototypes with the largest output weights.

    Args:
        module: trained; stays as it is.
        share: of the prototypes to keep, in (0, 1], rounded, and at least one; the others' output weights become 0.

    Raises:
        ValueError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], not {share}")
    selected = copy.deepcopy(module)
    weight = selected.output.weight
    keep = weight.norm(dim=0).topk(max(1, round(share * weight.shape[1]))).indices
    dropped = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device).index_fill_(0, keep, False)
    weight[:, dropped] = 0.0
    return selected
