import pytest
import timm
import torch
import torch.nn.functional as F
from by_hand import attention_branch, basic_layer
from torch import nn

from konkyo.models.abn import ABN

BACKBONES = [
    "alexnet", "cifar_resnet20", "cifar_resnet56", "cifar_resnet110", "convnext_atto", "regnetx_002",
    "resnet18", "resnet34", "resnet50d", "tf_efficientnet_lite0",
]  # fmt: skip


def norm(name, channels):
    statistics = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{item}": (channels,) for item in statistics} | {f"{name}.num_batches_tracked": ()}


def bottleneck(name, c_in, width, out):
    """Parameters and buffers of a block of 1x1, 3x3 and 1x1 convolutions."""
    return (
        {f"{name}.conv1.weight": (width, c_in, 1, 1)}
        | norm(f"{name}.bn1", width)
        | {f"{name}.conv2.weight": (width, width, 3, 3)}
        | norm(f"{name}.bn2", width)
        | {f"{name}.conv3.weight": (out, width, 1, 1)}
        | norm(f"{name}.bn3", out)
    )


RESNET50_BRANCH = (
    bottleneck("stage.0.0", 1024, 512, 2048)
    | {"stage.0.0.downsample.0.weight": (2048, 1024, 1, 1)}
    | norm("stage.0.0.downsample.1", 2048)
    | bottleneck("stage.0.1", 2048, 512, 2048)
    | bottleneck("stage.0.2", 2048, 512, 2048)
    | norm("bn", 2048)
    | {"shared.0.weight": (1000, 2048, 1, 1)}
    | norm("shared.1", 1000)
    | {"map.0.weight": (1, 1000, 3, 3)}
    | norm("map.1", 1)
    | {"classify.weight": (1000, 1000, 1, 1)}
)
"""A copy of layer4, and what makes a map and logits of its output: nothing else."""


def test_resnet50_for_imagenet_is_that_of_the_paper():
    network = ABN(1000, backbone="resnet50").eval()
    branch = {name: tuple(item.shape) for name, item in network.attention_branch.state_dict().items()}
    assert branch == RESNET50_BRANCH

    resnet50 = 25_557_032
    layer4 = (
        (
            1024 * 512 + 9 * 512 * 512 + 512 * 2048 + 1024 * 2048 + 2 * (512 + 512 + 2048 + 2048)
        )  # with projection
        + 2 * (2048 * 512 + 9 * 512 * 512 + 512 * 2048 + 2 * (512 + 512 + 2048))
    )
    outputs = 2 * 2048 + 2048 * 1000 + 2 * 1000 + 9 * 1000 + 2 * 1 + 1000 * 1000
    assert (layer4, outputs) == (14_964_736, 3_063_098)
    assert resnet50 + layer4 + outputs == 43_584_866
    assert sum(parameter.numel() for parameter in network.parameters()) == 43_584_866

    convolutions = [m for m in network.attention_branch.modules() if isinstance(m, nn.Conv2d)]
    assert {convolution.stride for convolution in convolutions} == {(1, 1)}
    with torch.no_grad():
        image = torch.zeros(1, 3, 224, 224)
        assert network.extract(image).shape == (1, 1024, 14, 14)
        logits, maps = network.attend(image)
    assert (logits.shape, maps.shape) == ((1, 1000), (1, 1, 14, 14))


@pytest.mark.parametrize("mechanism", ["residual", "plain"])
def test_an_independent_computation_gives_the_same_outputs(settled, mechanism):
    torch.manual_seed(0)
    image = torch.randn(2, 3, 100, 131)
    abn = settled(ABN(5, backbone="resnet18", mechanism=mechanism), image)
    resnet = timm.create_model("resnet18", num_classes=5).eval()
    own = {f"parts.{position}": name for position, (name, _) in enumerate(resnet.named_children())}
    resnet.load_state_dict(
        {
            own[".".join(key.split(".")[:2])] + key[len("parts.0") :]: value
            for key, value in abn.backbone.state_dict().items()
        }
    )
    with torch.no_grad():
        x = resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(image))))
        g = resnet.layer3(resnet.layer2(resnet.layer1(x)))
        assert g.shape == (2, 256, 7, 9)
        state = abn.state_dict()
        staged = basic_layer(g, state, "attention_branch.stage.0", blocks=2, stride=1)
        m, attention_logits = attention_branch(staged, state, "attention_branch")
        attended = m[:, None] * g if mechanism == "plain" else g + m[:, None] * g
        last = resnet.layer4(attended)
        logits = F.linear(last.mean(dim=(2, 3)), resnet.fc.weight, resnet.fc.bias)

        found_logits, maps = abn.attend(image)
        outputs = abn.outputs(image)
    assert 0.1 < m.std() < 0.4
    torch.testing.assert_close(maps, m[:, None])
    torch.testing.assert_close(found_logits, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.logits, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.maps[0], m)
    torch.testing.assert_close(outputs.auxiliary[0], attention_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.vectors[0], last.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.vectors[1], staged.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    assert (len(outputs.maps), len(outputs.auxiliary), len(outputs.vectors)) == (1, 1, 2)
    assert outputs.hidden_logits is None


def test_maps_of_0_and_1_by_the_mechanism(settled):
    torch.manual_seed(0)
    image = torch.randn(1, 3, 32, 32)
    residual = settled(ABN(5), image)
    plain = ABN(5, mechanism="plain").eval()
    plain.load_state_dict(residual.state_dict())
    nothing, everything = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    with torch.no_grad():
        backbone = residual.backbone(image)
        torch.testing.assert_close(residual(image, nothing), backbone)
        torch.testing.assert_close(plain(image, everything), backbone)
        assert not torch.allclose(residual(image, everything), backbone)
        other = plain(torch.randn(1, 3, 32, 32), nothing)
        torch.testing.assert_close(plain(image, nothing), other)  # nothing of the image is left


@pytest.mark.parametrize("name", BACKBONES)
def test_any_backbone_and_any_size(settled, name):
    torch.manual_seed(0)
    image = torch.randn(2, 3, 64, 64)
    network = settled(ABN(3, backbone=name), image)
    odd = torch.randn(1, 3, 100, 131)
    with torch.no_grad():
        for batch in (image, odd):
            features = network.extract(batch)
            logits, maps = network.attend(batch)
            assert logits.shape == (len(batch), 3)
            assert maps.shape == (len(batch), 1, *features.shape[2:])
            untouched = features.clone()
            network.attention_branch(features)
            assert torch.equal(
                features, untouched
            )  # nothing of the branch works in place on what is attended
    cell = 2 if "cifar" in name else 16
    assert network.extract(image).shape[2:] == (64 // cell, 64 // cell)


@pytest.mark.parametrize("depth", [20, 110])
def test_a_cifar_resnet_is_cut_after_layer2(depth):
    network = ABN(10, backbone=f"cifar_resnet{depth}").eval()
    assert network.backbone.stages[1].end == network.cut == 5
    with torch.no_grad():
        _, maps = network.attend(torch.zeros(1, 3, 32, 32))
    assert maps.shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("split", "side", "c_in", "c_out"),
    [("act1", 32, 64, 64), ("layer1", 16, 64, 128), ("layer2", 8, 128, 256), ("layer3", 4, 256, 512)],
)
def test_an_earlier_split_gives_a_finer_map(split, side, c_in, c_out):
    network = ABN(3, backbone="resnet18", split=split).eval()
    with torch.no_grad():
        image = torch.rand(1, 3, 64, 64)
        assert network.extract(image).shape == (1, c_in, side, side)
        assert network.attend(image)[1].shape == (1, 1, side, side)
    assert network.attention_branch.bn.num_features == network.branch_channels == c_out


def test_a_branch_may_end_before_the_next_stage_does():
    whole = ABN(3, backbone="tf_efficientnet_lite0").eval()
    short = ABN(3, backbone="tf_efficientnet_lite0", branch_end="blocks.5").eval()
    assert (len(whole.attention_branch.stage), len(short.attention_branch.stage)) == (2, 1)
    assert (whole.branch_channels, short.branch_channels) == (320, 192)
    with torch.no_grad():
        assert short.attend(torch.rand(1, 3, 64, 96))[1].shape == (1, 1, 4, 6)
        assert short.outputs(torch.rand(1, 3, 64, 96)).vectors[1].shape == (1, 192)


def test_an_earlier_last_stage():
    network = ABN(3, backbone="resnet18", last_stage="layer3").eval()
    with torch.no_grad():
        assert network.attend(torch.rand(1, 3, 64, 64))[1].shape == (1, 1, 8, 8)
        assert network.outputs(torch.rand(1, 3, 64, 64)).vectors[0].shape == (1, 256)


def test_the_branch_begins_as_a_copy_of_the_next_stage():
    torch.manual_seed(0)
    network = ABN(3, backbone="resnet18")
    weights = timm.create_model("resnet18", num_classes=1000).state_dict()
    for change in (lambda: None, lambda: network.load_pretrained(weights)):
        change()
        layer4 = network.backbone.parts[7].state_dict()
        copied = network.attention_branch.stage[0].state_dict()
        torch.testing.assert_close(copied, layer4, rtol=0, atol=0)
        assert not {item.data_ptr() for item in copied.values()} & {
            item.data_ptr() for item in layer4.values()
        }
    assert torch.equal(copied["1.conv2.weight"], weights["layer4.1.conv2.weight"])
    assert network.backbone.parts[7][0].conv1.stride == (2, 2)
    assert network.attention_branch.stage[0][0].conv1.stride == (1, 1)


def test_the_extractor_is_what_comes_before_the_cut():
    network = ABN(3, backbone="resnet18")
    names = {id(item): name for name, item in network.backbone.named_parameters()}
    found = {names[id(item)].split(".")[1] for module in network.extractor() for item in module.parameters()}
    assert found == {"0", "1", "4", "5", "6"}  # conv1, bn1, layer1 to layer3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"backbone": "resnet18", "split": "layer4"},
            "layer4 is the last stage of resnet18; nothing is left",
        ),
        ({"split": "layer2", "last_stage": "layer2"}, "layer2 is the last stage of cifar_resnet20"),
        (
            {"last_stage": "layer1"},
            "layer1 is the last stage of cifar_resnet20; nothing is left to perceive with",
        ),
        ({"split": "layer9"}, "cifar_resnet20 has no stage 'layer9'; there are: layer1, layer2, layer3"),
        (
            {"branch_end": "layer9"},
            "cifar_resnet20 has no part 'layer9'; there are: conv1, bn1, act1, layer1, ",
        ),
        ({"branch_end": "layer2"}, "layer2 is not after layer2, where the features are cut"),
        ({"mechanism": "gated"}, "the mechanism is residual or plain, not 'gated'"),
        ({"backbone": "vit_tiny_patch16_224"}, "vit_tiny_patch16_224 cannot be cut into stages"),
        ({"backbone": "resnet18_of_tomorrow"}, "unknown backbone 'resnet18_of_tomorrow'"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ABN(3, **arguments)


def test_fewer_than_two_classes_are_refused():
    with pytest.raises(ValueError, match="at least 2 classes, not 1"):
        ABN(1)
