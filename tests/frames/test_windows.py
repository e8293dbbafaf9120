from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serein.errors import TooShort
from serein.frames.audio import MINIMUM_SAMPLES, change_speed
from serein.frames.windows import cut, group, hear, longest_of, plan_windows


@given(st.integers(400, 5000), st.integers(400, 2000))
def test_windows_are_equal_no_longer_than_allowed_and_leave_nothing_out(total, longest):
    samples = np.arange(total, dtype=np.float32)
    windows = cut(samples, longest)
    lengths = [len(window) for window in windows]
    assert len(windows) == max(1, -(-total // longest))
    assert max(lengths) <= longest
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= MINIMUM_SAMPLES
    np.testing.assert_array_equal(np.unique(np.concatenate(windows)), samples)
    if total >= len(windows) * MINIMUM_SAMPLES:
        np.testing.assert_array_equal(np.concatenate(windows), samples)


def test_every_speed_is_heard_but_those_too_fast_for_a_frame():
    samples = np.random.default_rng(0).standard_normal(450).astype(np.float32)
    ((own,), (slow,)) = hear(samples, (1.0, 1.5, 0.5), 16_000)
    assert own is not slow
    np.testing.assert_array_equal(own, samples)
    np.testing.assert_array_equal(slow, change_speed(samples, 0.5))


@pytest.mark.parametrize(("samples", "speeds"), [(399, (1.0, 1.1)), (0, (1.0,)), (450, (1.5,))])
def test_what_has_no_frame_at_any_speed_is_too_short(samples, speeds):
    with pytest.raises(TooShort, match=f"{samples} samples at 16 kHz; 400 make one frame"):
        hear(np.zeros(samples, dtype=np.float32), speeds, 16_000)


@given(st.integers(0, 40_000), st.integers(400, 9000), st.integers(1, 9000))
def test_planned_windows_reach_the_end_and_the_first_to_reach_it_is_the_last(total, window, hop):
    hop = min(hop, window)
    planned = plan_windows(total, window, hop)
    assert [start for start, _ in planned] == [number * hop for number in range(len(planned))]
    assert all(end - start == window for start, end in planned[:-1])
    reached = planned[-1][1] if planned else 0
    assert reached <= total < reached + MINIMUM_SAMPLES
    assert all(end < total for _, end in planned[:-1])


@pytest.mark.parametrize(
    ("total", "planned"),
    [
        (399, []),
        (400, [(0, 400)]),
        (1000, [(0, 1000)]),
        (1001, [(0, 1000), (500, 1001)]),
        (1500, [(0, 1000), (500, 1500)]),
    ],
)
def test_windows_by_hand(total, planned):
    assert plan_windows(total, window=1000, hop=500) == planned


@given(st.lists(st.integers(400, 5000), max_size=40), st.integers(400, 20_000))
def test_groups_hold_every_window_once_and_no_more_than_allowed_with_padding(lengths, most):
    groups = group(lengths, most)
    assert sorted(index for indices in groups for index in indices) == [*range(len(lengths))]
    for indices in groups:
        assert len(indices) == 1 or len(indices) * max(lengths[index] for index in indices) <= most
    ordered = [lengths[index] for indices in groups for index in indices]
    assert ordered == sorted(ordered)
    for indices, following in pairwise(groups):  # none could have taken one more
        assert (len(indices) + 1) * lengths[following[0]] > most


@given(st.integers(1, 3000), st.sampled_from([160, 320, 400]), st.integers(1, 640))
def test_the_longest_window_has_as_many_frames_as_allowed_and_one_sample_more_has_too_many(frames, first, step):
    def num_frames(samples):
        return max(0, (samples - first) // step + 1)

    longest = longest_of(num_frames, frames)
    assert num_frames(longest) == frames
    assert num_frames(longest + 1) == frames + 1
