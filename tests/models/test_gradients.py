"""The methods by gradient on networks small enough to do by hand, and what relates them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import nn

from konkyo.models.backbone import Backbone
from konkyo.models.cnn import CNN
from konkyo.models.cut import Hook
from konkyo.models.explain import methods
from konkyo.models.explain.gradients import differentiate
from konkyo.models.explain.relus import deconv_relu, guided_relu

BOTH = torch.tensor([[0, 1]])
LAYER_METHODS = ("counterfactual", "gradcam", "gradcam-absolute", "gradcam-max", "gradcam-plus-plus",
                 "hirescam", "layercam")  # fmt: skip
INPUT_METHODS = ("deconv-gradcam", "deconvnet", "guided-backprop", "guided-gradcam")


def explain(method, network, image, targets=BOTH, **options):
    with torch.no_grad():
        return methods()[method](network.eval(), **options)(image, targets)


# differentiate


def products(features):
    """Two scores of two features, one product and one sum: gradients are [b, a] and [1, 1]."""
    a, b = features.unbind(1)
    return torch.stack([a * b, a + b], dim=1)


@pytest.mark.parametrize("at_once", [True, False])
def test_scores_and_gradients_by_hand(at_once):
    features = torch.tensor([[3.0, 2.0], [5.0, -1.0]])
    scores, gradients = differentiate(
        features, products, torch.tensor([[0, 1, -1], [-1, 0, 0]]), at_once=at_once
    )
    assert scores.tolist() == [[6, 5], [-5, 4]]
    assert gradients.tolist() == [[[2, 3], [1, 1], [2, 3]], [[1, 1], [-1, 5], [-1, 5]]]
    assert not scores.requires_grad
    assert not gradients.requires_grad


@pytest.mark.parametrize("at_once", [True, False])
def test_no_target_gives_the_scores_alone(at_once):
    none = torch.empty(1, 0, dtype=torch.int64)
    scores, gradients = differentiate(torch.tensor([[3.0, 2.0]]), products, none, at_once=at_once)
    assert scores.tolist() == [[6, 5]]
    assert gradients.shape == (1, 0, 2)


def test_the_score_may_work_in_place():
    features = torch.tensor([[3.0, 2.0]])
    _, gradients = differentiate(features, lambda x: x.mul_(2), BOTH)
    assert gradients.tolist() == [[[2, 0], [0, 2]]]
    assert features.tolist() == [[3, 2]]
    assert features.grad is None


def test_any_scalar_can_be_the_target():
    # The log-probability of a word: its gradient by the scores is 1 - p for itself and -p for the others.
    scores = torch.tensor([[0.0, 2.0, 1.0]])
    found, gradients = differentiate(
        scores, lambda x: x.log_softmax(1)[:, :1], torch.zeros(1, 1, dtype=torch.int64)
    )
    p = scores.softmax(1)
    torch.testing.assert_close(found, p[:, :1].log())
    torch.testing.assert_close(gradients[:, 0], torch.tensor([[1.0, 0.0, 0.0]]) - p)


def test_gradients_have_the_type_of_the_features_and_scores_at_least_float32():
    for dtype, wide in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        scores, gradients = differentiate(torch.tensor([[3.0, 2.0]], dtype=dtype), products, BOTH)
        assert (scores.dtype, gradients.dtype) == (wide, dtype)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_all_targets_at_once_give_what_they_give_one_by_one(dtype, rtol):
    torch.manual_seed(0)
    tail = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.Flatten(1), nn.Linear(32, 9)
    )
    features, targets = torch.randn(3, 4, 6, 6, dtype=dtype), torch.arange(9).repeat(3, 1)
    tail.to(dtype)
    scores, at_once = differentiate(features, tail, targets)
    for gradients in (
        differentiate(features, tail, targets, at_once=False)[1],
        torch.cat([differentiate(features, tail, targets[:, k : k + 1])[1] for k in range(9)], dim=1),
    ):
        torch.testing.assert_close(gradients, at_once, rtol=0, atol=rtol * at_once.abs().max())
    torch.testing.assert_close(scores, tail(features), rtol=0, atol=rtol)
    assert at_once.abs().amax(dim=(2, 3, 4)).min() > 0


# A layer with a linear tail of a weight for each feature: its gradients are its weights.


class Linear(nn.Module):
    """Features A^0 = [1, 2], A^1 = [3, 0] of the image of these values, one linear layer on all four."""

    IMAGE = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])

    def __init__(self):
        super().__init__()
        self.features = nn.Identity()
        self.fc = nn.Linear(4, 2)
        self.fc.weight.data = torch.tensor([[2.0, -1.0, 1.0, 3.0], [-2.0, 0.0, -1.0, 1.0]])
        self.fc.bias.data = torch.tensor([0.5, -0.5])

    def hook(self, layer=None):
        return Hook(self, layer or "features")

    def forward(self, image):
        return self.fc(self.features(image).flatten(1))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("gradcam", [[6.5, 1], [-1, -2]]),  # alpha = 1/2, 2; -1, 0
        ("counterfactual", [[-6.5, -1], [1, 2]]),
        ("gradcam-absolute", [[7.5, 3], [4, 2]]),  # alpha = 3/2, 2; 1, 1
        ("gradcam-max", [[11, 4], [3, 0]]),  # alpha = 2, 3; 0, 1
        ("gradcam-plus-plus", [[0.25 + 3 * (1 / 5 + 3 / 11), 0.5], [0.6, 0]]),  # w = 2/8, 1/5 + 3/11; 0, 1/5
        ("hirescam", [[5, -2], [-5, 0]]),
        ("layercam", [[5, 0], [0, 0]]),
    ],
)
def test_maps_at_a_layer_by_hand(method, expected):
    logits, maps = explain(method, Linear(), Linear.IMAGE)
    assert logits.tolist() == [[3.5, -5.5]]
    torch.testing.assert_close(maps, torch.tensor(expected)[None, :, None].float())


def test_a_zero_denominator_counts_for_nothing():
    # S = -1 and g = 2 of the first channel: 2 + g S = 0.
    _, maps = explain("gradcam-plus-plus", Linear(), torch.tensor([[[[-3.0, 2.0]], [[1.0, 1.0]]]]))
    w = 1 / (2 + 2) + 3 / (2 + 6)  # of the second channel
    torch.testing.assert_close(maps[0, 0], torch.full((1, 2), w))


# ReLUs


def test_modified_relus_by_hand():
    features = torch.tensor([-1.0, 0.0, 2.0, 2.0, 7.0], requires_grad=True)
    upstream = torch.tensor([3.0, 3.0, 3.0, -3.0, 3.0])
    for relu, ceiling, output, expected in (
        (guided_relu, torch.inf, [0, 0, 2, 2, 7], [0, 0, 3, 0, 3]),
        (deconv_relu, torch.inf, [0, 0, 2, 2, 7], [3, 3, 3, 0, 3]),
        (guided_relu, 6.0, [0, 0, 2, 2, 6], [0, 0, 3, 0, 0]),
        (deconv_relu, 6.0, [0, 0, 2, 2, 6], [3, 3, 3, 0, 3]),
    ):
        for inplace in (False, True):
            rectified = relu(features.clone(), ceiling, inplace)
            assert rectified.tolist() == output
            (gradient,) = torch.autograd.grad(rectified, features, upstream)
            assert gradient.tolist() == expected


def test_in_place_the_features_are_overwritten():
    features = torch.tensor([-1.0, 2.0])
    assert guided_relu(features, inplace=True) is features
    assert features.tolist() == [0, 2]


class TwoReLUs(nn.Module):
    """Pixels [2, -1] of the first of two channels; per pixel, with r1 and r2 rectified:

    h1 = (x0 + 3 x1, -x0)    h2 = (r1_0 - 2 r1_1, r1_1 - r1_0)    y = [[1, -1], [-3, 2]] mean(r2)

    so r1 = (2, 0), (0, 1) and r2 = (2, 0), (0, 1).
    """

    IMAGE = torch.tensor([[[[2.0, -1.0]], [[0.0, 0.0]]]])

    def __init__(self, rectify=F.relu):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 2, 1, bias=False)
        self.conv2 = nn.Conv2d(2, 2, 1, bias=False)
        self.fc = nn.Linear(2, 2, bias=False)
        self.conv1.weight.data = torch.tensor([[1.0, 3.0], [-1.0, 0.0]])[:, :, None, None]
        self.conv2.weight.data = torch.tensor([[1.0, -2.0], [-1.0, 1.0]])[:, :, None, None]
        self.fc.weight.data = torch.tensor([[1.0, -1.0], [-3.0, 2.0]])
        self.rectify = rectify
        self.middle, self.last = nn.Identity(), nn.Identity()

    def hook(self, layer=None):
        return Hook(self, layer or "last")

    def forward(self, image):
        features = self.middle(self.rectify(self.conv1(image)))
        features = self.last(self.rectify(self.conv2(features)))
        return self.fc(features.mean(dim=(2, 3)))


RELUS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "module of 6": nn.ReLU6(),
    "norm and activation": BatchNormAct2d(2, eps=0),
    "norm and activation of one's own": BatchNormAct2d(2, eps=0, act_layer=type("OwnReLU", (nn.ReLU,), {})),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, True),
    "F.relu in place, named": lambda x: F.relu(inplace=True, input=x),
    "F.relu6": F.relu6,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
}


@pytest.mark.parametrize("form", RELUS)
@pytest.mark.parametrize(
    ("method", "by_x0", "by_x1"),
    [
        ("guided-backprop", [[0.5, 0], [0, -1]], [[1.5, 0], [0, 0]]),
        ("deconvnet", [[0.5, 0.5], [-1, -1]], [[1.5, 1.5], [0, 0]]),
        # Grad-CAM is [1, -0.5] and [-3, 1], on a grid as fine as the image.
        ("guided-gradcam", [[0.5, 0], [0, -1]], [[1.5, 0], [0, 0]]),
        ("deconv-gradcam", [[0.5, 0], [0, -1]], [[1.5, 0], [0, 0]]),
    ],
)
def test_gradients_by_the_image_by_hand(form, method, by_x0, by_x1):
    network = TwoReLUs(RELUS[form]).eval()
    explanation = methods()[method](network)
    logits, gradients = explanation.gradients(TwoReLUs.IMAGE, BOTH)
    expected = torch.tensor([by_x0, by_x1]).movedim(0, 1)[None, :, :, None]  # (1, K, D, 1, W)
    torch.testing.assert_close(logits, torch.tensor([[0.5, -2.0]]))
    torch.testing.assert_close(gradients, expected)
    torch.testing.assert_close(explanation(TwoReLUs.IMAGE, BOTH)[1], expected.sum(dim=2))


@pytest.mark.parametrize("form", RELUS)
@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # Of class 1 by r1: (-3/2, 3) at the first pixel, (-1, 1) at the second.
        ("gradcam", [[1, -0.75], [-2.5, 2]]),  # alpha = 1/2, -3/4; -5/4, 2
        ("gradcam-guided", [[0.5, -0.5], [-1, 0.5]]),  # alpha = 1/4, -1/2; -1/2, 1/2
        ("gradcam-deconv", [[1, -1], [-2, 1]]),  # alpha = 1/2, -1; -1, 1
    ],
)
def test_grad_cam_through_modified_relus_by_hand(form, method, expected):
    network = TwoReLUs(RELUS[form])
    _, maps = explain(method, network, TwoReLUs.IMAGE, layer="middle")
    torch.testing.assert_close(maps, torch.tensor(expected)[None, :, None].float())


@pytest.mark.parametrize("method", INPUT_METHODS)
def test_what_a_relu_overwrites_is_overwritten(method):
    class Aliased(TwoReLUs):
        def forward(self, image):
            features = self.conv1(image)
            rectified = F.relu(features, inplace=True)
            return self.fc(self.last(self.conv2(features + rectified)).mean(dim=(2, 3)))

    network = Aliased().eval()
    logits, _ = explain(method, network, TwoReLUs.IMAGE)
    assert torch.equal(logits, network(TwoReLUs.IMAGE).detach())


def test_upsampling_is_bilinear(trained_like):
    torch.manual_seed(0)
    network, image = trained_like(CNN(2)), torch.randn(1, 3, 32, 32)
    coarse = F.interpolate(explain("gradcam", network, image)[1].relu(), (32, 32), mode="bilinear")
    for method, fine in (("guided-gradcam", "guided-backprop"), ("deconv-gradcam", "deconvnet")):
        expected = explain(fine, network, image)[1] * coarse
        torch.testing.assert_close(
            explain(method, network, image)[1], expected, rtol=0, atol=1e-6 * expected.abs().max()
        )
        assert expected.abs().amax(dim=(2, 3)).min() > 0


def test_parameters_are_read_each_time(trained_like):
    """Also those of a module that a ReLU is taken out of."""
    network = TwoReLUs(BatchNormAct2d(2)).eval()
    explanation = methods()["guided-backprop"](network)
    network.double()
    network.conv1.weight.data *= 2
    network.rectify.weight.data *= 2
    again = methods()["guided-backprop"](copy.deepcopy(network))
    image = TwoReLUs.IMAGE.double()
    assert torch.equal(explanation(image, BOTH)[1], again(image, BOTH)[1])


def test_a_copy_explains_the_copied_network():
    explanation = methods()["guided-backprop"](TwoReLUs(BatchNormAct2d(2, eps=0)).eval())
    _, before = explanation(TwoReLUs.IMAGE, BOTH)
    twin = copy.deepcopy(explanation)
    nn.init.zeros_(twin.network.rectify.weight)
    assert not twin(TwoReLUs.IMAGE, BOTH)[1].any()
    assert before.any()
    assert torch.equal(explanation(TwoReLUs.IMAGE, BOTH)[1], before)


# Identities of a head of global average pooling and one linear layer


@pytest.fixture(params=["cnn", "resnet"], scope="module")
def pooled(request, settled):
    torch.manual_seed(0)
    network = CNN(5) if request.param == "cnn" else Backbone(5, name="cifar_resnet20")
    image = torch.randn(2, 3, 32, 48)
    settled(network, image)
    return network, image


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_maps_of_a_pooled_head_are_multiples_of_cam(pooled):
    network, image = pooled
    targets = torch.arange(5).repeat(2, 1)
    logits, cam = explain("cam", network, image, targets)
    cells = cam.shape[2] * cam.shape[3]
    maps = {method: explain(method, network, image, targets)[1] for method in LAYER_METHODS}
    assert cam.min() < 0 < cam.max()
    for method in ("gradcam", "gradcam-max", "hirescam"):
        close(maps[method] * cells, cam)
    assert torch.equal(maps["counterfactual"], -maps["gradcam"])
    close(maps["hirescam"].sum(dim=(2, 3)) + network.fc.bias, logits)  # sum(map) + bias is the logit
    # After a ReLU the features are not negative, so what a positive weight adds is not negative either.
    assert maps["layercam"].min() >= 0
    assert (maps["gradcam-absolute"] >= maps["gradcam"].abs() * (1 - 1e-5)).all()


def test_no_relu_is_changed_where_there_is_none(pooled):
    network, image = pooled
    names = dict(network.named_modules())
    layer = "features.29" if "features.29" in names else "layer3"
    for method in ("gradcam-guided", "gradcam-deconv"):
        with pytest.raises(
            ValueError, match=f"{method} would equal gradcam, .* no ReLU after {layer}; choose"
        ):
            explain(method, network, image, layer=layer)
        with pytest.raises(ValueError, match="no ReLU after its default layer; choose an earlier one"):
            explain(method, network, image)


# Refusals


def network_of(*layers):
    class Small(nn.Sequential):
        def hook(self, layer=None):
            return Hook(self, layer or "0")

    return Small(nn.Conv2d(3, 4, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(4, 2))


@pytest.mark.parametrize("method", [*INPUT_METHODS, "gradcam-guided", "gradcam-deconv"])
@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([nn.GELU()], "would equal .*, because Small has no ReLU but GELU"),
        ([nn.Identity()], "would equal .*, because Small has no ReLU$"),
        ([nn.Hardswish(), nn.ReLU()], "is defined for ReLUs alone, and Small also has Hardswish"),
        ([nn.ReLU(), nn.Sigmoid(), nn.SiLU(), nn.LeakyReLU()], "also has LeakyReLU, SiLU"),
        ([nn.ReLU(), BatchNormAct2d(4, act_layer=nn.ELU)], "also has ELU"),
        (
            [nn.ReLU(), nn.Flatten(2), nn.TransformerEncoderLayer(9, 1), nn.Unflatten(2, (3, 3))],
            "also has TransformerEncoderLayer",
        ),
    ],
)
def test_networks_with_other_activations_are_refused(method, layers, reason):
    with pytest.raises(TypeError, match=reason):
        explain(method, network_of(*layers), torch.rand(1, 3, 5, 5))


@pytest.mark.parametrize("method", INPUT_METHODS)
def test_functions_in_the_place_of_relu_are_refused(method):
    for activation, name in ((F.leaky_relu, "leaky_relu"), (torch.tanh, "tanh"), (F.gelu, "gelu")):

        class Mixed(TwoReLUs):
            before = staticmethod(activation)

            def forward(self, image):
                return super().forward(self.before(image))

        with pytest.raises(TypeError, match=f"Mixed also has {name}$"):
            explain(method, Mixed(), TwoReLUs.IMAGE)


def test_gates_keep_their_gradient():
    class Gated(TwoReLUs):
        def forward(self, image):
            return super().forward(image) * torch.sigmoid(image[:, :1, 0, 0])

    _, maps = explain("guided-backprop", Gated(), TwoReLUs.IMAGE)
    gate = torch.sigmoid(torch.tensor(2.0))
    slope = gate * (1 - gate) * torch.tensor([0.5, -2.0])  # of the gate, by the first pixel, times the logits
    expected = torch.tensor([[2.0, 0.0], [0.0, -1.0]]) * gate
    expected[:, 0] += slope
    torch.testing.assert_close(maps[0, :, 0], expected)


@pytest.mark.parametrize("method", INPUT_METHODS)
def test_a_network_that_is_no_graph_is_refused(method):
    class Undecided(TwoReLUs):
        def forward(self, image):
            return super().forward(image if image.sum() > 0 else -image)

    with pytest.raises((TypeError, ValueError), match="Undecided cannot be traced into a graph: symbolic"):
        explain(method, Undecided(), TwoReLUs.IMAGE)


@pytest.mark.parametrize("method", ["gradcam", "gradcam-guided", "guided-gradcam", "hirescam"])
def test_a_network_without_a_hook_is_refused(method):
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(1), nn.Linear(18, 2))
    with pytest.raises(TypeError, match="Sequential does not say at which layer it can be explained"):
        explain(method, network, torch.rand(1, 3, 3, 3))
