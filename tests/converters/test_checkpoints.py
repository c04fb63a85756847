import argparse

import pytest
import torch
from safetensors.torch import save_file

from konkyo.converters.checkpoints import read_state
from konkyo.converters.converted import load_exactly
from konkyo.converters.errors import ConversionError
from konkyo.converters.timm_weights import from_timm

STATE = {"stem.weight": torch.arange(6.0).view(2, 3), "stem.bias": torch.ones(2)}
OTHER = {"stem.weight": torch.zeros(2, 3), "stem.bias": torch.zeros(2)}


def prefixed(prefix):
    return {f"{prefix}{name}": tensor for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE, "args": argparse.Namespace(lr=0.1)},
        {"model": {"state_dict": prefixed("module.")}},
        prefixed("module._orig_mod."),
        {"state_dict": prefixed("model."), "hyper_parameters": {"lr": 0.1}},
        {"state_dict": OTHER, "state_dict_ema": STATE},
        {"student": OTHER, "teacher": STATE},
    ],
)
def test_whatever_it_is_wrapped_in(content, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    found = read_state(tmp_path / "a.pth")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_safetensors(tmp_path):
    save_file(prefixed("module."), tmp_path / "a.safetensors")
    found = read_state(tmp_path / "a.safetensors")
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_a_prefix_of_some_names_is_part_of_them(tmp_path):
    torch.save({"model.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "a.pth")
    assert read_state(tmp_path / "a.pth").keys() == {"model.a", "b"}


class Evil:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "holds no state of a network"),
        ({}, "holds no state of a network"),
        ([1, 2], "holds no state of a network"),
        ({"state_dict": STATE, "hook": Evil()}, "without running code from the file"),
    ],
)
def test_what_is_no_state_is_refused(content, message, tmp_path, capsys):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ConversionError, match=rf"a\.pth: .*{message}"):
        read_state(tmp_path / "a.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_files_that_are_missing_or_damaged_are_named(name, tmp_path):
    with pytest.raises(ConversionError, match=rf"{name}: cannot be read"):
        read_state(tmp_path / name)
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(ConversionError, match=name):
        read_state(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, "theirs: bias is missing, and 0 more"),
        ({"extra": torch.ones(1)}, "theirs: extra is no part of the network, and 0 more"),
        ({"bias": torch.ones(3)}, r"theirs: bias is \[3\], but the network has \[2\]"),
    ],
)
def test_weights_are_loaded_exactly_or_not_at_all(change, message):
    linear = torch.nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in linear.state_dict().items()}
    state = {"weight": torch.ones(2, 3), "bias": torch.ones(2), **change}
    with pytest.raises(ConversionError, match=message):
        load_exactly(linear, {name: tensor for name, tensor in state.items() if tensor is not None}, "theirs")
    assert all(torch.equal(tensor, before[name]) for name, tensor in linear.state_dict().items())


def test_counters_of_batches_may_be_missing():
    norm = torch.nn.BatchNorm2d(2)
    state = {name: tensor + 1 for name, tensor in norm.state_dict().items() if "num" not in name}
    load_exactly(norm, state, "theirs")
    assert norm.running_var.tolist() == [2, 2]


def test_weights_of_another_network_are_refused_in_one_line(tmp_path):
    torch.save(STATE, tmp_path / "a.pth")
    with pytest.raises(ConversionError, match=r"a\.pth: not the weights of resnet10t: ") as caught:
        from_timm("resnet10t", tmp_path / "a.pth")
    assert "\n" not in caught.value.message


def test_weights_that_cannot_be_fetched_are_said_in_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConversionError, match=r"^resnet10t: its weights are not here .*--checkpoint$"):
        from_timm("resnet10t")


def test_a_network_without_a_classifier_is_refused():
    with pytest.raises(ConversionError, match="published without a classifier"):
        from_timm("vit_small_patch16_224.dino")


def test_an_unknown_network_is_refused_with_those_like_it():
    with pytest.raises(ValueError, match="timm has no network 'resnet18x'; there are: resnet18"):
        from_timm("resnet18x")
