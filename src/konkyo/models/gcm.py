"""GCM: Generative Contribution Mappings (IPSJ Transactions on Mathematical Modeling 10-2, 2017).

The network generates, for every class, a weight for every pixel of the image it looks at.
The product of that class weight map and the image is the class contribution map, and its mean
is the score. Nothing comes after the map, so the map *is* the decision, not a comment on it::

    CWM_j   = Decoder_j(Encoder(I))                      (H, W), signed
    CCM_j   = tile(CWM_j) * I                            (H, W, D), signed
    score_j = mean(CCM_j) = <tile(CWM_j), I> / (H W D)

Shape legend: B batch, D input channels, H, W input size, N classes, C feature channels.

The paper's table of widths is lost; the default widths are our reconstruction. It keeps what is
known: 15 layers of 3x3 kernels (10 encoder, 4 shared decoder, 1 per class), features at a quarter
of the input size, transposed convolutions on the way up, batch norm and ReLU after every layer but
the last, and about 162,000 parameters for 10 classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, fx, nn

from konkyo.models.cut import Hook
from konkyo.models.registry import register

ENCODER: tuple[tuple[int, int], ...] = (
    (16, 1), (16, 1), (16, 1),
    (32, 2), (32, 1), (32, 1),
    (64, 2), (64, 1), (60, 1), (32, 1),
)  # fmt: skip
"""Channels and stride of layers 1 to 10."""

DECODER: tuple[tuple[int, int], ...] = ((32, 2), (32, 1), (16, 2), (16, 1))
"""Channels and upscale of layers 11 to 14, shared by all classes."""


class _Layer(nn.Sequential):
    """Convolution (or, to grow, transposed convolution), batch norm, ReLU: one layer of the paper."""

    def __init__(self, c_in: int, c_out: int, *, stride: int = 1, upscale: int = 1) -> None:
        conv: nn.Module
        if upscale > 1:
            conv = nn.ConvTranspose2d(
                c_in, c_out, 3, stride=upscale, padding=1, output_padding=upscale - 1, bias=False
            )
        else:
            conv = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


@register("gcm")
class GCM(nn.Module):
    """A classifier whose logit of a class is the mean of that class's contribution map.

    Args:
        num_classes: N, at least 2.
        in_chans: D, the channels of the image.
        encoder: ``(channels, stride)`` of each encoder layer; the paper has ten.
        decoder: ``(channels, upscale)`` of each shared decoder layer; the paper has four.
        clipped: the paper's clipped variant; a ReLU after the last layer makes every weight >= 0.

    Raises:
        ValueError: fewer than 2 classes, or strides and scales that differ in product, so that the
            map would not have the size of the image.

    ``forward`` takes images in [0, 1], *not* centred: the product with the image, the spotlight,
    only means something where black is zero.
    """

    centred: ClassVar[bool] = False
    explanation: ClassVar[str] = "gcm"

    def __init__(
        self,
        num_classes: int = 10,
        *,
        in_chans: int = 3,
        encoder: Sequence[Sequence[int]] = ENCODER,
        decoder: Sequence[Sequence[int]] = DECODER,
        clipped: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, not {num_classes}")
        self.num_classes = num_classes
        self.clipped = clipped
        self.stride = math.prod(stride for _, stride in encoder)
        upscale = math.prod(scale for _, scale in decoder)
        if self.stride != upscale:
            raise ValueError(f"the encoder divides by {self.stride} but the decoder multiplies by {upscale}")

        channels = in_chans
        self.encoder = nn.Sequential()
        for width, stride in encoder:
            self.encoder.append(_Layer(channels, width, stride=stride))
            channels = width
        self.decoder = nn.Sequential()
        for width, scale in decoder:
            self.decoder.append(_Layer(channels, width, upscale=scale))
            channels = width
        self.class_layer = nn.Conv2d(channels, num_classes, 3, padding=1)

    def hook(self, layer: str | None = None) -> Hook:
        """See ``Network.hook``: by default the end of the encoder, its coarsest features."""
        return Hook(self, layer or "encoder")

    def forward_features(self, image: Tensor) -> Tensor:
        """Shared features at the size of the image: (B, D, H, W) -> (B, C, H, W).

        Raises:
            ValueError: H or W is not a multiple of ``stride``.
        """
        require_multiple(image, self.stride)
        features: Tensor = self.decoder(self.encoder(image))
        return features

    def class_weight_maps(self, image: Tensor) -> Tensor:
        """CWM of every class: (B, D, H, W) -> (B, N, H, W), signed unless clipped."""
        maps: Tensor = self.class_layer(self.forward_features(image))
        return maps.relu() if self.clipped else maps

    def forward(self, image: Tensor) -> Tensor:
        """Logits: (B, D, H, W) in [0, 1] -> (B, N)."""
        return contribution_score(self.class_weight_maps(image), image)


@fx.wrap  # one step of the traced network: it decides by the size of the image
def require_multiple(image: Tensor, stride: int) -> None:
    """That the sides of images (B, D, H, W) are multiples of a stride.

    Raises:
        ValueError: they are not.
    """
    height, width = image.shape[-2:]
    if height % stride or width % stride:
        raise ValueError(f"image sides must be multiples of {stride}, not {height}x{width}")


def contribution_score(maps: Tensor, image: Tensor) -> Tensor:
    """score_j = <tile(CWM_j), I> / (H W D).

    Taking the mean of the image over its channels first gives the same number as tiling the map,
    at 1/D of the work. The product is plain multiplication and not an einsum, because autocast
    would round an einsum's result, the logit, to eight bits.

    Args:
        maps: class weight maps (B, N, H, W).
        image: (B, D, H, W) in [0, 1].

    Returns:
        (B, N), float32 where the image is.
    """
    return (maps * image.mean(dim=1, keepdim=True)).mean(dim=(2, 3))
