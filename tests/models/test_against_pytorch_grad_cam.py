"""Our methods against pytorch-grad-cam's on networks of timm with random weights, in double precision.

Maps are compared as they are before that library cuts off what is negative and scales what is left; one
test compares them after that.
"""

import copy

import pytest
import torch
from field import NETWORKS, WITH_RELU, build, relative
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from konkyo.models.explain import methods

TOLERANCE = 1e-9
"""Largest difference relative to the largest value: rounding of double precision."""

TARGETS = torch.tensor([[0], [4]])
WANTED = [ClassifierOutputTarget(0), ClassifierOutputTarget(4)]


def explain(method, network, image):
    with torch.no_grad():
        return methods()[method](network)(image, TARGETS)[1][:, 0]


@pytest.fixture(params=NETWORKS, scope="module")
def case(request):
    return build(NETWORKS[request.param])


def with_library(method, network):
    """The library's method at the same layer."""
    hook = network.hook()
    return method(network, [network.network.get_submodule(hook.layer)], reshape_transform=hook.layout.to_map)


@pytest.mark.parametrize(
    ("method", "library"),
    [
        ("gradcam", GradCAM),
        ("gradcam-plus-plus", GradCAMPlusPlus),
        ("hirescam", HiResCAM),
        ("layercam", LayerCAM),
    ],
)
def test_maps_as_they_are(case, method, library):
    network, image = case
    with with_library(library, network) as theirs:
        theirs(image, WANTED)
        (features,) = theirs.activations_and_grads.activations
        (gradients,) = theirs.activations_and_grads.gradients
        # Grad-CAM++ adds 1e-6 to a sum of squares of gradients, which is much where they are small. With
        # larger gradients of smaller features it is nothing, and the map is the same.
        much = 1e6 / float(gradients.abs().max())
        features, gradients = features.numpy() / much, gradients.numpy() * much
        (layer,) = theirs.target_layers
        expected = theirs.get_cam_image(image, layer, WANTED, features, gradients, eigen_smooth=False)
    # HiResCAM of CaiT is a sum that cancels.
    scale = torch.from_numpy(features * gradients).abs().sum(dim=1) if method == "hirescam" else None
    assert relative(explain(method, network, image), torch.from_numpy(expected), scale) < TOLERANCE


@pytest.mark.parametrize(
    ("method", "library"), [("gradcam", GradCAM), ("hirescam", HiResCAM), ("layercam", LayerCAM)]
)
def test_maps_as_they_are_shown(method, library):
    network, image = build(NETWORKS["convnext"])
    with with_library(library, network) as theirs:
        expected = theirs(image, WANTED)  # (B, H, W) in [0, 1]
    positive = explain(method, network, image).clamp(min=0).numpy()
    shown = scale_cam_image(scale_cam_image(positive, image.shape[:1:-1]))
    assert relative(torch.from_numpy(shown), torch.from_numpy(expected)) < 1e-5  # cut down to float32
    assert expected.max() > 0.99


@pytest.mark.parametrize("name", WITH_RELU)
def test_guided_backprop(name):
    network, image = build(WITH_RELU[name])
    theirs = GuidedBackpropReLUModel(copy.deepcopy(network))  # it replaces modules of the network
    _, gradients = methods()["guided-backprop"](network).gradients(image, TARGETS)
    for item, target in enumerate(TARGETS):
        expected = theirs(image[item : item + 1].clone(), int(target))  # (H, W, D)
        assert relative(gradients[item, 0], torch.from_numpy(expected).movedim(2, 0)) < TOLERANCE
