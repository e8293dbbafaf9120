import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serein.errors import StoreError
from serein.frames.batches import FrameArray
from serein.frames.beside import pack_beside


def array(ids: str, lengths: tuple[int, ...], layers: int, width: int, rate: float, first: float = 1.0) -> FrameArray:
    count = sum(lengths) * layers * width
    flat = torch.arange(first, first + count).half().view(-1, layers, width)
    return FrameArray(tuple(ids), flat, torch.tensor(lengths), rate)


def test_log_mel_frames_of_the_same_time_stand_behind_the_layers():
    frames = array("ab", (2, 1), 1, 3, 25.0)
    mel = array("ba", (2, 4), 1, 2, 50.0, first=101.0)  # b: 101 to 104; a: 105 to 112
    packed = pack_beside(frames, mel)
    assert (packed.ids, packed.lengths.tolist(), packed.frame_rate) == (("a", "b"), [2, 1], 25.0)
    assert packed.flat.tolist() == [
        [[1, 2, 3], [105, 106, 107], [108, 0, 0]],
        [[4, 5, 6], [109, 110, 111], [112, 0, 0]],
        [[7, 8, 9], [101, 102, 103], [104, 0, 0]],
    ]
    assert packed.flat.dtype == torch.float16


def test_where_log_mel_frames_end_the_last_is_repeated_and_what_is_over_is_left_out():
    frames = array("ab", (2, 1), 1, 3, 50.0 / 3)
    mel = array("ab", (2, 5), 1, 1, 50.0, first=101.0)
    assert pack_beside(frames, mel).flat[:, 1].tolist() == [[101, 102, 102], [102, 102, 102], [103, 104, 105]]


@pytest.mark.parametrize("rate", [50.0 / 2.5, 100.0, 49.0])
def test_rates_that_do_not_fit_are_refused(rate):
    with pytest.raises(StoreError, match=rf"50 log-mel frames .* beside {rate:g} encoder .*whole number.*--pool"):
        pack_beside(array("a", (2,), 1, 3, rate), array("a", (4,), 1, 2, 50.0))


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 20)), min_size=1, max_size=4),
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 7), st.integers(1, 9),
)  # fmt: skip
def test_packing_then_unpacking_gives_each_frames_log_mel_frames_back(lengths, steps, layers, width, bands):
    ids = tuple(map(str, range(len(lengths))))
    own, others = (torch.tensor(part) for part in zip(*lengths, strict=True))
    frames = FrameArray(ids, torch.randn(int(own.sum()), layers, width).half(), own, 50.0 / steps)
    mel = FrameArray(ids, torch.randn(int(others.sum()), 1, bands).half(), others, 50.0)
    packed = pack_beside(frames, mel)
    assert packed.layers == layers + math.ceil(steps * bands / width)
    assert packed.flat[:, :layers].equal(frames.flat)
    for place in range(len(ids)):
        inside = packed.select(ids[place : place + 1]).flat[:, layers:].flatten(1)
        alone = mel.select(ids[place : place + 1]).flat[:, 0]
        for t, values in enumerate(inside):
            expected = [alone[min(steps * t + k, len(alone) - 1)] for k in range(steps)]
            assert values[: steps * bands].equal(torch.cat(expected))
            assert not values[steps * bands :].any()
