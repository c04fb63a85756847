import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from konkyo.evaluation.accuracy import measure_accuracy
from konkyo.export.onnx import OnnxModel


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A classifier whose logits are the red, green and blue of its only pixel."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["float", "axes"], ["logits"], keepdims=0),
        helper.make_node("Identity", ["float"], ["maps"]),
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", 1, 1, 3]),
        helper.make_tensor_value_info("targets", TensorProto.INT64, ["B", "K"]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 3]),
        helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["B", 1, 1, 3]),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    body = helper.make_graph(nodes, "colour", inputs, outputs, [axes])
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return OnnxModel(path)


IMAGES = np.array([[9, 1, 2], [0, 7, 3], [5, 6, 8], [2, 1, 0], [0, 3, 1]], dtype=np.uint8)[:, None, None]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_accuracy_by_hand(graph, batch_size):
    labels = np.array([0, 1, 2, 1, 1])  # the classes are 0, 1, 2, 0, 1
    found = measure_accuracy(graph, IMAGES, labels, batch_size=batch_size)
    assert (found.share, found.images) == (0.8, 5)
    assert found.balanced == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert found.kappa is None


def test_of_grades_the_kappa_by_hand(graph):
    # One error by one grade in five; by chance the mean squared error would be 1.
    found = measure_accuracy(graph, IMAGES, np.array([0, 1, 2, 1, 1]), ordered=True)
    assert found.kappa == pytest.approx(0.8)


def test_every_answer_right_and_every_answer_wrong(graph):
    assert measure_accuracy(graph, IMAGES, np.array([0, 1, 2, 0, 1])).share == 1
    assert measure_accuracy(graph, IMAGES, np.array([1, 2, 0, 1, 2])).share == 0


@pytest.mark.parametrize(("images", "labels"), [(0, 0), (5, 4)])
def test_images_without_labels_are_refused(graph, images, labels):
    with pytest.raises(ValueError, match=f"{images} images, {labels} labels"):
        measure_accuracy(graph, IMAGES[:images], np.zeros(labels, dtype=np.int64))
