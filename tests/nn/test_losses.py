import math

import pytest
import torch

from serein.nn.losses import adapter_loss, masked_mse, normalize_target, pseudo_cross_entropy


def test_eq_1_is_the_mean_over_hidden_frames_of_the_squared_distance():
    # L_rec = 1/|M| sum_{i in M} ||z_i^t - z_i^s||_2^2; hidden: (3-0)^2 + (4-0)^2 = 25 and (1-0)^2 + 0 = 1; mean 13
    teacher = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert masked_mse(torch.zeros(2, 2), teacher).item() == pytest.approx(13.0)


def test_layer_norm_of_the_target_has_mean_0_and_variance_1_a_frame():
    frames = torch.randn(5, 64) * 7 + 3
    normed = normalize_target(frames, "layer")
    assert torch.allclose(normed.mean(-1), torch.zeros(5), atol=1e-5)
    assert torch.allclose(normed.var(-1, correction=0), torch.ones(5), atol=1e-3)
    assert normalize_target(frames, "none").equal(frames)


def test_pseudo_cross_entropy_of_uniform_logits_is_log_k():
    loss = pseudo_cross_entropy(torch.zeros(3, 8), torch.tensor([0, 5, 7]))
    assert loss.item() == pytest.approx(math.log(8))


def test_pseudo_cross_entropy_by_hand():
    # softmax of (log 3, 0) is (3/4, 1/4), of (log 7, 0) is (7/8, 1/8): label 0 costs log 4/3, label 1 costs log 8
    logits = torch.tensor([[math.log(3), 0.0], [math.log(7), 0.0]])
    loss = pseudo_cross_entropy(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(8)) / 2)


def test_eq_6_weighs_the_two_losses():
    # L = lambda L_rec + (1 - lambda) L_pce
    assert adapter_loss(torch.tensor(2.0), torch.tensor(6.0), 0.75).item() == pytest.approx(3.0)
    assert adapter_loss(torch.tensor(2.0), torch.tensor(6.0), 1.0).item() == 2.0
