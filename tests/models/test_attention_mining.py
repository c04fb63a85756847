import math

import pytest
import torch
import torch.nn.functional as F
from by_hand import basic_layer
from hypothesis import given, settings
from hypothesis import strategies as st

from konkyo.models.abn import ABN
from konkyo.models.attention_mining import AttentionMiningNetwork

BY_DEFAULT = AttentionMiningNetwork(2)


@pytest.fixture
def image():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network(settled, image):
    torch.manual_seed(0)
    return settled(AttentionMiningNetwork(5, mask_threshold=0.5), image)


def plain(network):
    """An ABN of the same weights."""
    abn = ABN(5, mechanism=network.mechanism)
    abn.load_state_dict({key: item for key, item in network.state_dict().items() if "prototypes" not in key})
    return abn.train(network.training)


# The mask


def test_the_mask_is_hard_and_excludes_the_threshold():
    network = AttentionMiningNetwork(2, mask_threshold=0.75)
    just_above = torch.nextafter(torch.tensor(0.75), torch.tensor(1.0)).item()
    mask = network.mask(torch.tensor([[[0.0, 0.5, 0.75], [just_above, 0.9, 1.0]]]))
    assert mask.tolist() == [[[0, 0, 0], [1, 1, 1]]]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40))
def test_the_mask_is_exactly_zeros_and_ones(values):
    maps = torch.tensor([[values]], requires_grad=True)
    assert torch.equal(BY_DEFAULT.mask(maps), (maps > 0.4).float())


def test_the_gradient_is_that_of_the_sigmoid():
    network = AttentionMiningNetwork(2, mask_threshold=0.5, mask_sharpness=10)
    maps = torch.tensor([[[0.5, 0.6, 0.3]]], requires_grad=True)
    network.mask(maps).sum().backward()
    # 10 s (1 - s) at s = sigmoid(10 (M - 0.5)): sigmoid(0), sigmoid(1), sigmoid(-2)
    s = [0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))]
    expected = [10 * value * (1 - value) for value in s]
    assert expected[0] == 2.5
    torch.testing.assert_close(maps.grad, torch.tensor([[expected]]))


def test_hidden_features_are_zero_where_the_map_is_high_and_as_they_were_elsewhere():
    network = AttentionMiningNetwork(2, mask_threshold=0.4)
    features = torch.randn(2, 3, 8, 9)
    maps = torch.rand(2, 8, 9)
    hidden = network.hide(features, maps)
    expected = torch.where((maps > 0.4)[:, None], 0, features)
    assert torch.equal(hidden, expected)
    assert 0 < (hidden == 0).float().mean() < 1


def test_hiding_more_where_the_features_speak_for_the_class():
    """The map feels the hidden branch through the sigmoid: d F* / d M = -10 s (1 - s) F."""
    network = AttentionMiningNetwork(2, mask_threshold=0.5)
    maps = torch.tensor([[[0.5, 0.5]]], requires_grad=True)
    network.hide(torch.tensor([[[[3.0, -1.0]]]]), maps).sum().backward()
    torch.testing.assert_close(maps.grad, torch.tensor([[[-7.5, 2.5]]]))


# The branch


def test_an_independent_computation_gives_the_same_hidden_logits(network, image):
    state = network.state_dict()
    with torch.no_grad():
        g = network.extract(image)
        outputs = network.outputs(image)
        (m,) = outputs.maps
        hidden = torch.where((m > 0.5)[:, None], 0, g)
        last = basic_layer(hidden, state, "backbone.parts.5", blocks=3, stride=2)
        expected = F.linear(
            last.mean(dim=(2, 3)), state["backbone.parts.7.weight"], state["backbone.parts.7.bias"]
        )
    assert 0.05 < (m > 0.5).float().mean() < 0.95
    torch.testing.assert_close(outputs.hidden_logits, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(outputs.hidden_logits, outputs.logits)


def test_the_hidden_branch_has_no_weights_of_its_own(network, image):
    assert {key for key in network.state_dict() if "prototypes" not in key} == set(ABN(5).state_dict())
    with torch.no_grad():
        outputs = network.outputs(image)
        (attention_map,) = outputs.maps
        _, expected = network.perceive(network.hide(network.extract(image), attention_map))
        assert torch.equal(outputs.hidden_logits, expected)
        network.backbone.fc.bias += 3
        after = network.outputs(image)
    torch.testing.assert_close(after.logits, outputs.logits + 3)
    torch.testing.assert_close(after.hidden_logits, outputs.hidden_logits + 3)


def test_the_hidden_branch_teaches_the_map(network, image):
    parameters = list(network.attention_branch.map.parameters())
    hidden = network.outputs(image).hidden_logits
    grads = torch.autograd.grad(hidden.softmax(dim=1)[:, 0].sum(), parameters)
    assert all(grad.abs().max() > 0 for grad in grads)


@pytest.mark.parametrize("mechanism", ["plain", "residual"])
def test_otherwise_it_is_an_abn(settled, image, mechanism):
    torch.manual_seed(0)
    network = settled(AttentionMiningNetwork(5, mechanism=mechanism), image)
    abn = plain(network)
    edit = torch.tensor([[[0.0, -1.0], [-1.0, 1.0]]])
    with torch.no_grad():
        torch.testing.assert_close(network.attend(image, edit), abn.attend(image, edit), rtol=0, atol=0)
        torch.testing.assert_close(network(image), abn(image), rtol=0, atol=0)
        found, expected = network.outputs(image), abn.outputs(image)
    torch.testing.assert_close(found[:4], expected[:4], rtol=0, atol=0)
    assert AttentionMiningNetwork(5).mechanism == "plain"


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_hidden_pass_does_not_count_in_the_running_statistics(network, image, momentum):
    network.train()
    abn = plain(network)
    before = {key: item.clone() for key, item in abn.state_dict().items()}
    for each in (network, abn):
        for layer in each.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = momentum
    for _ in range(2):
        found, expected = network.outputs(image), abn.outputs(image)
        torch.testing.assert_close(found[:4], expected[:4], rtol=0, atol=0)
    state, expected_state = network.state_dict(), abn.state_dict()
    torch.testing.assert_close(
        {key: state[key] for key in expected_state}, dict(expected_state), rtol=0, atol=0
    )
    shared = "backbone.parts.5.0.bn1"
    assert state[f"{shared}.num_batches_tracked"] == before[f"{shared}.num_batches_tracked"] + 2
    assert not torch.equal(state[f"{shared}.running_mean"], before[f"{shared}.running_mean"])
    assert all(
        layer.track_running_stats for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)
    )


def test_in_training_hidden_features_are_normalised_by_their_own_statistics(network, image):
    network.train()
    with torch.no_grad():
        found = network.outputs(image).hidden_logits
        features = network.extract(image)
        attention_map, _, _ = network.attention_branch(features)
        _, expected = network.perceive(network.hide(features, attention_map))
    torch.testing.assert_close(found, expected)


def test_one_centre_a_class_for_both_kinds_of_features(image):
    network = AttentionMiningNetwork(7, backbone="tf_efficientnet_lite0", branch_end="blocks.5").eval()
    assert [tuple(centres.shape) for centres in network.prototypes] == [(7, 1280), (7, 192)]
    with torch.no_grad():
        vectors = network.outputs(image).vectors
    assert [item.shape[1] for item in vectors] == [1280, 192]
    assert all(0.08 < centres.std() < 0.12 for centres in network.prototypes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask_threshold": 0.0}, "the mask threshold lies between 0 and 1, not at 0.0"),
        ({"mask_threshold": 1.0}, "the mask threshold lies between 0 and 1, not at 1.0"),
        ({"mask_threshold": math.nan}, "the mask threshold lies between 0 and 1, not at nan"),
        ({"mask_sharpness": 0.0}, "the mask sharpness is above 0, not 0.0"),
        ({"mask_sharpness": -1.0}, "the mask sharpness is above 0, not -1.0"),
        ({"mechanism": "none"}, "the mechanism is residual or plain, not 'none'"),
        ({"split": "layer3"}, "layer3 is the last stage of cifar_resnet20"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttentionMiningNetwork(3, **arguments)
