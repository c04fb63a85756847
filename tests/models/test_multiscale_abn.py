import pytest
import timm
import torch
import torch.nn.functional as F
from by_hand import attention_branch, conv, norm

from konkyo.models.multiscale_abn import MultiScaleABN

BACKBONES = {
    "resnet18": ([(128, 8), (256, 4), (512, 2)], ["layer2", "layer3", "layer4"]),
    "resnet34": ([(128, 8), (256, 4), (512, 2)], ["layer2", "layer3", "layer4"]),
    "alexnet": ([(192, 8), (384, 4), (256, 2)], ["block1", "block2", "block3"]),
    "tf_efficientnet_lite0": ([(40, 8), (112, 4), (320, 2)], ["blocks.2", "blocks.4", "blocks.6"]),
    "cifar_resnet20": ([(16, 64), (32, 32), (64, 16)], ["layer1", "layer2", "layer3"]),
}
"""Channels and grid of the three scales at 64 x 64, and the stages the blocks end at."""


@pytest.fixture
def image():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=BACKBONES)
def network(request, settled, image):
    torch.manual_seed(0)
    return settled(MultiScaleABN(5, backbone=request.param, width=16), image)


def test_three_scales_from_fine_to_coarse(network, image):
    scales, stages = BACKBONES[network.backbone.name]
    assert network.scales == 3
    with torch.no_grad():
        features = network.extract(image)
        maps = network.outputs(image).maps
        _, shown = network.attend(image)
    assert [tuple(item.shape) for item in features] == [(2, c, side, side) for c, side in scales]
    assert [tuple(item.shape) for item in maps] == [(2, side, side) for _, side in scales]
    assert network.backbone.stages[-1].name == stages[-1]
    assert shown.shape == (2, 3, scales[0][1], scales[0][1])


def test_blocks_are_those_of_the_backbone_and_never_see_a_map(network, image):
    with torch.no_grad():
        features = network.extract(image)
        whole = network.backbone(image)
        torch.testing.assert_close(features[-1], whole)
        before = [item.clone() for item in features]
        for branch in network.attention_branches:  # whatever the maps are
            branch.map[1].bias += 5
        after = network.extract(image)
    for item, other in zip(before, after, strict=True):
        assert torch.equal(item, other)


def test_an_independent_computation_gives_the_same_outputs(network, image):
    """The decision is one linear layer on the concatenated features of the perception branches."""
    state = network.state_dict()
    maps, auxiliary, vectors = [], [], []
    with torch.no_grad():
        for scale, g in enumerate(network.extract(image)):
            name = f"attention_branches.{scale}"
            staged = F.relu(norm(conv(g, state, f"{name}.stage.0", padding=1), state, f"{name}.stage.1"))
            m, logits = attention_branch(staged, state, name)
            maps.append(m)
            auxiliary.append(logits)
            name = f"perception_branches.{scale}"
            f = norm(conv(g + m[:, None] * g, state, f"{name}.0", padding=1), state, f"{name}.1")
            vectors.append(F.relu(f).mean(dim=(2, 3)))
        weights = [state[f"decide.{scale}.weight"] for scale in range(3)]
        biases = [state[f"decide.{scale}.bias"] for scale in range(3)]
        auxiliary += [f @ w.T + b for f, w, b in zip(vectors, weights, biases, strict=True)]
        merged = torch.cat(vectors, dim=1)
        assert merged.shape == (2, 3 * 16)
        logits = F.linear(merged, torch.cat(weights, dim=1), sum(biases))
        found_logits, shown = network.attend(image)
        outputs = network.outputs(image)
    torch.testing.assert_close(found_logits, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.logits, logits, rtol=1e-4, atol=1e-5)
    assert len(outputs.auxiliary) == 6  # the decision of each attention branch and each perception branch
    for found, expected in zip(outputs.auxiliary, auxiliary, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for scale, m in enumerate(maps):
        torch.testing.assert_close(outputs.maps[scale], m)
        enlarged = F.interpolate(m[:, None], size=shown.shape[2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(shown[:, scale], enlarged[:, 0])


def test_an_edit_acts_on_every_scale(network, image):
    """With the same constant at each, the decision is that of the three edited one by one."""
    state, decisions = network.state_dict(), []
    edit = torch.full((1, 1, 1), 0.25)
    with torch.no_grad():
        for scale, g in enumerate(network.extract(image)):
            name = f"perception_branches.{scale}"
            f = F.relu(norm(conv(1.25 * g, state, f"{name}.0", padding=1), state, f"{name}.1"))
            decisions.append(
                F.linear(f.mean(dim=(2, 3)), state[f"decide.{scale}.weight"], state[f"decide.{scale}.bias"])
            )
        logits, maps = network.attend(image, edit)
    torch.testing.assert_close(logits, sum(decisions), rtol=1e-4, atol=1e-5)
    assert torch.equal(maps, torch.full_like(maps, 0.25))


def test_what_is_edited_on_the_fine_grid_is_averaged_on_the_coarse_ones(settled, image):
    torch.manual_seed(0)
    network = settled(MultiScaleABN(5, backbone="resnet18", width=16), image)
    edit = torch.full((2, 8, 8), -1.0)
    edit[:, 0, 0] = 1  # a quarter of a cell of the 4 x 4 map, a sixteenth of one of the 2 x 2
    with torch.no_grad():
        own = network.outputs(image).maps
        _, shown = network.attend(image, edit)
    for scale, share in enumerate((1, 1 / 4, 1 / 16)):
        expected = own[scale].clone()
        expected[:, 0, 0] = expected[:, 0, 0] * (1 - share) + share
        expected = F.interpolate(expected[:, None], size=(8, 8), mode="bilinear")[:, 0]
        torch.testing.assert_close(shown[:, scale], expected)


def test_the_extractor_is_the_backbone_without_what_follows_the_last_block(network):
    backbone = {id(item) for item in network.backbone.parameters()}
    assert {id(item) for module in network.extractor() for item in module.parameters()} == backbone
    rooms = {key.split(".")[0] for key in network.state_dict()}
    assert rooms == {"backbone", "attention_branches", "perception_branches", "decide"}
    ends = {int(key.split(".")[2]) for key in network.state_dict() if key.startswith("backbone.")}
    assert max(ends) < network.backbone.stages[-1].end == len(network.backbone.parts)
    assert (
        sum(item.numel() for item in network.backbone.parameters())
        == {
            # ResNets and the AlexNet lose their linear layer for 5 classes, EfficientNet its last 1x1 too.
            "resnet18": 11_689_512 - 513 * 1000,
            "resnet34": 21_797_672 - 513 * 1000,
            "alexnet": 2_470_848,
            "tf_efficientnet_lite0": 4_652_008 - 1281 * 1000 - 320 * 1280 - 2 * 1280,
            "cifar_resnet20": 272_474 - 650,
        }[network.backbone.name]
    )


@pytest.mark.parametrize(
    ("splits", "sides"),
    [(["layer1", "layer2", "layer3"], [16, 8, 4]), (["act1", "layer4"], [32, 2]), (["layer3"], [4])],
)
def test_other_splits(splits, sides):
    network = MultiScaleABN(3, backbone="resnet18", splits=splits, width=8).eval()
    assert network.scales == len(sides)
    with torch.no_grad():
        logits, shown = network.attend(torch.rand(1, 3, 64, 64))
        maps = network.outputs(torch.rand(1, 3, 64, 64)).maps
    assert [item.shape[1] for item in maps] == sides
    assert (logits.shape, shown.shape) == ((1, 3), (1, len(sides), sides[0], sides[0]))


def test_any_size():
    network = MultiScaleABN(3, backbone="resnet18", width=8).eval()
    with torch.no_grad():
        assert [tuple(item.shape[1:]) for item in network.outputs(torch.rand(1, 3, 100, 131)).maps] == [
            (13, 17),
            (7, 9),
            (4, 5),
        ]
        assert network.attend(torch.rand(1, 3, 100, 131))[1].shape == (1, 3, 13, 17)


def test_pretrained_weights_go_to_the_blocks():
    weights = timm.create_model("resnet18", num_classes=1000).state_dict()
    network = MultiScaleABN(3, backbone="resnet18", splits=["layer1", "layer2"], width=8)
    network.load_pretrained(weights)
    assert torch.equal(network.backbone.parts[5][1].conv2.weight, weights["layer2.1.conv2.weight"])
    with pytest.raises(ValueError, match="not the weights of resnet18: 60 are missing"):
        network.load_pretrained({})  # conv1, its norm, layer1 and layer2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"splits": ["layer3", "layer1"]},
            "the splits go from fine to coarse, each once, not layer3, layer1",
        ),
        (
            {"splits": ["layer2", "layer2"]},
            "the splits go from fine to coarse, each once, not layer2, layer2",
        ),
        ({"splits": ["layer9"]}, "cifar_resnet20 has no stage 'layer9'; there are: layer1, layer2, layer3"),
        ({"width": 0}, "the branches need a width of at least 1, not 0"),
        ({"backbone": "vit_tiny_patch16_224"}, "vit_tiny_patch16_224 cannot be cut into stages"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiScaleABN(3, **arguments)
