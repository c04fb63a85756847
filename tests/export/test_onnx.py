from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from konkyo.export.onnx import OnnxModel, export_onnx


def tensor(value):
    """Name, element type and axes of an input or output."""
    axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
    return value.name, onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type), axes


def run_torch(network, images, targets, attention=None):
    edit = () if attention is None else (torch.from_numpy(attention),)
    with torch.no_grad():
        return network.model(torch.from_numpy(images), torch.from_numpy(targets), *edit)


def test_inputs_and_outputs(network, graph):
    described = onnx.load_from_string(graph).graph
    image = network.model.classifier.normalise(torch.zeros(1, 16, 24, 3, dtype=torch.uint8))
    explanation = network.model.explanation
    _, _, h, w = explanation(image, torch.zeros(1, 1, dtype=torch.int64))[1].shape
    edit = [("attention", "FLOAT", ["edit_B", "edit_h", "edit_w"])]
    assert [tensor(value) for value in described.input] == [
        ("image", "UINT8", ["B", 16, 24, 3]),
        ("targets", "INT64", ["B", "K"]),
        *(edit if explanation.takes_attention else []),
    ]
    assert [tensor(value) for value in described.output] == [
        ("logits", "FLOAT", ["B", 4]),
        ("maps", "FLOAT", ["B", "K" if explanation.class_specific else explanation.scales, h, w]),
    ]


@pytest.mark.parametrize(("batch", "number"), [(1, 0), (1, 1), (3, 0), (3, 5), (12, 2)])
def test_any_batch_and_number_of_targets(network, graph, images, batch, number):
    targets = np.random.default_rng(0).integers(-1, 4, (batch, number))
    logits, maps = OnnxModel(graph)(images[:batch], targets)
    expected = run_torch(network, images[:batch], targets)
    np.testing.assert_allclose(logits, expected[0], atol=1e-5 * np.ptp(logits), rtol=0)
    np.testing.assert_allclose(maps, expected[1], atol=1e-5 * np.ptp(maps) if maps.size else 0, rtol=0)
    explanation = network.model.explanation
    assert maps.shape[:2] == (batch, number if explanation.class_specific else explanation.scales)


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (16, 24), (5, 7), (33, 2), (2, 61)])
@pytest.mark.parametrize("each", [True, False])
def test_an_edited_map_of_any_size_for_each_image_or_for_all(attentive, attentive_graph, images, size, each):
    batch = images[:3]
    edit = np.random.default_rng(1).uniform(-1, 1, (3 if each else 1, *size)).astype(np.float32)
    edit[0, 0, 0] = 0.7  # one cell at least is given
    targets = np.full((3, 1), -1)
    logits, maps = OnnxModel(attentive_graph)(batch, targets, edit)
    expected = run_torch(attentive, batch, targets, edit)
    np.testing.assert_allclose(logits, expected[0], atol=1e-5 * np.ptp(logits), rtol=0)
    np.testing.assert_allclose(maps, expected[1], atol=1e-5, rtol=0)
    own, _ = OnnxModel(attentive_graph)(batch, targets)
    assert np.abs(logits - own).max() > 1e-3 * np.ptp(own)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (3, 5, 9)])
def test_without_an_edit_every_value_is_the_networks_own(attentive_graph, images, shape):
    targets = np.full((3, 1), -1)
    left_out = OnnxModel(attentive_graph)(images[:3], targets)
    negative = OnnxModel(attentive_graph)(images[:3], targets, np.full(shape, -0.5, np.float32))
    assert all(np.array_equal(*pair) for pair in zip(left_out, negative, strict=True))


def test_a_runtime_that_knows_nothing_of_edits_leaves_them_out(attentive_graph, images):
    session = onnxruntime.InferenceSession(attentive_graph, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image", "targets"]
    assert [value.name for value in session.get_overridable_initializers()] == ["attention"]
    (logits,) = session.run(["logits"], {"image": images, "targets": np.empty((12, 0), np.int64)})
    np.testing.assert_array_equal(logits, OnnxModel(attentive_graph)(images, np.full((12, 1), -1))[0])


def test_a_map_given_whole_is_the_map(attentive_graph, images):
    edit = np.random.default_rng(2).uniform(0, 1, (1, 16, 24)).astype(np.float32)
    _, maps = OnnxModel(attentive_graph)(images[:2], np.full((2, 1), -1), edit)
    np.testing.assert_allclose(maps[:, 0], np.broadcast_to(edit, (2, 16, 24)), atol=1e-6)


def test_it_holds_no_path_and_no_more_than_the_weights(network, graph):
    for trace in (b"/konkyo/", b"/src", b".py", b"stack_trace"):
        assert trace not in graph
    weights = 4 * sum(parameter.numel() for parameter in network.model.parameters())
    nodes = len(onnx.load_from_string(graph).graph.node)
    assert len(graph) < weights + 250 * nodes


def test_batch_norm_is_folded(network, graph):
    operators = Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)
    explanation = network.model.explanation
    behind_no_convolution = explanation.scales if explanation.takes_attention else 0  # after a ReLU
    assert operators["BatchNormalization"] == behind_no_convolution
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
