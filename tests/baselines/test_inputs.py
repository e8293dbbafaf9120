"""Hidden frames and the mean over time, and what every baseline promises about them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serein.baselines.emobox import EmoBoxHead
from serein.baselines.emotion2vec import Emotion2vecHead
from serein.baselines.inputs import hide_frames, masked_mean
from serein.baselines.lpmn import LocalPrototypeMapping
from serein.baselines.pepino import PepinoHead
from serein.baselines.speaker_normalization import SpeakerNormalizedHead
from serein.baselines.superb import SuperbHead

HEADS = {
    "superb": SuperbHead,
    "emobox": EmoBoxHead,
    "emotion2vec": Emotion2vecHead,
    "pepino": PepinoHead,
    "speaker_normalization": lambda *sizes: SpeakerNormalizedHead(*sizes, talkers=4),
    "lpmn": lambda *sizes: LocalPrototypeMapping(*sizes, prototypes=16, width=6),
}


def head(name, layers=2):
    torch.manual_seed(0)
    model = HEADS[name](layers, 5, 3).eval()
    model.front_end.mean.normal_()
    model.front_end.deviation.uniform_(0.5, 2.0)
    if model.front_end.mix is not None:
        model.front_end.mix.data.uniform_(0.5, 2.0)
    return model


def test_the_mean_by_hand_leaves_padding_out_whatever_stands_there():
    frames = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [torch.nan, torch.inf]], [[2.0, 0.0], [2.0, 3.0], [5.0, 3.0]]])
    padding_mask = torch.tensor([[False, False, True], [False, False, False]])
    assert masked_mean(frames, padding_mask).tolist() == [[2.0, 4.0], [3.0, 2.0]]


def test_hidden_frames_are_zero_and_the_others_and_the_input_stay():
    frames = torch.ones(1, 3, 2)
    hidden = hide_frames(frames, torch.tensor([[False, True, False]]))
    assert hidden.tolist() == [[[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]]
    assert frames.sum() == 6
    assert hide_frames(frames, None) is frames


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), extra=st.integers(0, 4), seed=st.integers(0, 999))
def test_padding_never_changes_an_output(name, lengths, extra, seed):
    model = head(name)
    frames = torch.randn(len(lengths), max(lengths) + extra, 2, 5, generator=torch.Generator().manual_seed(seed))
    padding_mask = torch.arange(frames.shape[1]) >= torch.tensor(lengths).unsqueeze(1)
    frames = torch.where(padding_mask[:, :, None, None], 1e3, frames)
    together, embedded = model(frames, padding_mask), model.embed(frames, padding_mask)
    for row, length in enumerate(lengths):
        alone = frames[row : row + 1, :length], padding_mask[row : row + 1, :length]
        assert torch.allclose(together[row], model(*alone)[0], atol=1e-5)
        assert torch.allclose(embedded[row], model.embed(*alone)[0], atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_a_permuted_batch_permutes_the_logits(name):
    model = head(name)
    frames = torch.randn(4, 7, 2, 5)
    padding_mask = torch.arange(7) >= torch.tensor([[7], [2], [5], [1]])
    order = torch.tensor([3, 1, 0, 2])
    assert torch.allclose(model(frames, padding_mask)[order], model(frames[order], padding_mask[order]), atol=1e-6)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", HEADS)
def test_a_hidden_frame_counts_as_the_mean_frame_and_its_content_not_at_all(name, layers):
    model = head(name, layers)
    frames, padding_mask = torch.randn(2, 6, layers, 5), torch.zeros(2, 6, dtype=torch.bool)
    frame_mask = torch.tensor([[True, False] * 3, [False, False, True] * 2])
    mean_frames = torch.where(frame_mask[:, :, None, None], model.front_end.mean, frames)
    hidden = model(frames, padding_mask, frame_mask)
    assert torch.allclose(hidden, model(mean_frames, padding_mask), atol=1e-5)
    assert not torch.allclose(hidden, model(frames, padding_mask), atol=1e-3)


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_the_output_layer_on_the_embedding(name):
    model = head(name)
    frames, padding_mask = torch.randn(2, 6, 2, 5), torch.zeros(2, 6, dtype=torch.bool)
    assert model(frames, padding_mask).equal(model.output(model.embed(frames, padding_mask)))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_of_the_emotion_path_gets_a_gradient(name, layers):
    model = head(name, layers)
    model(torch.randn(4, 6, layers, 5), torch.zeros(4, 6, dtype=torch.bool)).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        if not parameter_name.startswith("talker_output"):
            assert parameter.grad.abs().sum() > 0, parameter_name
