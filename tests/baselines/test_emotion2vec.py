import pytest
import torch

from serein.baselines.emotion2vec import Emotion2vecHead


def test_the_parameter_count_is_the_sources():
    # 768 -> 256 and 256 -> 4, each with biases
    assert sum(p.numel() for p in Emotion2vecHead(1, 768, 4).parameters()) == 196_608 + 256 + 1024 + 4


@torch.no_grad()
def test_logits_equal_the_description_in_plain_loops():
    torch.manual_seed(1)
    model = Emotion2vecHead(1, 4, 2)
    frames, length = torch.randn(1, 5, 1, 4), 3
    (first, first_bias), (last, last_bias) = (
        (layer.weight.tolist(), layer.bias.tolist()) for layer in model.children() if isinstance(layer, torch.nn.Linear)
    )
    pooled = [0.0] * 256
    for t in range(length):
        frame = frames[0, t, 0].tolist()
        for unit in range(256):
            before = first_bias[unit] + sum(w * x for w, x in zip(first[unit], frame, strict=True))
            pooled[unit] += max(0.0, before) / length
    expected = [
        b + sum(w * x for w, x in zip(row, pooled, strict=True)) for row, b in zip(last, last_bias, strict=True)
    ]
    logits = model(frames, torch.tensor([[False] * 3 + [True] * 2]))
    assert logits[0].tolist() == pytest.approx(expected, abs=1e-5)
