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
    assert torch.allclose(variance, torch.zeros(1, 2, 2), atol=1e-9)


def test_a_small_variance_of_large_frames_keeps_its_digits():
    torch.manual_seed(0)
    frames, attention = 300 + 0.1 * torch.randn(2, 40, 5), torch.randn(2, 40, 3).softmax(1)
    _, variance = attentive_statistics(frames, attention)
    _, exact = attentive_statistics(frames.double(), attention.double())
    assert torch.allclose(variance.double(), exact, rtol=1e-2)


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


@pytest.mark.parametrize("variance", ["corrected", "printed"])
def test_what_is_pooled_is_eq_7_each_heads_means_and_variances_of_length_1(variance):
    torch.manual_seed(0)
    pooling = AttentiveStatisticsPooling(6, heads=4, variance=variance)
    frames, mask = 2 + torch.randn(3, 9, 6), torch.zeros(3, 9, dtype=torch.bool)
    of_heads = attentive_statistics(frames, pooling.score(frames).softmax(1), variance)
    expected = torch.cat([(of / of.square().sum(1, keepdim=True).sqrt()).flatten(1) for of in of_heads], dim=1)
    assert torch.allclose(pooling(frames, mask), expected, atol=1e-6)


def test_mixed_precision_does_not_round_the_variance():
    torch.manual_seed(0)
    pooling = AttentiveStatisticsPooling(6, heads=2)
    frames, mask = 50 + torch.randn(2, 30, 6), torch.zeros(2, 30, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = pooling(frames, mask)
    assert torch.allclose(mixed, pooling(frames, mask), atol=1e-6)


def trained(batches: int = 30) -> AttentiveStatisticsPooling:
    """Pooling with batch norm that has seen batches far from mean 0 and variance 1."""
    torch.manual_seed(0)
    pooling = AttentiveStatisticsPooling(6, heads=2, norm="batch")
    for _ in range(batches):
        pooling(4 + 3 * torch.randn(8, 12, 6), torch.zeros(8, 12, dtype=torch.bool))
    return pooling


def test_batch_norm_joins_means_and_deviations_of_mean_0_and_variance_1_over_the_batch():
    pooling, plain = trained(0), AttentiveStatisticsPooling(6, heads=2)
    plain.score.load_state_dict(pooling.score.state_dict())
    frames, mask = 4 + 3 * torch.randn(40, 12, 6), torch.zeros(40, 12, dtype=torch.bool)
    mean, variance = attentive_statistics(frames, pooling.score(frames).softmax(1))
    joined = torch.cat([mean.flatten(1), variance.sqrt().flatten(1)], dim=1)
    expected = (joined - joined.mean(0)) / joined.std(0, correction=0)
    pooled = pooling(frames, mask)
    assert pooled.shape == (40, pooling.output_width)
    assert torch.allclose(pooled, expected, atol=1e-3)
    assert not torch.allclose(pooled, plain(frames, mask), atol=0.1)


def test_with_batch_norm_neither_padding_nor_company_changes_an_output_in_evaluation():
    pooling = trained().eval()
    frames = 4 + 3 * torch.randn(3, 9, 6)
    mask = torch.arange(9) >= torch.tensor([[9], [4], [1]])
    pooled = pooling(frames.masked_fill(mask.unsqueeze(-1), torch.nan), mask)
    for row, length in enumerate((9, 4, 1)):
        alone = pooling(frames[row : row + 1, :length], mask[row : row + 1, :length])
        assert torch.allclose(pooled[row], alone[0], atol=1e-5)


def test_with_batch_norm_a_batch_of_one_is_trained_with_the_moments_of_the_batches_before():
    pooling = trained()
    frames, mask = 4 + 3 * torch.randn(1, 9, 6), torch.zeros(1, 9, dtype=torch.bool)
    before = {name: tensor.clone() for name, tensor in pooling.state_dict().items()}
    pooled = pooling(frames, mask)
    pooled.sum().backward()
    assert pooling.score.weight.grad.abs().sum() > 0
    assert all(tensor.equal(before[name]) for name, tensor in pooling.state_dict().items())
    assert torch.allclose(pooled, pooling.eval()(frames, mask), atol=1e-6)


def test_a_printed_variance_below_zero_gives_no_nan_under_batch_norm():
    pooling = AttentiveStatisticsPooling(6, heads=2, variance="printed", norm="batch")
    assert pooling(5 + torch.randn(4, 9, 6), torch.zeros(4, 9, dtype=torch.bool)).isfinite().all()
