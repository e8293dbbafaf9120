import math

import pytest
import torch

from serein.baselines.superb import SuperbHead


def test_the_parameter_count_is_superbs():
    # 25 layer weights; 1024 -> 256 and 256 -> 4, each with biases
    assert sum(p.numel() for p in SuperbHead(25, 1024, 4).parameters()) == 25 + (1024 * 256 + 256) + (256 * 4 + 4)


def test_one_layer_has_nothing_to_weigh():
    assert sum(p.numel() for p in SuperbHead(1, 1024, 4).parameters()) == (1024 * 256 + 256) + (256 * 4 + 4)


@torch.no_grad()
def test_logits_equal_the_description_in_plain_loops():
    torch.manual_seed(1)
    model = SuperbHead(3, 4, 2)
    model.front_end.mix.normal_()
    model.front_end.mean.normal_()
    model.front_end.deviation.uniform_(0.5, 2.0)
    frames, length = torch.randn(1, 5, 3, 4), 3
    scores = [math.exp(score) for score in model.front_end.mix.tolist()]
    pooled = [0.0] * 256
    for t in range(length):
        mixed = [0.0] * 4
        for layer in range(3):
            for i in range(4):
                value = (frames[0, t, layer, i] - model.front_end.mean[layer, i]) / model.front_end.deviation[layer, i]
                mixed[i] += scores[layer] / sum(scores) * value.item()
        for unit in range(256):
            weights = model.projector.weight[unit].tolist()
            projected = model.projector.bias[unit].item() + sum(w * x for w, x in zip(weights, mixed, strict=True))
            pooled[unit] += projected / length
    expected = [
        bias + sum(w * x for w, x in zip(row, pooled, strict=True))
        for row, bias in zip(model.output.weight.tolist(), model.output.bias.tolist(), strict=True)
    ]
    logits = model(frames, torch.tensor([[False] * 3 + [True] * 2]))
    assert logits[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_head_is_linear_in_the_mean_frame():
    model = SuperbHead(1, 4, 2)
    frames, nothing = torch.randn(2, 5, 1, 4), torch.zeros(2, 5, dtype=torch.bool)
    average = frames.mean(1, keepdim=True)
    assert torch.allclose(model(frames, nothing), model(average, nothing[:, :1]), atol=1e-5)
