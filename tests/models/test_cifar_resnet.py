import pytest
import torch
import torch.nn.functional as F
from by_hand import basic_layer, conv, norm
from timm.models.resnet import BasicBlock, Bottleneck

from konkyo.models.cifar_resnet import DEPTHS, CIFARResNet


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def basic(c_in, width):
    """Parameters of a block of two 3x3 convolutions with batch norm, and of its projection."""
    project = c_in * width + 2 * width if c_in != width else 0
    return 9 * c_in * width + 9 * width * width + 4 * width + project


def bottleneck(c_in, width):
    out = 4 * width
    project = c_in * out + 2 * out if c_in != out else 0
    return c_in * width + 9 * width * width + width * out + 4 * width + 2 * out + project


def test_parameters_by_hand():
    stem = 9 * 3 * 16 + 2 * 16
    # Depth 20: 6 n + 2 with n = 3 blocks a layer.
    layers = [basic(16, 16) * 3, basic(16, 32) + 2 * basic(32, 32), basic(32, 64) + 2 * basic(64, 64)]
    assert [stem, *layers] == [464, 14_016, 51_648, 205_696]
    assert count(CIFARResNet(10)) == stem + sum(layers) + 64 * 10 + 10 == 272_474
    # Depth 8: n = 1.
    layers = [basic(16, 16), basic(16, 32), basic(32, 64)]
    assert count(CIFARResNet(10, depth=8)) == stem + sum(layers) + 64 * 10 + 10 == 78_042
    # Depths 56 and 110: 9 n + 2 with n = 6 and 12.
    for depth, n, total in ((56, 6, 591_322), (110, 12, 1_147_738)):
        layer1 = bottleneck(16, 16) + (n - 1) * bottleneck(64, 16)
        layer2 = bottleneck(64, 32) + (n - 1) * bottleneck(128, 32)
        layer3 = bottleneck(128, 64) + (n - 1) * bottleneck(256, 64)
        assert stem + layer1 + layer2 + layer3 + 256 * 10 + 10 == total
        assert count(CIFARResNet(10, depth=depth)) == total


@pytest.mark.parametrize(
    ("depth", "block", "blocks"),
    [
        (8, BasicBlock, 1),
        (20, BasicBlock, 3),
        (32, BasicBlock, 5),
        (56, Bottleneck, 6),
        (110, Bottleneck, 12),
    ],
)
def test_blocks_are_bottlenecks_from_depth_44_on(depth, block, blocks):
    network = CIFARResNet(2, depth=depth)
    for layer in (network.layer1, network.layer2, network.layer3):
        assert [type(item) for item in layer] == [block] * blocks
    assert {8, 20, 32, 56, 110} == set(DEPTHS)


def test_an_independent_computation_gives_the_same_logits(settled):
    torch.manual_seed(0)
    image = torch.randn(2, 3, 32, 40)
    network = settled(CIFARResNet(5), image)
    state = network.state_dict()
    x = F.relu(norm(conv(image, state, "conv1", padding=1), state, "bn1"))
    for layer, stride in (("layer1", 1), ("layer2", 2), ("layer3", 2)):
        x = basic_layer(x, state, layer, blocks=3, stride=stride)
    assert x.shape == (2, 64, 8, 10)
    expected = x.mean(dim=(2, 3)) @ state["fc.weight"].T + state["fc.bias"]
    with torch.no_grad():
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [20, 56])
def test_grids_are_those_it_states(depth):
    network = CIFARResNet(2, depth=depth).eval()
    features = network.act1(network.bn1(network.conv1(torch.zeros(1, 3, 32, 32))))
    for info, side in zip(network.feature_info, (32, 16, 8), strict=True):
        features = getattr(network, info["module"])(features)
        assert features.shape == (1, info["num_chs"], side, side)
        assert 32 // info["reduction"] == side


def test_another_depth_is_refused():
    with pytest.raises(ValueError, match="the depth is one of 8, 20, 32, 56, 110, not 44"):
        CIFARResNet(10, depth=44)
