"""Every setting of an evaluation that has one value, in one frozen object; no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EvaluateConfig(BaseModel):
    """What an evaluation was asked to do; it goes into the results.

    Raises:
        ValidationError: a setting is unknown, of the wrong type or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(
        description="cifar10, elpv, surfaces, or a folder: class folders, images with masks, COCO's panoptic"
    )
    data_root: str | None = Field(default=None, description="where the data is looked for; cifar10: ./data")
    split: Literal["train", "val", "test", "all"] | None = Field(
        default=None, description="part of the data; default: test where there is one, else all"
    )
    fold: int | None = Field(default=None, ge=0, description="which of the folds is the test split")
    masks: str | None = Field(
        default=None, description="folder of masks, CLASS/STEM.png; default: masks beside images"
    )
    classes: str | None = Field(
        default=None, description="JSON file: which classes of the model the names in the data mean"
    )
    ordered: bool = Field(default=False, description="the classes are grades: kappa too")
    methods: str | None = Field(
        default=None, description="separated by commas; default: the model's own, Grad-CAM, baselines"
    )
    measures: str | None = Field(default=None, description="separated by commas; default: all that suit")
    images: int = Field(
        default=200, ge=0, description="that maps are measured on, drawn evenly over the classes; 0: all"
    )
    batch_size: int = Field(default=32, ge=1, description="images at once")
    device: str = Field(
        default="auto", description="of torch: cpu, cuda, cuda:1; auto: cuda where there is one"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="of the split, the drawn images and the intervals"
    )
    resamples: int = Field(default=1000, ge=100, description="of the images, for the intervals")
    level: float = Field(default=0.95, gt=0, lt=1, description="of the intervals")
    worst: int = Field(default=6, ge=0, description="images shown as the worst by each measure")
    skip_broken: bool = Field(default=False, description="leave out images that cannot be read")

    def named(self, field: Literal["methods", "measures"]) -> tuple[str, ...] | None:
        """What was asked for by name, each once; None: nothing was."""
        given = getattr(self, field)
        if given is None:
            return None
        names = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
        if not names:
            raise ValueError(f"--{field} names none")
        return names
