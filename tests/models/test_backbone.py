import pytest
import timm
import torch
from torch import nn

from konkyo.models import backbone
from konkyo.models.alexnet import AlexNet
from konkyo.models.backbone import OWN, Backbone
from konkyo.models.cifar_resnet import CIFARResNet
from konkyo.models.classifier import Classifier
from konkyo.models.explain.cam import CAM
from konkyo.models.explained import Explained

NAMES = ["alexnet", "cifar_resnet20", "cifar_resnet56", "resnet18", "resnet50d", "tf_efficientnet_lite0",
         "convnext_atto", "regnetx_002"]  # fmt: skip


def original(name, num_classes):
    """The network itself, not as a chain."""
    if name == "alexnet":
        return AlexNet(num_classes)
    if name in OWN:
        return CIFARResNet(num_classes, depth=int(name[len("cifar_resnet") :]))
    return timm.create_model(name, num_classes=num_classes)


@pytest.mark.parametrize("name", NAMES)
def test_the_chain_computes_what_the_network_computes(settled, name):
    torch.manual_seed(0)
    image = torch.randn(2, 3, 70, 100)
    network = settled(original(name, 7), image)
    chain = Backbone(7, name=name)
    assert all(module.training for module in chain.modules())  # also after it was checked
    chain.load_pretrained(network.state_dict())
    with torch.no_grad():
        expected, found = network(image), chain.eval()(image)
        assert found.std() > 1e-3
        torch.testing.assert_close(found, expected)
        features = chain.forward_features(image)
        assert features.shape[:2] == (2, chain.channels[-1])
        assert features.shape[2] > 1
        torch.testing.assert_close(chain.forward_head(features), expected)
        for stage in chain.stages:
            cut = chain.run(image, stop=stage.end)
            assert cut.shape[1] == stage.channels == chain.channels[stage.end - 1]
            assert cut.shape[2] == -(-70 // stage.reduction) or cut.shape[2] == 70 // stage.reduction
            torch.testing.assert_close(chain.run(cut, start=stage.end), expected)


@pytest.mark.parametrize("name", ["cifar_resnet20", "resnet18", "tf_efficientnet_lite0", "convnext_atto"])
def test_weights_for_other_classes_are_taken_up_to_the_classifier(settled, name):
    torch.manual_seed(0)
    image = torch.randn(2, 3, 64, 64)
    network = settled(original(name, 7), image)
    chain = Backbone(5, name=name).eval()
    classifier = {key: value.clone() for key, value in chain.state_dict().items() if value.shape[:1] == (5,)}
    assert len(classifier) == 2  # weight and bias
    chain.load_pretrained(network.state_dict())
    same_classes = Backbone(7, name=name).eval()
    same_classes.load_pretrained(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(chain.forward_features(image), same_classes.forward_features(image))
        assert chain(image).shape == (2, 5)
    torch.testing.assert_close(
        {key: value for key, value in chain.state_dict().items() if key in classifier}, classifier
    )


@pytest.mark.parametrize(
    ("name", "stages", "head"),
    [
        (
            "resnet18",
            ["act1 64 2 3", "layer1 64 4 5", "layer2 128 8 6", "layer3 256 16 7", "layer4 512 32 8"],
            8,
        ),
        (
            "tf_efficientnet_lite0",
            [
                "blocks.0 16 2 3",
                "blocks.1 24 4 4",
                "blocks.2 40 8 5",
                "blocks.4 112 16 7",
                "blocks.6 320 32 9",
            ],
            11,  # behind the last 1x1 convolution and its norm
        ),
        ("cifar_resnet110", ["layer1 64 1 4", "layer2 128 2 5", "layer3 256 4 6"], 6),
    ],
)
def test_stages(name, stages, head):
    chain = Backbone(2, name=name)
    assert [f"{s.name} {s.channels} {s.reduction} {s.end}" for s in chain.stages] == stages
    assert chain.head == len(chain.channels) == head
    for position, stage in enumerate(chain.stages):
        assert chain.stage(stage.name) == position
        assert chain.end(stage.name) == stage.end


def test_parts_that_are_no_stage():
    chain = Backbone(2, name="tf_efficientnet_lite0")
    assert (chain.end("blocks.4"), chain.end("blocks.5"), chain.end("bn2")) == (7, 8, 11)
    assert chain.channels[7:] == (192, 320, 1280, 1280)
    with pytest.raises(
        ValueError, match=r"has no part 'global_pool'; there are: conv_stem, bn1, blocks.0, .*, bn2$"
    ):
        chain.end("global_pool")


@pytest.mark.parametrize(
    "name", ["alexnet", "cifar_resnet20", "resnet18", "tf_efficientnet_lite0", "regnetx_002"]
)
def test_the_mean_of_the_activation_map_plus_the_bias_is_the_logit(settled, name):
    torch.manual_seed(0)
    image = torch.randn(2, 3, 64, 96)
    chain = settled(Backbone(4, name=name), image)
    with torch.no_grad():
        logits, maps = CAM(chain)(image, torch.arange(4).repeat(2, 1))
        torch.testing.assert_close(logits, chain(image))
    assert maps.shape[:2] == (2, 4)
    assert maps.shape[2:] == chain.forward_features(image).shape[2:]
    *_, linear = (layer for layer in chain.modules() if isinstance(layer, nn.Linear))
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + linear.bias, logits, rtol=1e-4, atol=1e-5)


def test_a_head_of_another_kind_has_no_class_activation_map():
    with pytest.raises(TypeError, match="convnext_atto has no head of global average pooling"):
        Explained(Classifier(Backbone(3, name="convnext_atto")), "cam")


class PoolsTheMaximum(CIFARResNet):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.global_pool = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(1))


def test_pooling_the_maximum_is_no_global_average_pooling(monkeypatch):
    monkeypatch.setattr(backbone, "_create", lambda _, num_classes: PoolsTheMaximum(num_classes))
    with pytest.raises(TypeError, match="has no head of global average pooling"):
        _ = Backbone(3).fc
    assert Backbone(3, last_stage="layer2").fc.in_features == 32  # which is our own head


def test_a_head_of_another_kind_gives_way_to_one_with_a_class_activation_map():
    chain = Backbone(3, name="convnext_atto", last_stage="stages.2").eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits, maps = CAM(chain)(image, torch.arange(3)[None])
    assert maps.shape == (1, 3, 4, 4)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + chain.fc.bias, logits)


# Shorter than the network


def test_trimmed_after_a_stage(settled):
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    whole = settled(Backbone(3, name="resnet18"), image)
    trimmed = Backbone(3, name="resnet18").eval()
    trimmed.trim(2)
    assert [stage.name for stage in trimmed.stages] == ["act1", "layer1", "layer2"]
    assert (trimmed.head, trimmed.channels, len(trimmed.parts)) == (6, (64, 64, 64, 64, 64, 128), 6)
    assert {key.split(".")[1] for key in trimmed.state_dict()} == {"0", "1", "4", "5"}
    network = settled(timm.create_model("resnet18", num_classes=9), image)
    whole.load_pretrained(network.state_dict())
    trimmed.load_pretrained(network.state_dict())  # what was cut off is passed over
    with torch.no_grad():
        assert torch.equal(trimmed(image), whole.run(image, stop=6))


def test_an_earlier_last_stage_decides_by_the_mean_of_its_features(settled):
    torch.manual_seed(0)
    image = torch.randn(2, 3, 64, 64)
    network = settled(timm.create_model("resnet18", num_classes=3), image)
    chain = Backbone(3, name="resnet18", last_stage="layer3").eval()
    linear = chain.parts[-1]
    before = linear.weight.clone()
    chain.load_pretrained(network.state_dict())
    assert torch.equal(linear.weight, before)  # 256 features; the network's classifier takes 512
    with torch.no_grad():
        x = network.maxpool(network.act1(network.bn1(network.conv1(image))))
        x = network.layer3(network.layer2(network.layer1(x)))
        torch.testing.assert_close(chain.forward_features(image), x)
        torch.testing.assert_close(chain(image), linear(x.mean(dim=(2, 3))))
    assert chain.fc is linear
    assert [stage.name for stage in chain.stages] == ["act1", "layer1", "layer2", "layer3"]


def test_the_last_stage_of_the_network_may_be_named():
    chain = Backbone(3, name="cifar_resnet20", last_stage="layer3")
    assert chain(torch.rand(2, 3, 32, 32)).shape == (2, 3)


# Refusals


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet18_of_tomorrow",
            r"unknown backbone 'resnet18_of_tomorrow'; there are: alexnet, cifar_resnet8,",
        ),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224 cannot be cut into stages: its parts cannot be run"),
        ("repvit_m0_9", "repvit_m0_9 cannot be cut into stages: its parts cannot be run"),
        ("selecsls42", "selecsls42 cannot be cut into stages: its parts cannot be run"),
        ("test_mambaout", r"test_mambaout cannot be cut into stages: stages.3 gives no feature map"),
        ("hrnet_w18_small", "hrnet_w18_small cannot be cut after stem"),
        ("test_vit", "test_vit cannot be cut into stages"),
        ("mixer_s32_224", "mixer_s32_224 "),
    ],
)
def test_a_network_that_is_no_chain_is_refused(name, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        Backbone(3, name=name)
    assert "\n" not in str(caught.value)


class MoreThanItsParts(CIFARResNet):
    def forward(self, image):
        return super().forward(image.flip(-1) * 2)


class RefusesWithoutAWord(CIFARResNet):
    def forward(self, image):
        raise AssertionError


class OfOneStage(CIFARResNet):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.feature_info = self.feature_info[:1]


class MisstatesItsChannels(CIFARResNet):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.feature_info[1]["num_chs"] = 33


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (MoreThanItsParts, "its forward pass is more than its parts one after the other"),
        (RefusesWithoutAWord, "its parts cannot be run one after the other: AssertionError"),
        (OfOneStage, "states no feature hierarchy to cut it at"),
        (MisstatesItsChannels, r"layer2 gives no feature map \(B, C, h, w\)"),
    ],
)
def test_a_network_that_does_not_do_what_it_states_is_refused(monkeypatch, network, message):
    monkeypatch.setattr(backbone, "_create", lambda _, num_classes: network(num_classes))
    with pytest.raises(ValueError, match=message):
        Backbone(3)


def test_unknown_stages_and_too_few_classes_are_refused():
    with pytest.raises(
        ValueError, match="resnet18 has no stage 'layer9'; there are: act1, layer1, layer2, layer3, "
    ):
        Backbone(3, name="resnet18").stage("layer9")
    with pytest.raises(
        ValueError, match="cifar_resnet20 has no stage 'act1'; there are: layer1, layer2, layer3"
    ):
        Backbone(3, last_stage="act1")
    with pytest.raises(ValueError, match=r"resnet18 has no part 'layer4'; there are: .*layer3$"):
        Backbone(3, name="resnet18", last_stage="layer3").end("layer4")
    with pytest.raises(ValueError, match="at least 2 classes, not 1"):
        Backbone(1)


def without(state, key):
    return {name: tensor for name, tensor in state.items() if name != key}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda own: own | {"features.0.weight": torch.zeros(1)}, "resnet18 has no features.0.weight"),
        (lambda own: without(own, "layer2.0.conv1.weight"), "not the weights of resnet18: 1 are missing"),
        (lambda own: {}, "not the weights of resnet18: 120 are missing"),
        (
            lambda own: own | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
            r"not the weights of resnet18: it has no conv1.weight of \[64, 1, 7, 7\]",
        ),
        (
            lambda own: timm.create_model("resnet34", num_classes=3).state_dict(),
            r"not the weights of resnet18: it has no layer1.2.conv1.weight of \[64, 64, 3, 3\]",
        ),
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(state, message):
    chain = Backbone(3, name="resnet18")
    before = {key: tensor.clone() for key, tensor in chain.state_dict().items()}
    with pytest.raises(ValueError, match=f"^{message}$"):
        chain.load_pretrained(state(timm.create_model("resnet18", num_classes=3).state_dict()))
    torch.testing.assert_close(dict(chain.state_dict()), before, rtol=0, atol=0)
