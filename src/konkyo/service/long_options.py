"""Parameters of ``:explain`` by a method of many passes: those of any explanation, and its own."""

from __future__ import annotations

from typing import Any, cast

from pydantic import Field, create_model

from konkyo.perturbation import methods
from konkyo.perturbation.base import Parameters, Perturbation
from konkyo.service.schemas import ExplainOptions


class LongOptions(ExplainOptions):
    """What every such method takes beside its own."""

    interim: bool = Field(default=False, description="events carry the explanation so far")

    def parameters(self, kind: type[Parameters]) -> Parameters:
        """Those of the method."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})


def _with(method: type[Perturbation]) -> type[LongOptions]:
    bases = cast("tuple[type[LongOptions], ...]", (LongOptions, method.parameters))
    return create_model(f"{method.name.title()}Options", __base__=bases)


LONG_OPTIONS: dict[str, type[LongOptions]] = {name: _with(method) for name, method in methods().items()}
"""By the method's name. A parameter of one is unknown to all others."""


def options_for(parameters: dict[str, Any]) -> type[ExplainOptions]:
    """What the parameters of a request must be, by the method they name."""
    method = parameters.get("method")
    return LONG_OPTIONS.get(method, ExplainOptions) if isinstance(method, str) else ExplainOptions
