"""Co-att: the encoder's frames weighed by what an MFCC branch and a spectrogram branch hear.

Source: Zou et al. 2022, "Speech Emotion Recognition with Co-Attention Based Multi-Level Acoustic Information";
Vincent-ZHQ/CA-MSER, models/ser_model.py. Reproduced: 40 MFCC, each frame's of length 1, through two bidirectional LSTM
layers of 256 (dropout 0.5) to 128 values; a convolutional branch on the spectrogram to 128; weights for the encoder's
frames from the two together, and the weighted sum of frames to 128; all 384 through two hidden layers of 128 with
dropout 0.1.

Ours, for any length where the source cuts segments of 3 s: means over time where it flattens a segment, and a query
from the two branches against each frame, softmax over time, where it has a linear layer to 149 frame weights without
softmax. And: log-mel bands every 20 ms where it has a linear spectrogram every 10, and three small convolutions that
start from nothing where it has AlexNet with ImageNet's weights, so that no vision weights come in; MFCC of the log-mel
frames inside one encoder frame go into one step of the LSTM, which is that many times cheaper; a softmax mix of the
stored layers of a frozen encoder, where it fine-tunes the last one of wav2vec 2.0; whole utterances, where it averages
over segments; no dropout before the branches' projections, where it has 0.1.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor, nn

from serein.baselines.inputs import hide_frames, masked_mean
from serein.nn.classifier import OutputLayer
from serein.nn.transformer import FrameFrontEnd

COEFFICIENTS = 40
RECURRENT_WIDTH = 256
CHANNELS = (1, 16, 32, 64)
WIDTH = 128
RECURRENT_DROPOUT = 0.5
DROPOUT = 0.1


def cosines(bands: int, coefficients: int) -> Float[Tensor, "coefficients bands"]:
    """The orthonormal DCT-II that makes MFCC of log-mel bands: ``mfcc = cosines @ mel``.

    Example:
        >>> cosines(2, 2)
        tensor([[ 0.7071,  0.7071],
                [ 0.7071, -0.7071]])
    """
    order, middle = torch.arange(coefficients).unsqueeze(1), torch.arange(bands) + 0.5
    waves = (math.pi / bands * order * middle).cos() * math.sqrt(2 / bands)
    waves[0] /= math.sqrt(2)
    return waves


def turned(
    frames: Float[Tensor, "batch frames width"], padding_mask: Bool[Tensor, "batch frames"]
) -> Float[Tensor, "batch frames width"]:
    """Each utterance from its end to its start, with its padding still behind it; twice is as before.

    Example:
        >>> frames = torch.tensor([[[1.0], [2.0], [3.0], [0.0]]])
        >>> turned(frames, torch.tensor([[False, False, False, True]])).flatten().tolist()
        [3.0, 2.0, 1.0, 0.0]
    """
    lengths = (~padding_mask).sum(1, keepdim=True)
    places = (lengths - 1 - torch.arange(frames.shape[1], device=frames.device)) % frames.shape[1]
    return frames.gather(1, places.unsqueeze(2).expand_as(frames))


class MfccBranch(nn.Module):
    """MFCC through a bidirectional LSTM, averaged over time.

    Args:
        steps: log-mel frames in one encoder frame.
        bands: of a log-mel frame, at least 40.
    """

    cosines: Tensor

    def __init__(self, steps: int, bands: int) -> None:
        super().__init__()
        self.register_buffer("cosines", cosines(bands, COEFFICIENTS), persistent=False)
        widths = (steps * COEFFICIENTS, 2 * RECURRENT_WIDTH)
        # Two LSTM a layer: a bidirectional one would start in the padding, or, on packed sequences, take 1.7 times as
        # long on a CPU.
        self.onwards = nn.ModuleList(nn.LSTM(width, RECURRENT_WIDTH, batch_first=True) for width in widths)
        self.backwards = nn.ModuleList(nn.LSTM(width, RECURRENT_WIDTH, batch_first=True) for width in widths)
        self.dropout = nn.Dropout(RECURRENT_DROPOUT)
        self.output = nn.Linear(2 * RECURRENT_WIDTH, WIDTH)

    def forward(
        self, mel: Float[Tensor, "batch frames steps bands"], padding_mask: Bool[Tensor, "batch frames"]
    ) -> Float[Tensor, "batch 128"]:
        """Padding must come last."""
        states = F.normalize(mel @ self.cosines.T, dim=-1).flatten(2)
        for layer, (onward, backward) in enumerate(zip(self.onwards, self.backwards, strict=True)):
            states = self.dropout(states) if layer else states
            ahead, back = onward(states)[0], backward(turned(states, padding_mask))[0]
            states = torch.cat([ahead, turned(back, padding_mask)], dim=2)
        return torch.relu(self.output(masked_mean(states, padding_mask)))


class SpectrogramBranch(nn.Module):
    """Convolutions over time and bands, each halving both, averaged over time.

    Args:
        bands: of a log-mel frame.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(CHANNELS)
        )
        self.output = nn.Linear(CHANNELS[-1] * math.ceil(bands / 2 ** len(self.convolutions)), WIDTH)

    def forward(
        self, mel: Float[Tensor, "batch time bands"], padding_mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch 128"]:
        """Padding is put to 0 before each convolution, as if the utterance stood alone."""
        image = mel.unsqueeze(1)
        for convolution in self.convolutions:
            image = convolution(image.masked_fill(padding_mask[:, None, :, None], 0.0)).relu()
            padding_mask = padding_mask[:, ::2]
        return torch.relu(self.output(masked_mean(image.transpose(1, 2).flatten(2), padding_mask)))


def weighted_sum(
    frames: Float[Tensor, "batch frames width"],
    query: Float[Tensor, "batch width"],
    padding_mask: Bool[Tensor, "batch frames"],
) -> Float[Tensor, "batch width"]:
    """Frames weighed by softmax over time of (frame . query) / sqrt(width), padding left out.

    Example:
        >>> frames = torch.tensor([[[1.0], [3.0], [99.0]]])
        >>> weighted_sum(frames, torch.zeros(1, 1), torch.tensor([[False, False, True]]))
        tensor([[2.]])
    """
    scores = torch.einsum("btw,bw->bt", frames, query) / math.sqrt(frames.shape[2])
    weights = scores.masked_fill(padding_mask, -torch.inf).softmax(1)
    return torch.einsum("bt,btw->bw", weights, frames)


class CoAttentionHead(nn.Module):
    """Log-mel frames choose among the encoder's frames, and all three are classified together.

    Frames come in as :func:`serein.frames.beside.pack_beside` packs them: the encoder's layers, and behind them the
    log-mel frames of the same time.

    Args:
        layers: how many of the encoder's layers come in.
        input_width: width of the encoder's frames.
        classes: number of emotions.
        steps: log-mel frames in one encoder frame.
        bands: of a log-mel frame, at least 40.
    """

    def __init__(self, layers: int, input_width: int, classes: int, steps: int, bands: int = 80) -> None:
        super().__init__()
        self.layers, self.steps, self.bands = layers, steps, bands
        # Over the log-mel frames' layers too: they have a mean and a deviation like all others.
        self.front_end = FrameFrontEnd(layers + math.ceil(steps * bands / input_width), input_width, "joined")
        self.mix = nn.Parameter(torch.zeros(layers)) if layers > 1 else None
        self.mfcc = MfccBranch(steps, bands)
        self.spectrogram = SpectrogramBranch(bands)
        self.query = nn.Linear(2 * WIDTH, input_width)
        self.chosen = nn.Linear(input_width, WIDTH)
        self.hidden = nn.Sequential(
            nn.Dropout(DROPOUT), nn.Linear(3 * WIDTH, WIDTH), nn.ReLU(),
            nn.Dropout(DROPOUT), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
        )  # fmt: skip
        self.output = OutputLayer(WIDTH, classes)

    def embed(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch 128"]:
        """The second hidden layer; a hidden frame's log-mel frames are hidden with it."""
        standardised = hide_frames(self.front_end(frames), frame_mask).unflatten(2, frames.shape[2:])
        encoded, mel = standardised[:, :, : self.layers], standardised[:, :, self.layers :]
        # MFCC are of log energies, not of standardised ones.
        energies = mel * self.front_end.deviation[self.layers :] + self.front_end.mean[self.layers :]
        mfcc = self.mfcc(self._unpacked(energies), padding_mask)
        padding_in_time = padding_mask.repeat_interleave(self.steps, dim=1)
        spectrogram = self.spectrogram(self._unpacked(mel).flatten(1, 2), padding_in_time)
        heard = torch.cat([mfcc, spectrogram], dim=1)
        weighed = weighted_sum(self._mixed(encoded), self.query(heard), padding_mask)
        hidden: Tensor = self.hidden(torch.cat([heard, torch.relu(self.chosen(weighed))], dim=1))
        return hidden

    def forward(
        self,
        frames: Float[Tensor, "batch frames layers width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Logits, one row an utterance."""
        logits: Tensor = self.output(self.embed(frames, padding_mask, frame_mask))
        return logits

    def _mixed(self, encoded: Float[Tensor, "batch frames layers width"]) -> Float[Tensor, "batch frames width"]:
        if self.mix is None:
            return encoded.squeeze(2)
        return torch.einsum("btlw,l->btw", encoded, self.mix.softmax(0))

    def _unpacked(self, mel: Float[Tensor, "batch frames packed width"]) -> Float[Tensor, "batch frames steps bands"]:
        values = mel.flatten(2)[..., : self.steps * self.bands]
        return values.view(*values.shape[:2], self.steps, self.bands)
