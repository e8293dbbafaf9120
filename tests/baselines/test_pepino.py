import pytest
import torch

from serein.baselines.pepino import PepinoHead


def test_the_parameter_count_is_the_sources():
    # 13 layer weights; 1x1 convolutions 768 -> 128 and 128 -> 128; 128 -> 4; all with biases
    expected = 13 + (768 * 128 + 128) + (128 * 128 + 128) + (128 * 4 + 4)
    assert sum(p.numel() for p in PepinoHead(13, 768, 4).parameters()) == expected


@torch.no_grad()
def test_logits_equal_the_description_in_plain_loops():
    torch.manual_seed(1)
    model = PepinoHead(2, 4, 3).eval()
    model.front_end.mix.copy_(torch.tensor([3.0, -1.0]))  # raw weights may be negative: 3/2 and -1/2
    model.front_end.mean.normal_()
    model.front_end.deviation.uniform_(0.5, 2.0)
    frames, length = torch.randn(1, 5, 2, 4), 3
    pooled = torch.zeros(128)
    for t in range(length):
        first, second = (frames[0, t] - model.front_end.mean) / model.front_end.deviation
        x = 1.5 * first - 0.5 * second
        for layer in (model.hidden[0], model.hidden[3]):
            rows = zip(layer.weight, layer.bias, strict=True)
            x = torch.stack([(row @ x + bias).clamp(min=0) for row, bias in rows])
        pooled += x / length
    expected = [(row @ pooled + bias).item() for row, bias in zip(model.output.weight, model.output.bias, strict=True)]
    logits = model(frames, torch.tensor([[False] * 3 + [True] * 2]))
    assert logits[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_layers_start_with_equal_weights():
    model = PepinoHead(4, 3, 2)
    frames = torch.randn(2, 5, 4, 3)
    assert torch.allclose(model.front_end(frames), frames.mean(2), atol=1e-6)


def test_the_mix_depends_on_the_ratio_of_the_weights_only():
    model = PepinoHead(4, 3, 2)
    frames = torch.randn(2, 5, 4, 3)
    model.front_end.mix.data.uniform_(0.5, 2.0)
    before = model.front_end(frames)
    model.front_end.mix.data *= 7.0
    assert torch.allclose(model.front_end(frames), before, atol=1e-5)


def test_a_fifth_of_each_hidden_layer_is_dropped_in_training_only():
    torch.manual_seed(0)
    model = PepinoHead(1, 4, 2)
    frames, nothing = torch.randn(1, 400, 1, 4), torch.zeros(1, 400, dtype=torch.bool)
    for place in (2, 5):
        dropped = model.hidden[place](torch.ones(100, 128))
        assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert not model.embed(frames, nothing).equal(model.embed(frames, nothing))
    model.eval()
    assert model.embed(frames, nothing).equal(model.embed(frames, nothing))
