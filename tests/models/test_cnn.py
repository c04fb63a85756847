from itertools import pairwise

import pytest
import torch

from konkyo.models.cnn import CNN
from konkyo.models.explain.cam import CAM
from konkyo.models.gcm import GCM


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-14), (torch.float32, 1e-5, 1e-5)]
)
def test_the_mean_of_the_activation_map_plus_the_bias_is_the_logit(trained_like, dtype, rtol, atol):
    torch.manual_seed(0)
    network = trained_like(CNN(10)).to(dtype)
    every_class = torch.arange(10).repeat(2, 1)
    with torch.no_grad():
        logits, maps = CAM(network)(torch.randn(2, 3, 48, 64, dtype=dtype), every_class)
    assert maps.shape == (2, 10, 12, 16)
    assert maps.min() < 0 < maps.max()  # nothing is rectified
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + network.fc.bias, logits, rtol=rtol, atol=atol)


def test_an_activation_map_by_hand():
    network = CNN(2, in_chans=2, layers=[(2, 1)]).eval()
    conv, norm, _ = network.features
    with torch.no_grad():
        conv.weight.zero_()[[0, 1], [0, 1], 1, 1] = 1  # passes both channels on
        norm.running_var.fill_(1 - norm.eps)
        network.fc.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 2.0]]))
        network.fc.bias.copy_(torch.tensor([0.5, -0.5]))
        image = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
        logits, maps = CAM(network)(image, torch.tensor([[1, 0]]))
    torch.testing.assert_close(maps, torch.tensor([[[[6.0, 0.0]], [[-2.0, 2.0]]]]))
    torch.testing.assert_close(logits, torch.tensor([[0.5, 2.5]]))


def test_parameters_are_about_those_of_gcm():
    widths = [3, 16, 16, 16, 32, 32, 32, 64, 64, 64, 64]
    layers = sum(9 * c_in * c_out + 2 * c_out for c_in, c_out in pairwise(widths))
    assert count(CNN(10)) == layers + 64 * 10 + 10
    assert abs(count(CNN(10)) - count(GCM(10))) < 0.05 * count(GCM(10))


def test_features_end_at_a_quarter_of_the_input():
    network = CNN(10).eval()
    assert network.stride == 4
    assert network.forward_features(torch.rand(1, 3, 32, 32)).shape == (1, 64, 8, 8)


def test_fewer_than_two_classes_are_refused():
    with pytest.raises(ValueError, match="at least 2 classes, not 1"):
        CNN(1)
