import torch

from serein.nn.classifier import EmotionClassifier
from serein.nn.pooling import AttentiveStatisticsPooling
from serein.nn.transformer import WAPTransformer


def classifier() -> EmotionClassifier:
    torch.manual_seed(0)
    adapter = WAPTransformer(8, 1, width=12, blocks=2, heads=2, max_frames=20)
    return EmotionClassifier(adapter, AttentiveStatisticsPooling(12, 2), classes=3).eval()


def test_logits_do_not_depend_on_the_batch():
    frames = torch.randn(3, 10, 1, 8)
    padding_mask = torch.arange(10) >= torch.tensor([[10], [6], [2]])
    together = classifier()(frames, padding_mask)
    for row, length in enumerate((10, 6, 2)):
        alone = classifier()(frames[row : row + 1, :length], padding_mask[row : row + 1, :length])
        assert torch.allclose(together[row], alone[0], atol=1e-5)


def test_a_permuted_batch_permutes_the_logits():
    frames, padding_mask = torch.randn(4, 7, 1, 8), torch.zeros(4, 7, dtype=torch.bool)
    order = torch.tensor([3, 1, 0, 2])
    model = classifier()
    assert torch.allclose(model(frames, padding_mask)[order], model(frames[order], padding_mask), atol=1e-6)


def test_logits_are_the_linear_layer_on_the_embedding():
    frames, padding_mask = torch.randn(2, 7, 1, 8), torch.zeros(2, 7, dtype=torch.bool)
    model = classifier()
    assert torch.allclose(model(frames, padding_mask), model.output(model.embed(frames, padding_mask)))
