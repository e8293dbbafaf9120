"""W2v2-PT: learned layer weights and two pointwise convolutions.

Source: Pepino et al. 2021, "Emotion Recognition from Speech Using wav2vec 2.0 Embeddings"; habla-liaa/ser-with-w2v2,
configs/dienen/feature_learnable_combination_mean_mlp.yaml. Reproduced: layers mixed with raw weights over their sum (no
softmax), all 1 at the start; two 1x1 convolutions of 128 with ReLU and dropout 0.2; mean over time; linear output.
Ours: the layers are those that the frame store holds (the source: all 13 of wav2vec 2.0 base), and frames are
standardised with the training talkers' moments, which is the source's global normalisation (its best system
normalises each "subject", which its reader takes from the dialogue's name). The source's layer library (mrpep/dienen)
takes the weights' absolute values first, which is the same for as long as they stay positive.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from serein.baselines.inputs import hide_frames, masked_mean
from serein.nn.classifier import OutputLayer

WIDTH = 128
DROPOUT = 0.2


class SumWeightedFrontEnd(nn.Module):
    """Each layer standardised, then mixed with weights w_l / sum of w, in which a weight may turn negative.

    With one layer there is nothing to mix.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(layers, width))
        self.register_buffer("deviation", torch.ones(layers, width))
        self.mix = nn.Parameter(torch.ones(layers)) if layers > 1 else None

    def forward(self, frames: Float[Tensor, "batch frames layers width"]) -> Float[Tensor, "batch frames width"]:
        """Standardise and mix."""
        frames = (frames - self.mean) / self.deviation
        if self.mix is None:
            return frames.squeeze(2)
        return torch.einsum("btlw,l->btw", frames, self.mix / self.mix.sum())


class PepinoHead(nn.Module):
    """Two hidden layers on each frame, averaged over time.

    Args:
        layers: how many of the encoder's layers come in.
        input_width: width of the encoder's frames.
        classes: number of emotions.
    """

    def __init__(self, layers: int, input_width: int, classes: int) -> None:
        super().__init__()
        self.front_end = SumWeightedFrontEnd(layers, input_width)
        # On (batch, frames, width) a linear layer is the 1x1 convolution.
        self.hidden = nn.Sequential(
            nn.Linear(input_width, WIDTH), nn.ReLU(), nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(DROPOUT),
        )  # fmt: skip
        self.output = OutputLayer(WIDTH, classes)

    def embed(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch 128"]:
        """The mean of the second hidden layer."""
        return masked_mean(self.hidden(hide_frames(self.front_end(frames), frame_mask)), padding_mask)

    def forward(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Logits, one row an utterance."""
        logits: Tensor = self.output(self.embed(frames, padding_mask, frame_mask))
        return logits
