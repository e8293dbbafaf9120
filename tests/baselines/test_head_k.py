import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from serein.baselines.head_k import head_k_loss

# Two classes whose probability of the truth is 1/2, 1/4, 1/8, 3/4: cross entropies ln 2, ln 4, ln 8, ln 4/3.
LOGITS = torch.tensor([[0.0, 0.0], [0.0, math.log(3)], [math.log(7), 0.0], [math.log(3), 0.0]])
LABELS = torch.tensor([0, 0, 1, 0])


@pytest.mark.parametrize(
    ("k_share", "expected"),
    [(0.25, math.log(8)), (0.5, math.log(8 * 4) / 2), (0.75, math.log(8 * 4 * 2) / 3), (0.01, math.log(8))],
)
def test_the_mean_of_the_k_largest_by_hand(k_share, expected):
    assert head_k_loss(LOGITS, LABELS, k_share).item() == pytest.approx(expected, rel=1e-6)


def test_weighted_by_hand():
    # weighted losses: ln 2, ln 4, 5 ln 8, ln 4/3; the two largest are the third and the second, weights 5 + 1
    weights = torch.tensor([1.0, 5.0])
    expected = (5 * math.log(8) + math.log(4)) / 6
    assert head_k_loss(LOGITS, LABELS, 0.5, weights).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_with_all_utterances_it_is_the_plain_cross_entropy(weights, smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(12, 3), torch.randint(3, (12,))
    expected = F.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    assert torch.allclose(head_k_loss(logits, labels, 1.0, weights, smoothing), expected)


def test_easy_utterances_get_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    head_k_loss(logits, LABELS, 0.5).backward()
    assert (logits.grad.abs().sum(1) > 0).tolist() == [False, True, True, False]


@pytest.mark.parametrize("k_share", [0.0, -1.0, 1.1])
def test_a_share_outside_its_range_is_refused(k_share):
    with pytest.raises(ValueError, match="k_share must be in"):
        head_k_loss(LOGITS, LABELS, k_share)
