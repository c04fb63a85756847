from itertools import pairwise

import pytest
import torch
from torch import nn

from konkyo.models.gcm import DECODER, ENCODER, GCM, contribution_score

SMALL = {"encoder": [(8, 1), (12, 2), (8, 2)], "decoder": [(8, 2), (6, 2)]}


def contribution_maps(maps, image):
    """CCM_j = Tile(CWM_j) * I, materialised as the paper writes it: (B, N, D, H, W)."""
    tiled = maps[:, :, None].expand(-1, -1, image.shape[1], -1, -1)
    return tiled * image[:, None]


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-15), (torch.float32, 1e-5, 1e-7)]
)
@pytest.mark.parametrize("clipped", [False, True])
def test_the_score_is_the_mean_of_the_contribution_map(trained_like, dtype, rtol, atol, clipped):
    torch.manual_seed(0)
    network = trained_like(GCM(10, clipped=clipped)).to(dtype)
    image = torch.rand(2, 3, 32, 32, dtype=dtype)
    with torch.no_grad():
        scores, maps = network(image), network.class_weight_maps(image)
    assert scores.abs().min() > 1e-3
    torch.testing.assert_close(
        scores, contribution_maps(maps, image).mean(dim=(2, 3, 4)), rtol=rtol, atol=atol
    )


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-15), (torch.float32, 1e-5, 1e-7)]
)
def test_the_score_is_the_inner_product_of_generated_weights_and_image(trained_like, dtype, rtol, atol):
    torch.manual_seed(1)
    network = trained_like(GCM(4, **SMALL)).to(dtype)
    image = torch.rand(3, 3, 16, 24, dtype=dtype)
    with torch.no_grad():
        scores, maps = network(image), network.class_weight_maps(image)
    tiled = maps[:, :, None].expand(-1, -1, 3, -1, -1).flatten(2)  # (B, N, D H W)
    inner = torch.stack([tiled[b] @ image[b].flatten() for b in range(3)]) / (3 * 16 * 24)
    torch.testing.assert_close(scores, inner, rtol=rtol, atol=atol)


def test_contribution_score_by_hand():
    maps = torch.tensor([[[[1.0, -2.0]], [[0.0, 4.0]]]])  # (1, 2, 1, 2)
    image = torch.tensor([[[[0.1, 0.2]], [[0.3, 0.4]], [[0.5, 0.6]]]])  # (1, 3, 1, 2)
    # Class 0: 1 * (0.1 + 0.3 + 0.5) - 2 * (0.2 + 0.4 + 0.6) = -1.5; class 1: 4 * 1.2 = 4.8; over 6 values.
    torch.testing.assert_close(contribution_score(maps, image), torch.tensor([[-0.25, 0.8]]))


def test_a_network_small_enough_to_compute_by_hand():
    network = GCM(3, in_chans=1, encoder=[(1, 1)], decoder=[(1, 1)]).eval()
    with torch.no_grad():
        for layer in (network.encoder[0], network.decoder[0]):
            conv, norm, _ = layer
            conv.weight.zero_()[0, 0, 1, 1] = 1  # passes the image on
            norm.running_var.fill_(1 - norm.eps)
        network.class_layer.weight.zero_()
        network.class_layer.weight[0, 0, 1, 1] = 2  # CWM_0 = 2 I
        network.class_layer.weight[1, 0, 1, 1] = -1  # CWM_1 = 1 - I
        network.class_layer.weight[2, 0, 0, 1] = 1  # CWM_2 = I one row down, zeros above
        network.class_layer.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
        image = torch.tensor([[[[0.0, 0.5], [0.5, 1.0]]]])
        maps, scores = network.class_weight_maps(image), network(image)
    expected = [[[0.0, 1.0], [1.0, 2.0]], [[1.0, 0.5], [0.5, 0.0]], [[0.0, 0.0], [0.0, 0.5]]]
    torch.testing.assert_close(maps, torch.tensor([expected]))
    # mean(2 I^2) = (0.5 + 0.5 + 2) / 4; mean((1 - I) I) = (0.25 + 0.25) / 4; mean = 0.5 / 4
    torch.testing.assert_close(scores, torch.tensor([[0.75, 0.125, 0.125]]))


def test_clipped_weights_are_never_negative_and_unclipped_ones_are(trained_like):
    torch.manual_seed(2)
    signed = trained_like(GCM(10))
    clipped = GCM(10, clipped=True).eval()
    clipped.load_state_dict(signed.state_dict())
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        maps, positive = signed.class_weight_maps(image), clipped.class_weight_maps(image)
    assert maps.min() < 0 < maps.max()
    assert positive.min() == 0
    torch.testing.assert_close(positive, maps.clamp(min=0), rtol=0, atol=0)


def test_parameters_are_those_of_the_paper():
    widths = [3, 16, 16, 16, 32, 32, 32, 64, 64, 60, 32, 32, 32, 16, 16]
    kernels = sum(9 * c_in * c_out for c_in, c_out in pairwise(widths))
    norms = sum(2 * c_out for c_out in widths[1:])
    class_layer = 9 * 16 * 10 + 10
    expected = kernels + norms + class_layer
    assert expected == 162_930
    assert sum(parameter.numel() for parameter in GCM(10).parameters()) == expected
    assert abs(expected - 162_000) < 0.02 * 162_000
    assert expected <= 165_000


def test_layers_are_those_of_the_paper():
    network = GCM(10)
    assert (len(ENCODER), len(DECODER)) == (10, 4)
    layers = [*network.encoder, *network.decoder]
    assert all(isinstance(layer[1], nn.BatchNorm2d) and isinstance(layer[2], nn.ReLU) for layer in layers)
    convolutions = [layer[0] for layer in layers] + [network.class_layer]
    assert len(convolutions) == 15
    assert {convolution.kernel_size for convolution in convolutions} == {(3, 3)}
    assert [isinstance(layer[0], nn.ConvTranspose2d) for layer in network.decoder] == [
        True,
        False,
        True,
        False,
    ]
    assert network.encoder(torch.rand(1, 3, 32, 32)).shape == (1, 32, 8, 8)


@pytest.mark.parametrize(
    ("size", "classes", "arguments"), [((48, 64), 2, {}), ((4, 8), 7, SMALL), ((32, 32), 100, SMALL)]
)
def test_any_size_number_of_classes_and_widths(size, classes, arguments):
    network = GCM(classes, **arguments).eval()
    image = torch.rand(2, 3, *size)
    with torch.no_grad():
        assert network.class_weight_maps(image).shape == (2, classes, *size)
        assert network(image).shape == (2, classes)


def test_an_upscale_of_three_restores_the_size():
    network = GCM(2, encoder=[(4, 3)], decoder=[(4, 3)]).eval()
    assert network.class_weight_maps(torch.rand(1, 3, 9, 12)).shape == (1, 2, 9, 12)


def test_refusals():
    with pytest.raises(ValueError, match="encoder divides by 4 but the decoder multiplies by 2"):
        GCM(10, encoder=[(8, 2), (8, 2)], decoder=[(8, 2)])
    with pytest.raises(ValueError, match="at least 2 classes, not 1"):
        GCM(1)
    with pytest.raises(ValueError, match="multiples of 4, not 30x32"):
        GCM(10)(torch.rand(1, 3, 30, 32))
