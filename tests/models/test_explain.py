"""The contract every registered network and explanation keeps; a new one is tested by existing."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn

from konkyo.models import registry
from konkyo.models.attention import AttentionNetwork
from konkyo.models.classifier import Classifier
from konkyo.models.explain import methods, register, resolve_targets, select_maps
from konkyo.models.explained import Explained

CLASSES = 5
TARGETS = torch.tensor([[-1, 0, 3], [2, -1, 1], [4, 4, 0], [1, 2, -1]])


@pytest.fixture(params=registry.names())
def name(request):
    return request.param


@pytest.fixture
def network(name):
    torch.manual_seed(0)
    return registry.build(name, CLASSES)


@pytest.fixture
def explained(network, images, settled):
    explained = Explained(Classifier(network), network.explanation)
    settled(explained.classifier, images)
    return explained.eval()


@pytest.fixture
def images(network):
    side = 4 * network.stride if network.stride > 1 else 64
    return torch.randint(
        0, 256, (4, side, 2 * side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def same(found, expected):
    """Equal but for rounding, which goes with the range of the values and not with each value."""
    return bool((found - expected).abs().max() < 1e-5 * (expected.max() - expected.min()))


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
    network = registry.build(name, CLASSES)
    other = Explained(Classifier(network, (9.0,) * 3, (9.0,) * 3), network.explanation).eval()
    assert not same(run(other, images, TARGETS)[0], run(explained, images, TARGETS)[0])
    other.classifier.load_state_dict(explained.classifier.state_dict())
    torch.testing.assert_close(run(other, images, TARGETS), run(explained, images, TARGETS), rtol=0, atol=0)


def test_the_state_dict_can_be_written_as_safetensors(name):
    """That is refused where two entries are one tensor in memory."""
    state = registry.build(name, CLASSES).state_dict()
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


@pytest.mark.parametrize("method", methods())
def test_methods_state_what_they_are(method):
    found = methods()[method]
    assert found.name == method
    assert found.map_kind in ("class_weight_map", "class_activation_map", "attention_map")
    assert isinstance(found.class_specific, bool)
    assert isinstance(found.takes_attention, bool)


@pytest.mark.parametrize("method", methods())
def test_methods_refuse_a_network_they_do_not_explain(method):
    with pytest.raises(TypeError, match="Linear"):
        Explained(Classifier(nn.Linear(3, 2)), method)


def test_an_unknown_method_is_refused_with_those_that_exist():
    with pytest.raises(KeyError, match=r"'nope'; there are: attention, cam, gcm"):
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
