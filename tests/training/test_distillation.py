"""Distillation: values by hand, identities, and whole runs with teachers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from konkyo.training.losses.distillation import distillation_loss


def test_two_classes_by_hand() -> None:
    # Student (1/2, 1/2); teacher with logits (ln 9, 0) at T = 1: (0.9, 0.1).
    loss = distillation_loss(
        torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[[math.log(9), 0.0]]]), temperature=1, share=0.25
    )
    divergence = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert loss.item() == pytest.approx(0.75 * math.log(2) + 0.25 * divergence, abs=1e-6)


def test_the_temperature_divides_the_logits_and_squares_the_weight() -> None:
    # Logits of 2 ln 9 at T = 2 are ln 9 at T = 1.
    teacher = torch.tensor([[[2 * math.log(9), 0.0]]])
    loss = distillation_loss(torch.zeros(1, 2), torch.tensor([0]), teacher, temperature=2, share=1)
    assert loss.item() == pytest.approx(4 * (0.9 * math.log(1.8) + 0.1 * math.log(0.2)), abs=1e-5)


def test_several_teachers_count_by_their_mean_probability() -> None:
    # (0.9, 0.1) and (0.5, 0.5) make (0.7, 0.3).
    teachers = torch.tensor([[[math.log(9), 0.0]], [[0.0, 0.0]]])
    loss = distillation_loss(torch.zeros(1, 2), torch.tensor([1]), teachers, temperature=1, share=1)
    assert loss.item() == pytest.approx(0.7 * math.log(1.4) + 0.3 * math.log(0.6), abs=1e-6)


def test_without_a_share_it_is_cross_entropy_and_a_student_like_its_teacher_has_none_to_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 5, generator=generator), torch.arange(6) % 5
    other = torch.randn(2, 6, 5, generator=generator)
    plain = distillation_loss(logits, labels, other, temperature=3, share=0, label_smoothing=0.1)
    torch.testing.assert_close(plain, F.cross_entropy(logits, labels, label_smoothing=0.1))
    same = distillation_loss(logits, labels, logits[None], temperature=3, share=1)
    assert same.item() == pytest.approx(0, abs=1e-6)


def test_gradients_reach_the_student_alone() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2])

    def loss(student: torch.Tensor) -> torch.Tensor:
        return distillation_loss(student, labels, teacher, temperature=2, share=0.5)

    assert torch.autograd.gradcheck(loss, logits)
    loss(logits).backward()
    assert teacher.grad is None
