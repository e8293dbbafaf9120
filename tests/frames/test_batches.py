import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import speech_seconds

from serein.errors import StoreError
from serein.frames.batches import LEAST, FrameArray, frame_budget, join, plan_batches


def array(lengths: list[int]) -> FrameArray:
    torch.manual_seed(0)
    flat = torch.randn(sum(lengths), 2, 3).half()
    return FrameArray(tuple(f"u{n}" for n in range(len(lengths))), flat, torch.tensor(lengths), 50.0)


@settings(max_examples=200)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=120),
    budget=st.integers(1, 6000),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
    mixing=st.sampled_from([0, 40]),
)
def test_an_epoch_shows_every_utterance_once_under_the_budget(lengths, budget, seed, epoch, mixing):
    batches = plan_batches(torch.tensor(lengths), budget, seed=seed, epoch=epoch, mixing=mixing)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    least = min(LEAST, len(lengths), max(1, int(budget / (2 * 1.01 * np.mean(lengths) + 2))))
    assert min(map(len, batches)) >= least
    for batch in batches:
        few = len(batch) < 2 * LEAST
        assert few or max(lengths[i] for i in batch.tolist()) * len(batch) <= budget * 1.01**mixing * 1.02


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=120),
    budget=st.integers(1, 6000),
    mixing=st.sampled_from([0, 40]),
)
def test_every_epoch_has_batches_of_the_same_sizes(lengths, budget, mixing):
    plans = [plan_batches(torch.tensor(lengths), budget, seed=3, epoch=epoch, mixing=mixing) for epoch in range(6)]
    assert len({tuple(sorted(map(len, plan))) for plan in plans}) == 1


def test_mixing_lets_what_goes_with_length_differ_inside_a_batch():
    lengths = torch.normal(47.0, 4.0, (1000,), generator=torch.Generator().manual_seed(0)).round().long()

    def between(mixing: int) -> float:
        """The share of the lengths' variance that lies between batches."""
        plan = plan_batches(lengths, frame_budget(lengths, 32), seed=0, epoch=0, mixing=mixing)
        logs = lengths.double().log()
        means = torch.cat([logs[batch].mean().expand(len(batch)) for batch in plan])
        return float(means.var() / logs.var())

    assert between(0) > 0.95
    assert between(40) < 0.5


def test_utterances_of_one_length_are_mixed_already():
    lengths = torch.full((200,), 25)
    plans = [plan_batches(lengths, 800, seed=0, epoch=1, mixing=mixing) for mixing in (0, 40)]
    assert all(one.equal(other) for one, other in zip(*plans, strict=True))


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    lengths = torch.randint(50, 400, (200,), generator=torch.Generator().manual_seed(0))

    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat(plan_batches(lengths, 4000, seed=seed, epoch=epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


@pytest.mark.parametrize(("mixing", "share"), [(0, 0.97), (40, 0.8)])
@pytest.mark.parametrize("batch_size", [24, 96])
def test_padding_is_a_small_part_of_the_work(batch_size, mixing, share):
    lengths = torch.tensor([int(50 * seconds) for seconds in speech_seconds(5531)])
    batches = plan_batches(lengths, frame_budget(lengths, batch_size), seed=0, epoch=0, mixing=mixing)
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    assert int(lengths.sum()) / padded > share


def test_a_half_full_batch_is_cut_before_lengths_differ_by_more_than_a_fifth():
    lengths = torch.tensor([100] * 6 + [110] * 4 + [130] * 10)
    found = plan_batches(lengths, 1800, seed=0, epoch=0)
    assert sorted(sorted(lengths[batch].tolist()) for batch in found) == [[100] * 6 + [110] * 4, [130] * 10]
    few = torch.tensor([100] * 2 + [130] * 2)  # less than half full
    assert [len(batch) for batch in plan_batches(few, 1200, seed=0, epoch=0)] == [4]


def test_eight_utterances_make_a_batch_however_long_they_are():
    lengths = torch.tensor([10] * 200 + [400] * 19)
    assert sorted(map(len, plan_batches(lengths, 2000, seed=0, epoch=0))) == [8, 11, 200]
    # who asks for batches of four does not get eight
    assert max(map(len, plan_batches(torch.full((40,), 400), 1600, seed=0, epoch=0))) <= 4


def test_what_is_left_at_the_end_is_no_batch_of_one_or_two():
    assert sorted(map(len, plan_batches(torch.full((65,), 100), 3200, seed=0, epoch=0))) == [16, 17, 32]
    lengths = torch.tensor([100] * 30 + [150])  # 100 is padded to 150 where both are
    assert sorted(map(len, plan_batches(lengths, 3000, seed=0, epoch=0))) == [12, 19]
    spread = torch.Generator().manual_seed(0)
    for number in range(40, 300):
        lengths = torch.normal(180.0, 40.0, (number,), generator=spread).clamp(min=60).round().long()
        batches = plan_batches(lengths, frame_budget(lengths, 32), seed=0, epoch=0)
        assert min(map(len, batches)) >= 8


def test_a_batch_holds_the_stored_frames_and_zeros_at_padding():
    frames = array([3, 5, 2])
    batch = frames.batch(torch.tensor([2, 1]))
    assert batch.frames[0, :2].equal(frames.flat[8:10].float())
    assert batch.frames[1].equal(frames.flat[3:8].float())
    assert batch.padding_mask.tolist() == [[False, False, True, True, True], [False] * 5]
    assert (batch.frames[batch.padding_mask] == 0).all()
    moved = batch.to("cpu")
    assert moved.lengths.tolist() == [2, 5]


def test_frames_stay_where_a_gpu_has_no_room_for_them(monkeypatch):
    frames = array([3, 5, 2])
    assert frames.near(torch.device("cpu")) is frames
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * frames.flat.nbytes - 1, 0))
    assert frames.near(torch.device("cuda")) is frames


def test_moments_and_pooled_statistics_equal_numpys():
    frames = array([3, 5, 2])
    mean, deviation = frames.moments(torch.tensor([0, 2]))
    chosen = torch.cat([frames.flat[:3], frames.flat[8:]]).double()
    assert torch.allclose(mean.double(), chosen.mean(0), atol=1e-6)
    assert torch.allclose(deviation.double(), chosen.std(0, correction=0), atol=1e-6)
    pooled = frames.pooled(torch.tensor([2, 1]))
    assert torch.allclose(pooled[1, 0], frames.flat[3:8].float().mean(0), atol=1e-6)
    assert torch.allclose(pooled[1, 1], frames.flat[3:8].float().std(0, correction=0), atol=1e-6)


def test_an_unknown_utterance_is_a_key_error():
    assert array([3, 5, 2]).indices(["u2", "u0"]).tolist() == [2, 0]
    with pytest.raises(KeyError, match="nobody"):
        array([3]).indices(["nobody"])


def frames_of(frames: FrameArray, index: int) -> torch.Tensor:
    return frames.flat.split(frames.lengths.tolist())[index]


def test_selected_utterances_come_in_the_order_asked_for():
    frames = array([3, 5, 2])
    chosen = frames.select(["u2", "u0"])
    assert (chosen.ids, chosen.lengths.tolist(), chosen.frame_rate) == (("u2", "u0"), [2, 3], 50.0)
    assert chosen.flat.equal(torch.cat([frames.flat[8:], frames.flat[:3]]))
    with pytest.raises(KeyError, match="nobody"):
        frames.select(["nobody"])


def test_each_talkers_frames_get_mean_0_and_deviation_1():
    frames = array([30, 50, 20, 40])
    talkers = torch.tensor([0, 1, 0, 1])
    loud = FrameArray(frames.ids, frames.flat * 3 + 5, frames.lengths, 50.0)
    normed = loud.normed_by_talker(talkers)
    assert (normed.ids, normed.flat.dtype) == (frames.ids, torch.float16)
    for talker in (0, 1):
        mine = torch.cat([frames_of(normed, i) for i in range(4) if talkers[i] == talker]).double()
        assert torch.allclose(mine.mean(0), torch.zeros(2, 3, dtype=torch.float64), atol=2e-3)
        assert torch.allclose(mine.std(0, correction=0), torch.ones(2, 3, dtype=torch.float64), atol=2e-3)
    # together, not each utterance by itself: what differs between a talker's utterances stays
    assert frames_of(normed, 0).float().mean(0).abs().max() > 0.05


def test_another_talkers_frames_do_not_matter():
    frames, talkers = array([30, 50, 20]), torch.tensor([0, 1, 0])
    changed = frames.flat.clone()
    changed[30:80] = 7 - 3 * changed[30:80]
    first = frames.normed_by_talker(talkers)
    second = FrameArray(frames.ids, changed, frames.lengths, 50.0).normed_by_talker(talkers)
    assert frames_of(first, 0).equal(frames_of(second, 0))
    assert frames_of(first, 2).equal(frames_of(second, 2))
    assert not frames_of(first, 1).equal(frames_of(second, 1))


def test_a_dimension_in_which_a_talker_never_varies_becomes_0():
    frames = FrameArray(("a",), torch.full((4, 1, 1), 3.0).half(), torch.tensor([4]), 50.0)
    assert frames.normed_by_talker(torch.tensor([0])).flat.flatten().tolist() == [0.0] * 4


def test_joined_arrays_stand_one_after_the_other():
    first, second = array([3, 5]), array([2])
    second = FrameArray(("other",), second.flat, second.lengths, 50.0)
    both = join([first, second])
    assert (both.ids, both.lengths.tolist(), both.frame_rate) == (("u0", "u1", "other"), [3, 5, 2], 50.0)
    assert both.batch(torch.tensor([2])).frames.equal(second.batch(torch.tensor([0])).frames)
    assert both.batch(torch.tensor([1])).frames.equal(first.batch(torch.tensor([1])).frames)


def test_an_id_that_stands_twice_is_refused_and_named():
    frames = array([3, 5])
    with pytest.raises(StoreError, match="frames of u0 stand in two stores"):
        join([frames, frames])


@pytest.mark.parametrize(("layers", "width", "rate"), [(1, 3, 50.0), (2, 4, 50.0), (2, 3, 25.0)])
def test_unlike_frames_are_not_joined(layers, width, rate):
    other = FrameArray(("other",), torch.zeros(2, layers, width).half(), torch.tensor([2]), rate)
    said = f"2 layers, 3 wide, 50 a second cannot be joined with {layers} layers, {width} wide, {rate:g} a second"
    with pytest.raises(StoreError, match=said):
        join([array([3]), other])
