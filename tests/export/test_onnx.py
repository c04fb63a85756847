from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from konkyo.export.onnx import OnnxModel, export_onnx


def tensor(value):
    """Name, element type and axes of an input or output."""
    axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
    return value.name, onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type), axes


def test_inputs_and_outputs(network, graph):
    described = onnx.load_from_string(graph).graph
    image = network.model.classifier.normalise(torch.zeros(1, 16, 24, 3, dtype=torch.uint8))
    _, _, h, w = network.model.explanation(image, torch.zeros(1, 1, dtype=torch.int64))[1].shape
    assert [tensor(value) for value in described.input] == [
        ("image", "UINT8", ["B", 16, 24, 3]),
        ("targets", "INT64", ["B", "K"]),
    ]
    assert [tensor(value) for value in described.output] == [
        ("logits", "FLOAT", ["B", 4]),
        ("maps", "FLOAT", ["B", "K", h, w]),
    ]


@pytest.mark.parametrize(("batch", "number"), [(1, 0), (1, 1), (3, 0), (3, 5), (12, 2)])
def test_any_batch_and_number_of_targets(network, graph, images, batch, number):
    targets = np.random.default_rng(0).integers(-1, 4, (batch, number))
    logits, maps = OnnxModel(graph)(images[:batch], targets)
    with torch.no_grad():
        expected = network.model(torch.from_numpy(images[:batch]), torch.from_numpy(targets))
    np.testing.assert_allclose(logits, expected[0], atol=1e-5 * np.ptp(logits), rtol=0)
    np.testing.assert_allclose(maps, expected[1], atol=1e-5 * np.ptp(maps) if number else 0, rtol=0)
    assert maps.shape[:2] == (batch, number)


def test_it_holds_no_path_and_no_more_than_the_weights(network, graph):
    for trace in (b"/konkyo/", b"/src", b".py", b"stack_trace"):
        assert trace not in graph
    weights = 4 * sum(parameter.numel() for parameter in network.model.parameters())
    assert len(graph) < weights + 16_000


def test_batch_norm_is_folded(graph):
    operators = Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)
    assert operators["BatchNormalization"] == 0
    assert operators["Conv"] >= 3


def test_the_same_network_gives_the_same_bytes(network, graph):
    assert export_onnx(network.model, width=24, height=16) == graph


def test_training_mode_is_refused(make):
    model = make("cnn").model.train()
    with pytest.raises(ValueError, match="training mode"):
        export_onnx(model, width=24, height=16)


def test_a_size_the_network_cannot_take_is_refused_in_its_own_words(make):
    with pytest.raises(ValueError, match="multiples of 4, not 18x24"):
        export_onnx(make("gcm").model, width=24, height=18)
