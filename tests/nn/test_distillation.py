import pytest
import torch

from serein.nn.attributes import LocalAttributes, assign
from serein.nn.distillation import SelfDistillation
from serein.nn.losses import adapter_loss, masked_mse, normalize_target
from serein.nn.masking import sample_frame_mask
from serein.nn.transformer import WAPTransformer


def build(dropout: float = 0.2, **settings) -> SelfDistillation:
    torch.manual_seed(0)
    adapter = WAPTransformer(8, 1, width=12, blocks=2, heads=2, dropout=dropout, max_frames=20)
    return SelfDistillation(adapter, LocalAttributes(6, 12), **settings).train()


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    padding_mask = torch.arange(10) >= torch.tensor([[10], [6], [8]])
    frame_mask = sample_frame_mask(padding_mask, 0.4, generator=torch.Generator().manual_seed(0))
    return torch.randn(3, 10, 1, 8), padding_mask, frame_mask


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_only_the_student_gets_gradients():
    distillation = build()
    output = distillation(*data(), draws())
    adapter_loss(output.reconstruction, output.pseudo_ce, 0.5).backward()
    missing = [name for name, p in distillation.student.named_parameters() if p.grad is None]
    assert missing == []
    assert all(p.grad is None for p in distillation.teacher.parameters())


def test_the_teacher_sees_everything_and_never_drops_units():
    distillation = build(target_norm="none").train()
    frames, padding_mask, frame_mask = data()
    output = distillation(frames, padding_mask, frame_mask, draws())
    expected = distillation.teacher(frames, padding_mask)[~padding_mask]
    assert output.teacher_frames.equal(expected)
    assert distillation.student.training
    assert not distillation.teacher.training


def test_the_reconstruction_compares_the_masked_student_with_the_normed_teacher():
    distillation = build(target_norm="layer").eval()
    frames, padding_mask, frame_mask = data()
    output = distillation(frames, padding_mask, frame_mask, draws())
    teacher = normalize_target(distillation.teacher(frames, padding_mask), "layer")[frame_mask]
    student = distillation.student(frames, padding_mask, frame_mask)[frame_mask]
    assert torch.allclose(output.reconstruction, masked_mse(student, teacher))


def test_the_pseudo_labels_are_the_teachers_attributes_at_the_hidden_frames():
    distillation = build(dropout=0.0, temperature=0.5)
    frames, padding_mask, frame_mask = data()
    output = distillation(frames, padding_mask, frame_mask, draws())
    student = distillation.student(frames, padding_mask, frame_mask)[frame_mask]
    logits = torch.cosine_similarity(student[:, None], distillation.attributes.prototypes[None], dim=-1) / 0.5
    nearest = torch.cdist(distillation.teacher(frames, padding_mask)[frame_mask], distillation.attributes.prototypes)
    expected = torch.nn.functional.cross_entropy(logits, nearest.argmin(1))
    assert output.pseudo_ce.item() == pytest.approx(expected.item(), rel=1e-5)


def test_eq_1_is_about_hidden_frames_only():
    distillation = build(dropout=0.0, target_norm="none")
    frames, padding_mask, frame_mask = data()
    before = distillation(frames, padding_mask, frame_mask, draws()).reconstruction
    visible = ~frame_mask & ~padding_mask
    distillation.teacher.mlp.register_forward_hook(
        lambda module, args, output: output + 7.0 * visible[~padding_mask].unsqueeze(1)
    )
    after = distillation(frames, padding_mask, frame_mask, draws())
    assert torch.allclose(after.reconstruction, before)
    assert after.teacher_frames.mean() > 1


def test_gradients_are_those_of_the_whole_network_on_hidden_frames():
    distillation = build(dropout=0.0, target_norm="none")
    frames, padding_mask, frame_mask = data()
    output = distillation(frames, padding_mask, frame_mask, draws())
    output.reconstruction.backward()
    ours = {name: p.grad.clone() for name, p in distillation.student.named_parameters()}
    distillation.student.zero_grad()
    teacher = distillation.teacher(frames, padding_mask)[frame_mask]
    masked_mse(distillation.student(frames, padding_mask, frame_mask)[frame_mask], teacher).backward()
    assert all(torch.allclose(ours[name], p.grad, atol=1e-6) for name, p in distillation.student.named_parameters())


def test_pseudo_labels_are_the_nearest_attributes_of_the_teachers_frames():
    distillation = build()
    output = distillation(*data(), draws())
    distances = torch.cdist(output.teacher_frames, distillation.attributes.prototypes)
    assert output.assignments.equal(distances.argmin(1))


def test_the_quantization_error_is_eq_3_over_the_number_of_frames():
    distillation = build()
    output = distillation(*data(), draws())
    distances = torch.cdist(output.teacher_frames, distillation.attributes.prototypes).min(1).values
    assert output.quantization_error.item() == pytest.approx(distances.square().mean().item(), rel=1e-3)


def test_agreement_is_total_where_the_student_is_the_teacher_and_sees_all():
    distillation = build(similarity="distance", target_norm="none").eval()
    frames, padding_mask, frame_mask = data()
    distillation.student.mask_embedding.data.zero_()
    seen = torch.zeros_like(frame_mask)
    seen[:, 0] = True  # one hidden frame each, hidden behind an embedding that equals what is there
    with torch.no_grad():
        frames = frames.clone()
        frames[:, 0] = frames[0, 0]
        distillation.student.mask_embedding.copy_(distillation.student.embed(frames[0, 0, 0]))
    output = distillation(frames, padding_mask, seen, draws())
    assert output.agreement.item() == 1.0
    assert output.reconstruction.item() < 1e-9


def test_following_moves_teacher_and_attributes():
    distillation = build()
    output = distillation(*data(), draws())
    with torch.no_grad():
        for parameter in distillation.student.parameters():
            parameter.add_(1.0)
    before = distillation.teacher.embed.bias.clone()
    prototypes = distillation.attributes.prototypes.clone()
    health = distillation.follow(output, 0.9, draws())
    assert torch.allclose(distillation.teacher.embed.bias, before + 0.1, atol=1e-6)
    assert not distillation.attributes.prototypes.equal(prototypes)
    assert 0 < health.perplexity <= 1


def test_training_makes_the_student_agree_with_the_attributes():
    distillation = build(dropout=0.0)
    frames, padding_mask, frame_mask = data()
    optimizer = torch.optim.Adam(distillation.student.parameters(), 1e-2)
    agreements = []
    for _ in range(180):
        output = distillation(frames, padding_mask, frame_mask, draws())
        optimizer.zero_grad()
        adapter_loss(output.reconstruction, output.pseudo_ce, 0.5).backward()
        optimizer.step()
        distillation.follow(output, 0.999, draws())
        agreements.append(output.agreement.item())
    assert sum(agreements[-10:]) / 10 > sum(agreements[:10]) / 10 + 0.3


def test_a_collapsed_teacher_has_no_spread():
    distillation = build(target_norm="none")
    for layer in distillation.teacher.mlp:
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data.zero_()
            layer.bias.data.normal_()  # one vector for everything, and no even one
    assert distillation(*data(), draws()).teacher_spread.item() == pytest.approx(0.0, abs=1e-6)


def test_the_teachers_spread_is_the_standard_deviation_over_frames_averaged_over_dimensions():
    output = build(target_norm="none")(*data(), draws())
    frames = output.teacher_frames.detach().double().numpy()
    assert output.teacher_spread.item() == pytest.approx(frames.std(axis=0).mean(), rel=1e-4)


def test_the_teachers_spread_is_that_before_the_target_norm():
    plain, normed = (build(target_norm=norm)(*data(), draws()) for norm in ("none", "layer"))
    assert normed.teacher_spread == plain.teacher_spread
    assert not normed.teacher_frames.equal(plain.teacher_frames)


def test_mixed_precision_does_not_round_the_assignments():
    distillation = build()
    frames, padding_mask, frame_mask = data()
    distillation(frames, padding_mask, frame_mask, draws())
    distillation.attributes.prototypes.add_(100.0)  # far from the origin bf16 cannot tell them apart
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = distillation(frames, padding_mask, frame_mask, draws())
    assert output.assignments.equal(assign(output.teacher_frames, distillation.attributes.prototypes))
