from dataclasses import dataclass

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
}


@dataclass(frozen=True)
class Network:
    architecture: str
    arguments: dict
    model: Explained
    width: int = WIDTH
    height: int = HEIGHT


@pytest.fixture(scope="session")
def make(trained_like):
    """A small network of a case, as if it had been trained."""

    def build_case(case, seed=0):
        torch.manual_seed(seed)
        architecture = case.split("-")[0]
        network = build(architecture, CLASSES, **CASES[case])
        statistics = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)) if network.centred else ()
        model = trained_like(Explained(Classifier(network, *statistics), network.explanation))
        return Network(architecture, CASES[case], model)

    return build_case


@pytest.fixture(scope="session", params=CASES)
def network(request, make):
    return make(request.param)


@pytest.fixture(scope="session")
def graph(network):
    return export_onnx(network.model, width=WIDTH, height=HEIGHT)


@pytest.fixture(scope="session")
def images():
    return np.stack([smooth_image(WIDTH, HEIGHT, seed) for seed in range(100, 112)])
