import pytest
import torch

from serein.nn.masking import replace_frames, sample_frame_mask


def padding(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) >= torch.tensor(lengths).unsqueeze(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_forty_percent_of_each_utterances_frames_are_hidden_and_no_padding():
    mask = sample_frame_mask(padding(100, 50, 10, 1), 0.4, generator=seeded())
    assert mask.sum(1).tolist() == [40, 20, 4, 1]
    assert not (mask & padding(100, 50, 10, 1)).any()


def test_the_number_of_hidden_frames_is_rounded_to_the_nearest():
    mask = sample_frame_mask(padding(9, 6, 4), 0.4, generator=seeded())  # 3.6, 2.4 and 1.6
    assert mask.sum(1).tolist() == [4, 2, 2]


def test_every_frame_is_as_likely_as_any_other():
    mask = sample_frame_mask(padding(20).expand(5000, -1), 0.4, generator=seeded())
    assert mask.float().mean(0).sub(0.4).abs().max() < 0.03


@pytest.mark.parametrize(("ratio", "span"), [(0.4, 4.0), (0.2, 8.0), (0.5, 2.0)])
def test_spans_have_the_asked_mean_length_and_share(ratio, span):
    mask = sample_frame_mask(padding(400).expand(500, -1), ratio, span=span, generator=seeded())
    assert mask.float().mean().item() == pytest.approx(ratio, abs=0.02)
    assert mask[:, 0].float().mean().item() == pytest.approx(ratio, abs=0.07)
    starts = (mask[:, 1:] & ~mask[:, :-1]).sum() + mask[:, 0].sum()
    assert (mask.sum() / starts).item() == pytest.approx(span, rel=0.08)


@pytest.mark.parametrize(("ratio", "span", "frames"), [(0.4, 4.0, 20), (0.2, 4.0, 10), (0.4, 1e8, 7)])
def test_no_frame_of_a_short_utterance_is_hidden_more_often_by_spans(ratio, span, frames):
    mask = sample_frame_mask(padding(frames).expand(20_000, -1), ratio, span=span, generator=seeded())
    shares = mask.float().mean(0)
    assert shares.max() - shares.min() < 0.025  # by chance alone a frame's share strays by 0.0035
    assert ratio - 0.01 < shares.mean() < ratio + 1 / frames
    assert mask.any(1).all()


def test_spans_keep_off_padding_and_hide_something_in_every_utterance():
    lengths = padding(30, 2, 1).repeat(200, 1)
    mask = sample_frame_mask(lengths, 0.1, span=5.0, generator=seeded())
    assert not (mask & lengths).any()
    assert mask.any(1).all()


def test_the_same_generator_state_gives_the_same_mask():
    draws = [sample_frame_mask(padding(50, 20), 0.4, generator=seeded(seed)) for seed in (1, 1, 2)]
    assert draws[0].equal(draws[1])
    assert not draws[0].equal(draws[2])


@pytest.mark.parametrize(("ratio", "span"), [(0.0, 1.0), (1.0, 1.0), (0.4, 0.5), (0.8, 2.0)])
def test_impossible_masks_are_refused(ratio, span):
    with pytest.raises(ValueError, match="must be"):
        sample_frame_mask(padding(5), ratio, span=span, generator=seeded())


def test_replacing_leaves_the_input_and_the_visible_frames_as_they_are():
    frames = torch.randn(2, 5, 3)
    before = frames.clone()
    mask = sample_frame_mask(padding(5, 4), 0.4, generator=seeded())
    replaced = replace_frames(frames, mask, torch.tensor([7.0, 8.0, 9.0]))
    assert frames.equal(before)
    assert replaced[~mask].equal(frames[~mask])
    assert (replaced[mask] == torch.tensor([7.0, 8.0, 9.0])).all()
