import pytest
import torch

from serein.baselines.emobox import EmoBoxHead


@pytest.mark.parametrize("hidden", [128, 256])
def test_the_parameter_count_is_emoboxs(hidden):
    # one layer, as in the source: 1280 -> hidden and hidden -> 4, each with biases
    counted = sum(p.numel() for p in EmoBoxHead(1, 1280, 4, hidden=hidden).parameters())
    assert counted == {128: 163_840 + 128 + 512 + 4, 256: 327_680 + 256 + 1024 + 4}[hidden]


def test_several_layers_add_one_weight_each():
    assert sum(p.numel() for p in EmoBoxHead(3, 8, 4).parameters()) == 3 + (8 * 256 + 256) + (256 * 4 + 4)


@torch.no_grad()
def test_logits_equal_the_description_in_plain_loops():
    torch.manual_seed(1)
    model = EmoBoxHead(1, 4, 2, hidden=6)
    frames, length = torch.randn(1, 5, 1, 4), 3
    pooled = [0.0] * 6
    for t in range(length):
        frame = frames[0, t, 0].tolist()
        for unit in range(6):
            weights = model.hidden.weight[unit].tolist()
            before = model.hidden.bias[unit].item() + sum(w * x for w, x in zip(weights, frame, strict=True))
            pooled[unit] += max(0.0, before) / length
    expected = [
        bias + sum(w * x for w, x in zip(row, pooled, strict=True))
        for row, bias in zip(model.output.weight.tolist(), model.output.bias.tolist(), strict=True)
    ]
    logits = model(frames, torch.tensor([[False] * 3 + [True] * 2]))
    assert logits[0].tolist() == pytest.approx(expected, abs=1e-5)
