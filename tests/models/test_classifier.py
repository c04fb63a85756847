import torch
from torch import nn

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
