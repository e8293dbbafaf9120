import torch
from torch import nn

from serein.nn.ema import frozen_copy, update_ema


def pair() -> tuple[nn.Linear, nn.Linear]:
    student = nn.Linear(3, 2)
    teacher = frozen_copy(nn.Linear(3, 2))
    return student, teacher


def test_eq_2_theta_t_is_alpha_theta_t_plus_one_minus_alpha_theta_s():
    student, teacher = pair()
    expected = 0.9 * teacher.weight + 0.1 * student.weight
    update_ema(teacher, student, 0.9)
    assert torch.allclose(teacher.weight, expected)


def test_decay_one_freezes_and_decay_zero_copies():
    student, teacher = pair()
    before = teacher.weight.clone()
    update_ema(teacher, student, 1.0)
    assert teacher.weight.equal(before)
    update_ema(teacher, student, 0.0)
    assert teacher.weight.equal(student.weight)
    assert teacher.bias.equal(student.bias)


def test_many_steps_follow_the_closed_form():
    student, teacher = pair()
    start, goal = teacher.weight.clone(), student.weight.detach()
    for _ in range(50):
        update_ema(teacher, student, 0.95)
    assert torch.allclose(teacher.weight, goal + 0.95**50 * (start - goal), atol=1e-6)


def test_the_copy_takes_no_gradient_and_shares_no_memory():
    student = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    teacher = frozen_copy(student)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.training
    with torch.no_grad():
        student[0].weight.zero_()
    assert teacher.state_dict()["0.weight"].abs().sum() > 0
