"""Complement entropy: values by hand, the sign, two classes, certainty, half precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from konkyo.training.losses.complement import complement_entropy_loss


def test_by_hand() -> None:
    # The wrong classes of the first are (3/4, 1/4) whatever the true one has; those of the second are flat.
    logits = torch.tensor([[7.0, math.log(3), 0.0], [1.0, -2.0, 1.0]])
    expected = (0.75 * math.log(0.75) + 0.25 * math.log(0.25) + math.log(0.5)) / 2
    assert complement_entropy_loss(logits, torch.tensor([0, 1])).item() == pytest.approx(expected, abs=1e-6)


def test_it_is_the_formula_of_the_paper_less_its_sign() -> None:
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    total = 0.0
    for p, g in zip(logits.softmax(-1).tolist(), labels.tolist(), strict=True):
        shares = [p[j] / (1 - p[g]) for j in range(5) if j != g]
        total += sum(q * math.log(q) for q in shares)
    assert complement_entropy_loss(logits, labels).item() == pytest.approx(total / 6, abs=1e-12)


def test_a_step_down_makes_the_wrong_classes_flatter_and_leaves_the_true_one() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    complement_entropy_loss(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    true, high, low = logits.grad[0].tolist()
    assert true == 0
    assert high > 0  # falls
    assert low == pytest.approx(-high, abs=1e-7)  # rises


def test_flat_wrong_classes_are_the_minimum() -> None:
    logits = torch.tensor([[5.0, 1.0, 1.0, 1.0, 1.0]], requires_grad=True)
    loss = complement_entropy_loss(logits, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(4), abs=1e-6)
    torch.testing.assert_close(logits.grad, torch.zeros(1, 5), atol=1e-7, rtol=0)


def test_two_classes_have_one_wrong_one_and_nothing_to_flatten() -> None:
    logits = torch.tensor([[3.0, -1.0], [-200.0, 200.0]], requires_grad=True)
    loss = complement_entropy_loss(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0, 0], [0, 0]]


def test_gradcheck() -> None:
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 4, 2, 2])
    assert torch.autograd.gradcheck(lambda values: complement_entropy_loss(values, labels), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_certainty_and_logits_at_the_ends_of_half_precision(dtype: torch.dtype) -> None:
    logits = torch.tensor([[6e4, 0, 0], [-6e4, 6e4, -6e4], [6e4, -6e4, -6e4]], dtype=dtype)
    logits.requires_grad_()
    loss = complement_entropy_loss(logits, torch.tensor([0, 0, 0]))
    # Flat, all on one, flat.
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-2 * math.log(2) / 3, abs=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 8), shift=st.floats(-50, 50))
def test_the_order_of_images_and_classes_and_the_true_class_s_logit_do_not_matter(
    seed: int, classes: int, shift: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, classes, dtype=torch.float64, generator=generator)
    labels = torch.randint(classes, (5,), generator=generator)
    loss = complement_entropy_loss(logits, labels)
    assert -math.log(classes - 1) - 1e-12 <= loss.item() <= 0

    images, order = torch.randperm(5, generator=generator), torch.randperm(classes, generator=generator)
    shuffled = complement_entropy_loss(logits[images][:, order], order.argsort()[labels[images]])
    torch.testing.assert_close(shuffled, loss)

    moved = logits.scatter_add(1, labels[:, None], torch.full((5, 1), shift, dtype=torch.float64))
    torch.testing.assert_close(complement_entropy_loss(moved, labels), loss)
