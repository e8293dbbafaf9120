import math

import pytest
import torch

from serein.baselines.lpmn import LocalPrototypeMapping, quantization_loss, selection, top_mean


def lpmn(**settings):
    torch.manual_seed(0)
    return LocalPrototypeMapping(1, 4, 3, prototypes=10, width=5, **settings)


def test_the_top_frames_of_each_prototype_by_hand():
    similarities = torch.tensor([[[0.9, -0.5], [0.1, 0.2], [0.5, -0.1], [0.3, 0.6]]])
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    assert top_mean(similarities, nothing, 2)[0].tolist() == pytest.approx([0.7, 0.4])
    assert top_mean(similarities, nothing, 1)[0].tolist() == pytest.approx([0.9, 0.6])
    padding_mask = torch.tensor([[True, False, False, True]])
    assert top_mean(similarities, padding_mask, 1)[0].tolist() == pytest.approx([0.5, 0.2])


def test_three_frames_speak_for_each_of_1024_prototypes_unless_said_otherwise():
    model = LocalPrototypeMapping(1, 4, 3)
    assert (model.top, len(model.prototypes), model.prototypes.shape[1]) == (3, 1024, 256)


@pytest.mark.parametrize("top", [3, 99])
def test_an_utterance_with_fewer_frames_uses_them_all(top):
    similarities = torch.tensor([[[0.9, -0.5], [0.1, 0.2], [0.5, 0.5], [0.3, 0.6]]])
    padding_mask = torch.tensor([[False, False, True, True]])
    assert top_mean(similarities, padding_mask, top)[0].tolist() == pytest.approx([0.5, -0.15])


def test_only_the_top_frames_get_a_gradient():
    similarities = torch.tensor([[[0.9], [0.1], [0.5], [0.7]]], requires_grad=True)
    top_mean(similarities, torch.tensor([[False, False, False, True]]), 2).sum().backward()
    assert similarities.grad.flatten().tolist() == [0.5, 0.0, 0.5, 0.0]


def test_the_parameter_count_is_projection_codebook_and_output():
    # 1024 -> 256; 1024 prototypes of 256; 1024 -> 4
    expected = (1024 * 256 + 256) + 1024 * 256 + (1024 * 4 + 4)
    assert sum(p.numel() for p in LocalPrototypeMapping(1, 1024, 4).parameters()) == expected


@torch.no_grad()
def test_logits_and_loss_equal_the_description_in_plain_loops():
    model = lpmn(top=2)
    frames = torch.randn(2, 5, 1, 4)
    lengths = (3, 1)
    cosines = []
    squares = []
    for row, length in enumerate(lengths):
        cosines.append([])
        for t in range(length):
            z = (model.projector.weight @ frames[row, t, 0] + model.projector.bias).tolist()
            z = [x / math.hypot(*z) for x in z]
            units = [[x / math.hypot(*p) for x in p] for p in model.prototypes.tolist()]
            cosines[row].append([sum(a * b for a, b in zip(z, p, strict=True)) for p in units])
            squares.append(min(math.dist(z, p) ** 2 for p in units))
    logits, loss = model.forward_with_quantization(frames, torch.arange(5) >= torch.tensor(lengths).unsqueeze(1))
    for row, length in enumerate(lengths):
        top = min(2, length)
        best = [sorted(column, reverse=True)[:top] for column in zip(*cosines[row], strict=True)]
        embedding = torch.tensor([sum(values) / top for values in best])
        assert torch.allclose(logits[row], model.output.weight @ embedding + model.output.bias, atol=1e-5)
    assert loss.item() == pytest.approx(1.25 * sum(squares) / len(squares), rel=1e-5)
    assert logits.equal(model(frames, torch.arange(5) >= torch.tensor(lengths).unsqueeze(1)))


def test_the_quantisation_loss_by_hand_and_who_feels_which_term():
    frames = torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    prototypes = torch.tensor([[0.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = quantization_loss(frames, prototypes)
    assert loss.item() == pytest.approx((1 + 1) / 2 * 1.25)
    loss.backward()
    # d/dz of 0.25 * mean ||z - p||^2 = 0.25 * (z - p), d/dp of mean ||z - p||^2 = p - z, for two frames
    assert frames.grad.tolist() == [[0.25, 0.0], [0.0, 0.25]]
    assert prototypes.grad.tolist() == [[-1.0, 0.0], [0.0, -1.0]]


def test_the_loss_does_not_depend_on_padding_nor_on_the_scale_of_projection_and_codebook():
    model = lpmn()
    frames = torch.randn(2, 6, 1, 4)
    padding_mask = torch.arange(6) >= torch.tensor([[4], [2]])
    _, loss = model.forward_with_quantization(frames, padding_mask)
    _, shorter = model.forward_with_quantization(frames[:, :4], padding_mask[:, :4])
    other = torch.where(padding_mask[:, :, None, None], 100.0, frames)
    assert torch.allclose(loss, shorter)
    assert torch.allclose(loss, model.forward_with_quantization(other, padding_mask)[1])
    for parameter in (model.projector.weight, model.projector.bias, model.prototypes):
        parameter.data *= 0.1
    assert torch.allclose(loss, model.forward_with_quantization(frames, padding_mask)[1], atol=1e-5)


@torch.no_grad()
def test_under_mixed_precision_frames_and_prototypes_are_still_compared_in_float32():
    model = lpmn()
    frames, nothing = torch.randn(2, 5, 1, 4), torch.zeros(2, 5, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected, prototypes, similarities = model._compare(frames, None)
        embedded = model.embed(frames, nothing)
    assert similarities.dtype == torch.float32
    assert torch.allclose(similarities, projected @ prototypes.T)
    assert embedded.equal(top_mean(projected @ prototypes.T, nothing, model.top))


def test_training_on_the_loss_moves_prototypes_onto_frames():
    model = lpmn()
    frames, nothing = torch.randn(4, 6, 1, 4), torch.zeros(4, 6, dtype=torch.bool)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        _, loss = model.forward_with_quantization(frames, nothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("share", "kept"), [(0.6, 6), (0.25, 2), (0.01, 1), (1.0, 10)])
def test_selection_keeps_the_share_with_the_largest_output_weights(share, kept):
    model = lpmn()
    before = model.output.weight.detach().clone()
    selected = selection(model, share)
    nonzero = selected.output.weight.abs().sum(0) > 0
    assert nonzero.sum() == kept
    assert selected.output.weight[:, nonzero].equal(before[:, nonzero])
    norms = before.square().sum(0)
    assert norms[nonzero].min() >= norms[~nonzero].max() if kept < 10 else nonzero.all()
    assert model.output.weight.equal(before)
    assert selected.output.weight.requires_grad


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_selection_refuses_a_share_outside_its_range(share):
    with pytest.raises(ValueError, match="share must be in"):
        selection(lpmn(), share)
