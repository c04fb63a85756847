import pytest
import timm
import torch
from torch import nn

from konkyo.models.dino import DinoViT
from konkyo.models.registry import build
from konkyo.models.resnet_v1 import ResNetV1

TINY = {"name": "vit_tiny_patch16_224", "image_size": [64, 96], "model_args": {"depth": 5}}


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 4])
def test_the_head_sees_the_normed_class_tokens_of_the_last_blocks_in_order(blocks):
    torch.manual_seed(0)
    network = DinoViT(7, blocks=blocks, **TINY).eval()
    whole = timm.create_model("vit_tiny_patch16_224", img_size=(64, 96), depth=5).eval()
    state = {name: tensor for name, tensor in network.network.state_dict().items() if "head" not in name}
    assert whole.load_state_dict(state, strict=False).unexpected_keys == []
    nn.init.normal_(whole.norm.weight)
    network.network.norm.load_state_dict(whole.norm.state_dict())
    image = torch.randn(2, 3, 64, 96)
    found = whole.forward_intermediates(
        image, indices=blocks, norm=True, return_prefix_tokens=True, intermediates_only=True
    )
    tokens = torch.cat([prefix[:, 0] for _, prefix in found], dim=1)
    assert tokens.shape == (2, blocks * 192)
    torch.testing.assert_close(network(image), network.network.head(tokens))


def test_it_is_rebuilt_from_its_arguments():
    network = DinoViT(7, blocks=3, **TINY)
    again = build("dino-vit", 7, **network.arguments())
    assert again.arguments() == network.arguments()
    assert network.arguments()["layer"] == "blocks.4.norm1"
    again.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet10t"}, "ResNet is no plain vision transformer"),
        ({"name": "deit_tiny_distilled_patch16_224"}, "no plain vision transformer"),
        ({"name": "vit_tiny_patch16_224", "blocks": 13}, "12 blocks, of which 13 cannot be seen"),
    ],
)
def test_other_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DinoViT(7, **arguments)


def test_the_first_convolution_of_a_stage_halves_the_grid():
    network = ResNetV1(7, name="resnet26")
    for stage in ("layer2", "layer3", "layer4"):
        first, second = network.network.get_submodule(stage)
        assert (first.conv1.stride, first.conv2.stride) == ((2, 2), (1, 1))
        assert (second.conv1.stride, second.conv2.stride) == ((1, 1), (1, 1))
    first, _ = network.network.layer1
    assert (first.conv1.stride, first.conv2.stride) == ((1, 1), (1, 1))


def test_a_network_without_bottlenecks_has_no_first_version():
    with pytest.raises(ValueError, match="resnet18 is no ResNet with bottlenecks"):
        ResNetV1(7, name="resnet18")
