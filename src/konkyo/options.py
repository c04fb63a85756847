"""Command line options made from a settings class, so that a setting is written down once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, Optional, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Command = Callable[..., None]


def options_from(model: type[BaseModel], *, exclude: Collection[str] = ()) -> Callable[[Command], Command]:
    """Decorator: a command taking ``**settings`` gets an option for each field of ``model``.

    Names, types, defaults and help texts are the fields' own. The command receives only what was
    given on the command line, so that a default may still come from the environment, and builds
    the model itself, which validates.
    """

    def decorate(command: Command) -> Command:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        options = [_option(name, field) for name, field in model.model_fields.items() if name not in exclude]
        signature = inspect.Signature(own + options)
        names = {option.name for option in options}

        @functools.wraps(command)
        def run(**values: Any) -> None:
            command(
                **{name: value for name, value in values.items() if name not in names or value is not None}
            )

        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {
            parameter.name: parameter.annotation for parameter in signature.parameters.values()
        }
        return run

    return decorate


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    required = field.is_required()
    annotation, default = field.annotation, field.get_default(call_default_factory=True)
    if get_origin(annotation) is tuple:  # of any length; to the command line a tuple is of one length
        annotation = list[get_args(annotation)[0]]  # type: ignore[assignment,misc]
    shown = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
    option = typer.Option(
        help=field.description, show_default=False if required or default is None else shown
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[annotation if required else Optional[annotation], option],  # noqa: UP045
    )
