from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from serein.baselines.emobox import EmoBoxHead
from serein.baselines.lpmn import LocalPrototypeMapping
from serein.baselines.speaker_normalization import SpeakerNormalizedHead
from serein.train.objectives import Labelled, against_talkers, hardest_half, plain, with_quantization


def batch(talkers: tuple[int, ...] = (0, 0, 1, 1), smoothing: float = 0.0) -> Labelled:
    torch.manual_seed(1)
    padding = torch.arange(6) >= torch.tensor([[6], [4], [3], [6]])
    frames = torch.randn(4, 6, 2, 5)
    weights = torch.tensor([1.0, 2.0, 0.5])
    truth = torch.tensor([0, 1, 2, 1])
    return Labelled(frames, padding, torch.zeros_like(padding), truth, torch.tensor(talkers), weights, smoothing)


def seeded(module, *arguments, **settings):
    torch.manual_seed(0)
    return module(2, 5, 3, *arguments, **settings).eval()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_plain_is_the_weighted_and_smoothed_cross_entropy(smoothing):
    model, shown = seeded(EmoBoxHead), batch(smoothing=smoothing)
    logits, loss = plain(model, shown)
    assert logits.equal(model(shown.frames, shown.padding_mask))
    # -sum_c q_c w_c log p_c, q = 1 - s on the truth plus s / classes everywhere, over the truths' weights
    q = F.one_hot(shown.truth, 3) * (1 - smoothing) + smoothing / 3
    by_hand = -(q * shown.weights * logits.log_softmax(1)).sum() / shown.weights[shown.truth].sum()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_hidden_frames_are_hidden_in_every_objective():
    shown = batch()
    hidden = torch.zeros_like(shown.frame_mask)
    hidden[:, 0] = True
    masked = Labelled(
        shown.frames, shown.padding_mask, hidden, shown.truth, shown.talkers, shown.weights, shown.label_smoothing
    )
    for objective, model in (
        (plain, seeded(EmoBoxHead)),
        (hardest_half, seeded(EmoBoxHead)),
        (against_talkers, seeded(SpeakerNormalizedHead, 2)),
        (with_quantization, seeded(LocalPrototypeMapping, prototypes=8)),
    ):
        assert not objective(model, shown)[0].equal(objective(model, masked)[0])


def test_snp_adds_the_cross_entropy_of_the_talkers():
    model, shown = seeded(SpeakerNormalizedHead, 2), batch()
    logits, loss = against_talkers(model, shown)
    _, talker_logits = model.forward_with_talkers(shown.frames, shown.padding_mask, shown.frame_mask)
    talking = -talker_logits.log_softmax(1)[range(4), shown.talkers].mean()
    assert loss.item() == pytest.approx((shown.cross_entropy(logits) + talking).item(), rel=1e-5)


def test_snp_does_not_take_anything_else_for_the_talkers():
    with pytest.raises(ValueError, match="learns from the talkers"):
        against_talkers(seeded(SpeakerNormalizedHead, 2), replace(batch(), talkers=None))


def test_snps_loss_and_gradient_depend_on_who_speaks_and_its_logits_do_not():
    results = []
    for talkers in ((0, 0, 1, 1), (0, 1, 0, 1)):
        model = seeded(SpeakerNormalizedHead, 2, strength=1.0)
        logits, loss = against_talkers(model, batch(talkers))
        loss.backward()
        results.append((logits, loss, model.projector.weight.grad))
    (logits, loss, gradient), (other_logits, other_loss, other_gradient) = results
    assert logits.equal(other_logits)
    assert abs(loss.item() - other_loss.item()) > 1e-4
    assert not torch.allclose(gradient, other_gradient, atol=1e-5)


def test_lpmn_adds_the_quantisation_loss_which_moves_the_prototypes():
    model, shown = seeded(LocalPrototypeMapping, prototypes=8), batch()
    logits, loss = with_quantization(model, shown)
    _, quantization = model.forward_with_quantization(shown.frames, shown.padding_mask, shown.frame_mask)
    assert quantization.item() > 0.1
    assert loss.item() == pytest.approx((shown.cross_entropy(logits) + quantization).item(), rel=1e-5)


def test_head_k_is_the_mean_over_the_hardest_half():
    model, shown = seeded(EmoBoxHead), batch()
    logits, loss = hardest_half(model, shown)
    losses = -logits.log_softmax(1)[range(4), shown.truth] * shown.weights[shown.truth]
    hardest = losses.argsort(descending=True)[:2]
    assert loss.item() == pytest.approx((losses[hardest].sum() / shown.weights[shown.truth[hardest]].sum()).item())
    assert loss > shown.cross_entropy(logits) / 2
    assert loss.item() != pytest.approx(plain(model, shown)[1].item())
