"""Closed forms of Grad-CAM's weights, against autograd and by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from konkyo.export.onnx import OnnxModel, export_onnx
from konkyo.models.backbone import Backbone
from konkyo.models.classifier import Classifier
from konkyo.models.cnn import CNN
from konkyo.models.cut import Cut, Hook
from konkyo.models.explain.cam import CAM
from konkyo.models.explain.class_token import ClassToken
from konkyo.models.explain.closed_form import Average, find_closed_form
from konkyo.models.explain.gradcam import GradCAM
from konkyo.models.explain.gradients import differentiate
from konkyo.models.explain.rows import Normalised, gelu_slope
from konkyo.models.explained import Explained
from konkyo.models.timm_net import TimmNet

SMALL_SWIN = {"depths": (1, 1), "embed_dim": 12, "num_heads": (1, 2)}
FORMS = {
    "linear": ("resnet10t", 64, {}, Average),
    "linear, channels last": ("swin_tiny_patch4_window7_224", 56, SMALL_SWIN, Average),
    "linear, a convolution": ("resnetv2_18", 64, {}, Average),
    "two linear": (
        "efficientformer_l1", 224, {"depths": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 32)}, Average,
    ),
    "norm": ("test_convnext", 64, {}, Average),
    "norm, tokens": ("test_vit", 64, {"global_pool": "avg", "depth": 2}, Average),
    "class token": ("test_vit", 64, {"depth": 2}, ClassToken),
    "class token, layer scale": ("test_vit", 64, {"depth": 2, "init_values": 1e-5}, ClassToken),
    "class token, no bias": ("test_vit", 64, {"depth": 2, "qkv_bias": False, "proj_bias": False}, ClassToken),
    "class token, registers": ("test_vit", 64, {"depth": 2, "reg_tokens": 3}, ClassToken),
    "class token, two norms": ("test_vit", 64, {"depth": 2, "fc_norm": True, "final_norm": True}, ClassToken),
    "class token, distilled": (
        "deit_tiny_distilled_patch16_224", 64, {"depth": 2, "embed_dim": 48}, ClassToken,
    ),
    "class token, not square": ("test_vit", (64, 96), {"depth": 2}, ClassToken),
}  # fmt: skip
CLASSES = 6
TARGETS = torch.tensor([[-1, 0, 3, 3], [5, -1, 1, 0]])


def build(name, size, arguments):
    """A network with every parameter of order 1, and images."""
    torch.manual_seed(0)
    size = (size, size) if isinstance(size, int) else size
    network = TimmNet(CLASSES, name=name, image_size=size, model_args=arguments).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5)
    return network, torch.randn(2, 3, *size)


@pytest.fixture(params=FORMS)
def case(request):
    *arguments, kind = FORMS[request.param]
    network, images = build(*arguments)
    hook = network.hook()
    cut = Cut(hook.root, hook.layer)
    form = find_closed_form(network, hook, cut)
    assert type(form) is kind
    return network, hook, cut, form, images


def close(found, expected, tolerance):
    """Relative to the range, as rounding is."""
    assert found.shape == expected.shape
    assert expected.abs().max() > 0
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-13)])
def test_closed_forms_give_what_autograd_gives(case, dtype, tolerance):
    network, hook, cut, form, images = case
    network.to(dtype)
    images = images.to(dtype)
    with torch.no_grad():
        features, *rest = cut.trunk(images)
        expected_logits = network(images)
        logits, weights = form(features, rest, TARGETS)
    assert logits.dtype == weights.dtype == dtype
    _, gradients = differentiate(features, lambda leaf: cut.tail(leaf, *rest), TARGETS)
    assert close(logits, expected_logits, tolerance)
    assert close(weights, hook.layout.to_map(gradients).mean(dim=(-2, -1)), tolerance)


@torch.no_grad()
def test_targets_at_once_are_targets_one_by_one(case):
    network, _, cut, form, images = case
    network.double()
    features, *rest = cut.trunk(images.double())
    logits, weights = form(features, rest, TARGETS)
    assert torch.equal(weights[0, 2], weights[0, 3])
    for k in range(4):
        alone, weight = form(features, rest, TARGETS[:, k : k + 1])
        assert torch.equal(alone, logits)
        assert close(weight, weights[:, k : k + 1], 1e-14)
    alone, none = form(features, rest, TARGETS[:, :0])
    assert torch.equal(alone, logits)
    assert none.shape == (2, 0, weights.shape[2])


@torch.no_grad()
def test_half_precision_is_explained_in_float32(case):
    """The weights of the same rounded parameters and features, as if all were float32."""
    network, _, cut, form, images = case
    network.bfloat16()
    features, *rest = cut.trunk(images.bfloat16())
    assert features.dtype == torch.bfloat16
    logits, weights = form(features, rest, TARGETS.clamp(min=0))
    network.float()
    expected_logits, expected = form(
        features.float(), [value.float() for value in rest], TARGETS.clamp(min=0)
    )
    assert logits.dtype == weights.dtype == torch.float32
    assert close(logits, expected_logits, 0.05)
    assert close(weights, expected, 1e-6)


@torch.no_grad()
def test_autocast_does_not_reach_the_weights(case):
    _, _, cut, form, images = case
    features, *rest = cut.trunk(images)
    _, expected = form(features, rest, TARGETS.clamp(min=0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, weights = form(features, rest, TARGETS.clamp(min=0))
    assert logits.dtype == torch.float32
    assert torch.equal(weights, expected)


@torch.no_grad()
def test_a_form_follows_the_network_as_it_learns():
    network, images = build("test_vit", 64, {"depth": 2})
    method = GradCAM(network)
    before, _ = method(images, TARGETS)
    for parameter in network.parameters():
        parameter.mul_(1.5)
    logits, _ = method(images, TARGETS)
    assert not close(logits, before, 0.01)
    assert close(logits, network(images), 1e-5)
    again, others = copy.deepcopy(method), network.network.head.weight.clone()
    nn.init.zeros_(network.network.head.weight)
    assert close(again(images, TARGETS)[0], logits, 1e-6)
    assert torch.equal(again.network.network.head.weight, others)


def test_a_closed_form_needs_no_autograd():
    network, images = build("test_vit", 64, {"depth": 2})
    method = GradCAM(network)
    assert not method.differentiates
    with torch.inference_mode():
        logits, maps = method(images, TARGETS)
    assert logits.requires_grad is maps.requires_grad is False
    for parameter in network.parameters():
        assert parameter.grad is None


# Where there is none


class MaximumPool(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, image):
        return self.fc(self.pool(self.features(image)))

    def pool(self, features):
        return features.amax(dim=(2, 3))


class Squares(MaximumPool):
    def pool(self, features):
        return features.square().mean(dim=(2, 3))


class SumPool(MaximumPool):
    def pool(self, features):
        return features.sum(dim=(2, 3))


class TooLarge(MaximumPool):
    """As the average, but for a factor of 1.0001."""

    def pool(self, features):
        return 1.0001 * features.mean(dim=(2, 3))


class AveragePool(MaximumPool):
    def pool(self, features):
        return features.mean(dim=(2, 3))


@pytest.mark.parametrize("network", [Squares, SumPool, TooLarge])
def test_a_head_that_only_looks_like_an_average_has_none(network):
    for kind, expected in [(network, type(None)), (AveragePool, Average)]:
        network = kind().eval()
        form = find_closed_form(network, Hook(network, "features"), Cut(network, "features"))
        assert type(form) is expected


def test_a_pooled_maximum_has_the_weights_of_an_average_but_no_map_that_is_the_score():
    network = MaximumPool().eval()
    network.hook = lambda layer: Hook(network, layer or "features")
    image = torch.randn(1, 3, 4, 4)
    assert isinstance(GradCAM(network).closed_form, Average)
    _, maps = GradCAM(network)(image, torch.tensor([[2]]))
    features = network.features(image)
    weights = torch.autograd.grad(network.fc(network.pool(features))[0, 2], features)[0].mean(dim=(2, 3))
    torch.testing.assert_close(maps[0, 0], (weights[0, :, None, None] * features[0]).sum(dim=0))
    with pytest.raises(TypeError, match=r"^MaximumPool has no head of global average pooling"):
        CAM(network)


@pytest.mark.parametrize(
    ("name", "size", "arguments", "layer"),
    [
        ("cait_xxs24_224", 64, {"depth": 8, "embed_dim": 32, "num_heads": 2}, None),
        ("test_vit", 64, {"depth": 2}, "blocks.0"),
        ("test_vit", 64, {"depth": 2, "qk_norm": True}, None),
        ("test_vit", 64, {"depth": 2, "act_layer": "gelu_tanh"}, None),
        ("test_vit", 64, {"depth": 2, "act_layer": "silu"}, None),
        ("test_convnext", 64, {}, "stages.2"),
        ("mobilenetv3_small_050", 64, {}, None),
    ],
)
def test_other_heads_are_differentiated(name, size, arguments, layer):
    network, images = build(name, size, arguments)
    method = GradCAM(network, layer)
    assert method.closed_form is None
    assert method.differentiates
    logits, maps = method(images, TARGETS)
    with torch.no_grad():
        assert close(logits, network(images), 1e-6)
    assert maps.shape[:2] == (2, 4)


# By hand


def test_the_weights_of_a_linear_head_by_hand():
    network = CNN(2, in_chans=2, layers=[(2, 1)]).eval()
    with torch.no_grad():
        network.fc.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 2.0]]))
    form = GradCAM(network).closed_form
    _, weights = form(torch.rand(1, 2, 2, 4), [], torch.tensor([[1, 0]]))
    assert weights.tolist() == [[[0.0, 0.25], [0.125, -0.125]]]


def test_the_gradient_of_a_layer_norm_by_hand():
    layer = nn.LayerNorm(2, eps=0.0)
    nn.init.constant_(layer.weight, 3.0)
    nn.init.constant_(layer.bias, 1.0)
    found = Normalised.of(torch.tensor([[1.0, 5.0]]), layer)
    assert found.rows.tolist() == [[-1.0, 1.0]]
    assert found.inverse.tolist() == [[0.5]]
    assert found.output().tolist() == [[-2.0, 4.0]]
    # Two values are always normalised to -1 and 1, so that nothing depends on them.
    assert found.gradient(torch.tensor([[[1.0, 7.0]]])).tolist() == [[[0.0, 0.0]]]


def test_the_gradient_of_a_layer_norm_is_that_of_autograd():
    layer = nn.LayerNorm(5).double()
    nn.init.normal_(layer.weight)
    rows, upstream = torch.randn(2, 3, 5).double(), torch.randn(2, 4, 3, 5).double()
    leaf = rows.requires_grad_()
    expected = [torch.autograd.grad(layer(leaf), leaf, upstream[:, k])[0] for k in range(4)]
    found = Normalised.of(rows, layer)
    torch.testing.assert_close(found.output(), layer(rows))
    torch.testing.assert_close(found.gradient(upstream), torch.stack(expected, dim=1))


def test_the_slope_of_gelu():
    rows = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(nn.functional.gelu(rows).sum(), rows)
    torch.testing.assert_close(gelu_slope(rows), expected)
    assert gelu_slope(torch.tensor(0.0)) == 0.5


# CAM, where the form is an average and a linear layer


@pytest.mark.parametrize("form", [name for name in FORMS if "linear" in name])
@torch.no_grad()
def test_the_mean_of_the_activation_map_plus_the_bias_is_the_logit(form):
    *arguments, _ = FORMS[form]
    network, images = build(*arguments)
    network.double()
    images = images.double()
    logits, maps = CAM(network)(images, torch.arange(CLASSES).repeat(2, 1))
    classifiers = network.network.get_classifier()
    classifiers = classifiers if isinstance(classifiers, tuple) else (classifiers,)
    bias = sum(classifier.bias for classifier in classifiers) / len(classifiers)
    assert close(logits, network(images), 1e-13)
    assert close(maps.mean(dim=(2, 3)) + bias, logits, 1e-12)
    _, weighted = GradCAM(network)(images, torch.arange(CLASSES).repeat(2, 1))
    assert close(weighted * maps.shape[2] * maps.shape[3], maps, 1e-12)


@pytest.mark.parametrize("form", [name for name in FORMS if "linear" not in name])
def test_other_heads_have_no_class_activation_map(form):
    *arguments, _ = FORMS[form]
    network, _ = build(*arguments)
    message = f"^{network.name} has no head of global average pooling and one linear layer$"
    with pytest.raises(TypeError, match=message):
        CAM(network)


def test_the_chain_of_a_backbone_has_the_form_of_its_network():
    assert isinstance(GradCAM(Backbone(3, name="resnet18")).closed_form, Average)
    assert GradCAM(Backbone(3, name="convnext_atto")).closed_form.norm is not None


# Exported


@pytest.mark.parametrize("form", ["linear, channels last", "norm", "class token, distilled"])
def test_closed_forms_are_exported(form):
    *arguments, _ = FORMS[form]
    network, _ = build(*arguments)
    height, width = network.image_size
    explained = Explained(Classifier(network), "gradcam").eval()
    exported = OnnxModel(export_onnx(explained, width=width, height=height))
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    for targets in ([[-1, 0], [1, 1], [5, -1]], [[2], [-1], [0]], [[], [], []]):
        targets = np.array(targets, dtype=np.int64).reshape(3, -1)
        logits, maps = exported(images, targets)
        with torch.no_grad():
            expected_logits, expected = explained(torch.from_numpy(images), torch.from_numpy(targets))
        assert close(torch.from_numpy(logits), expected_logits, 1e-5)
        assert maps.shape == expected.shape
        if targets.size:
            assert close(torch.from_numpy(maps), expected, 1e-4)
