"""What goes in and out over HTTP, as types: request parameters, and the bodies of the answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SkipValidation

from konkyo.models.card import MapKind, ModelCard, Needs
from konkyo.rendering import Colormap, Overlay, Part, Status

MAX_TARGETS = 32


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return [item for item in map(str.strip, value.split(",")) if item]


class PredictOptions(BaseModel):
    """Parameters of ``:predict``, in the query, in form fields or in ``parameters``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    top_k: int = Field(default=5, ge=1, le=1000, description="classes listed, best first")
    deadline_ms: float | None = Field(default=None, gt=0, le=3_600_000, description="answer by then, or 504")


class ExplainOptions(PredictOptions):
    """Parameters of ``:explain``."""

    method: str | None = Field(default=None, description="explanation; default: the model's own")
    target: str | int | None = Field(default=None, description="class to explain; default: the predicted one")
    targets: Annotated[list[str | int] | None, BeforeValidator(_split)] = Field(
        default=None, max_length=MAX_TARGETS, description="several classes in one pass, comma-separated"
    )
    truth: str | int | None = Field(
        default=None, description="the true class: maps of it and of the predicted one, to explain a failure"
    )
    neurons: int = Field(
        default=5, ge=1, le=50, description="neurons named for and against the class, by method=text"
    )
    map: Literal["png", "float32", "none"] = Field(default="png", description="how the map is sent")
    overlay: Overlay | None = Field(
        default=None, description="picture to send; default: none in JSON, the model's own kind as an image"
    )
    part: Part | None = Field(
        default=None,
        description="what the overlay shows, for or against the class; default: positive, and both where it "
        "is grey",
    )
    colormap: Colormap = Field(default="signed", description="colours of the blend overlay")
    alpha: float = Field(default=0.7, ge=0, le=1, description="opacity of the blend overlay")
    frame: Literal["original", "input"] = Field(
        default="original", description="where pictures and regions lie"
    )
    regions: float = Field(
        default=0.15, gt=0, lt=1, description="threshold of the regions, share of the maximum"
    )
    attention: SkipValidation[str | list[list[float]] | None] = Field(
        default=None,
        description="attention map to decide by, over the network's input: base64 of an 8-bit PNG, "
        "transparent for the network's own value, or rows of numbers, negative for it",
    )
    """Checked by ``read_attention``, which names one fault and not one for every cell."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Score(_Body):
    """A class with its probability (softmax) and its logit."""

    label: str
    index: int
    score: float
    logit: float


class ModelRef(_Body):
    """Which model answered."""

    name: str
    version: str
    digest: str


class GeometryBody(_Body):
    """Where the network's input lies in the original image; pixels, continuous, upright."""

    original: tuple[int, int]
    orientation: int
    crop: tuple[float, float, float, float]
    input: tuple[int, int]
    map: tuple[int, int] | None
    map_to_original: tuple[float, float, float, float, float, float] | None


class Prediction(_Body):
    """Answer of ``:predict``."""

    id: str
    model: ModelRef
    label: str
    index: int
    score: float
    top_k: list[Score]
    geometry: GeometryBody
    timing_ms: dict[str, float]
    batch_size: int


class ClassRef(_Body):
    """A class."""

    label: str
    index: int


class MapBody(_Body):
    """A map; ``data`` is base64 of a PNG or of little-endian float32."""

    encoding: Literal["png", "float32"]
    width: int
    height: int
    min: float | None
    max: float | None
    data: str


class Region(_Body):
    """A connected part of the map; pixels of the frame, shares of the grid and of the positive values."""

    box: tuple[float, float, float, float]
    peak: tuple[float, float]
    area: float
    mass: float


class OverlayBody(_Body):
    """A picture; ``data`` is base64."""

    media_type: str
    width: int
    height: int
    data: str


class NeuronBody(_Body):
    """A neuron, by its channel and its name; ``rank`` among all that speak for the class, or against it."""

    neuron: int
    name: str | None
    importance: float
    rank: int
    iou: float | None


class TextBody(_Body):
    """The neurons that speak for a class and against it, most important first, and the same in words."""

    because: list[NeuronBody]
    despite: list[NeuronBody]
    words: str


class MapAnswer(_Body):
    """One map: of a class, or, without a target, of all of them, at a scale where there are several.

    ``role`` tells the map of the predicted class from that of the true one, where ``truth`` was given.
    """

    status: Status
    target: ClassRef | None
    role: Literal["predicted", "true"] | None = None
    scale: int | None = None
    map: MapBody | None = None
    regions: list[Region] = Field(default_factory=list)
    overlay: OverlayBody | None = None
    text: TextBody | None = None


class ExplanationBody(MapAnswer):
    """The explanation; ``maps`` holds each of several targets or scales, the rest repeats the first."""

    method: str
    maps: list[MapAnswer] | None = None


class Original(_Body):
    """The answer to the same image without the caller's edit."""

    label: str
    index: int
    score: float
    top_k: list[Score]
    explanation: ExplanationBody


class Truth(_Body):
    """The true class, as the caller named it."""

    label: str
    index: int
    score: float
    correct: bool


class Explained(Prediction):
    """Answer of ``:explain``; of the edited map, where one was brought."""

    explanation: ExplanationBody
    truth: Truth | None = None
    original: Original | None = None


class ErrorDetail(_Body):
    """A stable code, a sentence, and values for programs."""

    code: str
    message: str
    detail: dict[str, Any]


class ErrorBody(_Body):
    """Body of every error."""

    error: ErrorDetail


class Predictions(_Body):
    """Answer of ``:predict`` to several images."""

    predictions: list[Prediction | ErrorBody]


class Explanations(_Body):
    """Answer of ``:explain`` to several images."""

    explanations: list[Explained | ErrorBody]


class Progress(_Body):
    """Images that went through the network, of those that will."""

    done: int
    total: int


class JobBody(_Body):
    """A long explanation at work, or how it ended."""

    id: str
    model: str
    version: str
    method: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: Progress
    result: Explained | None
    error: ErrorDetail | None


class ModelSummary(_Body):
    """A line of the list of models."""

    name: str
    versions: list[str]
    default: str
    state: str
    methods: list[str]
    default_method: str | None
    problems: list[str]
    """Why versions, or newer files of them, could not be loaded."""


class ModelList(_Body):
    """Every model."""

    models: list[ModelSummary]


class MethodBody(_Body):
    """An explanation that can be asked for; ``long`` ones take many passes."""

    name: str
    map_kind: MapKind
    class_specific: bool
    needs: Needs
    runtime: str
    default: bool
    long: bool


class ModelDetail(_Body):
    """A version of a model, with its card and what it can do once it is loaded."""

    name: str
    version: str
    state: str
    ready: bool
    failure: str | None
    load_seconds: dict[str, float]
    digest: str | None
    engine: str | None
    device: str | None
    methods: list[MethodBody]
    card: ModelCard | None


class InfoBody(_Body):
    """What runs here."""

    name: str
    version: str
    python: str
    runtimes: dict[str, str]
    engines: dict[str, str]
    startup_seconds: dict[str, float]
    limits: dict[str, int]


class Health(_Body):
    """Whether all is well, and what is not."""

    status: Literal["ok", "unavailable"]
    problems: list[str] = Field(default_factory=list)
