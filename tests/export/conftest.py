from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch

from konkyo.export.canary import smooth_image
from konkyo.export.onnx import export_onnx
from konkyo.models.classifier import Classifier
from konkyo.models.explained import Explained
from konkyo.models.registry import build

WIDTH, HEIGHT, CLASSES = 24, 16, 4
CASES = {
    "gcm": {"encoder": [[8, 1], [12, 2], [8, 2]], "decoder": [[8, 2], [6, 2]]},
    "gcm-clipped": {"encoder": [[8, 1], [12, 2]], "decoder": [[8, 2]], "clipped": True},
    "cnn": {"layers": [[8, 1], [12, 2], [16, 2]]},
    "multiscale-abn": {"backbone": "cifar_resnet8", "splits": ["layer1", "layer2"], "width": 8},
}


@dataclass(frozen=True)
class Network:
    case: str
    architecture: str
    arguments: dict
    model: Explained
    width: int = WIDTH
    height: int = HEIGHT


@pytest.fixture(scope="session")
def make(trained_like, settled, images):
    """A small network of a case, as if it had been trained."""

    def build_case(case, seed=0):
        torch.manual_seed(seed)
        architecture = case.removesuffix("-clipped")
        network = build(architecture, CLASSES, **CASES[case])
        statistics = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)) if network.centred else ()
        model = trained_like(Explained(Classifier(network, *statistics), network.explanation))
        if model.explanation.takes_attention:  # deep ones need the statistics of what they see
            settled(model.classifier, torch.from_numpy(images))
        return Network(case, architecture, CASES[case], model)

    return build_case


@pytest.fixture(scope="session", params=CASES)
def network(request, make):
    return make(request.param)


@pytest.fixture(scope="session")
def graphs(make):
    """The graph of a case; exporting takes the most time here."""
    return cache(lambda case: export_onnx(make(case).model, width=WIDTH, height=HEIGHT))


@pytest.fixture(scope="session")
def graph(network, graphs):
    return graphs(network.case)


@pytest.fixture(scope="session")
def attentive(make):
    """The one whose maps can be edited."""
    return make("multiscale-abn")


@pytest.fixture(scope="session")
def attentive_graph(graphs):
    return graphs("multiscale-abn")


@pytest.fixture(scope="session")
def images():
    return np.stack([smooth_image(WIDTH, HEIGHT, seed) for seed in range(100, 112)])
