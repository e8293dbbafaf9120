import math

import numpy as np
import pytest
import scipy.fft
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from serein.baselines.co_attention import (
    CoAttentionHead,
    MfccBranch,
    SpectrogramBranch,
    cosines,
    turned,
    weighted_sum,
)

LAYERS, WIDTH, CLASSES, STEPS, BANDS = 2, 36, 3, 2, 45
PACKED = 3  # layers of 36 for 2 log-mel frames of 45 bands


@pytest.fixture
def model() -> CoAttentionHead:
    torch.manual_seed(1)
    model = CoAttentionHead(LAYERS, WIDTH, CLASSES, STEPS, BANDS).eval()
    with torch.no_grad():
        model.mix.normal_()
        model.front_end.mean.normal_()
        model.front_end.deviation.uniform_(0.5, 2.0)
    return model


def frames_of(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    frames = torch.randn(len(lengths), max(lengths), LAYERS + PACKED, WIDTH)
    frames[:, :, LAYERS:].flatten(2)[..., STEPS * BANDS :] = 0
    return frames, torch.arange(max(lengths)) >= torch.tensor(lengths).unsqueeze(1)


def test_the_parameter_count_by_hand():
    # three layers of whisper-base at 12.5 frames a second, with 4 log-mel frames of 80 bands in one further layer
    def lstm(width):
        return 4 * 256 * (width + 256 + 2)

    mfcc = 2 * lstm(4 * 40) + 2 * lstm(2 * 256) + (512 * 128 + 128)
    convolutions = (9 * 16 + 16) + (9 * 16 * 32 + 32) + (9 * 32 * 64 + 64)
    spectrogram = convolutions + (64 * 10 * 128 + 128)
    rest = 3 + (256 * 512 + 512) + (512 * 128 + 128) + (384 * 128 + 128) + (128 * 128 + 128) + (128 * 8 + 8)
    model = CoAttentionHead(3, 512, 8, 4)
    assert sum(p.numel() for p in model.parameters()) == mfcc + spectrogram + rest == 2_868_107
    assert model.front_end.mean.shape == (4, 512)


def test_a_tenth_of_what_goes_into_each_hidden_layer_is_dropped(model):
    assert [layer.p for layer in model.hidden if isinstance(layer, nn.Dropout)] == [0.1, 0.1]
    assert isinstance(model.hidden[0], nn.Dropout)


def test_one_layer_has_nothing_to_weigh():
    assert CoAttentionHead(1, 512, 8, 4).mix is None


@pytest.mark.parametrize("bands", [40, 80])
def test_mfcc_are_scipys_orthonormal_cosine_transform(bands):
    mel = np.random.default_rng(0).normal(size=(5, bands))
    expected = scipy.fft.dct(mel, type=2, norm="ortho", axis=1)[:, :40]
    np.testing.assert_allclose(mel @ cosines(bands, 40).double().numpy().T, expected, atol=1e-5)


def test_turning_twice_is_as_before_and_once_is_a_flip_without_padding():
    frames, padding = torch.randn(3, 6, 2), torch.arange(6) >= torch.tensor([[6], [4], [1]])
    once = turned(frames, padding)
    for row, length in enumerate((6, 4, 1)):
        assert once[row, :length].equal(frames[row, :length].flip(0))
    assert turned(once, padding).equal(frames)


@torch.no_grad()
def test_the_mfcc_branch_is_torchs_bidirectional_lstm_on_packed_sequences():
    torch.manual_seed(0)
    branch = MfccBranch(STEPS, BANDS).eval()
    whole = nn.LSTM(STEPS * 40, 256, num_layers=2, bidirectional=True, batch_first=True)
    for layer in range(2):
        for suffix, ours in (("", branch.onwards[layer]), ("_reverse", branch.backwards[layer])):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(whole, f"{name}_l{layer}{suffix}").copy_(getattr(ours, f"{name}_l0"))
    lengths = (7, 3, 5)
    mel, padding = torch.randn(3, 7, STEPS, BANDS), torch.arange(7) >= torch.tensor(lengths).unsqueeze(1)
    mfcc = torch.tensor(scipy.fft.dct(mel.numpy(), type=2, norm="ortho", axis=-1)[..., :40])
    mfcc = (mfcc / mfcc.norm(dim=-1, keepdim=True)).flatten(2)
    packed = pack_padded_sequence(mfcc, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(whole(packed)[0], batch_first=True)
    means = torch.stack([states[row, :length].mean(0) for row, length in enumerate(lengths)])
    assert torch.allclose(branch(mel, padding), branch.output(means).relu(), atol=1e-5)


def test_half_of_the_first_lstm_layer_is_dropped_in_training_only():
    torch.manual_seed(0)
    branch = MfccBranch(STEPS, BANDS)
    mel, nothing = torch.randn(1, 5, STEPS, BANDS), torch.zeros(1, 5, dtype=torch.bool)
    assert (branch.dropout(torch.ones(4000)) == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert not branch(mel, nothing).equal(branch(mel, nothing))
    dropped = []
    branch.dropout.register_forward_hook(lambda module, given, output: dropped.append(given[0].shape[2]))
    branch(mel, nothing)
    assert dropped == [2 * 256]  # what the first layer says, and nothing else
    branch.eval()
    assert branch(mel, nothing).equal(branch(mel, nothing))


@torch.no_grad()
def test_the_spectrogram_branch_by_plain_loops():
    torch.manual_seed(0)
    branch = SpectrogramBranch(5)
    length, mel = 5, torch.randn(1, 7, 5)
    image = mel[0, None, :length].tolist()  # channels, time, bands
    for convolution in branch.convolutions:
        weight, bias = convolution.weight.tolist(), convolution.bias.tolist()
        time, bands = len(image[0]), len(image[0][0])
        image = [
            [
                [
                    max(0.0, bias[out] + sum(
                        weight[out][channel][i][j] * image[channel][2 * t + i - 1][2 * b + j - 1]
                        for channel in range(len(image)) for i in range(3) for j in range(3)
                        if 0 <= 2 * t + i - 1 < time and 0 <= 2 * b + j - 1 < bands
                    ))
                    for b in range(math.ceil(bands / 2))
                ]
                for t in range(math.ceil(time / 2))
            ]
            for out in range(convolution.out_channels)
        ]  # fmt: skip
    means = torch.tensor([[sum(row[b] for row in rows) / len(rows) for b in range(len(rows[0]))] for rows in image])
    expected = branch.output(means.flatten()).relu()
    assert torch.allclose(branch(mel, torch.arange(7).unsqueeze(0) >= length)[0], expected, atol=1e-5)


def test_frames_are_weighed_by_hand():
    frames = torch.tensor([[[1.0, 0.0, 0.0, 5.0], [0.0, 1.0, 0.0, 7.0], [9.0, 9.0, 9.0, 9.0]]])
    query = torch.tensor([[2 * math.log(3.0), 0.0, 0.0, 0.0]])  # scores log 3 and 0: weights 3/4 and 1/4
    chosen = weighted_sum(frames, query, torch.tensor([[False, False, True]]))
    assert chosen[0].tolist() == pytest.approx([0.75, 0.25, 0.0, 5.5])


@torch.no_grad()
def test_logits_put_the_parts_together_as_described(model):
    length = 4
    frames, padding = frames_of(6, length)
    share = model.mix.softmax(0)
    energies, standardised, mixed = [], [], []
    for t in range(length):
        frame = (frames[1, t] - model.front_end.mean) / model.front_end.deviation
        mixed.append(share[0] * frame[0] + share[1] * frame[1])
        energies.append(frames[1, t, LAYERS:].flatten()[: STEPS * BANDS].view(STEPS, BANDS))
        standardised += frame[LAYERS:].flatten()[: STEPS * BANDS].view(STEPS, BANDS)
    whole = torch.zeros(1, length, dtype=torch.bool)
    mfcc = model.mfcc(torch.stack(energies)[None], whole)[0]
    spectrogram = model.spectrogram(torch.stack(standardised)[None], whole.repeat(1, STEPS))[0]
    heard = torch.cat([mfcc, spectrogram])
    query = model.query.weight @ heard + model.query.bias
    scores = torch.stack([(query @ frame).exp() for frame in [x / math.sqrt(WIDTH) for x in mixed]])
    chosen = sum(score / scores.sum() * frame for score, frame in zip(scores, mixed, strict=True))
    x = torch.cat([heard, (model.chosen.weight @ chosen + model.chosen.bias).relu()])
    for layer in (model.hidden[1], model.hidden[4]):
        x = (layer.weight @ x + layer.bias).relu()
    expected = model.output.weight @ x + model.output.bias
    assert torch.allclose(model(frames, padding)[1], expected, atol=1e-5)
    assert torch.allclose(model.embed(frames, padding)[1], x, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 3, 8])
def test_padding_changes_no_output(model, length):
    frames, padding = frames_of(11, length)
    frames[padding] = 7.0
    alone = model(frames[1:, :length], padding[1:, :length])
    assert torch.allclose(model(frames, padding)[1:], alone, atol=1e-5)


@torch.no_grad()
def test_utterances_of_a_batch_do_not_meet(model):
    frames, padding = frames_of(6, 3, 5)
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(model(frames[order], padding[order]), model(frames, padding)[order], atol=1e-5)


@torch.no_grad()
def test_a_hidden_frame_is_the_mean_frame_to_all_three_branches(model):
    frames, padding = frames_of(5)
    hidden = torch.tensor([[False, True, False, False, True]])
    by_hand = torch.where(hidden[:, :, None, None], model.front_end.mean, frames)
    assert torch.allclose(model(frames, padding, hidden), model(by_hand, padding), atol=1e-5)
    assert not torch.allclose(model(frames, padding, hidden), model(frames, padding), atol=1e-3)


@torch.no_grad()
def test_each_of_the_three_changes_the_logits(model):
    frames, padding = frames_of(5)
    before = model(frames, padding)
    for part in (frames[:, :, :LAYERS], frames[:, :, LAYERS:]):
        kept = part.clone()
        part.copy_(part.flip(1) * 2)
        assert not torch.allclose(model(frames, padding), before, atol=1e-4)
        part.copy_(kept)


def test_every_parameter_learns(model):
    frames, padding = frames_of(5, 3)
    model.train()(frames, padding).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_it_runs_in_bfloat16(model):
    frames, padding = frames_of(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(frames, padding)
    assert torch.allclose(logits.float(), model(frames, padding), atol=0.05)
