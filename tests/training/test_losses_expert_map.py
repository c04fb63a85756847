"""Expert map loss: values by hand, grids, images without an expert's map, half precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from konkyo.training.losses.expert_map import expert_map_loss

ALL = torch.tensor([True])


def test_the_root_mean_square_error_by_hand() -> None:
    # Errors 0.3 and 0.4 in two of four cells: sqrt(0.25 / 4) = 0.25; twice, by the weight.
    maps = torch.tensor([[[[0.3, 1.0], [0.0, 0.6]]]])
    expert = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    assert expert_map_loss(maps, expert, ALL, [2]).item() == pytest.approx(0.5, abs=1e-6)


def test_a_cell_that_the_marked_area_touches_counts_whole() -> None:
    expert = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]])
    assert expert_map_loss(torch.tensor([[[[0.0, 1.0]]]]), expert, ALL, [1]).item() == 0
    assert expert_map_loss(torch.tensor([[[[0.25]]]]), expert, ALL, [1]).item() == 0.75
    # Three cells on two: the middle one touches both.
    thirds = torch.tensor([[[0.0, 1.0, 0.0]]])
    assert expert_map_loss(torch.tensor([[[[1.0, 1.0]]]]), thirds, ALL, [1]).item() == 0


def test_the_same_error_counts_the_same_on_every_grid() -> None:
    maps = [torch.full((1, side, side), 0.5) for side in (8, 4, 1)]
    expert = torch.zeros(1, 8, 8)
    assert expert_map_loss(maps, expert, ALL, [1, 0.1, 0.01]).item() == pytest.approx(0.555)


def test_scales_as_one_tensor_or_as_a_sequence() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, 4, 5, generator=generator)
    expert, known = torch.rand(2, 8, 10, generator=generator), torch.tensor([True, True])
    as_tensor = expert_map_loss(maps, expert, known, [1, 2, 3])
    torch.testing.assert_close(expert_map_loss(list(maps.unbind(1)), expert, known, [1, 2, 3]), as_tensor)


def test_images_without_an_expert_map_count_nothing_whatever_stands_there() -> None:
    maps = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expert = torch.zeros(3, 4, 4)
    expert[1] = torch.nan
    known = torch.tensor([True, False, True])
    loss = expert_map_loss(maps, expert, known, [1])
    alone = expert_map_loss(maps[[0, 2]], expert[[0, 2]], known[[0, 2]], [1])
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    assert [bool(grad.any()) for grad in maps.grad] == [True, False, True]


def test_without_any_expert_map_the_loss_is_0_and_can_go_backward() -> None:
    maps = torch.rand(2, 3, 4, 4, requires_grad=True)
    loss = expert_map_loss(maps, torch.ones(2, 8, 8), torch.tensor([False, False]), [1, 1, 1])
    loss.backward()
    assert loss.item() == 0
    assert maps.grad is not None
    assert not maps.grad.any()


def test_a_map_that_agrees_has_a_gradient_of_0() -> None:
    expert = torch.tensor([[[0.0, 0.5], [0.5, 1.0]]])
    maps = expert[None].clone().requires_grad_()
    loss = expert_map_loss(maps, expert, ALL, [1])
    loss.backward()
    assert loss.item() == 0
    assert maps.grad is not None
    assert not maps.grad.any()


@pytest.mark.parametrize("off", [0.01, 0.1, 1.0])
def test_the_pull_does_not_fade_with_the_error(off: float) -> None:
    maps = torch.full((1, 1, 2, 2), off, requires_grad=True)
    expert_map_loss(maps, torch.zeros(1, 2, 2), ALL, [1]).backward()
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad, torch.full((1, 1, 2, 2), 0.25))


def test_as_many_weights_as_scales() -> None:
    with pytest.raises(ValueError, match="zip"):
        expert_map_loss(torch.rand(1, 3, 2, 2), torch.rand(1, 2, 2), ALL, [1, 1])


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 2, 4, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    expert = torch.rand(3, 8, 8, dtype=torch.float64, generator=generator)
    known = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda values: expert_map_loss(values, expert, known, [1, 0.5]), maps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_more_cells_than_it_can_count(dtype: torch.dtype) -> None:
    # 512 x 512 cells off by 1/2: the sum of squares is 65,536, over the largest float16.
    maps = torch.full((1, 1, 512, 512), 0.5, dtype=dtype, requires_grad=True)
    loss = expert_map_loss(maps, torch.zeros(1, 512, 512, dtype=dtype), ALL, [1])
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == 0.5
    assert maps.grad is not None
    assert maps.grad.dtype == dtype
    torch.testing.assert_close(maps.grad.float(), torch.full((1, 1, 512, 512), 512**-2.0))


@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_images_does_not_matter(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(5, 2, 3, 3, dtype=torch.float64, generator=generator)
    expert = torch.rand(5, 6, 6, dtype=torch.float64, generator=generator)
    known = torch.rand(5, generator=generator) < 0.5
    order = torch.randperm(5, generator=generator)
    torch.testing.assert_close(
        expert_map_loss(maps[order], expert[order], known[order], [1, 3]),
        expert_map_loss(maps, expert, known, [1, 3]),
    )
