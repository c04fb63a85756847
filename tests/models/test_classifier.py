import pytest
import torch
from torch import nn

from konkyo.models.abn import ABN
from konkyo.models.classifier import Classifier

PIXELS = torch.tensor([[[[0, 51, 255], [255, 102, 0]]]], dtype=torch.uint8)  # (1, 1, 2, 3)


def test_without_statistics_the_image_stays_between_0_and_1():
    expected = torch.tensor([[[[0.0, 1.0]], [[0.2, 0.4]], [[1.0, 0.0]]]])  # (1, 3, 1, 2)
    torch.testing.assert_close(Classifier(nn.Identity()).normalise(PIXELS), expected)


def test_normalisation_by_hand():
    classifier = Classifier(nn.Identity(), mean=(0.5, 0.2, 0.0), std=(0.5, 0.1, 2.0))
    expected = torch.tensor([[[[-1.0, 1.0]], [[0.0, 2.0]], [[0.5, 0.0]]]])
    torch.testing.assert_close(classifier(PIXELS), expected)


def test_the_statistics_travel_with_the_weights():
    state = Classifier(nn.Identity(), mean=(0.5, 0.2, 0.0), std=(0.5, 0.1, 2.0)).state_dict()
    other = Classifier(nn.Identity())
    other.load_state_dict(state)
    assert other.mean.flatten().tolist() == [0.5, torch.tensor(0.2).item(), 0.0]
    assert other.std.flatten().tolist() == [0.5, torch.tensor(0.1).item(), 2.0]


def test_everything_a_network_with_attention_trains_on_is_of_the_normalised_image():
    network = ABN(3).eval()
    image = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    with torch.no_grad():
        found = Classifier(network, mean=(0.5,) * 3, std=(0.25,) * 3)(image, outputs=True)
        expected = network.outputs((image.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.auxiliary, expected.auxiliary)
    torch.testing.assert_close(found.maps, expected.maps)


def test_a_network_without_attention_has_only_logits():
    with pytest.raises(TypeError, match="Identity has no attention"):
        Classifier(nn.Identity())(PIXELS, outputs=True)
