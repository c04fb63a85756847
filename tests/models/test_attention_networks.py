"""Resampling and edits by hand, and the contract every registered network with attention keeps."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from konkyo.models import registry
from konkyo.models.attention import (
    AttentionBranch,
    AttentionNetwork,
    area_resample,
    at_stride_one,
    edited,
    touched,
)
from konkyo.models.explain import methods

CLASSES = 5
SIDES = st.integers(1, 20)
EDITABLE = [name for name in registry.names() if hasattr(registry.build(name, CLASSES), "attend")]


def random(*size, seed=0, dtype=torch.float32):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def same(found, expected):
    """Equal but for rounding, which goes with the range of the values and not with each value."""
    return bool((found - expected).abs().max() < 1e-5 * (expected.max() - expected.min()))


# Resampling


def test_three_cells_of_two_and_two_of_four_by_hand():
    # The middle one of three cells lies half in each of the two.
    up = area_resample(torch.tensor([[[0.0, 1.0], [1.0, 0.5]]]), (3, 3))
    torch.testing.assert_close(
        up, torch.tensor([[[0.0, 0.5, 1.0], [0.5, 0.625, 0.75], [1.0, 0.75, 0.5]]]), rtol=0, atol=1e-6
    )
    down = area_resample(torch.arange(16.0).view(1, 4, 4), (2, 2))
    assert down.tolist() == [[[2.5, 4.5], [10.5, 12.5]]]


def test_three_cells_on_two_by_hand():
    down = area_resample(torch.tensor([[[3.0, 6.0, 0.0]]]), (1, 2))  # (3 + 6/2) / 1.5, (6/2 + 0) / 1.5
    torch.testing.assert_close(down, torch.tensor([[[4.0, 2.0]]]))


@settings(deadline=None)
@given(SIDES, SIDES)
def test_on_the_same_grid_nothing_changes(height, width):
    maps = random(2, height, width)
    assert torch.equal(area_resample(maps, (height, width)), maps)


@settings(deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_the_mean_stays(height, width, to_height, to_width):
    maps = random(2, height, width, dtype=torch.float64)
    resampled = area_resample(maps, (to_height, to_width))
    assert resampled.shape == (2, to_height, to_width)
    torch.testing.assert_close(resampled.mean(dim=(1, 2)), maps.mean(dim=(1, 2)), rtol=1e-12, atol=0)


@settings(deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_a_constant_stays(height, width, to_height, to_width):
    constant = area_resample(torch.full((1, height, width), 0.7), (to_height, to_width))
    torch.testing.assert_close(constant, torch.full((1, to_height, to_width), 0.7), rtol=0, atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
def test_whole_multiples_are_averages_of_blocks_and_copies(height, width, rows, columns):
    coarse, fine = (height, width), (height * rows, width * columns)
    maps = random(3, *fine)
    torch.testing.assert_close(area_resample(maps, coarse), F.adaptive_avg_pool2d(maps, coarse))
    copies = maps[:, :height, :width].repeat_interleave(rows, dim=1).repeat_interleave(columns, dim=2)
    torch.testing.assert_close(area_resample(maps[:, :height, :width], fine), copies)


def test_gradients_are_the_shares_of_area():
    maps = torch.zeros(1, 1, 3, requires_grad=True)
    area_resample(maps, (1, 2))[0, 0, 0].backward()
    torch.testing.assert_close(maps.grad, torch.tensor([[[2 / 3, 1 / 3, 0.0]]]))


def test_gradients_of_resampling():
    maps = random(2, 3, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda item: area_resample(item, (4, 2)), (maps,))


def test_what_an_expert_would_paint_by_hand():
    mask = torch.zeros(1, 4, 6)
    mask[0, 0, 0] = 1
    mask[0, 3, 3] = 0.5
    assert touched(mask, (2, 2)).tolist() == [[[1, 0], [0, 0.5]]]
    assert touched(mask, (1, 4)).tolist() == [[[1, 0, 0.5, 0]]]
    mask[0, 3, 4] = 1  # cells are one and a half pixels wide: half in the third, half in the fourth
    assert touched(mask, (1, 4)).tolist() == [[[1, 0, 1, 1]]]


@settings(deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**16))
def test_what_is_touched_is_what_has_a_share_of_the_mask(height, width, to_height, to_width, seed):
    masks = (random(2, height, width, seed=seed) < 0.1).float()
    found = touched(masks, (to_height, to_width))
    assert torch.equal(found, (area_resample(masks, (to_height, to_width)) > 0).float())


# Edits

OWN = torch.tensor([[[0.2, 0.4], [0.6, 0.8]]])


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ([[-1.0]], [[0.2, 0.4], [0.6, 0.8]]),
        ([[0.5]], [[0.5, 0.5], [0.5, 0.5]]),
        ([[0.0]], [[0.0, 0.0], [0.0, 0.0]]),
        ([[-1.0, 0.0], [1.0, -0.5]], [[0.2, 0.0], [1.0, 0.8]]),
        ([[-1.0, 1.0]], [[0.2, 1.0], [0.6, 1.0]]),  # columns as they are, both rows
        ([[1.0, -1.0, -1.0, -1.0]], [[0.6, 0.4], [0.8, 0.8]]),  # half a cell: (0.2 + 1) / 2, (0.6 + 1) / 2
        ([[0.5, -1.0, -1.0]], [[0.4, 0.4], [8 / 15, 0.8]]),  # two thirds of a cell: (0.2 + 2 * 0.5) / 3
    ],
)
def test_an_edit_by_hand(edit, expected):
    torch.testing.assert_close(edited(OWN, torch.tensor([edit])), torch.tensor([expected]))


def test_no_edit_is_the_map_itself():
    assert edited(OWN, None) is OWN


@settings(deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**16))
def test_an_edited_map_stays_between_0_and_1(height, width, to_height, to_width, seed):
    edit = 3 * random(1, height, width, seed=seed) - 1
    edit = torch.where(edit > 1, -1, edit)
    result = edited(random(2, to_height, to_width, seed=seed), edit)
    assert result.min() >= -1e-6
    assert result.max() <= 1 + 1e-6


# Parts


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(1, 1, 3, stride=2, padding=1), (5, 7)),
        (nn.Conv2d(1, 1, 1, stride=(2, 1)), (5, 7)),
        (nn.Conv2d(1, 1, 2, stride=2), (5, 7)),
        (nn.AvgPool2d(2, 2, ceil_mode=True), (5, 7)),
        (nn.MaxPool2d(3, 2, padding=1), (5, 7)),
    ],
)
def test_a_stage_at_stride_one_keeps_the_grid(layer, expected):
    stage = nn.Sequential(layer)
    assert stage(torch.rand(1, 1, 5, 7)).shape[2:] != expected
    assert at_stride_one(stage)(torch.rand(1, 1, 5, 7)).shape[2:] == expected
    assert stage[0] is layer
    assert stage(torch.rand(1, 1, 5, 7)).shape[2:] != expected  # the original is as it was


def test_a_stage_at_stride_one_computes_what_the_strided_one_does_and_what_lies_between():
    stage = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1))
    patches = nn.Sequential(nn.Conv2d(2, 3, 2, stride=2))
    image = random(1, 2, 6, 8)
    for strided in (stage, patches):
        torch.testing.assert_close(at_stride_one(strided)(image)[:, :, ::2, ::2], strided(image))


def test_the_branch_by_hand(trained_like):
    """One class, one channel, one cell: every layer is a number."""
    branch = trained_like(AttentionBranch(nn.Identity(), 1, 1))
    with torch.no_grad():
        for norm, scale, shift in ((branch.bn, 2, 1), (branch.shared[1], 1, -1), (branch.map[1], 1, 0)):
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
            norm.weight.fill_(scale)
            norm.bias.fill_(shift)
        branch.shared[0].weight.fill_(0.5)
        branch.map[0].weight.fill_(0.25)
        branch.classify.weight.fill_(-3)
        # 3 -> 2 * 3 + 1 = 7 -> 3.5 - 1 = 2.5; of the 3x3 kernel only the centre sees anything.
        attention, logits, vectors = branch(torch.full((1, 1, 1, 1), 3.0))
        torch.testing.assert_close(attention, torch.sigmoid(torch.tensor([[[0.625]]])))
        torch.testing.assert_close(logits, torch.tensor([[-7.5]]))
        assert vectors.tolist() == [[3.0]]
        # -1 -> -1 -> -1.5 -> 0: the shared tensor is rectified, the normalised features are not.
        attention, logits, _ = branch(torch.full((1, 1, 1, 1), -1.0))
        assert (attention.item(), logits.item()) == (0.5, 0)


# Every network with attention


@pytest.fixture
def image():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=EDITABLE)
def network(request, settled, image):
    torch.manual_seed(0)
    return settled(registry.build(request.param, CLASSES), image)


@pytest.fixture
def own(network, image):
    """Logits (2, N), maps (2, S, h, w) without an edit."""
    return attend(network, image)


def attend(network, image, attention=None):
    with torch.no_grad():
        return network.attend(image, attention)


def constant(value, *grid):
    return torch.full((1, *grid), float(value))


def test_there_are_such_networks():
    assert {"abn", "amb", "multiscale-abn"} <= set(EDITABLE)


def test_it_is_what_it_says(network, image, own):
    assert isinstance(network, AttentionNetwork)
    method = methods()[network.explanation]
    assert method.takes_attention
    assert method(network).scales == network.scales
    assert own[0].shape == (2, CLASSES)
    assert own[1].shape[:2] == (2, network.scales)
    with torch.no_grad():
        assert same(network(image), own[0])


def test_maps_lie_between_0_and_1_and_tell_places_and_images_apart(own):
    maps = own[1]
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert (maps.amax(dim=(2, 3)) - maps.amin(dim=(2, 3))).min() > 0.01
    assert (maps[0] - maps[1]).abs().amax(dim=(1, 2)).min() > 0.01


def test_what_is_trained_is_what_is_shown(network, image, own):
    logits, maps = own
    with torch.no_grad():
        outputs = network.outputs(image)
    assert same(outputs.logits, logits)
    assert len(outputs.maps) == network.scales
    sizes = [item.shape[-1] for item in outputs.maps]
    assert sizes == sorted(sizes, reverse=True)
    for scale, item in enumerate(outputs.maps):
        shown = F.interpolate(item[:, None], size=maps.shape[2:], mode="bilinear").squeeze(1)
        torch.testing.assert_close(shown, maps[:, scale])
    assert all(auxiliary.shape == (2, CLASSES) for auxiliary in outputs.auxiliary)


@pytest.mark.parametrize("grid", [(1, 1), (3, 7), None])
def test_negative_cells_leave_everything(network, image, own, grid):
    negative = constant(-1, *(grid or own[1].shape[2:]))
    torch.testing.assert_close(attend(network, image, negative), own, rtol=0, atol=0)


def test_its_own_map_in_the_place_of_its_map_changes_nothing(network, image, own):
    if network.scales > 1:
        pytest.skip("one edit is for all scales, whose own maps differ")
    logits, maps = attend(network, image, own[1][:, 0])
    assert torch.equal(maps, own[1])
    assert same(logits, own[0])


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), None])
def test_a_constant_is_the_same_everywhere_and_on_every_grid(network, image, own, grid):
    everywhere = attend(network, image, constant(0.3, *(grid or own[1].shape[2:])))
    torch.testing.assert_close(everywhere[1], torch.full_like(own[1], 0.3), rtol=0, atol=1e-6)
    assert same(everywhere[0], attend(network, image, constant(0.3, 1, 1))[0])


def test_the_decision_follows_the_edit(network, image, own):
    ends = [attend(network, image, constant(value, 1, 1))[0] for value in (0, 1)]
    for first, second in ((own[0], ends[0]), (own[0], ends[1]), ends):
        assert ((first - second).abs().amax(dim=1) > 1e-3 * first.abs().max()).all()


def test_cells_that_are_not_edited_keep_their_value(network, image, own):
    own_logits, own_maps = own
    width = own_maps.shape[-1]
    edit = torch.full_like(own_maps[:, 0], -1)
    edit[0, :, : width // 2] = 0.25
    logits, maps = attend(network, image, edit)
    assert torch.equal(maps[:, 0], torch.where(edit < 0, own_maps[:, 0], 0.25))
    # A coarse map is shown enlarged, so a cell or two beyond the edge may differ.
    assert torch.equal(maps[0, :, :, 3 * width // 4 :], own_maps[0, :, :, 3 * width // 4 :])
    torch.testing.assert_close(
        maps[0, :, :, : width // 4], torch.full_like(maps[0, :, :, : width // 4], 0.25)
    )
    assert not same(logits[:1], own_logits[:1])
    assert torch.equal(maps[1], own_maps[1])
    assert same(logits[1:], own_logits[1:])


def test_a_fine_edit_is_that_of_its_means_and_a_coarse_one_that_of_its_copies(network, image, own):
    height, width = own[1].shape[2:]
    fine = random(2, 2 * height, 2 * width)
    found = attend(network, image, fine)
    means = attend(network, image, F.avg_pool2d(fine, 2))
    assert torch.equal(means[1][:, 0], F.avg_pool2d(fine, 2))
    assert same(found[0], means[0])
    torch.testing.assert_close(found[1], means[1])
    coarse = torch.tensor([[[0.9, -1.0], [-1.0, 0.1]], [[-1.0, -1.0], [0.0, 1.0]]])
    copies = coarse.repeat_interleave(height // 2, dim=1).repeat_interleave(width // 2, dim=2)
    found, expected = attend(network, image, coarse), attend(network, image, copies)
    assert torch.equal(expected[1][:, 0], torch.where(copies < 0, own[1][:, 0], copies))
    assert same(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


def test_one_edit_is_for_every_image(network, image):
    edit = torch.where(random(1, 4, 6) < 0.5, -1, random(1, 4, 6, seed=1))
    for found, expected in zip(
        attend(network, image, edit), attend(network, image, edit.expand(2, -1, -1)), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_the_decision_teaches_the_map(network, image, own):
    """Whatever forms the maps gets a gradient from the logits, as long as they are not replaced."""
    parameters = dict(network.named_parameters())

    def reached(value):
        found = torch.autograd.grad(
            value.square().sum(), list(parameters.values()), allow_unused=True, retain_graph=True
        )
        grads = zip(parameters, found, strict=True)
        return {name for name, grad in grads if grad is not None and grad.abs().max() > 0}

    logits, maps = network.attend(image)
    replaced, _ = network.attend(image, constant(0.5, 1, 1))
    only_of_maps = reached(maps) - reached(replaced)
    assert {name.split(".")[0].removesuffix("es") for name in only_of_maps} == {"attention_branch"}
    assert only_of_maps <= reached(logits)


def test_the_extractor_is_part_of_the_network_and_works_before_the_map(network, image, own):
    extractor = {id(parameter) for module in network.extractor() for parameter in module.parameters()}
    assert extractor < {id(parameter) for parameter in network.parameters()}
    other = copy.deepcopy(network)
    with torch.no_grad():
        for module in other.extractor():
            for parameter in module.parameters():
                parameter.zero_()
    assert not same(attend(other, image)[1], own[1])
