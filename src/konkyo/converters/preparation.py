"""How images are brought to the input of a network, where its file does not say so and a person must."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from konkyo.converters.errors import ConversionError
from konkyo.imaging import Interpolation, ResizeMode
from konkyo.models.card import InputSpec

_COMMON = (
    "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, the statistics of ImageNet, "
    "or --mean 0,0,0 --std 1,1,1, pixels from 0 to 1"
)


@dataclass(frozen=True)
class Preparation:
    """What was said on the command line; None where nothing was.

    Attributes:
        mean: of red, green and blue, in units of the pixel range 0 to 1, such as ``0.485,0.456,0.406``.
        std: deviation, likewise.
        size: ``WIDTHxHEIGHT`` of the input.
        resize: how an image is brought to that size.
        crop_fraction: the share of the sides that is kept.
        interpolation: of the resizing.
    """

    mean: str | None = None
    std: str | None = None
    size: str | None = None
    resize: ResizeMode | None = None
    crop_fraction: float | None = None
    interpolation: Interpolation | None = None

    def given(self) -> list[str]:
        """The options that were used."""
        used = (field.name for field in fields(self) if getattr(self, field.name) is not None)
        return [f"--{name.replace('_', '-')}" for name in used]

    def input_spec(self, source: str, width: int | None, height: int | None) -> InputSpec:
        """What the network takes.

        Args:
            source: the file, for the messages.
            width: of the input, None where the file leaves it free.
            height: likewise.

        Raises:
            ConversionError: the normalisation or the size is missing, is not one, or is not that of the file.
        """
        if self.mean is None or self.std is None:
            raise ConversionError(f"{source} does not say how its input was normalised; say it: {_COMMON}")
        mean, std = _numbers("--mean", self.mean), _numbers("--std", self.std)
        if min(std) <= 0:
            raise ConversionError(f"--std {self.std}: a deviation is above 0")
        said = (width, height) if self.size is None else _size(self.size)
        if None in said:
            raise ConversionError(f"{source} takes images of any size; say at which: --size 224x224")
        if any(fixed not in (None, side) for fixed, side in zip((width, height), said, strict=True)):
            raise ConversionError(
                f"{source} takes {width or 'any'}x{height or 'any'} pixels, not {self.size}"
            )
        if self.crop_fraction is not None and not 0 < self.crop_fraction <= 1:
            raise ConversionError(
                f"--crop-fraction {self.crop_fraction:g}: expected a share, above 0 and up to 1"
            )
        options = {
            "resize_mode": self.resize,
            "crop_fraction": self.crop_fraction,
            "interpolation": self.interpolation,
        }
        chosen = {name: value for name, value in options.items() if value is not None}
        return InputSpec.model_validate(
            {"width": said[0], "height": said[1], "mean": mean, "std": std, **chosen}
        )


def _numbers(option: str, text: str) -> Sequence[float]:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise ConversionError(f"{option} {text}: expected three numbers, such as 0.5,0.5,0.5") from None
    return red, green, blue


def _size(text: str) -> tuple[int | None, int | None]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ConversionError(f"--size {text}: expected WIDTHxHEIGHT in pixels, such as 224x224")
    return int(width), int(height)
