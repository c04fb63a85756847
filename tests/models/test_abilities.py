import pytest
import torch

from konkyo import perturbation
from konkyo.models.abilities import BY_PREDICTIONS, find_methods
from konkyo.models.classifier import Classifier
from konkyo.models.explain import methods
from konkyo.models.explained import Explained
from konkyo.models.registry import build


def found(name, method, **arguments):
    return {
        item.method: item for item in find_methods(Explained(Classifier(build(name, 3, **arguments)), method))
    }


def test_the_own_method_is_first_and_in_the_graph():
    listed = list(found("gcm", "gcm").values())
    assert (listed[0].method, listed[0].map_kind, listed[0].needs) == ("gcm", "class_weight_map", "graph")


def test_methods_of_other_kinds_of_networks_are_not_listed():
    assert {"cam", "attention"} & found("gcm", "gcm").keys() == set()
    assert {"gcm", "attention"} & found("cnn", "cam").keys() == set()


def test_an_own_method_that_differentiates_needs_weights():
    listed = found("cnn", "layercam")
    assert listed["layercam"].needs == "weights"
    assert listed["cam"].needs == "weights"  # it is not the one that is exported


def test_every_network_can_be_asked_by_predictions():
    for name, method in (("gcm", "gcm"), ("abn", "attention")):
        last = list(found(name, method).values())[-2:]
        assert [(item.method, item.map_kind, item.class_specific, item.needs) for item in last] == [
            ("occlusion", "score_drop", True, "predictions"),
            ("rise", "saliency_map", True, "predictions"),
        ]


@pytest.mark.parametrize(("name", "method"), [("cnn", "cam"), ("gcm", "gcm"), ("abn", "attention")])
def test_what_is_listed_works_and_what_is_not_is_refused(name, method):
    torch.manual_seed(0)
    classifier = Classifier(build(name, 3)).eval()
    listed = {item.method for item in find_methods(Explained(classifier, method))}
    image, targets = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8), torch.tensor([[-1]])
    for other in methods():
        if other in listed:
            logits, _ = Explained(classifier, other).eval()(image, targets)
            assert logits.shape == (1, 3)
        else:
            with pytest.raises((TypeError, ValueError)):
                Explained(classifier, other)


def test_the_card_and_the_registry_name_the_same_methods_by_predictions():
    registered = perturbation.methods()
    assert {spec.method for spec in BY_PREDICTIONS} == registered.keys()
    for spec in BY_PREDICTIONS:
        method = registered[spec.method]
        assert (spec.map_kind, spec.class_specific) == (method.map_kind, method.class_specific)
