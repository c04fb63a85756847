"""ModelCard: what a bundle says of itself. Pydantic only, no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from konkyo.imaging import Interpolation, ResizeMode

CARD, ONNX, WEIGHTS, CANARY = "card.json", "model.onnx", "weights.safetensors", "canary.png"
NEURONS = "neurons.json"
"""Names of the files of a bundle; what the neurons stand for is in ``NEURONS``, where it is known."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
MapKind = Literal[
    "class_weight_map",
    "class_activation_map",
    "attention_map",
    "input_gradient",  # signed, summed over the channels, at the size of the input
    "neuron_importance",  # (B, K, 1, C): one number a channel, and no picture
    "score_drop",  # signed: how far the score falls where the image is hidden
    "saliency_map",  # not negative
]
Needs = Literal["graph", "weights", "predictions"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Part):
    """What the network takes, and how an image is brought to it.

    ``mean`` and ``std`` repeat, for the reader, what is inside the graph; nothing applies them.
    """

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    resize_mode: ResizeMode = "center_crop"
    crop_fraction: float = Field(default=1.0, gt=0, le=1)
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ExplanationSpec(_Part):
    """The map that leaves the graph.

    ``class_specific``: M = K maps, one for each target, instead of M maps whatever the targets.
    ``range``: smallest and largest value seen on validation data, for the predicted class.
    ``takes_attention``: a caller may bring a map of their own in the place of the network's.
    ``scales``: M where the maps are not class-specific, finest first.
    """

    method: str
    map_kind: MapKind
    class_specific: bool
    range: tuple[float, float]
    takes_attention: bool = False
    scales: int = Field(default=1, ge=1)


class MethodSpec(_Part):
    """An explanation this network can give.

    ``needs`` says which runtimes can give it: ``graph``, it is in ``model.onnx``, and torch has it too;
    ``weights``, it is made by torch from ``weights.safetensors``; ``predictions``, it asks for nothing
    but predictions, and so is had from every runtime.
    """

    method: str
    map_kind: MapKind
    class_specific: bool
    needs: Needs


class Accuracy(NamedTuple):
    """Shares of right answers, and the number of images they were measured on.

    Attributes:
        share: of all images.
        images: their number.
        balanced: mean share of the classes.
        kappa: quadratic weighted, of ordered classes; None of others.
    """

    share: float
    images: int
    balanced: float | None = None
    kappa: float | None = None


class Provenance(_Part):
    """Where the weights come from.

    ``accuracy`` is a share of 1, measured on ``accuracy_images`` images of the test split, through
    ``model.onnx`` where there is one and else through torch; likewise ``balanced_accuracy``, and for
    ordered classes the quadratic weighted ``kappa``. ``epochs`` is None where nobody told. ``date`` is
    the day of the export.
    """

    data: str
    licence: str
    citation: str | None = None
    command: str
    date: str
    parameters: int
    epochs: int | None = None
    accuracy: float | None = Field(default=None, ge=0, le=1)
    accuracy_images: int | None = None
    balanced_accuracy: float | None = Field(default=None, ge=0, le=1)
    kappa: float | None = Field(default=None, ge=-1, le=1)
    parity: float | None = Field(
        default=None,
        description="largest difference of runtimes, or from an imported graph, on real images, "
        "relative to the range; none: torch alone",
    )


class FileEntry(_Part):
    """Digest and length of a file of the bundle."""

    sha256: Sha256
    bytes: int


class Canary(_Part):
    """A synthetic image with the logits it must give: what readiness is checked with."""

    file: FileName
    logits: tuple[float, ...]


class ModelCard(_Part):
    """The card of a bundle, ``card.json``.

    ``explanation`` is the one that is given unless another is asked for; ``methods`` are all that the
    network can be asked for, with that one among them. Older cards do not list them.

    Raises:
        ValidationError: a field is missing, unknown, or of the wrong type or range.
    """

    format: Literal["konkyo/1"] = "konkyo/1"
    name: Name
    version: Version
    architecture: str
    arguments: dict[str, Any]
    labels: tuple[str, ...] = Field(min_length=2)
    input: InputSpec
    explanation: ExplanationSpec
    methods: tuple[MethodSpec, ...] = ()
    provenance: Provenance
    canary: Canary
    files: dict[FileName, FileEntry]

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels repeat")
        if len(self.canary.logits) != len(self.labels):
            raise ValueError("the canary's logits and the labels differ in number")
        if self.canary.file not in self.files:
            raise ValueError(f"the canary {self.canary.file} is not among the files")
        if self.explanation.class_specific and self.explanation.scales > 1:
            raise ValueError("maps of several scales cannot be class-specific")
        known = [item.method for item in self.methods]
        if len(set(known)) != len(known):
            raise ValueError("methods repeat")
        if known and self.explanation.method not in known:
            raise ValueError(f"the explanation {self.explanation.method} is not among the methods")
        if not {ONNX, WEIGHTS} & self.files.keys():
            raise ValueError(f"there is neither {ONNX} nor {WEIGHTS}")
        return self


def problems(error: ValidationError) -> str:
    """What is wrong and where, in one line."""
    found = ((".".join(map(str, item["loc"])), item["msg"]) for item in error.errors())
    return "; ".join(f"{place}: {message}" if place else message for place, message in found)
