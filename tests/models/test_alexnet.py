import torch
import torch.nn.functional as F

from konkyo.models.alexnet import AlexNet


def test_parameters_by_hand():
    convolutions = [(11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256)]
    layers = sum(kernel**2 * c_in * c_out + 2 * c_out for kernel, c_in, c_out in convolutions)
    assert layers + 256 * 10 + 10 == 2_473_418
    assert sum(parameter.numel() for parameter in AlexNet(10).parameters()) == 2_473_418


def test_an_independent_computation_gives_the_same_logits(settled):
    torch.manual_seed(0)
    image = torch.randn(2, 3, 64, 100)
    network = settled(AlexNet(5), image)
    blocks = [
        network.block1[:3],
        network.block1[4:],
        network.block2[1:],
        network.block3[1:4],
        network.block3[4:],
    ]
    x = image
    for layer, (conv, norm, _) in enumerate(blocks):
        if layer in (1, 2, 3):
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        stride, padding = (4, 5) if layer == 0 else (1, 2 if layer == 1 else 1)
        x = F.conv2d(x, conv.weight, stride=stride, padding=padding)
        x = F.relu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias))
    assert x.shape == (2, 256, 2, 4)
    with torch.no_grad():
        expected = F.linear(x.mean(dim=(2, 3)), network.fc.weight, network.fc.bias)
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


def test_grids_are_those_it_states():
    network, features = AlexNet(2).eval(), torch.zeros(1, 3, 224, 224)
    for info, side in zip(network.feature_info, (28, 14, 7), strict=True):
        features = getattr(network, info["module"])(features)
        assert features.shape == (1, info["num_chs"], side, side)
        assert 224 // info["reduction"] == side
