"""Where timm networks are cut, found by rule, against what was measured; and batch norms folded away."""

import copy
import json

import pytest
import timm
import torch
from torch import nn

from konkyo.models import registry
from konkyo.models.card import InputSpec
from konkyo.models.cut import Cut, Layout
from konkyo.models.explain.gradcam import GradCAM
from konkyo.models.explain.layercam import LayerCAM
from konkyo.models.folding import fold_batch_norms
from konkyo.models.places import Places, layout_of
from konkyo.models.timm_net import TimmNet

TABLE = [
    ("resnet50", "layer4", (2048, 7, 7), Layout(), (7, 7), ()),
    ("convnext_tiny.fb_in1k", "stages.3", (768, 7, 7), Layout(), (7, 7), ()),
    ("swin_tiny_patch4_window7_224.ms_in1k", "norm", (7, 7, 768), Layout("nhwc"), (7, 7), ()),
    (
        "deit_small_patch16_224.fb_in1k", "blocks.11.norm1", (197, 384), Layout("tokens", 1), (14, 14),
        ("blocks.11", "blocks.11.attn", "norm"),
    ),
    ("vit_small_patch16_224.dino", "blocks.11.norm1", (197, 384), Layout("tokens", 1), (14, 14), ()),
    (
        "deit_small_distilled_patch16_224.fb_in1k", "blocks.11.norm1", (198, 384), Layout("tokens", 2),
        (14, 14), ("blocks.11",),
    ),
    ("cait_xxs36_224.fb_dist_in1k", "blocks.35", (196, 192), Layout("tokens"), (14, 14), ("norm",)),
    (
        "coat_lite_small.in1k", "serial_blocks4.2.norm1", (50, 512), Layout("tokens", 1), (7, 7),
        ("serial_blocks4.2", "norm4"),
    ),
    (
        "xcit_small_12_p16_224.fb_in1k", "blocks.11", (196, 384), Layout("tokens"), (14, 14),
        ("cls_attn_blocks.1", "norm"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "layer", "shape", "layout", "grid", "zero"), TABLE)
def test_hooks_are_those_that_were_measured(name, layer, shape, layout, grid, zero):
    network = TimmNet(3, name=name).network
    places = Places(network, (3, 224, 224))
    assert places.best() == (layer, layout)
    with torch.no_grad():
        features, *_ = Cut(network, layer).trunk(torch.randn(1, 3, 224, 224))
    assert features.shape == (1, *shape)
    assert layout.to_map(features).shape[2:] == grid
    for other in zero:
        with pytest.raises(ValueError, match=rf"^the gradient by every cell of {other} is exactly zero; "):
            places.at(other)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("blocks.5", "^the gradient by every cell of blocks.5 is exactly zero; blocks.5.norm1 has one$"),
        ("norm", "^the gradient by every cell of norm is exactly zero; blocks.5.norm1 has one$"),
        ("head", r"^the output of head \(1, 3\) is no grid of features$"),
        ("blocks.9", r"^VisionTransformer has no layer 'blocks.9'; there are: .*blocks.0"),
    ],
)
def test_layers_that_explain_nothing_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        TimmNet(3, name="test_vit").hook(layer)


def test_layers_before_are_not_refused():
    hook = TimmNet(3, name="test_vit").hook("blocks.4")
    assert (hook.layer, hook.layout) == ("blocks.4", Layout("tokens", 1))


def test_the_gradient_is_exactly_zero_where_a_layer_is_refused():
    """What the rule finds without an image, by autograd on one."""
    torch.manual_seed(0)
    network, image = TimmNet(3, name="test_vit").eval(), torch.randn(1, 3, 160, 160)
    for layer, expected in [("blocks.5", False), ("blocks.5.norm1", True), ("blocks.4", True)]:
        cut = Cut(network.network, layer)
        features, *rest = (value.detach() for value in cut.trunk(image))
        features.requires_grad_()
        (gradient,) = torch.autograd.grad(cut.tail(features, *rest).square().sum(), features)
        assert gradient[:, 0].any()  # by the class token
        assert bool(gradient[:, 1:].any()) is expected


@pytest.mark.parametrize(
    ("name", "part"), [("resnet10t", "layer1"), ("test_vit", "norm"), ("levit_128s", "stages.1")]
)
def test_looking_for_the_hook_changes_nothing(name, part):
    network = TimmNet(3, name=name)  # in training mode, where batch norms would refuse a single image
    network.network.get_submodule(part).eval()
    state, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    random = torch.random.get_rng_state()
    network.hook()
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    assert [m.training for m in network.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_the_hook_is_found_and_explained_in_inference_mode_too():
    network = TimmNet(3, name="test_vit", image_size=(64, 64)).eval()
    image, targets = torch.randn(1, 3, 64, 64), torch.tensor([[0, 2]])
    with torch.inference_mode():
        found = [method(network)(image, targets) for method in (GradCAM, LayerCAM)]
    for method, (logits, maps) in zip((GradCAM, LayerCAM), found, strict=True):
        torch.testing.assert_close((logits, maps), method(network)(image, targets), rtol=1e-4, atol=1e-6)
        assert maps.any()


def test_heads_that_start_at_zero_do_not_hide_the_hook():
    network = TimmNet(3, name="test_vit")
    nn.init.zeros_(network.network.head.weight)
    assert network.hook().layer == "blocks.5.norm1"


def test_a_transformer_that_averages_its_tokens_is_explained_at_its_end():
    network = TimmNet(3, name="test_vit", model_args={"global_pool": "avg"})
    assert network.hook().layer == "blocks.5"
    assert network.hook().layout == Layout("tokens", 1)


def test_blocks_that_hand_on_pairs_of_tokens_are_looked_into():
    network = TimmNet(3, name="pit_ti_224")
    assert network.hook().layer == "transformers.2.blocks.3.norm1"
    assert network.hook().layout == Layout("tokens", 1)


def test_the_projections_of_an_attention_pool_are_no_features():
    network = TimmNet(3, name="test_vit", model_args={"global_pool": "map", "class_token": False})
    assert (network.hook().layer, network.hook().layout) == ("norm", Layout("tokens"))


def test_an_image_that_is_not_square():
    network = TimmNet(3, name="test_vit", image_size=(64, 96)).eval()
    assert network.hook().layout == Layout("tokens", 1, 1.5)
    with torch.no_grad():
        _, maps = GradCAM(network)(torch.randn(1, 3, 64, 96), torch.tensor([[0, 1]]))
    assert maps.shape == (1, 2, 4, 6)


def test_what_was_found_rebuilds_the_network_without_a_search(monkeypatch):
    network = TimmNet(3, name="test_vit", image_size=(64, 96), model_args={"depth": 2})
    found = json.loads(json.dumps(network.arguments()))
    assert found == {
        "name": "test_vit",
        "layer": "blocks.1.norm1",
        "layout": {"kind": "tokens", "prefix_tokens": 1, "aspect": 1.5},
        "image_size": [64, 96],
        "model_args": {"depth": 2},
    }
    monkeypatch.setattr(TimmNet, "_places", None)  # so that a search would fail
    again = registry.build("timm", 3, **found)
    again.load_state_dict(network.state_dict())
    hook = again.hook()
    assert (hook.layer, hook.layout) == (network.hook().layer, network.hook().layout)
    assert again.arguments() == network.arguments()


def test_the_layer_and_the_layout_can_be_said():
    assert TimmNet(3, name="test_vit", layer="blocks.3").hook().layer == "blocks.3"
    network = TimmNet(3, name="test_vit", layout={"prefix_tokens": 0, "aspect": 2.0})
    assert network.hook().layer == "blocks.5.norm1"
    assert network.hook().layout == Layout("tokens", 0, 2.0)
    assert TimmNet(3, name="resnet10t").hook("layer2").layer == "layer2"
    with pytest.raises(ValueError, match="is exactly zero"):
        TimmNet(3, name="test_vit", layer="blocks.5").hook()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet10x"}, "^timm has no network 'resnet10x'; there are: .*resnet10t"),
        ({"name": "resnet50.nobody"}, "^resnet50.nobody cannot be built: Invalid pretrained tag"),
        ({"model_args": {"wings": 2}}, "^resnet10t cannot be built: .*wings"),
        ({"name": "coat_lite_tiny", "image_size": (30, 30)}, "^Coa[tT].* cannot be run at"),
        ({"num_classes": 1}, "^a classifier needs at least 2 classes, not 1$"),
        ({"layout": {"prefix": 1}}, "^a layout has no prefix; it has: kind, prefix_tokens, aspect$"),
        ({"layout": {"kind": "nwhc"}}, "^the kind of a layout is nchw, nhwc or tokens, not 'nwhc'$"),
        ({"layout": {"prefix_tokens": -1}}, "^a layout has no fewer than 0 prefix tokens"),
        ({"layout": {"aspect": 0.0}}, "and an aspect above 0$"),
        ({"image_size": (64,)}, r"^an image size is height and width in pixels, .* not \[64\]$"),
        ({"image_size": (0, 64)}, r"not \[0, 64\]$"),
        ({"model_args": {"act_layer": "wings"}}, "^resnet10t cannot be built: 'wings'$"),
        ({"model_args": {"checkpoint_path": "x.pth"}}, "checkpoint_path is no argument"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimmNet(**{"num_classes": 3, **arguments}).hook()


def test_a_network_that_is_no_classifier_is_refused(monkeypatch):
    def headless(pretrained=False, **_):
        network = timm.models.VisionTransformer(img_size=32, embed_dim=24, depth=1, num_heads=2)
        network.reset_classifier(0)
        network.pretrained_cfg = {}
        return network

    monkeypatch.setitem(timm.models._registry._model_entrypoints, "konkyo_headless", headless)
    with pytest.raises(ValueError, match=r"^konkyo_headless is no classifier$"):
        TimmNet(3, name="konkyo_headless")


def test_the_forward_pass_is_that_of_timm():
    torch.manual_seed(0)
    network = TimmNet(3, name="test_vit").eval()
    original = timm.create_model("test_vit", num_classes=3).eval()
    original.load_state_dict({key.removeprefix("network."): v for key, v in network.state_dict().items()})
    image = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(network(image), original(image))


def test_the_preprocessing_of_the_published_weights():
    spec = TimmNet(3, name="tf_efficientnet_lite0.in1k").input_spec
    assert spec == InputSpec(
        width=224, height=224, resize_mode="center_crop", crop_fraction=0.875, interpolation="bicubic",
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip
    other = TimmNet(3, name="resnet10t", image_size=(96, 128)).input_spec
    assert (other.height, other.width, other.crop_fraction) == (96, 128, 0.875)
    assert other.interpolation == "bicubic"
    assert other.mean == (0.485, 0.456, 0.406)


# Layouts by their shape


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((1, 64, 7, 7), (224, 224), Layout()),
        ((1, 7, 7, 64), (224, 224), Layout("nhwc")),
        ((1, 7, 7, 7), (224, 224), Layout()),
        ((1, 7, 10, 64), (224, 320), Layout("nhwc")),
        ((1, 10, 7, 64), (224, 320), None),
        ((1, 64, 1, 1), (224, 224), None),
        ((2, 64, 7, 7), (224, 224), None),  # windows, or heads, on the axis of the batch
        ((1, 49, 64), (224, 224), Layout("tokens")),
        ((1, 50, 64), (224, 224), Layout("tokens", 1)),
        ((1, 261, 64), (224, 224), Layout("tokens", 5)),
        ((1, 25, 64), (64, 96), Layout("tokens", 1, 1.5)),
        ((1, 3, 64), (224, 224), None),
        ((1, 64), (224, 224), None),
        ((), (224, 224), None),
    ],
)
def test_layouts_are_read_off_the_shape(shape, size, expected):
    assert layout_of(torch.empty(shape), size) == expected


def test_a_shape_that_could_be_either_is_what_the_network_says():
    assert layout_of(torch.empty(1, 7, 7, 7), (224, 224), "NHWC") == Layout("nhwc")
    assert layout_of(None, (224, 224)) is None


# Batch norms


def trained_batch_norms(network):
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
    return network.eval()


def norms(network):
    return [name for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "left"),
    [("resnet10t", 0), ("tf_efficientnet_lite0", 0), ("regnetx_002", 0), ("densenet121", 62)],
)
def test_folded_is_the_same_network(name, left):
    torch.manual_seed(0)
    network = trained_batch_norms(TimmNet(4, name=name))
    image = torch.randn(2, 3, 64, 64)
    state = copy.deepcopy(network.state_dict())
    folded = network.folded()
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    assert len(norms(folded)) == left < len(norms(network))
    assert not folded.training
    assert folded.arguments() == {**network.arguments(), "fold": True}
    with torch.no_grad():
        expected, found = network(image), folded(image)
        assert expected.std() > 1e-3
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
        again = registry.build("timm", 4, **folded.arguments()).eval()
        again.load_state_dict(folded.state_dict())
        assert torch.equal(again(image), found)
    assert folded.folded().state_dict().keys() == folded.state_dict().keys()


class Norms(nn.Module):
    """One batch norm that can be folded, and four that cannot."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.between = nn.Identity()
        self.norm = nn.BatchNorm2d(2)
        self.used = nn.Conv2d(2, 2, 1)
        self.norm_used = nn.BatchNorm2d(2)
        self.twice = nn.Conv2d(2, 2, 1)
        self.norm_twice = nn.BatchNorm2d(2)
        self.scaled = ScaledConv(2, 2, 1)
        self.norm_scaled = nn.BatchNorm2d(2)
        self.norm_first = nn.BatchNorm2d(2)

    def forward(self, image):
        features = self.norm(self.between(self.conv(image)))
        used = self.used(features)
        features = self.norm_used(used) + used
        features = self.norm_twice(self.twice(features)) + self.twice(features)
        return self.norm_first(self.norm_scaled(self.scaled(features)).relu())


class ScaledConv(nn.Conv2d):
    def forward(self, input):  # noqa: A002
        return self._conv_forward(input, 2 * self.weight, self.bias)


def test_only_what_alone_follows_a_convolution_is_folded():
    torch.manual_seed(0)
    network, image = trained_batch_norms(Norms()), torch.randn(2, 1, 3, 3)
    with torch.no_grad():
        expected = network(image)
    assert fold_batch_norms(network) == 1
    assert norms(network) == ["norm_used", "norm_twice", "norm_scaled", "norm_first"]
    with torch.no_grad():
        torch.testing.assert_close(network(image), expected)


def test_folding_by_hand():
    network = Norms().eval()
    with torch.no_grad():
        network.conv.weight.copy_(torch.tensor([3.0, 5.0]).view(2, 1, 1, 1))
        network.norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
        network.norm.running_var.copy_(torch.tensor([4.0, 16.0]) - network.norm.eps)
        network.norm.weight.copy_(torch.tensor([2.0, 8.0]))
        network.norm.bias.copy_(torch.tensor([0.5, -1.0]))
    fold_batch_norms(network)
    torch.testing.assert_close(network.conv.weight.flatten(), torch.tensor([3.0, 10.0]))
    torch.testing.assert_close(network.conv.bias, torch.tensor([0.5 - 1, -1.0 - 4]))
