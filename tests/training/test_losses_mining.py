"""Attention mining loss: values by hand, gradients, half precision."""

from __future__ import annotations

import math

import pytest
import torch

from konkyo.training.losses.mining import mining_loss


def test_the_mean_probability_of_the_true_class_by_hand() -> None:
    # Softmax of (ln 3, 0) is (3/4, 1/4), of (0, 0) is (1/2, 1/2): the true classes have 3/4 and 1/2.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    assert mining_loss(logits, torch.tensor([0, 1])).item() == pytest.approx(5 / 8, abs=1e-6)
    assert mining_loss(logits, torch.tensor([1, 1])).item() == pytest.approx(3 / 8, abs=1e-6)


def test_the_gradient_by_hand() -> None:
    # d p_g / d logit_j = p_g ((j = g) - p_j), over a batch of 2.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]], requires_grad=True)
    mining_loss(logits, torch.tensor([0, 1])).backward()
    expected = torch.tensor([[3 / 16, -3 / 16], [-1 / 4, 1 / 4]]) / 2
    torch.testing.assert_close(logits.grad, expected)


def test_gradcheck() -> None:
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 4, 2, 2])
    assert torch.autograd.gradcheck(lambda values: mining_loss(values, labels), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_logits_at_its_ends(dtype: torch.dtype) -> None:
    logits = torch.tensor([[6e4, -6e4, 0], [-6e4, 6e4, 6e4], [1, 2, 3]], dtype=dtype, requires_grad=True)
    loss = mining_loss(logits, torch.tensor([0, 2, 0]))
    last = math.exp(1) / (math.exp(1) + math.exp(2) + math.exp(3))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((1 + 0.5 + last) / 3, abs=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    # The first is certain, and float32 rounds its gradient to 0; the second is undecided between two.
    assert logits.grad[0].tolist() == [0, 0, 0]
    torch.testing.assert_close(logits.grad[1], torch.tensor([0, -1 / 12, 1 / 12], dtype=dtype))
    assert logits.grad.isfinite().all()
