"""The explanations a served model can give here and now, and why it cannot give the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from konkyo import perturbation
from konkyo.errors import UnsupportedMethod
from konkyo.models.bundle import Bundle
from konkyo.models.card import MapKind, MethodSpec, Needs
from konkyo.service.engines import why_no_torch
from konkyo.service.engines.base import Engine
from konkyo.service.settings import Settings


@dataclass(frozen=True, slots=True)
class Method:
    """An explanation of a model.

    Attributes:
        name: as in the ``method`` parameter.
        map_kind: what its maps are.
        class_specific: one map for each target, instead of ``scales`` maps whatever the targets.
        needs: what it is made from; see ``MethodSpec``.
        runtime: the engine that runs it.
        differentiates: it takes a gradient, and so has a queue and a thread apart from the predictions'.
        default: it is the model's own.
        takes_attention: a caller may bring an edited map.
        scales: maps where they are not class-specific.
        range: smallest and largest value on validation data, where it is known.
    """

    name: str
    map_kind: MapKind
    class_specific: bool
    needs: Needs
    runtime: str
    differentiates: bool = False
    default: bool = False
    takes_attention: bool = False
    scales: int = 1
    range: tuple[float, float] | None = None

    @property
    def long(self) -> bool:
        """Whether it takes many passes, and so is a job and no answer to wait for."""
        return self.needs == "predictions"

    @property
    def draws(self) -> bool:
        """Whether its maps can be shown as pictures."""
        return self.map_kind != "neuron_importance"

    @property
    def queue(self) -> str:
        """The kind of the queue in which it waits."""
        if self.long:
            return "perturb"
        return "explain" if self.default else self.name


class Methods:
    """The methods of one model by name, its own first.

    Args:
        engine: which gives the model's own explanation, and the predictions.
    """

    def __init__(self, bundle: Bundle, settings: Settings, engine: Engine) -> None:
        self._model = bundle.card.name
        own = bundle.card.explanation
        self.default = Method(
            own.method,
            own.map_kind,
            own.class_specific,
            "weights" if engine.differentiates else "graph",
            engine.name,
            differentiates=engine.differentiates,
            default=True,
            takes_attention=own.takes_attention,
            scales=own.scales,
            range=own.range,
        )
        self._known = {own.method: self.default}
        self._missing: dict[str, str] = {}
        reason = why_no_torch(bundle, settings)
        for spec in _others(bundle):
            by_torch = spec.needs != "predictions"
            if by_torch and reason:
                self._missing[spec.method] = reason
            else:
                runtime = "torch" if by_torch else engine.name
                self._known[spec.method] = Method(
                    spec.method, spec.map_kind, spec.class_specific, spec.needs, runtime, by_torch
                )

    def __iter__(self) -> Iterator[Method]:
        """Those that can be had, the model's own first."""
        return iter(self._known.values())

    def names(self) -> list[str]:
        """Of those that can be had, the model's own first."""
        return list(self._known)

    def find(self, name: str | None) -> Method:
        """A method by name; None is the model's own.

        Raises:
            UnsupportedMethod: it cannot be had here; says why where that is known.
        """
        if name is None:
            return self.default
        try:
            return self._known[name]
        except KeyError:
            reason = self._missing.get(name)
            message = f"{self._model} cannot be explained by {name!r}" + (f": {reason}" if reason else "")
            raise UnsupportedMethod(message, methods=self.names(), unavailable=self._missing) from None


def _others(bundle: Bundle) -> list[MethodSpec]:
    """Every method of a bundle but its own, those by predictions also where the card is silent."""
    card = bundle.card
    listed = [spec for spec in card.methods if spec.method != card.explanation.method]
    names = {spec.method for spec in listed}
    for name, method in perturbation.methods().items():
        if name not in names:
            listed.append(
                MethodSpec(
                    method=name,
                    map_kind=method.map_kind,
                    class_specific=method.class_specific,
                    needs="predictions",
                )
            )
    return listed
