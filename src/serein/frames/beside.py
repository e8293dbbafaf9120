"""Log-mel frames beside an encoder's: those of the same time, side by side, as further layers of each encoder frame."""

import math

import torch
import torch.nn.functional as F  # noqa: N812

from serein.errors import StoreError
from serein.frames.batches import FrameArray


def pack_beside(array: FrameArray, mel: FrameArray) -> FrameArray:
    """Put the log-mel frames that fall into the time of each encoder frame behind its layers.

    With r log-mel frames to an encoder frame, encoder frame t gets log-mel frames rt to rt + r - 1, one after the other
    in ceil(r * bands / width) further layers, with zeros after them. Where the log-mel frames end before the encoder's,
    the last one is repeated; those after the encoder's last frame are left out.

    Args:
        array: the encoder's frames.
        mel: frames of one layer for (at least) the same utterances, in any order.

    Raises:
        StoreError: an encoder frame does not last as long as a whole number of log-mel frames.

    Example:
        >>> frames = FrameArray(("a",), torch.ones(2, 1, 3).half(), torch.tensor([2]), 25.0)
        >>> mel = FrameArray(("a",), torch.arange(2.0, 8.0).half().view(3, 1, 2), torch.tensor([3]), 50.0)
        >>> pack_beside(frames, mel).flat
        tensor([[[1., 1., 1.],
                 [2., 3., 4.],
                 [5., 0., 0.]],
        <BLANKLINE>
                [[1., 1., 1.],
                 [6., 7., 6.],
                 [7., 0., 0.]]], dtype=torch.float16)
    """
    ratio = mel.frame_rate / array.frame_rate
    steps = round(ratio)
    if steps < 1 or abs(ratio - steps) > 1e-6:
        raise StoreError(
            f"{mel.frame_rate:g} log-mel frames a second cannot stand beside {array.frame_rate:g} encoder frames a "
            "second: an encoder frame must last as long as a whole number of them; extract with another --pool"
        )
    mel = mel.select(array.ids)
    places = torch.arange(len(array.flat)) - (array.lengths.cumsum(0) - array.lengths).repeat_interleave(array.lengths)
    last = (mel.lengths - 1).repeat_interleave(array.lengths)
    starts = (mel.lengths.cumsum(0) - mel.lengths).repeat_interleave(array.lengths)
    rows = starts.unsqueeze(1) + (places.unsqueeze(1) * steps + torch.arange(steps)).minimum(last.unsqueeze(1))
    values = mel.flat[rows].flatten(1)
    layers = math.ceil(values.shape[1] / array.width)
    packed = F.pad(values, (0, layers * array.width - values.shape[1])).view(len(values), layers, array.width)
    return FrameArray(array.ids, torch.cat([array.flat, packed], 1), array.lengths, array.frame_rate)
