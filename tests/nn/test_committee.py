import torch

from serein.nn.classifier import EmotionClassifier
from serein.nn.committee import Committee
from serein.nn.pooling import AttentiveStatisticsPooling
from serein.nn.transformer import WAPTransformer

FRAMES = torch.randn(4, 7, 1, 8, generator=torch.Generator().manual_seed(0))
PADDING = torch.arange(7) >= torch.tensor([[7], [7], [3], [1]])


def member(seed: int) -> EmotionClassifier:
    torch.manual_seed(seed)
    adapter = WAPTransformer(8, 1, width=12, blocks=1, heads=2, max_frames=20)
    return EmotionClassifier(adapter, AttentiveStatisticsPooling(12, 2), classes=3).eval()


def test_its_probabilities_are_the_mean_of_the_members():
    members = [member(seed) for seed in range(3)]
    with torch.no_grad():
        mean = sum(single(FRAMES, PADDING).softmax(1) for single in members) / 3
        assert torch.allclose(Committee(members)(FRAMES, PADDING).softmax(1), mean, atol=1e-6)
        assert torch.allclose(Committee(members)(FRAMES, PADDING).exp().sum(1), torch.ones(4))


def test_members_that_are_sure_of_different_classes_leave_no_infinity():
    class Sure(torch.nn.Module):
        def __init__(self, label: int) -> None:
            super().__init__()
            self.label = label

        def forward(self, frames: torch.Tensor, padding_mask: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.full((len(frames),), self.label), 3) * 1e4

    probabilities = Committee([Sure(0), Sure(2)])(FRAMES, PADDING).softmax(1)
    assert torch.allclose(probabilities, torch.tensor([0.5, 0.0, 0.5]).expand(4, 3))


def test_its_embedding_is_the_members_side_by_side():
    members = [member(0), member(1)]
    with torch.no_grad():
        embedding = Committee(members).embed(FRAMES, PADDING)
        assert embedding.equal(torch.cat([single.embed(FRAMES, PADDING) for single in members], 1))
