"""SUPERB's emotion head.

Source: Yang et al. 2021, "SUPERB: Speech processing Universal PERformance Benchmark"; s3prl/downstream/emotion
(projector_dim 256, MeanPooling). Reproduced: softmax-weighted sum of the encoder's layers, linear projection to 256,
mean over time, linear output, with no non-linearity anywhere. Ours: the sum runs over the layers that the frame store
holds, and frames are standardised with the training talkers' moments (the source sums raw layers).
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from serein.baselines.inputs import hide_frames, masked_mean
from serein.nn.classifier import OutputLayer
from serein.nn.transformer import FrameFrontEnd

PROJECTOR_WIDTH = 256


class SuperbHead(nn.Module):
    """Mix layers, project, average over time, classify.

    Args:
        layers: how many of the encoder's layers come in.
        input_width: width of the encoder's frames.
        classes: number of emotions.
    """

    def __init__(self, layers: int, input_width: int, classes: int) -> None:
        super().__init__()
        self.front_end = FrameFrontEnd(layers, input_width)
        self.projector = nn.Linear(input_width, PROJECTOR_WIDTH)
        self.output = OutputLayer(PROJECTOR_WIDTH, classes)

    def embed(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch 256"]:
        """The mean projected frame."""
        return masked_mean(self.projector(hide_frames(self.front_end(frames), frame_mask)), padding_mask)

    def forward(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Logits, one row an utterance."""
        logits: Tensor = self.output(self.embed(frames, padding_mask, frame_mask))
        return logits
