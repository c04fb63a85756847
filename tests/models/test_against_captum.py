"""Our methods against captum's on networks of timm with random weights, in double precision."""

import copy

import pytest
import torch
import torch.nn.functional as F
from captum.attr import (
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    LayerActivation,
    LayerGradCam,
    LayerGradientXActivation,
)
from field import NETWORKS, WITH_RELU, build, relative
from torch import nn

from konkyo.models.explain import methods

TOLERANCE = 1e-9
"""Largest difference relative to the largest value: rounding of double precision."""

TARGETS = torch.tensor([[0, 3], [4, 1]])

pytestmark = pytest.mark.filterwarnings("ignore:Setting (backward|forward, backward) hooks")


def explain(method, network, image, targets=TARGETS):
    with torch.no_grad():
        return methods()[method](network)(image, targets)[1]


def attribute(method, image, **options):
    """One target after the other: (B, K, ...)."""
    image = image.clone().requires_grad_()
    found = [method.attribute(image, target=column, **options) for column in TARGETS.unbind(1)]
    return torch.stack(found, dim=1).detach()


@pytest.fixture(params=NETWORKS, scope="module")
def case(request):
    return build(NETWORKS[request.param])


@pytest.fixture(params=WITH_RELU, scope="module")
def rectified(request):
    """A network, images, and a copy of it as captum wants it: no ReLU may work in place."""
    network, image = build(WITH_RELU[request.param])
    other = copy.deepcopy(network)
    for module in other.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network, image, other, other.network.get_submodule(network.layer)


def test_maps_of_its_gradients(case):
    network, image = case
    layer, layout = network.network.get_submodule(network.layer), network.hook().layout
    alone = LayerGradientXActivation(network, layer, multiply_by_inputs=False)
    gradients = layout.to_map(attribute(alone, image))  # (B, K, C, h, w)
    products = layout.to_map(attribute(LayerGradientXActivation(network, layer), image))
    features = layout.to_map(LayerActivation(network, layer).attribute(image).detach())[:, None]
    for method, expected in (
        ("hirescam", products),
        ("layercam", products * (gradients > 0)),
        ("gradcam", features * gradients.mean(dim=(3, 4), keepdim=True)),
        ("gradcam-absolute", features * gradients.abs().mean(dim=(3, 4), keepdim=True)),
        ("gradcam-max", features * gradients.amax(dim=(3, 4), keepdim=True)),
    ):
        # HiResCAM of CaiT is a sum that cancels.
        scale = expected.abs().sum(dim=2) if method == "hirescam" else None
        assert relative(explain(method, network, image), expected.sum(dim=2), scale) < TOLERANCE, method


@pytest.mark.parametrize("name", ["resnet", "convnext"])
def test_grad_cam(name):
    """Of layers (B, C, h, w): it averages over every axis after the second."""
    network, image = build(NETWORKS[name])
    captum = LayerGradCam(network, network.network.get_submodule(network.layer))
    expected = attribute(captum, image)[:, :, 0]
    assert relative(explain("gradcam", network, image), expected) < TOLERANCE
    assert relative(explain("counterfactual", network, image), -expected) < TOLERANCE


@pytest.mark.parametrize(
    ("method", "captum"), [("guided-backprop", GuidedBackprop), ("deconvnet", Deconvolution)]
)
def test_gradients_by_the_image(rectified, method, captum):
    network, image, other, _ = rectified
    expected = attribute(captum(other), image)  # (B, K, D, H, W)
    _, gradients = methods()[method](network).gradients(image, TARGETS)
    assert relative(gradients, expected) < TOLERANCE
    assert relative(explain(method, network, image), expected.sum(dim=2)) < TOLERANCE


def test_guided_grad_cam(rectified):
    network, image, other, layer = rectified
    expected = attribute(GuidedGradCam(other, layer), image, interpolate_mode="bilinear")
    _, products = methods()["guided-gradcam"](network).gradients(image, TARGETS)
    assert relative(products, expected) < TOLERANCE
    coarse = attribute(LayerGradCam(other, layer), image)[:, :, 0].relu()
    upsampled = F.interpolate(coarse, image.shape[2:], mode="bilinear")
    expected = upsampled * attribute(Deconvolution(other), image).sum(dim=2)
    assert relative(explain("deconv-gradcam", network, image), expected) < TOLERANCE


@pytest.mark.parametrize("name", ["convnext", "swin", "deit", "cait", "coat", "xcit"])
def test_networks_without_relu_are_refused(name):
    network, _ = build(NETWORKS[name])
    for method in ("guided-backprop", "deconvnet", "guided-gradcam", "deconv-gradcam"):
        with pytest.raises(TypeError, match="the plain gradient, because TimmNet has no ReLU but GELU"):
            methods()[method](network)


def test_sums_that_cancel_are_no_map():
    """The score of CaiT does not depend on the length of a patch token, only on its direction."""
    network, image = build(NETWORKS["cait"])
    for dtype in (torch.float32, torch.float64):
        assert not explain("hirescam", network.to(dtype), image.to(dtype)).any()
        assert explain("gradcam", network, image.to(dtype)).any()
