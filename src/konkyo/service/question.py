"""What is asked of a model: a question as it came, and the plan it makes once it is checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from konkyo.errors import InvalidParameter
from konkyo.imaging import UInt8
from konkyo.service.engines.base import Float32
from konkyo.service.methods import Method
from konkyo.service.model import Model
from konkyo.service.schemas import ExplainOptions, PredictOptions

ImageFormat = Literal["png", "jpeg", "webp"]
Verb = Literal["predict", "explain"]


@dataclass(frozen=True, slots=True)
class Question:
    """One image and what is asked of it.

    Attributes:
        item: which of the images of its request.
        data: the bytes of an image file, or pixels (H, W, 3) of the model's input size.
        options: ``ExplainOptions`` asks for a map.
        picture: answer with the overlay alone, in this format.
        attention: an edit (h', w') of the map, from 0 to 1, negative where the network's own value stays.
        deadline: in the event loop's time.
        targets: class indices to explain, −1 for the predicted class, in the place of those in the options.
        raw: the maps are wanted as they left the network; no picture, region or text is made for the body.
    """

    id: str
    data: bytes | UInt8
    options: PredictOptions
    picture: ImageFormat | None = None
    attention: Float32 | None = None
    deadline: float | None = None
    targets: tuple[int, ...] | None = None
    raw: bool = False
    item: int = 0

    @property
    def nbytes(self) -> int:
        """Size of the file or of the pixels."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.nbytes

    @property
    def verb(self) -> Verb:
        """Whether it asks for an explanation."""
        return "explain" if isinstance(self.options, ExplainOptions) else "predict"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model has to do for a question.

    Attributes:
        method: None for the class alone.
        targets: class indices to explain, −1 for the predicted class; one of any where the maps are the
            same for every class.
        truth: index of the true class, where the caller named it; the targets are then −1 and this.
        shed: the explanation was given up under pressure.
    """

    method: Method | None = None
    targets: tuple[int, ...] = ()
    truth: int | None = None
    shed: bool = False

    @property
    def queue(self) -> str:
        """The kind of the queue to wait in."""
        return "predict" if self.method is None or self.shed else self.method.queue

    @property
    def maps(self) -> int:
        """M, the maps that will come."""
        if self.method is None or self.shed:
            return 0
        return len(self.targets) if self.method.class_specific else self.method.scales


def make_plan(model: Model, question: Question) -> Plan:
    """Check a question against what the model can do.

    Raises:
        NotReady: the model is not loaded.
        UnsupportedMethod: the model cannot be explained so.
        InvalidParameter: parameters that exclude each other, or that this method does not take.
        UnknownClass: the model has no such class.
    """
    options = question.options
    if not isinstance(options, ExplainOptions):
        return Plan()
    method = model.methods.find(options.method)
    if question.attention is not None and not method.takes_attention:
        raise InvalidParameter(
            f"the map of {model.name} by {method.name} cannot be edited; only attention maps can",
            parameter="attention",
        )
    if not method.draws:
        _refuse_pictures(method, question, options)
    truth = None if options.truth is None else model.class_index(options.truth)
    return Plan(method, _targets(model, method, question, options, truth), truth)


def _targets(
    model: Model, method: Method, question: Question, options: ExplainOptions, truth: int | None
) -> tuple[int, ...]:
    given = [name for name in ("target", "targets", "truth") if getattr(options, name) is not None]
    if question.targets is not None:
        given.append("targets")
    if given and not method.class_specific:
        raise InvalidParameter(
            f"the map of {model.name} by {method.name} is the same for every class; leave {given[0]} out, or "
            "choose another method",
            parameter=given[0],
        )
    if len(given) > 1:
        raise InvalidParameter(f"give {given[0]} or {given[1]}, not both", parameter=given[1])
    if question.targets is not None:
        return question.targets
    if options.targets is not None:
        if not options.targets:
            raise InvalidParameter("targets is empty", parameter="targets")
        return tuple(model.class_index(target) for target in options.targets)
    if truth is not None:
        return -1, truth
    return (-1,) if options.target is None else (model.class_index(options.target),)


def _refuse_pictures(method: Method, question: Question, options: ExplainOptions) -> None:
    if question.picture:
        raise InvalidParameter(f"{method.name} answers in words; accept application/json")
    for name, value in (("overlay", options.overlay), ("map", options.map)):
        if name in options.model_fields_set and value not in (None, "none", "float32"):
            raise InvalidParameter(f"{method.name} answers in words, and has no picture", parameter=name)
