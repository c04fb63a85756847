"""The contract every registered network and explanation keeps; a new one is tested by existing."""

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn

from konkyo.models import registry
from konkyo.models.attention import AttentionNetwork
from konkyo.models.card import MapKind
from konkyo.models.classifier import Classifier
from konkyo.models.explain import methods, register, resolve_targets, select_maps
from konkyo.models.explained import Explained

CLASSES = 5
SMALL = {
    "abn": {"backbone": "cifar_resnet8"},
    "amb": {"backbone": "cifar_resnet8"},
    "backbone": {"name": "cifar_resnet8"},
    "dino-vit": {
        "name": "vit_tiny_patch16_224",
        "image_size": [32, 64],
        "model_args": {"depth": 3},
        "blocks": 2,
    },
    "multiscale-abn": {"backbone": "cifar_resnet8", "width": 16},
    "resnet-v1": {"name": "resnet14t"},
}
"""Arguments of networks that are large or deep unless told otherwise."""
EARLIER = {
    "abn": "layer2", "amb": "layer2", "backbone": "layer2", "cnn": "features.20", "resnet-v1": "layer3",
    "timm": "layer3",
}  # fmt: skip
"""A layer with a ReLU behind it, for the methods that ask for one."""
TARGETS = torch.tensor([[-1, 0, 3], [2, -1, 1], [4, 4, 0], [1, 2, -1]])


@pytest.fixture(params=registry.names())
def name(request):
    return request.param


@pytest.fixture
def network(name):
    torch.manual_seed(0)
    return build(name)


def build(name):
    return registry.build(name, CLASSES, **SMALL.get(name, {}))


@pytest.fixture
def explained(network, settled):
    explained = Explained(Classifier(network), network.explanation)
    settled(explained.classifier, photographs(network, 16))
    return explained.eval()


@pytest.fixture
def images(network):
    return photographs(network)


def photographs(network, number=4):
    side = 4 * network.stride if network.stride > 1 else 32
    return torch.randint(
        0, 256, (number, side, 2 * side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def same(found, expected):
    """Equal but for rounding, which goes with the largest value and not with each.

    Kernels round differently for one image and for several, and a deep network of random weights adds to it.
    """
    return bool((found - expected).abs().max() <= 1e-4 * expected.abs().max())


def run(explained, images, targets):
    with torch.no_grad():
        return explained(images, targets)


def test_networks_state_what_the_registry_promises(network):
    assert network.num_classes == CLASSES
    assert isinstance(network.stride, int)
    assert network.stride >= 1
    assert isinstance(network.centred, bool)
    assert network.explanation in methods()


def test_outputs(explained, images):
    logits, maps = run(explained, images, TARGETS)
    assert logits.dtype == maps.dtype == torch.float32
    assert logits.shape == (4, CLASSES)
    of_each = explained.explanation.class_specific
    assert maps.shape[:2] == (4, 3 if of_each else explained.explanation.scales)
    assert logits.isfinite().all()
    assert maps.isfinite().all()
    assert (maps.amax(dim=(2, 3)) > maps.amin(dim=(2, 3))).all()


def test_logits_are_those_of_the_classifier(explained, images):
    logits, _ = run(explained, images, TARGETS)
    with torch.no_grad():
        assert same(logits, explained.classifier(images))


def test_a_batch_gives_what_single_images_give(explained, images):
    logits, maps = run(explained, images, TARGETS)
    for item in range(4):
        one = slice(item, item + 1)
        single_logits, single_maps = run(explained, images[one], TARGETS[one])
        assert same(single_logits, logits[one])
        assert same(single_maps, maps[one])


def test_other_items_do_not_matter(explained, images):
    before = run(explained, images, TARGETS)
    images = images.clone()
    images[1:] = 255 - images[1:]
    targets = TARGETS.clone()
    targets[1:] = 0
    after = run(explained, images, targets)
    for value, other in zip(before, after, strict=True):
        assert same(value[0], other[0])
        assert not same(value[1:], other[1:])


def test_several_targets_give_what_each_gives_alone(explained, images):
    _, maps = run(explained, images, TARGETS)
    for k in range(3):
        _, alone = run(explained, images, TARGETS[:, k : k + 1])
        assert same(alone, maps[:, k : k + 1] if explained.explanation.class_specific else maps)


def test_classes_have_different_maps(explained, images):
    if not explained.explanation.class_specific:
        pytest.skip("one map for all classes")
    _, maps = run(explained, images, torch.arange(CLASSES).repeat(4, 1))
    for first in range(CLASSES):
        for second in range(first):
            assert not same(maps[:, first], maps[:, second])


def test_no_target_gives_no_map_and_the_same_logits(explained, images):
    logits, _ = run(explained, images, TARGETS)
    alone, maps = run(explained, images, TARGETS[:, :0])
    assert same(alone, logits)
    assert maps.shape[:2] == (4, 0 if explained.explanation.class_specific else explained.explanation.scales)


def test_minus_one_is_the_predicted_class(explained, images):
    logits, maps = run(explained, images, torch.full((4, 1), -1))
    _, explicit = run(explained, images, logits.argmax(dim=1, keepdim=True))
    torch.testing.assert_close(maps, explicit, rtol=0, atol=0)


def objective(classifier, images, labels):
    """A loss of everything the network is trained on."""
    if not isinstance(classifier.network, AttentionNetwork):
        return F.cross_entropy(classifier(images), labels)
    outputs = classifier(images, outputs=True)
    logits = [outputs.logits, *outputs.auxiliary]
    if outputs.hidden_logits is not None:
        logits.append(outputs.hidden_logits)
    centres = getattr(classifier.network, "prototypes", [])
    distances = [F.mse_loss(v, c[labels]) for v, c in zip(outputs.vectors, centres, strict=False)]
    return sum([F.cross_entropy(each, labels) for each in logits] + distances)


def test_gradients_reach_every_parameter(explained, images):
    explained.train()
    objective(explained.classifier, images, torch.tensor([0, 1, 2, 3])).backward()
    without = [key for key, p in explained.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_the_state_dict_is_the_whole_network(explained, images, name):
    torch.manual_seed(9)
    network = build(name)
    other = Explained(Classifier(network, (9.0,) * 3, (9.0,) * 3), network.explanation).eval()
    assert not same(run(other, images, TARGETS)[0], run(explained, images, TARGETS)[0])
    other.classifier.load_state_dict(explained.classifier.state_dict())
    torch.testing.assert_close(run(other, images, TARGETS), run(explained, images, TARGETS), rtol=0, atol=0)


def test_the_state_dict_can_be_written_as_safetensors(name):
    """That is refused where two entries are one tensor in memory."""
    state = build(name).state_dict()
    torch.testing.assert_close(load(save(state)), dict(state), rtol=0, atol=0)


def test_an_edit_is_an_input_only_where_the_method_takes_one(explained, images):
    own = torch.full((4, 1, 1), -1.0)
    if not explained.explanation.takes_attention:
        with pytest.raises(TypeError, match=f"'{explained.explanation.name}' cannot be edited"):
            explained(images, TARGETS, own)
        return
    with torch.no_grad():
        unedited = explained(images, TARGETS, own)
        logits, maps = explained(images, TARGETS, torch.full((4, 1, 1), 0.5))
    torch.testing.assert_close(unedited, run(explained, images, TARGETS), rtol=0, atol=0)
    assert (maps == 0.5).all()
    assert not same(logits, unedited[0])


# Every method that explains a network

PAIR = torch.tensor([[-1, 3], [2, -1]])
BY_GRADIENT = {"class_activation_map", "input_gradient", "neuron_importance"}


@dataclass
class Case:
    """A network with all its explanations, by name of the method, and what they give for two images."""

    classifier: Classifier
    images: torch.Tensor
    explained: dict[str, Explained]
    results: dict[str, tuple[torch.Tensor, torch.Tensor]]

    def each(self):
        """Name, explanation, logits and maps."""
        for method, explained in self.explained.items():
            yield method, explained, *self.results[method]


@pytest.fixture(scope="module", params=registry.names())
def case(request, settled):
    return make_case(request.param, settled)


def make_case(name, settled):
    torch.manual_seed(0)
    classifier = Classifier(build(name), (0.5,) * 3, (0.25,) * 3)
    settled(classifier, photographs(classifier.network, 16))  # statistics of few images would be no network's
    images = photographs(classifier.network, 2)
    explained = {}
    for method in methods():
        for layer in (None, EARLIER.get(name)):
            with suppress(TypeError, ValueError):
                explained[method] = Explained(classifier, method, layer).eval()
                break
    results = {method: run(each, images, PAIR) for method, each in explained.items()}
    return Case(classifier, images, explained, results)


@contextmanager
def in_type(classifier, dtype):
    """With parameters and buffers of another type, and back."""
    state = {key: value.clone() for key, value in classifier.state_dict().items()}
    classifier.to(dtype)
    try:
        yield
    finally:
        classifier.float().load_state_dict(state)


def equal(found, expected):
    return all(torch.equal(value, other) for value, other in zip(found, expected, strict=True))


def test_methods_explain_the_networks_they_are_for(case):
    expected = {"counterfactual", "gradcam", "gradcam-absolute", "gradcam-max", "gradcam-plus-plus",
                "hirescam", "layercam", "text", case.classifier.network.explanation}  # fmt: skip
    of_relus = {"deconv-gradcam", "deconvnet", "gradcam-deconv", "gradcam-guided", "guided-backprop",
                "guided-gradcam"}  # fmt: skip
    if any(isinstance(module, nn.ReLU) for module in case.classifier.modules()):
        expected |= of_relus
    assert case.explained.keys() - {"cam"} == expected - {"cam"}


def test_every_method_gives_maps_and_the_logits_of_the_classifier(case):
    with torch.no_grad():
        expected = case.classifier(case.images)
    for method, explained, logits, maps in case.each():
        explanation = explained.explanation
        assert torch.equal(logits, expected), method
        assert maps.dtype == torch.float32, method
        assert maps.isfinite().all(), method
        assert maps.shape[:2] == (2, 2 if explanation.class_specific else explanation.scales), method
        if explanation.map_kind == "input_gradient":
            assert maps.shape[2:] == case.images.shape[1:3], method
        assert maps.abs().amax() > 0, method


def test_every_method_takes_a_batch_as_its_images_one_by_one(case):
    for method, explained, logits, maps in case.each():
        alone = run(explained, case.images[1:], PAIR[1:])
        assert same(alone[0], logits[1:]), method
        assert same(alone[1], maps[1:]), method


def test_every_method_takes_targets_at_once_as_one_by_one(case):
    image, targets = case.images[:1], PAIR[:1]
    with in_type(case.classifier, torch.float64):
        for method, explained in case.explained.items():
            logits, maps = run(explained, image, targets)
            predicted = torch.where(targets < 0, logits.argmax(dim=1, keepdim=True), targets)
            for k in range(2):
                _, alone = run(explained, image, predicted[:, k : k + 1])
                expected = maps[:, k : k + 1] if explained.explanation.class_specific else maps
                assert (alone - expected).abs().max() <= 1e-12 * expected.abs().max(), method


def test_every_method_takes_no_target(case):
    for method, explained, logits, _ in case.each():
        alone, maps = run(explained, case.images, PAIR[:, :0])
        explanation = explained.explanation
        assert torch.equal(alone, logits), method
        assert maps.shape[:2] == (2, 0 if explanation.class_specific else explanation.scales), method


def facts(module):
    """All that a call might leave behind on a module and its parameters."""
    hooks = [value for part in module.modules() for key, value in vars(part).items() if "hook" in key]
    return (
        [len(value) for value in hooks if isinstance(value, dict)],
        [part.training for part in module.modules()],
        [(p.requires_grad, p.grad) for p in module.parameters()],
        {name: sorted(vars(part)) for name, part in module.named_modules()},
    )


def test_no_method_leaves_anything_behind(case):
    state = {key: value.clone() for key, value in case.classifier.state_dict().items()}
    images, targets = case.images.clone(), PAIR.clone()
    for method, explained, *expected in case.each():
        before = facts(explained)
        assert sum(before[0]) == 0
        assert equal(explained(images, targets), expected), method  # as it was the first time
        assert facts(explained) == before, method
    assert torch.equal(images, case.images)
    assert torch.equal(targets, PAIR)
    torch.testing.assert_close(dict(case.classifier.state_dict()), state, rtol=0, atol=0)


def test_no_method_needs_a_mode(case):
    """With autograd, in inference mode and with frozen parameters it gives what it gives without autograd."""
    for method, explained, *expected in case.each():
        with torch.inference_mode():
            assert equal(explained(case.images.clone(), PAIR.clone()), expected), method
        case.classifier.requires_grad_(False)
        frozen = explained(case.images, PAIR)
        case.classifier.requires_grad_(True)
        assert equal(frozen, expected), method
        with torch.enable_grad():
            assert equal(explained(case.images, PAIR), expected), method


@pytest.mark.parametrize("way", ["autocast", "bfloat16", "float16"])
def test_methods_work_in_half_precision(case, way):
    # What is predicted may be another class in another precision.
    image, chosen = case.images[:1], PAIR[1:].clamp(min=0)
    for method, explained in case.explained.items():
        _, expected = run(explained, image, chosen)
        if way == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                logits, maps = run(explained, image, chosen)
        else:
            with in_type(case.classifier, getattr(torch, way)):
                logits, maps = run(explained, image, chosen)
        assert logits.dtype == maps.dtype == torch.float32, method
        similarity = torch.cosine_similarity(maps.flatten(), expected.flatten(), dim=0)
        assert similarity > (0.95 if way == "float16" else 0.9), (method, similarity)


def test_autocast_remembers_nothing_that_a_gradient_cannot_use(case):
    """What it keeps of parameters that were used in inference mode could not enter autograd."""
    for method, explained in case.explained.items():
        with torch.autocast("cpu", torch.bfloat16):
            expected = run(explained, case.images, PAIR)
        with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
            case.classifier(case.images)
            assert equal(explained(case.images, PAIR), expected), method


@pytest.mark.parametrize("name", ["abn", "dino-vit", "timm"])
def test_concurrent_requests_get_what_they_asked_for(name, settled):
    """64 of them on one network, each with its own method, image and target."""
    case = make_case(name, settled)
    kinds = itertools.product(case.explained, range(2), range(CLASSES))
    requests = random.Random(0).sample(list(kinds), 64)

    def answer(request):
        method, image, target = request
        return run(case.explained[method], case.images[image : image + 1], torch.tensor([[target]]))

    expected = list(map(answer, requests))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(answer, requests))
    for request, values, others in zip(requests, found, expected, strict=True):
        for value, other in zip(values, others, strict=True):
            assert same(value, other), request
    # Were one swapped for another, it would show: logits tell images apart, and maps classes.
    for (first, mine), (second, other) in itertools.combinations(zip(requests, expected, strict=True), 2):
        if first[1] != second[1]:
            assert not same(mine[0], other[0])
        elif first[0] == second[0] != "attention" and mine[1].any():
            assert not same(mine[1], other[1]), (first, second)


@pytest.mark.parametrize("method", methods())
def test_methods_state_what_they_are(method):
    found = methods()[method]
    assert found.name == method
    assert found.map_kind in get_args(MapKind)
    assert isinstance(found.class_specific, bool)
    assert isinstance(found.takes_attention, bool)
    assert isinstance(found.takes_layer, bool)


@pytest.mark.parametrize("method", methods())
def test_methods_refuse_a_network_they_do_not_explain(method):
    with pytest.raises(TypeError, match="Linear"):
        Explained(Classifier(nn.Linear(3, 2)), method)


def test_an_unknown_method_is_refused_with_those_that_exist():
    with pytest.raises(KeyError, match=r"'nope'; there are: attention, cam, "):
        Explained(Classifier(registry.build("cnn", 2)), "nope")


def test_a_method_is_registered_once():
    with pytest.raises(ValueError, match="'cam' is registered twice"):
        register(methods()["cam"])


def test_resolve_targets_by_hand():
    logits = torch.tensor([[0.1, 0.9, 0.3], [5.0, -1.0, 2.0]])
    resolved = resolve_targets(logits, torch.tensor([[-1, 2, 0], [1, -1, -1]]))
    assert resolved.tolist() == [[1, 2, 0], [1, 0, 0]]
    assert resolve_targets(logits, torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0)


def test_select_maps_by_hand():
    maps = torch.arange(2 * 3 * 1 * 2).view(2, 3, 1, 2)  # item b, class c: [6 b + 2 c, 6 b + 2 c + 1]
    assert select_maps(maps, torch.tensor([[2, 0], [1, 1]])).tolist() == [
        [[[4, 5]], [[0, 1]]],
        [[[8, 9]], [[8, 9]]],
    ]
    assert select_maps(maps, torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0, 1, 2)
