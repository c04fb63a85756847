"""The ten networks of the ranking study, from files as their authors publish them, of random weights.

What is built by timm is renamed back to what the authors call it, so that reading the file must give
the very weights that were renamed.
"""

import argparse
import re

import pytest
import timm
import torch

from konkyo.converters.dino import from_dino
from konkyo.converters.errors import ConversionError
from konkyo.converters.timm_weights import from_timm


def rename(state, *rules):
    for pattern, replacement in rules:
        state = {re.sub(pattern, replacement, name): tensor for name, tensor in state.items()}
    return state


def as_published_convnext(state):
    return {"model": rename(
        state,
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
        (r"conv_dw", "dwconv"), (r"mlp\.fc", "pwconv"), (r"^head\.fc", "head"), (r"^head\.norm", "norm"),
    )}  # fmt: skip


def as_published_swin(state):
    renamed = rename(
        state,
        (r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample"),
        (r"^head\.fc\.", "head."),
    )
    renamed["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    renamed["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return {"model": renamed}


def as_published_coat(state):
    unused = {f"norm{stage}.{part}": torch.ones(64) for stage in (1, 2, 3) for part in ("weight", "bias")}
    return {"model": {**state, **unused}}


def as_published_xcit(state):
    """Positions under another name; queries, keys and values of the class attention in one."""
    renamed = rename(state, (r"^pos_embed\.", "pos_embeder."))
    for name in [name for name in renamed if re.search(r"cls_attn_blocks.*attn\.q\.", name)]:
        parts = [renamed.pop(name.replace(".q.", f".{part}.")) for part in "qkv"]
        renamed[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    return renamed


TIMM = {
    "resnet50.tv_in1k": lambda state: state,
    "convnext_tiny.fb_in1k": as_published_convnext,
    "swin_tiny_patch4_window7_224.ms_in1k": as_published_swin,
    "cait_xxs36_224.fb_dist_in1k": lambda state: {"model": rename(state, ("^", "module."))},
    "deit_small_patch16_224.fb_in1k": lambda state: {"model": state},
    "coat_lite_small.in1k": as_published_coat,
    "xcit_small_12_p16_224.fb_in1k": lambda state: {"model": as_published_xcit(state)},
}


@pytest.fixture(scope="module", autouse=True)
def _seed():
    torch.manual_seed(0)


def same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("name", TIMM)
def test_supervised(name, tmp_path):
    state = timm.create_model(name).state_dict()
    torch.save(TIMM[name](state), tmp_path / "published.pth")
    found = from_timm(name, tmp_path / "published.pth")
    same(found.network.network.state_dict(), state)
    assert found.architecture == "timm"
    assert (found.input.height, found.input.width) == (224, 224)
    assert found.network.num_classes == 1000


def test_a_checkpoint_may_have_other_classes(tmp_path):
    name = "swin_tiny_patch4_window7_224.ms_in1k"
    state = timm.create_model(name, num_classes=7).state_dict()
    torch.save(TIMM[name](state), tmp_path / "mine.pth")
    found = from_timm(name, tmp_path / "mine.pth")
    same(found.network.network.state_dict(), state)
    assert (found.network.num_classes, found.data, found.licence) == (7, "not stated", "not stated")


DINO = {
    "resnet50": ("resnet50", "fc", 2048),
    "vit_small_patch16_224": ("vit_small_patch16_224.dino", "head", 1536),
    "xcit_small_12_p16_224": ("xcit_small_12_p16_224.fb_in1k", "head", 384),
}


@pytest.fixture(scope="module", params=DINO)
def dino(request):
    """Name, the backbone as it is published, the linear head, and what timm calls all of it."""
    timm_name, last, width = DINO[request.param]
    state = timm.create_model(timm_name, num_classes=0).state_dict()
    published = as_published_xcit(state) if "xcit" in timm_name else state
    head = {"weight": torch.randn(5, width), "bias": torch.randn(5)}
    expected = {**state, **{f"{last}.{part}": tensor for part, tensor in head.items()}}
    return request.param, published, head, expected


def write_head(path, head):
    state = {f"module.linear.{part}": tensor for part, tensor in head.items()}
    torch.save({"epoch": 100, "state_dict": state, "best_acc": 75.3, "scheduler": {"last_epoch": 100}}, path)
    return path


def test_without_labels_backbone_and_linear_head(dino, tmp_path):
    name, published, head, expected = dino
    torch.save(published, tmp_path / "backbone.pth")
    found = from_dino(name, tmp_path / "backbone.pth", write_head(tmp_path / "head.pth", head))
    same(found.network.network.state_dict(), expected)
    assert found.network.num_classes == 5
    assert found.architecture == ("dino-vit" if "vit_" in name else "timm")
    assert (found.input.crop_fraction, found.input.mean) == (0.875, (0.485, 0.456, 0.406))


def test_of_a_full_checkpoint_the_teacher(dino, tmp_path):
    name, published, head, expected = dino
    projection = {
        "module.head.mlp.0.weight": torch.zeros(2048, 384),
        "module.head.last_layer.weight_v": torch.zeros(9),
    }
    teacher = {**rename(published, ("^", "module.backbone.")), **projection}
    student = {key: torch.zeros(1) for key in teacher}
    torch.save(
        {
            "student": student, "teacher": teacher, "optimizer": {"state": {}}, "epoch": 800,
            "args": argparse.Namespace(arch=name), "dino_loss": {"center": torch.zeros(1, 9)},
        },
        tmp_path / "full.pth",
    )  # fmt: skip
    found = from_dino(name, tmp_path / "full.pth", write_head(tmp_path / "head.pth", head))
    same(found.network.network.state_dict(), expected)


def test_a_head_for_other_features_is_refused(dino, tmp_path):
    name, *_ = dino
    torch.save({}, tmp_path / "backbone.pth")
    head = write_head(tmp_path / "head.pth", {"weight": torch.zeros(5, 768), "bias": torch.zeros(5)})
    width = DINO[name][2]
    with pytest.raises(ConversionError, match=f"a head for 768 features, but {name} has {width}"):
        from_dino(name, tmp_path / "backbone.pth", head)


def test_what_is_no_linear_head_is_refused(tmp_path):
    torch.save({"fc1.weight": torch.zeros(2, 2)}, tmp_path / "head.pth")
    with pytest.raises(ConversionError, match=r"head\.pth: expected a linear head, .* not fc1\.weight"):
        from_dino("resnet50", tmp_path / "backbone.pth", tmp_path / "head.pth")


def test_a_backbone_of_another_network_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "backbone.pth")
    head = write_head(tmp_path / "head.pth", {"weight": torch.zeros(5, 2048), "bias": torch.zeros(5)})
    with pytest.raises(ConversionError, match=r"backbone\.pth: bn1\.bias is missing, and \d+ more"):
        from_dino("resnet50", tmp_path / "backbone.pth", head)
    head = write_head(tmp_path / "head.pth", {"weight": torch.zeros(5, 384), "bias": torch.zeros(5)})
    with pytest.raises(ConversionError, match=r"backbone\.pth: not the weights of xcit"):
        from_dino("xcit_small_12_p16_224", tmp_path / "backbone.pth", head)


def test_other_networks_of_dino_are_refused(tmp_path):
    with pytest.raises(ConversionError, match="no converter for DINO's 'vit_base'; there are: resnet50,"):
        from_dino("vit_base", tmp_path / "backbone.pth", tmp_path / "head.pth")
