import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serein.frames.batches import FrameArray, frame_budget, plan_batches


def array(lengths: list[int]) -> FrameArray:
    torch.manual_seed(0)
    flat = torch.randn(sum(lengths), 2, 3).half()
    return FrameArray(tuple(f"u{n}" for n in range(len(lengths))), flat, torch.tensor(lengths), 50.0)


@settings(deadline=None, max_examples=200)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=60),
    budget=st.integers(1, 2000),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
)
def test_an_epoch_shows_every_utterance_once_under_the_budget(lengths, budget, seed, epoch):
    batches = plan_batches(torch.tensor(lengths), budget, seed=seed, epoch=epoch)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch.tolist()) * len(batch) <= budget


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=60), budget=st.integers(1, 2000))
def test_every_epoch_has_the_same_number_of_batches(lengths, budget):
    counts = {len(plan_batches(torch.tensor(lengths), budget, seed=3, epoch=epoch)) for epoch in range(6)}
    assert len(counts) == 1


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    lengths = torch.randint(50, 400, (200,), generator=torch.Generator().manual_seed(0))

    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat(plan_batches(lengths, 4000, seed=seed, epoch=epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_padding_is_a_small_part_of_the_work():
    lengths = torch.randint(50, 400, (1000,), generator=torch.Generator().manual_seed(0))
    batches = plan_batches(lengths, frame_budget(lengths, 32), seed=0, epoch=0)
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    assert int(lengths.sum()) / padded > 0.95


def test_a_batch_holds_the_stored_frames_and_zeros_at_padding():
    frames = array([3, 5, 2])
    batch = frames.batch(torch.tensor([2, 1]))
    assert batch.frames[0, :2].equal(frames.flat[8:10].float())
    assert batch.frames[1].equal(frames.flat[3:8].float())
    assert batch.padding_mask.tolist() == [[False, False, True, True, True], [False] * 5]
    assert (batch.frames[batch.padding_mask] == 0).all()
    moved = batch.to("cpu")
    assert moved.lengths.tolist() == [2, 5]


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
