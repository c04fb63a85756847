"""Any classifier of timm (Wightman, 2019), explained where its features still know their place.

The network is timm's own, unchanged. What is added is what it takes to explain it: how its input was
normalised, by its ``pretrained_cfg``; and where to cut it, found by what flows through it
(``places.py``) unless it is said.

Shape legend: B batch, D input channels, H, W input size, N classes.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, cast

import timm
from torch import Tensor, nn

from konkyo.models.card import InputSpec
from konkyo.models.cut import Hook, Layout
from konkyo.models.folding import fold_batch_norms
from konkyo.models.places import Places
from konkyo.models.registry import register


@register("timm")
class TimmNet(nn.Module):
    """A timm network by name, with random weights.

    Args:
        num_classes: N, at least 2.
        name: as ``timm.create_model`` takes it, with or without the tag that says which weights and
            which preprocessing are meant.
        layer: where it is explained unless another layer is asked for; default: found by rule.
        layout: ``kind``, ``prefix_tokens``, ``aspect`` of that layer's output (``Layout``), those that
            are not as they are found.
        image_size: H, W where they are not those of the pretrained network.
        model_args: further arguments of ``timm.create_model``.
        fold: build it with its batch norms folded into its convolutions, as ``folded`` gives it.

    With both ``layer`` and ``layout`` nothing has to be found: ``arguments`` gives them.

    Raises:
        ValueError: no such network, one that is no classifier, fewer than 2 classes, an image size it
            does not take, a wrong layout, or an argument that it does not take.

    Example:
        >>> network = TimmNet(10, name="resnet10t")
        >>> network.hook().layer
        'layer4'
        >>> network.input_spec.height
        176
    """

    centred: ClassVar[bool] = True
    explanation: ClassVar[str] = "gradcam"
    stride = 1

    def __init__(
        self,
        num_classes: int,
        *,
        name: str = "resnet10t",
        layer: str | None = None,
        layout: Mapping[str, Any] | None = None,
        image_size: Sequence[int] | None = None,
        model_args: Mapping[str, Any] | None = None,
        fold: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, not {num_classes}")
        self.num_classes = num_classes
        self.name = name
        self.layer = layer
        self.fold = fold
        self._layout = dict(layout or {})
        self._model_args = dict(model_args or {})
        self._image_size = None if image_size is None else tuple(image_size)
        _require_size(self._image_size)
        _require_layout(self._layout)
        self.network = _create(name, num_classes, self._image_size, self._model_args)
        self._hook: Hook | None = None
        if fold:
            fold_batch_norms(self.network)

    def forward(self, image: Tensor) -> Tensor:
        """Logits: (B, D, H, W) -> (B, N)."""
        logits: Tensor = self.network(image)
        return logits

    @property
    def input_spec(self) -> InputSpec:
        """The preprocessing the published weights were trained for.

        Raises:
            ValueError: it is one this package does not have.
        """
        config = _config(self.network)
        modes = {"center": "center_crop", "squash": "squash"}
        if config["crop_mode"] not in modes:
            raise ValueError(
                f"{self.name} crops its input by {config['crop_mode']!r}, which is not supported"
            )
        height, width = self.image_size
        return InputSpec.model_validate(
            {
                "width": width,
                "height": height,
                "resize_mode": modes[config["crop_mode"]],
                "crop_fraction": config["crop_pct"],
                "interpolation": config["interpolation"],
                "mean": config["mean"],
                "std": config["std"],
            }
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """H, W."""
        height, width = self._image_size or _config(self.network)["input_size"][-2:]
        return height, width

    def hook(self, layer: str | None = None) -> Hook:
        """See ``Network.hook``; layers are named as timm names them.

        The first call without a known layer and layout runs the network once to find them.
        """
        if layer not in (None, self.layer):
            return Hook(self.network, layer, self._places().at(layer))
        if self._hook is None:
            self._hook = self._find_hook()
        return self._hook

    def arguments(self) -> dict[str, Any]:
        """All that rebuilds it, as JSON values, with what has been found about the hook."""
        hook = self.hook()
        given: dict[str, Any] = {"name": self.name, "layer": hook.layer, "layout": asdict(hook.layout)}
        if self._image_size is not None:
            given["image_size"] = list(self._image_size)
        if self._model_args:
            given["model_args"] = self._model_args
        if self.fold:
            given["fold"] = True
        return given

    def folded(self) -> TimmNet:
        """A copy that computes the same in eval mode, each batch norm folded into its convolution."""
        network = copy.deepcopy(self)
        if not self.fold:
            network.fold = True
            fold_batch_norms(network.network)
        return network

    def _find_hook(self) -> Hook:
        layer, layout = self.layer, Layout()
        if layer is None or not self._layout:
            places = self._places()
            layer, layout = places.best() if layer is None else (layer, places.at(layer))
        return Hook(self.network, layer, Layout(**{**asdict(layout), **self._layout}))

    def _places(self) -> Places:
        return Places(self.network, (3, *self.image_size))


def _create(
    name: str, num_classes: int, image_size: tuple[int, ...] | None, arguments: Mapping[str, Any]
) -> nn.Module:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=5)
        others = f"there are: {', '.join(near)}" if near else "timm.list_models() names those there are"
        raise ValueError(f"timm has no network {name!r}; {others}")
    if "checkpoint_path" in arguments:
        raise ValueError(f"{name} is built without weights: checkpoint_path is no argument of it")
    try:
        network = timm.create_model(name, pretrained=False, num_classes=num_classes, **arguments)
        if image_size is not None and _config(network).get("fixed_input_size"):
            arguments = {**arguments, "img_size": image_size}
            network = timm.create_model(name, pretrained=False, num_classes=num_classes, **arguments)
    except (RuntimeError, AssertionError, TypeError, KeyError) as error:  # of tags, sizes and arguments
        raise ValueError(f"{name} cannot be built: {error}") from error
    get_classifier: Callable[[], Any] = getattr(network, "get_classifier", lambda: None)
    classifier = get_classifier()
    if classifier is None or isinstance(classifier, nn.Identity) or network.num_classes != num_classes:
        raise ValueError(f"{name} is no classifier")
    return network


def _config(network: nn.Module) -> dict[str, Any]:
    return cast(dict[str, Any], network.pretrained_cfg)


def _require_size(size: tuple[int, ...] | None) -> None:
    if size is not None and not (len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise ValueError(f"an image size is height and width in pixels, such as [224, 224], not {list(size)}")


def _require_layout(layout: Mapping[str, Any]) -> None:
    known = Layout.__dataclass_fields__
    if unknown := set(layout) - set(known):
        raise ValueError(f"a layout has no {', '.join(sorted(unknown))}; it has: {', '.join(known)}")
    if layout.get("kind", "nchw") not in ("nchw", "nhwc", "tokens"):
        raise ValueError(f"the kind of a layout is nchw, nhwc or tokens, not {layout['kind']!r}")
    if layout.get("prefix_tokens", 0) < 0 or layout.get("aspect", 1) <= 0:
        raise ValueError("a layout has no fewer than 0 prefix tokens, and an aspect above 0")
