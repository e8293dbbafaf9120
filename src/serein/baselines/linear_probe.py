"""Linear probe: logistic regression on each utterance's mean and standard deviation over time.

Source: the usual probe of frozen speech encoders. Reproduced: standardised pooled statistics of all given layers,
multinomial logistic regression with an L2 penalty. Ours: nothing but the choice of C on validation talkers, which the
caller makes.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from serein.baselines.inputs import masked_mean
from serein.nn.classifier import OutputLayer


class LinearProbe(nn.Module):
    """Mean and deviation over time, standardised with the training utterances' moments, then one linear layer.

    Args:
        features: length of the pooled statistics, 2 x layers x width.
        classes: number of emotions.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.output = OutputLayer(features, classes)

    def embed(
        self, frames: Float[Tensor, "batch frames layers width"], padding_mask: Bool[Tensor, "batch frames"]
    ) -> Float[Tensor, "batch features"]:
        """The statistics: means, then deviations, as :meth:`serein.frames.batches.FrameArray.pooled` has them."""
        flat = frames.float().flatten(2)
        mean = masked_mean(flat, padding_mask)
        deviation = masked_mean((flat - mean.unsqueeze(1)).square(), padding_mask).sqrt()
        return torch.cat([mean, deviation], dim=1)

    def read(self, statistics: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """Logits, one row an utterance, from its statistics."""
        logits: Tensor = self.output((statistics - self.mean) / self.deviation)
        return logits

    def forward(
        self, frames: Float[Tensor, "batch frames layers width"], padding_mask: Bool[Tensor, "batch frames"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits, one row an utterance."""
        return self.read(self.embed(frames, padding_mask))


def fit_linear_probes(
    statistics: Float[Tensor, "utterances features"],
    labels: Int[Tensor, " utterances"],
    classes: int,
    *strengths: float,
) -> list[LinearProbe]:
    """Fit by L-BFGS: minimise 1/2 ||W||^2 + C * sum of cross entropies; the bias is free.

    One probe for each C; what does not depend on it is computed once, and each starts from the one before.

    Args:
        statistics: pooled statistics of the training utterances.
        labels: their classes.
        classes: number of emotions.
        strengths: C, the inverse strength of the penalty, as in scikit-learn.
    """
    deviation, mean = torch.std_mean(statistics, dim=0, correction=0)
    deviation = torch.where(deviation > 1e-6, deviation, 1.0)
    standardised = (statistics - mean) / deviation
    # The best weights lie in the span of the utterances: with fewer of them than features, solve in a basis of it.
    basis, triangle = torch.linalg.qr(standardised.T)
    coordinates = triangle.T.contiguous()
    weight = torch.zeros(classes, coordinates.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    probes = []
    for c in strengths:
        _minimise(coordinates, labels, weight, bias, c)
        probe = LinearProbe(statistics.shape[1], classes)
        probe.mean.copy_(mean)
        probe.deviation.copy_(deviation)
        probe.output.weight.data = (weight @ basis.T).detach()
        probe.output.bias.data = bias.detach().clone()
        probes.append(probe.requires_grad_(False))
    return probes


def _minimise(coordinates: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, c: float) -> None:
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=300, tolerance_grad=1e-5, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(coordinates, weight, bias), labels)
        loss = loss + weight.square().sum() / (2 * c * len(labels))
        loss.backward()
        return loss

    optimizer.step(closure)
