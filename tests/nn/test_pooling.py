import pytest
import torch

from serein.nn.pooling import AttentiveStatisticsPooling, attentive_statistics


def test_eq_7_mean_and_variance_by_hand():
    # Z = (1, 3, 5), A = (1/2, 1/4, 1/4): mu = 0.5 + 0.75 + 1.25 = 2.5; (Z.Z)'A = 0.5 + 2.25 + 6.25 = 9; 9 - 6.25 = 2.75
    frames = torch.tensor([1.0, 3.0, 5.0]).view(1, 3, 1)
    attention = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1)
    mean, variance = attentive_statistics(frames, attention)
    assert mean.item() == pytest.approx(2.5)
    assert variance.item() == pytest.approx(2.75)


def test_eq_7_as_printed_by_hand_can_be_negative():
    # Z'(A.A) - (Z'A . Z'A) = 1/4 + 3/16 + 5/16 - 6.25 = -5.5
    frames = torch.tensor([1.0, 3.0, 5.0]).view(1, 3, 1)
    attention = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1)
    assert attentive_statistics(frames, attention, "printed")[1].item() == pytest.approx(-5.5)


def test_uniform_attention_gives_the_plain_mean_and_variance():
    frames = torch.randn(2, 10, 4)
    mean, variance = attentive_statistics(frames, torch.full((2, 10, 3), 0.1))
    assert torch.allclose(mean, frames.mean(1).unsqueeze(-1).expand(-1, -1, 3), atol=1e-6)
    assert torch.allclose(variance[..., 0], frames.var(1, correction=0), atol=1e-5)


def test_the_variance_of_a_constant_is_zero():
    _, variance = attentive_statistics(torch.full((1, 6, 2), 3.0), torch.rand(1, 6, 2).softmax(1))
    assert torch.allclose(variance, torch.zeros(1, 2, 2), atol=1e-5)


@pytest.mark.parametrize("variance", ["corrected", "printed"])
def test_pooling_ignores_padding_and_normalises_each_head(variance):
    torch.manual_seed(0)
    pooling = AttentiveStatisticsPooling(6, heads=4, variance=variance)
    frames = torch.randn(2, 9, 6)
    mask = torch.arange(9) >= torch.tensor([[9], [4]])
    pooled = pooling(frames.masked_fill(mask.unsqueeze(-1), torch.nan), mask)
    assert torch.allclose(pooled[1:], pooling(frames[1:, :4], mask[1:, :4]), atol=1e-6)
    assert pooled.shape == (2, pooling.output_width)
    norms = pooled.view(2, 2, 6, 4).norm(dim=2)
    assert torch.allclose(norms, torch.ones(2, 2, 4), atol=1e-5)


def test_mixed_precision_does_not_round_the_variance():
    torch.manual_seed(0)
    pooling = AttentiveStatisticsPooling(6, heads=2)
    frames, mask = 50 + torch.randn(2, 30, 6), torch.zeros(2, 30, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = pooling(frames, mask)
    assert torch.allclose(mixed, pooling(frames, mask), atol=1e-6)
