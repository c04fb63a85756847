import copy

import numpy as np
import pytest
import torch

from konkyo.errors import BundleError, ParityError
from konkyo.export.onnx import export_onnx
from konkyo.export.parity import check_parity


def last_layer(model):
    network = model.classifier.network
    if hasattr(network, "decide"):
        return network.decide[0]
    return network.fc if hasattr(network, "fc") else network.class_layer


def test_an_exported_network_passes_at_every_batch_size(network, graph, images):
    parity = check_parity(network.model, graph, images)
    plain = [(batch, number, None) for batch in (1, 7, 12) for number in (0, 1, 3)]
    edited = [(batch, 1, (batch, *size)) for size in ((3, 5), (47, 34)) for batch in (1, 7, 12)]
    edited += [(batch, 1, (1, 3, 5)) for batch in (1, 7, 12)]
    assert [(item.batch_size, item.num_targets, item.edit) for item in parity.comparisons] == (
        plain + edited if network.model.explanation.takes_attention else plain
    )
    assert 0 < parity.largest < 1e-5
    assert parity.largest == max(max(item.logits, item.maps) for item in parity.comparisons)


def test_one_image_is_enough_and_may_be_read_only(network, graph, images):
    images = images.copy()
    images.flags.writeable = False
    parity = check_parity(network.model, graph, images[:1])
    assert {item.batch_size for item in parity.comparisons} == {1}
    assert len(parity.comparisons) == (6 if network.model.explanation.takes_attention else 3)


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


def test_a_graph_that_edits_otherwise_fails(attentive, attentive_graph, images, monkeypatch):
    monkeypatch.setattr("konkyo.models.multiscale_abn.edited", lambda own, edit: own)
    with pytest.raises(ParityError, match=r"batch 7, edit 7x3x5, 1 targets") as caught:
        check_parity(attentive.model, attentive_graph, images)
    wrong = {item["edit"] is not None for item in caught.value.detail["comparisons"] if item["maps"] > 1e-4}
    assert wrong == {True}
