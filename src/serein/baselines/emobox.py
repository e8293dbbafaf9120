"""EmoBox's head.

Source: Ma et al. 2024, "EmoBox"; emo-box/EmoBox, examples/sb/classifier_head.py. Reproduced: linear layer, ReLU, mean
over time, linear output; 128 or 256 hidden units. Ours: a softmax mix of the layers that the frame store holds (the
source takes the last layer only), frames standardised with the training talkers' moments, and a padding mask that is
handed over (the source takes every frame that sums to 0 for padding).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from serein.baselines.inputs import hide_frames, masked_mean
from serein.nn.classifier import OutputLayer
from serein.nn.transformer import FrameFrontEnd


class EmoBoxHead(nn.Module):
    """One hidden layer on each frame, averaged over time.

    Args:
        layers: how many of the encoder's layers come in.
        input_width: width of the encoder's frames.
        classes: number of emotions.
        hidden: units of the hidden layer; the source has 128 and 256.
    """

    def __init__(self, layers: int, input_width: int, classes: int, hidden: int = 256) -> None:
        super().__init__()
        self.front_end = FrameFrontEnd(layers, input_width)
        self.hidden = nn.Linear(input_width, hidden)
        self.output = OutputLayer(hidden, classes)

    def embed(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch hidden"]:
        """The mean hidden layer."""
        hidden = torch.relu(self.hidden(hide_frames(self.front_end(frames), frame_mask)))
        return masked_mean(hidden, padding_mask)

    def forward(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Logits, one row an utterance."""
        logits: Tensor = self.output(self.embed(frames, padding_mask, frame_mask))
        return logits
