"""The quick ways through a network give its logits, and never those of another network."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from toys import Linear, make_candidate

from konkyo.evaluation.candidate import Candidate, largest_batch
from konkyo.evaluation.exported import ExportedNetwork, GraphCandidate, cut, exported, images_of_a_run
from konkyo.evaluation.measures import measures
from konkyo.evaluation.measures.stability_onnx import ExportedCandidate
from konkyo.evaluation.parts import parts
from konkyo.evaluation.passes import for_many_passes
from konkyo.evaluation.sources import find_source
from konkyo.models.bundle import ONNX, read_bundle
from konkyo.models.registry import build
from konkyo.perturbation import explain
from konkyo.service.settings import ZOO

SHIPPED = sorted(path.name for path in ZOO.iterdir() if (path / "1" / ONNX).exists())
PIXELS = np.random.default_rng(1)


def shipped(name: str) -> Candidate:
    return Candidate.load(read_bundle(ZOO / name / "1"))


def some_pixels(candidate: Candidate) -> torch.Tensor:
    """One image more than a run of the graph takes."""
    count = images_of_a_run(candidate.size) + 1
    return torch.from_numpy(PIXELS.integers(0, 256, (count, *candidate.size, 3), np.uint8))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_graph_of_every_shipped_bundle_gives_its_logits(name: str) -> None:
    candidate = shipped(name)
    quick = for_many_passes(candidate)
    assert isinstance(quick, GraphCandidate)
    assert quick.at_once == images_of_a_run(candidate.size)
    pixels = some_pixels(candidate)
    expected = candidate.logits(pixels)
    close = {"abs": 1e-5 * float(expected.abs().max()) + 1e-5}
    assert quick.logits(pixels).numpy() == pytest.approx(expected.numpy(), **close)
    # What no pixels can be: perturbations work on the normalised image.
    image = candidate.classifier.normalise(pixels) * 2 + 0.3
    expected = candidate.logits_of_normalised(image)
    assert quick.logits_of_normalised(image).numpy() == pytest.approx(expected.numpy(), **close, rel=1e-4)
    assert quick.size == candidate.size


def test_another_network_is_not_taken_for_that_of_the_graph() -> None:
    candidate = shipped("gcm-cifar10")
    changed = copy.deepcopy(candidate.classifier)
    with torch.no_grad():
        next(parameter for parameter in changed.parameters() if parameter.ndim == 4).neg_()
    other = candidate.with_classifier(changed)
    assert exported(other) is None
    quick, pixels = for_many_passes(other), some_pixels(candidate)
    assert quick.logits(pixels).numpy() == pytest.approx(other.logits(pixels).numpy(), abs=1e-4)
    # Nor is it after the graph was taken.
    twin = for_many_passes(candidate).with_classifier(changed)
    assert type(twin) is Candidate
    assert torch.equal(twin.logits(pixels), other.logits(pixels))
    assert (twin.logits(pixels) - candidate.logits(pixels)).abs().max() > 0.1


def test_without_a_graph_batch_norms_are_folded() -> None:
    torch.manual_seed(0)
    network = build("cnn", 4)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    candidate = make_candidate(network, classes=4, side=32)
    quick = for_many_passes(candidate)
    kinds = [type(module) for module in quick.classifier.network.modules()]
    assert torch.nn.BatchNorm2d not in kinds
    assert torch.nn.BatchNorm2d in [type(module) for module in candidate.classifier.network.modules()]
    pixels = some_pixels(candidate)
    assert quick.logits(pixels).numpy() == pytest.approx(candidate.logits(pixels).numpy(), abs=1e-4)


def test_what_is_another_on_purpose_is_taken_as_it_is() -> None:
    candidate = shipped("cnn-cifar10")
    halved = candidate.with_classifier(copy.deepcopy(candidate.classifier).half())
    assert for_many_passes(halved) is halved
    path = candidate.bundle.file(ONNX)
    assert path is not None
    whole = ExportedCandidate(candidate, path)
    assert for_many_passes(whole) is whole
    quick = for_many_passes(candidate)
    assert for_many_passes(quick) is quick


def test_maps_of_predictions_are_those_of_the_network_in_torch() -> None:
    candidate = shipped("cnn-cifar10")
    pixels = some_pixels(candidate)[:2]
    targets = candidate.logits(pixels).argmax(dim=1, keepdim=True)

    def predict(images: np.ndarray) -> np.ndarray:
        return candidate.logits(torch.from_numpy(images)).numpy()

    found = find_source("occlusion", candidate).maps(candidate, pixels, targets).numpy()
    for image, target, map_ in zip(pixels.numpy(), targets.tolist(), found, strict=True):
        expected = explain(predict, image, target, method="occlusion")
        assert np.ptp(expected) > 1e-3
        assert np.abs(map_ - expected).max() <= 1e-3 * np.ptp(expected)


@pytest.mark.parametrize("name", ["insertion_deletion", "occlusion_correlation", "randomization"])
def test_networks_are_made_once_for_all_measures_and_methods(name: str) -> None:
    candidate = shipped("gcm-cifar10")
    kind = measures()[name]
    made = []
    for method in ("gcm", "gradcam", "centre"):
        kind(candidate, find_source(method, candidate), kind.parameters())
        made.append({key: id(found) for key, found in candidate._made.items()})
    assert made[0]
    assert made[1] == made[2] == made[0]
    assert for_many_passes(candidate) is for_many_passes(candidate)
    assert not candidate.with_classifier(candidate.classifier)._made


def test_a_model_that_is_gone_leaves_nothing_behind() -> None:
    candidate = shipped("gcm-cifar10")
    gone = weakref.ref(candidate), weakref.ref(for_many_passes(candidate))
    del candidate
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_network_that_cannot_be_traced_is_taken_as_it_is() -> None:
    class Branching(Linear):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image) if float(image.sum()) > 0 else super().forward(-image)

    candidate = make_candidate(Branching(torch.ones(2, 8, 8)))
    assert for_many_passes(candidate) is candidate


def graph_of(*nodes: onnx.NodeProto, inputs: tuple[str, ...] = ("image",)) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in inputs]
    return helper.make_model(
        helper.make_graph(
            nodes, "test", values, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None] * 4)],
            [helper.make_tensor(name, TensorProto.FLOAT, [1], [2.0]) for name in ("a", "b", "c")],
        )
    )  # fmt: skip


NORMALISE = (
    helper.make_node("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2]),
    helper.make_node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
    helper.make_node("Div", ["f", "a"], ["d"]),
    helper.make_node("Sub", ["d", "b"], ["s"]),
    helper.make_node("Div", ["s", "c"], ["n"]),
)


def test_a_graph_is_cut_where_normalisation_ends() -> None:
    part = cut(graph_of(*NORMALISE, helper.make_node("Mul", ["n", "b"], ["logits"])))
    assert [node.op_type for node in part.graph.node] == ["Mul"]
    assert [value.name for value in part.graph.input] == ["n"]
    assert [weight.name for weight in part.graph.initializer] == ["b"]


def test_graphs_that_begin_otherwise_or_need_more_are_refused(tmp_path) -> None:
    without = graph_of(*NORMALISE[:-1], helper.make_node("Mul", ["s", "b"], ["logits"]))
    with pytest.raises(ValueError, match="does not begin with our normalisation"):
        cut(without)
    beside = graph_of(
        *NORMALISE, helper.make_node("Mul", ["n", "more"], ["logits"]), inputs=("image", "more")
    )
    with pytest.raises(ValueError, match="more than the normalised image"):
        cut(beside)
    onnx.save(without, tmp_path / ONNX)
    with pytest.raises(ValueError, match="normalisation"):
        ExportedNetwork(tmp_path / ONNX)


def test_batches_by_the_kind_of_device() -> None:
    assert largest_batch(torch.device("cpu"), (224, 224)) == 16
    assert largest_batch(torch.device("cuda"), (224, 224)) == 334
    assert largest_batch(torch.device("cuda"), (32, 32)) == 1024
    assert largest_batch(torch.device("cuda"), (8192, 8192)) == 1


def test_a_run_of_a_graph_is_small() -> None:
    assert images_of_a_run((32, 32)) == 16
    assert images_of_a_run((128, 128)) == 4
    assert images_of_a_run((224, 224)) == images_of_a_run((8192, 8192)) == 1


def test_parts_hold_everything_once() -> None:
    assert list(parts(7, 3)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(parts(0, 3)) == []
