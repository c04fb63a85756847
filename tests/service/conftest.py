from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from faults import Clock


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("KONKYO_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture
def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
async def clock() -> Clock:
    """The time of the test's loop, in the test's hand."""
    return Clock()


@pytest.fixture(scope="session")
def attentive(
    tmp_path_factory: pytest.TempPathFactory, settled: Callable[..., object]
) -> Callable[[str], Path]:
    """Writes a small bundle of a network with attention, of random weights, in a repository of its own."""

    @cache
    def write(architecture: str) -> Path:
        torch = pytest.importorskip("torch")
        from konkyo.export.bundle import Origin, write_bundle
        from konkyo.export.canary import smooth_image
        from konkyo.models.classifier import Classifier
        from konkyo.models.registry import build

        samples = np.stack([smooth_image(32, 32, seed) for seed in range(100, 108)])
        scales = {"splits": ["layer1", "layer2"], "width": 8} if architecture == "multiscale-abn" else {}
        arguments = {"backbone": "cifar_resnet8", **scales}
        torch.manual_seed(0)
        classifier = Classifier(build(architecture, 4, **arguments), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
        settled(classifier, torch.from_numpy(samples))
        bundle, _ = write_bundle(
            tmp_path_factory.mktemp("attentive") / architecture / "1",
            classifier.state_dict(),
            samples,
            Origin(
                architecture=architecture,
                arguments=arguments,
                labels=("good", "crack", "dent", "stain"),
                method="attention",
                data="none",
                licence="none",
                command="none",
                epochs=0,
            ),
        )
        return bundle.path

    return write


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory, settled: Callable[..., object]) -> Path:
    """A repository of two small networks of random weights that can be explained in many ways.

    ``graph`` explains itself by CAM, which is in its graph, and has names for its neurons; ``gradient`` by
    Grad-CAM++, which takes a gradient, and so has no graph.
    """
    torch = pytest.importorskip("torch")
    from konkyo.export.bundle import Origin, write_bundle
    from konkyo.export.canary import smooth_image
    from konkyo.export.neurons import write_neurons
    from konkyo.models.classifier import Classifier
    from konkyo.models.cnn import CNN
    from konkyo.models.neurons import NamedNeuron, Neurons

    repository = tmp_path_factory.mktemp("networks")
    samples = np.stack([smooth_image(32, 32, seed) for seed in range(100, 108)])
    for seed, (name, method) in enumerate((("graph", "cam"), ("gradient", "gradcam-plus-plus"))):
        torch.manual_seed(seed)
        classifier = Classifier(CNN(4), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
        settled(classifier, torch.from_numpy(samples))
        origin = Origin("cnn", {}, ("good", "crack", "dent", "stain"), method, "none", "none", "none", None)
        bundle, _ = write_bundle(repository / name / "1", classifier.state_dict(), samples, origin)
        if name == "graph":
            named = {unit: NamedNeuron(concept=f"concept {unit}", iou=0.25) for unit in range(0, 64, 2)}
            write_neurons(bundle, Neurons(layer="features", threshold=0.05, neurons=named))
    return repository
