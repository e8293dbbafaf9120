import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from serein.baselines.speaker_normalization import SpeakerNormalizedHead, reverse_gradient


def test_reversal_keeps_values_and_turns_gradients_round():
    x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    y = reverse_gradient(x, 0.25)
    assert y.equal(x)
    y.backward(torch.tensor([4.0, 8.0, -2.0]))
    assert x.grad.tolist() == [-1.0, -2.0, 0.5]


def test_the_parameter_count_is_projector_and_two_outputs():
    # 3 layer weights; 1024 -> 256; 256 -> 4 emotions; 256 -> 8 talkers
    expected = 3 + (1024 * 256 + 256) + (256 * 4 + 4) + (256 * 8 + 8)
    assert sum(p.numel() for p in SpeakerNormalizedHead(3, 1024, 4, 8).parameters()) == expected


@torch.no_grad()
def test_both_logits_equal_the_description_in_plain_loops():
    torch.manual_seed(1)
    model = SpeakerNormalizedHead(1, 4, 2, 3, width=6)
    frames, padding_mask, length = torch.randn(1, 5, 1, 4), torch.tensor([[False] * 3 + [True] * 2]), 3
    pooled = [0.0] * 6
    for t in range(length):
        frame = frames[0, t, 0].tolist()
        for unit in range(6):
            weights = model.projector.weight[unit].tolist()
            before = model.projector.bias[unit].item() + sum(w * x for w, x in zip(weights, frame, strict=True))
            pooled[unit] += max(0.0, before) / length
    emotions, talkers = model.forward_with_talkers(frames, padding_mask)
    for logits, layer in ((emotions, model.output), (talkers, model.talker_output)):
        rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        expected = [bias + sum(w * x for w, x in zip(row, pooled, strict=True)) for row, bias in rows]
        assert logits[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert emotions.equal(model(frames, padding_mask))


def talker_gradients(strength):
    torch.manual_seed(0)
    model = SpeakerNormalizedHead(2, 4, 3, 3, width=6, strength=strength)
    frames, padding_mask = torch.randn(5, 7, 2, 4), torch.zeros(5, 7, dtype=torch.bool)
    _, talkers = model.forward_with_talkers(frames, padding_mask)
    F.cross_entropy(talkers, torch.tensor([0, 1, 2, 0, 1])).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_talkers_push_the_projector_the_other_way_by_lambda_and_their_own_output_as_usual():
    plain, reversed_ = talker_gradients(-1.0), talker_gradients(0.3)  # strength -1 reverses nothing
    assert plain["projector.weight"].abs().max() > 0
    for name, gradient in plain.items():
        factor = 1.0 if name.startswith("talker_output") else -0.3
        assert torch.allclose(reversed_[name], factor * gradient, atol=1e-7), name


def test_emotions_do_not_touch_the_talker_output():
    assert "output.weight" not in talker_gradients(0.3)
    model = SpeakerNormalizedHead(1, 4, 3, 2)
    emotions, _ = model.forward_with_talkers(torch.randn(2, 3, 1, 4), torch.zeros(2, 3, dtype=torch.bool))
    emotions.sum().backward()
    assert model.talker_output.weight.grad is None


def test_lambda_is_the_sources_best():
    assert SpeakerNormalizedHead(1, 4, 3, 2).strength == 1e-3
