"""A cut network is the network, bit by bit, and nothing is left on it."""

import copy
import threading

import pytest
import torch
from torch import nn

from konkyo.models.abn import ABN
from konkyo.models.cnn import CNN
from konkyo.models.cut import Cut, Layout, Trace
from konkyo.models.timm_net import TimmNet

SMALL = {
    "cait_xxs24_224": {"depth": 2, "embed_dim": 32, "num_heads": 2},
    "deit_tiny_distilled_patch16_224": {"depth": 2, "embed_dim": 48},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1), "embed_dim": 12, "num_heads": (1, 2)},
    "xcit_nano_12_p16_224": {"depth": 1, "embed_dim": 32},
}


def build(name):
    """A network whose parts all matter, and an image it takes."""
    torch.manual_seed(0)
    side = 56 if "swin" in name else 64
    if name == "cnn":
        network = CNN(5)
    elif name in SMALL:
        network = TimmNet(5, name=name, image_size=(side, side), model_args=SMALL[name]).network
    else:
        network = TimmNet(5, name=name).network
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval(), torch.randn(2, 3, side, side)


@pytest.mark.parametrize("name", ["cnn", "test_resnet", *SMALL])
@torch.no_grad()
def test_cut_at_every_module(name):
    network, image = build(name)
    expected = network(image)
    assert expected.isfinite().all()
    trace = Trace(network)
    once = [layer for layer, calls in trace.outputs.items() if len(calls) == 1]
    assert len(once) > 20
    for layer in once:
        cut = Cut(network, layer, trace=trace)
        assert torch.equal(cut.tail(*cut.trunk(image)), expected), layer


@torch.no_grad()
def test_arguments_that_are_left_out_are_no_inputs():
    network, image = ABN(5).eval(), torch.randn(2, 3, 32, 32)
    features, *rest = (cut := Cut(network, "attention_branch.map")).trunk(image)  # before a map is edited
    assert features.shape == (2, 1, 16, 16)
    assert torch.equal(cut.tail(features, *rest), network(image))


@torch.no_grad()
def test_the_features_are_those_of_the_module():
    network, image = build("test_resnet")
    found = []
    handle = network.layer3.register_forward_hook(lambda *call: found.append(call[2].clone()))
    network(image)
    handle.remove()
    features, *rest = Cut(network, "layer3").trunk(image)
    assert torch.equal(features, found[0])
    assert rest == []


class Residual(nn.Module):
    """y = first(x); second(y) + y, the sum rectified in place."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Conv2d(4, 4, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, image):
        kept = self.first(image)
        return self.act(self.second(self.act(kept)) + kept).mean(dim=(2, 3))


@torch.no_grad()
def test_what_the_tail_needs_beside_the_features_crosses_the_cut():
    network, image = Residual().eval(), torch.randn(2, 3, 4, 4)
    cut = Cut(network, "second")
    features, *rest = cut.trunk(image)
    assert len(rest) == 1
    kept = network.first(image).relu()  # changed in place before it crosses
    assert torch.equal(rest[0], kept)
    assert torch.equal(features, network.second(kept))
    assert torch.equal(cut.tail(features, *rest), network(image))


def test_the_tail_can_be_differentiated():
    network, image = CNN(3).eval(), torch.randn(1, 3, 8, 8)
    cut = Cut(network, "features")
    (features,) = cut.trunk(image)
    features = features.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cut.tail(features)[0, 1], features)
    expected = (network.fc.weight[1] / 4)[None, :, None, None].expand(1, -1, 2, 2)
    torch.testing.assert_close(gradient, expected)


@torch.no_grad()
def test_the_halves_follow_the_network():
    network, image = build("swin_tiny_patch4_window7_224")
    cut = Cut(network, "layers.0")
    before = network(image)
    nn.init.normal_(network.patch_embed.proj.weight)
    nn.init.normal_(network.head.fc.weight)
    network.layers[0].blocks[0].attn.relative_position_index.fill_(3)  # a buffer that is an index
    expected = network(image)
    assert not torch.equal(expected, before)
    assert torch.equal(cut.tail(*cut.trunk(image)), expected)
    network.double()
    assert torch.equal(cut.tail(*cut.trunk(image.double())), network(image.double()))


@torch.no_grad()
def test_a_copy_is_a_cut_of_the_copied_network():
    network, image = CNN(3).eval(), torch.randn(1, 3, 8, 8)
    both = copy.deepcopy(nn.ModuleDict({"network": network}))
    cut = Cut(network, "features")
    network_copy, cut_copy = copy.deepcopy((network, cut))
    nn.init.zeros_(network_copy.fc.weight)
    assert torch.equal(cut_copy.tail(*cut_copy.trunk(image)), network_copy(image))
    assert torch.equal(cut.tail(*cut.trunk(image)), both["network"](image))


def everything(network):
    """All that hangs on the modules of a network."""
    return {name: {key: repr(value) for key, value in vars(m).items()} for name, m in network.named_modules()}


def test_nothing_is_left_on_the_network():
    network = TimmNet(3, name="swin_tiny_patch4_window7_224", image_size=(56, 56),
                      model_args=SMALL["swin_tiny_patch4_window7_224"]).network  # fmt: skip
    network.layers[1].eval()  # and not the others
    before, state = everything(network), copy.deepcopy(network.state_dict())
    cut = Cut(network, "norm")
    features, *rest = cut.trunk(torch.randn(1, 3, 56, 56))
    cut.tail(features, *rest)
    assert everything(network) == before
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    for module in network.modules():
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            assert len(getattr(module, hooks)) == 0
    assert network.training
    assert not network.layers[1].training
    assert all(parameter.grad is None for parameter in network.parameters())


class Waits(nn.Module):
    """Lets another thread run in the middle of the first of its forward passes."""

    def __init__(self, begun, done):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.second = nn.Linear(3, 2)
        self.begun, self.done = begun, done

    def forward(self, rows):
        rows = self.first(rows)
        if not self.begun.is_set():
            self.begun.set()
            assert self.done.wait(60)
        return self.second(rows)


@pytest.mark.parametrize("same", [False, True])
def test_a_network_runs_unharmed_while_another_or_itself_is_traced(same):
    begun, done = threading.Event(), threading.Event()
    traced = Waits(begun, done).eval()
    other, rows = (traced, torch.randn(1, 2)) if same else (CNN(3).eval(), torch.randn(1, 3, 8, 8))
    begun.set()
    with torch.no_grad():
        expected = other(rows)
    begun.clear()
    found = []

    def run():
        assert begun.wait(60)
        with torch.no_grad():
            found.extend(other(rows) for _ in range(3))
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    trace = Trace(traced)
    thread.join()
    assert len(found) == 3
    assert all(torch.equal(logits, expected) for logits in found)
    assert {"first", "second"} == set(trace.outputs)  # and none of the other network
    assert [node.op for node in trace.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]


class Refused(nn.Module):
    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(2, 2)
        self.pair = Pair()
        self.aside = nn.Linear(2, 2)
        self.never = nn.Linear(2, 2)

    def forward(self, rows):
        self.aside(rows)
        return sum(self.pair(self.twice(self.twice(rows))))


class Pair(nn.Module):
    def forward(self, rows):
        return rows, rows


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("twice", "^twice is called 2 times, so its output is no one place$"),
        ("pair", "^pair returns no single tensor, or is not called$"),
        ("never", "^never returns no single tensor, or is not called$"),
        ("aside", "^the output does not depend on aside$"),
        ("twica", "^Refused has no layer 'twica'; there are: aside, twice"),
        ("network.twice", "^Refused has no layer 'network.twice'; there are: aside, twice"),
    ],
)
def test_refused_layers(layer, message):
    with pytest.raises(ValueError, match=message):
        Cut(Refused(), layer)


class Branches(nn.Module):
    def forward(self, rows):
        return rows if rows.sum() > 0 else -rows


class ChangesUnseen(nn.Module):
    def forward(self, rows):
        rows = rows + 1
        rows.mul_(2)
        return rows


class RectifiesUnseen(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, rows):
        rows = rows + 1
        self.act(rows)
        return rows


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Branches, "Branches cannot be traced into a graph: "),
        (ChangesUnseen, "ChangesUnseen is no graph: it drops what it changes in place"),
        (RectifiesUnseen, "RectifiesUnseen is no graph: it drops what it changes in place"),
    ],
)
def test_networks_that_are_no_graph(network, message):
    network = network().train()
    with pytest.raises(ValueError, match=message):
        Trace(network)
    assert network.training


def test_modules_can_be_taken_as_one_step():
    network = CNN(3)
    inside = Trace(network).graph.nodes
    whole = Trace(network, whole=(nn.Sequential,)).graph.nodes
    assert "features" in {node.target for node in whole}
    assert len(whole) < len(inside)


def test_layouts_by_hand():
    channels_first = torch.arange(2 * 6.0).view(1, 2, 2, 3)
    assert Layout().to_map(channels_first) is channels_first
    channels_last = channels_first.movedim(1, -1)
    assert torch.equal(Layout("nhwc").to_map(channels_last), channels_first)
    tokens = channels_last.flatten(1, 2)  # (1, 6, 2)
    assert torch.equal(Layout("tokens", aspect=1.5).to_map(tokens), channels_first)
    prefixed = torch.cat([torch.full((1, 2, 2), -1.0), tokens], dim=1)
    assert torch.equal(Layout("tokens", 2, aspect=1.5).to_map(prefixed), channels_first)
    leading = torch.stack([prefixed, 2 * prefixed], dim=1)  # (1, 2, 8, 2), such as two gradients
    found = Layout("tokens", 2, aspect=1.5).to_map(leading)
    assert torch.equal(found, torch.stack([channels_first, 2 * channels_first], dim=1))
    for prefix, left in ((8, "0"), (9, "-1")):
        with pytest.raises(ValueError, match=f"^{left} tokens fill no grid"):
            Layout("tokens", prefix).to_map(prefixed)
    with pytest.raises(ValueError, match=r"^8 tokens fill no grid of aspect 1\.5$"):
        Layout("tokens", aspect=1.5).to_map(prefixed)
