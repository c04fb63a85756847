"""Prototype conformity: values and gradients by hand, the clamp, distances of 0, half precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from konkyo.training.losses.prototype import prototype_conformity_loss


def test_two_classes_by_hand() -> None:
    # a = |(3, 4)| = 5, b = |(3, 4) - (3, 0)| = 4, c = |(3, 0)| = 3.
    features, prototypes = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    loss = prototype_conformity_loss(features, torch.tensor([0]), prototypes, repel=0.1)
    assert loss.item() == pytest.approx(5 - 0.1 * (4 + 3), abs=1e-6)
    # Of the other class: a = 4, b = 5, c = 3.
    loss = prototype_conformity_loss(features, torch.tensor([1]), prototypes, repel=0.1)
    assert loss.item() == pytest.approx(4 - 0.1 * (5 + 3), abs=1e-6)


def test_three_classes_by_hand() -> None:
    prototypes = torch.tensor([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0]])
    features = torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    # First, of class 0: a = 0, b = 1, 4, c = 1, 4. Second, of class 2: a = sqrt 32, b = 4, 3, c = 4, sqrt 17.
    first = 0 - 0.5 / 2 * (1 + 4 + 1 + 4)
    second = 32**0.5 - 0.5 / 2 * (4 + 3 + 4 + 17**0.5)
    loss = prototype_conformity_loss(features, torch.tensor([0, 2]), prototypes, repel=0.5)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)
    alone = prototype_conformity_loss(features[1:], torch.tensor([2]), prototypes, repel=0.5)
    assert alone.item() == pytest.approx(second, abs=1e-6)


def test_the_gradient_by_hand() -> None:
    # On a line, a = f - w0 = 1, b = w1 - f = 3, c = w1 - w0 = 4, so L = (f - w0) - r ((w1 - f) + (w1 - w0)).
    features = torch.tensor([[1.0]], requires_grad=True)
    prototypes = torch.tensor([[0.0], [4.0]], requires_grad=True)
    prototype_conformity_loss(features, torch.tensor([0]), prototypes, repel=0.25).backward()
    assert features.grad is not None
    assert prototypes.grad is not None
    assert features.grad.tolist() == [[1.25]]
    assert prototypes.grad.tolist() == [[-1 + 0.25], [-0.5]]


def test_beyond_the_clamp_nothing_repels_but_the_own_prototype_still_attracts() -> None:
    features = torch.tensor([[-50.0]], requires_grad=True)
    prototypes = torch.tensor([[0.0], [400.0]], requires_grad=True)
    loss = prototype_conformity_loss(features, torch.tensor([0]), prototypes, repel=0.5, clamp=10)
    loss.backward()
    assert loss.item() == 50 - 0.5 * (10 + 10)
    assert features.grad is not None
    assert prototypes.grad is not None
    assert features.grad.tolist() == [[-1]]
    assert prototypes.grad.tolist() == [[1], [0]]


def test_a_feature_on_its_prototype_and_prototypes_on_each_other_have_finite_gradients() -> None:
    features = torch.ones(1, 3, requires_grad=True)
    prototypes = torch.ones(4, 3, requires_grad=True)
    loss = prototype_conformity_loss(features, torch.tensor([2]), prototypes)
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert prototypes.grad is not None
    assert not features.grad.any()
    assert not prototypes.grad.any()


def test_close_features_keep_their_distance_far_from_the_origin() -> None:
    # Through the matrix product, |f|^2 - 2 f w + |w|^2, float32 would lose this distance altogether.
    features, prototypes = torch.tensor([[4096.0, 0.5]]), torch.tensor([[4096.0, 0.0], [4096.0, 0.0]])
    loss = prototype_conformity_loss(features, torch.tensor([0]), prototypes, repel=0)
    assert loss.item() == 0.5


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    prototypes = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.tensor([0, 4, 2, 2])

    def loss(features: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        return prototype_conformity_loss(features, labels, prototypes, repel=0.3)

    assert torch.autograd.gradcheck(loss, (features, prototypes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_features_at_its_ends(dtype: torch.dtype) -> None:
    features = torch.tensor([[6e4, -6e4], [3, 4]], dtype=dtype, requires_grad=True)
    prototypes = torch.tensor([[0.0, 0.0], [0.0, 4.0]], dtype=dtype, requires_grad=True)
    loss = prototype_conformity_loss(features, torch.tensor([0, 0]), prototypes, repel=0.1, clamp=100)
    side = features[0, 0].item()  # as the type rounds it
    expected = (side * 2**0.5 - 0.1 * (100 + 4) + 5 - 0.1 * (3 + 4)) / 2
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    for tensor in (features, prototypes):
        assert tensor.grad is not None
        assert tensor.grad.dtype == dtype
        assert tensor.grad.isfinite().all()
    assert features.grad is not None
    torch.testing.assert_close(features.grad[0], torch.tensor([0.5**0.5, -(0.5**0.5)], dtype=dtype) / 2)


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 6))
def test_neither_the_order_of_images_and_classes_nor_a_shift_matters(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    prototypes = torch.randn(classes, 3, dtype=torch.float64, generator=generator)
    labels = torch.randint(classes, (5,), generator=generator)
    loss = prototype_conformity_loss(features, labels, prototypes, repel=0.5)

    images, order = torch.randperm(5, generator=generator), torch.randperm(classes, generator=generator)
    shuffled = prototype_conformity_loss(
        features[images], order.argsort()[labels[images]], prototypes[order], repel=0.5
    )
    torch.testing.assert_close(shuffled, loss)
    torch.testing.assert_close(
        prototype_conformity_loss(features + 7, labels, prototypes + 7, repel=0.5), loss
    )
