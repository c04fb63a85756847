"""The importances of the neurons are the weights that Grad-CAM's map is made with."""

import pytest
import torch

from konkyo.models.cnn import CNN
from konkyo.models.explain.gradcam import GradCAM, weighted_sum
from konkyo.models.explain.text import NeuronImportances

TARGETS = torch.tensor([[-1, 3, 0], [2, -1, 1]])


@pytest.fixture(scope="module")
def network(trained_like):
    torch.manual_seed(0)
    return trained_like(CNN(5, layers=[[8, 1], [12, 2], [16, 2]]))


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def test_under_average_pooling_they_are_the_weights_of_the_class_over_the_cells(network, images):
    logits, maps = NeuronImportances(network)(images, TARGETS)
    assert torch.equal(logits, network(images))
    classes = torch.where(TARGETS < 0, logits.argmax(dim=1, keepdim=True), TARGETS)
    torch.testing.assert_close(maps, network.fc.weight[classes][:, :, None] / (4 * 6), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("layer", [None, "features.5"])
def test_the_map_of_gradcam_is_the_features_weighted_by_them(network, images, layer):
    _, maps = GradCAM(network, layer)(images, TARGETS)
    _, weights = NeuronImportances(network, layer)(images, TARGETS)
    end = 6 if layer else len(network.features)
    features = network.features[:end](images)
    assert weights.shape == (2, 3, 1, features.shape[1])
    torch.testing.assert_close(weighted_sum(features, weights[:, :, 0]), maps, rtol=1e-4, atol=1e-6)
