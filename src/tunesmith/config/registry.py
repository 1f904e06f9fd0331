"""Names for things that a recipe may choose: a method, an objective, a data format."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

from ..errors import BadEnvironment
from .record import record

T = TypeVar("T")


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A known word like this one, as a question; or all that are known."""
    known = sorted(known)
    near = get_close_matches(str(word), known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"


@lru_cache(maxsize=1)
def installed(path: tuple[str, ...]) -> Any:
    """The entry points of all packages on a path: one look through hundreds of folders for all registries."""
    return entry_points()  # pyright: ignore[reportReturnType] - of Python 3.9


class Registry(Generic[T]):
    """All classes of one kind, by name.

    A file in the folder of `package` is known, unless its name begins with `_`, and so is an installed package with an
    entry point in the group `tunesmith.<kind>`; all are imported when a name is first asked for.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self.entries: dict[str, type[T]] = {}
        self.loaded = False

    def __call__(self, name: str) -> Callable[[type[T]], type[T]]:
        """Register a class under a name, as a record whose fields are its options."""

        def register(cls: type[T]) -> type[T]:
            if name in self.entries:
                raise ValueError(f"two {self.kind}s are named '{name}': {self.entries[name]} and {cls}")
            made: Any = record(cls)
            made.name = name
            self.entries[name] = made
            return made

        return register

    def __getitem__(self, name: str) -> type[T]:
        if name not in self.all():
            raise LookupError(f"no {self.kind} '{name}'; {did_you_mean(name, self.all())}")
        return self.all()[name]

    def all(self) -> dict[str, type[T]]:
        """Every entry by name, in the order of the names."""
        if not self.loaded:
            for module in iter_modules(import_module(self.package).__path__):
                if not module.name.startswith("_"):
                    import_module(f"{self.package}.{module.name}")
            self.load_plugins()
            self.loaded = True
        return dict(sorted(self.entries.items()))

    def load_plugins(self) -> None:
        for plugin in installed(tuple(sys.path)).select(group=f"tunesmith.{self.kind}"):
            package = f" of {plugin.dist.name}" if plugin.dist else ""
            try:
                plugin.load()
            except Exception as error:  # somebody else's code: it may fail in any way
                said = f"{type(error).__name__}: {error}"
                raise BadEnvironment(
                    f"the plugin '{plugin.name}'{package} ({plugin.value}) cannot be imported ({said});"
                    " mend it or uninstall it"
                ) from error
