import torch

from serein.nn.classifier import EmotionClassifier
from serein.nn.pooling import AttentiveStatisticsPooling
from serein.nn.transformer import WAPTransformer


def classifier(dropout: float = 0.0) -> EmotionClassifier:
    torch.manual_seed(0)
    adapter = WAPTransformer(8, 1, width=12, blocks=2, heads=2, max_frames=20)
    return EmotionClassifier(adapter, AttentiveStatisticsPooling(12, 2), classes=3, dropout=dropout).eval()


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


def test_dropout_acts_on_the_embedding_in_training_only():
    frames, padding_mask = torch.randn(2, 7, 1, 8), torch.zeros(2, 7, dtype=torch.bool)
    model = classifier(dropout=0.5)
    assert model(frames, padding_mask).equal(classifier()(frames, padding_mask))
    model.train()
    assert not model(frames, padding_mask).equal(model(frames, padding_mask))


def test_mixed_precision_leaves_the_logits_apart():
    model = classifier()
    frames, mask = torch.randn(8, 6, 1, 8), torch.zeros(8, 6, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(frames, mask)
    assert logits.dtype is torch.float32
    assert not logits.equal(logits.bfloat16().float())
