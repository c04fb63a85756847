import copy

import numpy as np
import pytest
import torch

from konkyo.errors import BundleError, ParityError
from konkyo.export.onnx import export_onnx
from konkyo.export.parity import check_parity


def last_layer(model):
    network = model.classifier.network
    return network.fc if hasattr(network, "fc") else network.class_layer


def test_an_exported_network_passes_at_every_batch_size(network, graph, images):
    parity = check_parity(network.model, graph, images)
    assert [(item.batch_size, item.num_targets) for item in parity.comparisons] == [
        (batch, number) for batch in (1, 7, 12) for number in (0, 1, 3)
    ]
    assert 0 < parity.largest < 1e-5
    assert parity.largest == max(max(item.logits, item.maps) for item in parity.comparisons)


def test_one_image_is_enough_and_may_be_read_only(network, graph, images):
    images = images.copy()
    images.flags.writeable = False
    assert [item.batch_size for item in check_parity(network.model, graph, images[:1]).comparisons] == [
        1,
        1,
        1,
    ]


def test_other_weights_fail_with_figures(network, graph, images):
    other = copy.deepcopy(network.model)
    with torch.no_grad():
        last_layer(other).weight.mul_(1.01)
    with pytest.raises(
        ParityError, match=r"more than 0\.0001 of the range: batch 1, 0 targets: logits "
    ) as caught:
        check_parity(other, graph, images)
    assert isinstance(caught.value, BundleError)
    largest = max(item["logits"] for item in caught.value.detail["comparisons"])
    assert 1e-4 < largest < 0.1


def test_a_shift_of_one_logit_is_measured_relative_to_the_range(make, images):
    model = make("cnn").model  # behind a linear head, a shift of the bias is one of the logit alone
    graph = export_onnx(model, width=24, height=16)
    with torch.no_grad():
        last_layer(model).bias[2] += 0.5
        logits = model.classifier(torch.from_numpy(images)).numpy()
    with pytest.raises(ParityError) as caught:
        check_parity(model, graph, images)
    figures = caught.value.detail["comparisons"]
    assert figures[-1]["logits"] == pytest.approx(0.5 / np.ptp(logits).item(), rel=1e-4)
    assert figures[-1]["maps"] < 1e-5


def test_what_is_not_a_number_fails(network, graph, images):
    other = copy.deepcopy(network.model)
    with torch.no_grad():
        last_layer(other).bias[0] = torch.nan
    with pytest.raises(ParityError, match="logits nan"):
        check_parity(other, graph, images)


def test_the_tolerance_is_the_callers(network, graph, images):
    with pytest.raises(ParityError, match="more than 1e-12"):
        check_parity(network.model, graph, images, tolerance=1e-12)
