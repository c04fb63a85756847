"""What is found by its name: one a file of a package, each adding itself when it is imported."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Generic, TypeVar

T = TypeVar("T")


class Named(Generic[T]):
    """A registry.

    Args:
        package: whose modules add to it.
        kind: what it holds, for messages.

    Example:
        >>> planets: Named[int] = Named("konkyo.perturbation", "planet")
        >>> planets.add("earth", 3)
        >>> planets.all()
        {'earth': 3}
    """

    def __init__(self, package: str, kind: str) -> None:
        self._package, self._kind = package, kind
        self._known: dict[str, T] = {}

    def add(self, name: str, item: T) -> None:
        """Make an item findable.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._known:
            raise ValueError(f"{self._kind} {name!r} is registered twice")
        self._known[name] = item

    def all(self) -> dict[str, T]:
        """Every item by name, sorted, once all modules of the package are imported."""
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.ispkg:
                importlib.import_module(f"{self._package}.{module.name}")
        return dict(sorted(self._known.items()))
