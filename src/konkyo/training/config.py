"""Every setting of a training run, in one frozen object that goes into checkpoint and card."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Selection = Literal["confidence", "map-error"]
"""What the images an expert may be asked about are sorted by."""


class TrainConfig(BaseModel):
    """What a run was asked to do; together with the data it determines the weights.

    ``batch_size`` is over all devices together and ``lr`` belongs to it, so the same numbers mean
    the same run on one device or eight. Times are in epochs, sizes in pixels.

    Raises:
        ValidationError: a setting is unknown, of the wrong type or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str = Field(description="name of the network")
    arch_args: dict[str, Any] = Field(default_factory=dict)
    data: str = Field(default="cifar10", description="cifar10, elpv, surfaces, or a folder of class folders")
    data_root: str | None = Field(default=None, description="where the data is looked for; cifar10: ./data")
    image_size: int | None = Field(default=None, ge=8, le=4096, description="sides of the input")
    resize_mode: Literal["center_crop", "squash"] = Field(
        default="center_crop", description="how an image that is not square is brought to the input"
    )
    skip_broken: bool = Field(default=False, description="leave out images that cannot be read")
    val_share: float = Field(default=0.1, gt=0, lt=0.5, description="share kept to choose the best epoch on")
    masks: str | None = Field(
        default=None, description="folder of masks, CLASS/STEM.png; default: masks beside images"
    )
    fold: int | None = Field(default=None, ge=0, description="which of the folds is the test split")
    folds: int = Field(default=5, ge=2, description="parts of a cross-validation")

    init: str | None = Field(default=None, description="checkpoint or bundle to take the first weights from")
    teacher: list[str] = Field(
        default_factory=list, description="checkpoint or bundle to learn from, repeatable (distillation)"
    )
    teacher_share: float = Field(default=0.7, ge=0, le=1, description="share of the teachers in the loss")
    temperature: float = Field(default=4.0, gt=0, description="of the distillation")
    pretrained: bool = Field(
        default=False, description="begin with ImageNet weights of the backbone, from an installed package"
    )
    epochs: int = Field(default=60, ge=1)
    batch_size: int = Field(default=128, ge=2, description="over all devices together")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="sgd is with Nesterov momentum")
    lr: float = Field(default=0.1, gt=0, description="highest learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["one-cycle", "cosine", "step"] = Field(
        default="one-cycle",
        description="of the learning rate; step divides it by 10 at 1/2 and 3/4 of the run",
    )
    warmup: float = Field(
        default=0.2, ge=0, lt=1, description="one-cycle: share of the run in which it rises"
    )
    class_balance: float = Field(
        default=0.0, ge=0, le=1, description="b: an image of a class of n images weighs n to the power of -b"
    )
    select_by: Literal["accuracy", "balanced-accuracy", "kappa", "last"] = Field(
        default="accuracy", description="what the best epoch is chosen by, on the validation split"
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    crop_padding: int | None = Field(default=None, ge=0, description="None: an eighth of the image size")
    flip: bool = Field(default=True, description="mirror half of the images")
    flip_vertical: bool = Field(default=False, description="turn half of the images upside down")

    light: float = Field(
        default=0.0, ge=0, lt=1, description="largest change of contrast and brightness, as a share"
    )

    pretrain_epochs: int = Field(
        default=0, ge=0, description="amb: first epochs, on the losses of a plain abn (the paper's step 1)"
    )
    mining_weight: float = Field(
        default=1.6e-3,
        ge=0,
        description="amb: of the attention mining loss, a mean; the paper's 1e-4 is of a sum over 16 images",
    )
    prototype_weight: float = Field(default=0.0, ge=0, description="amb: of the prototype conformity loss")
    prototype_repel: float = Field(
        default=1e-4, ge=0, description="amb: of the distances to other classes in that loss"
    )
    complement: bool = Field(
        default=False,
        description="amb: after each step one on the complement entropy, which replaces the mining loss",
    )
    map_weight: list[float] = Field(
        default_factory=list, description="of the loss against the masks: one for all scales, or one each"
    )
    freeze_extractor: bool = Field(
        default=False, description="leave the layers before the attention branch as they are"
    )

    seed: int = Field(
        default=0, ge=0, lt=2**32, description="of the weights, the split, order and augmentation"
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        default="auto", description="auto: bfloat16 where the hardware is made for it"
    )
    devices: int | None = Field(default=None, ge=1, description="None: all there are")
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    compile: bool = Field(default=False, description="torch.compile: a slower start, faster epochs")

    @model_validator(mode="after")
    def _crop_fits(self) -> TrainConfig:
        if self.image_size and self.crop_padding and self.crop_padding >= self.image_size:
            raise ValueError("crop_padding must be smaller than image_size: it is filled by reflection")
        return self
