"""Implementations of a seam by name: those of Saccade, and those that installed packages register as entry points."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from saccade.errors import HyperparameterError, UnknownNameError, near_names

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Mapping[str, "Callable[..., T]"], Generic[T]):
    """The classes of one seam by name, or functions that return an instance; case does not matter in names.

    `kind` is the name of the seam (``"searcher"``), `base` the base class of all instances, `builtin` has Saccade's
    classes, or where they are (``"module:Class"``), which take precedence. A package adds a name by an entry point in
    the group ``saccade.<kind>s``::

        [project.entry-points."saccade.searchers"]
        mine = "my_package:MySearcher"
    """

    def __init__(self, kind: str, base: type[T], builtin: Mapping[str, Callable[..., T] | str]) -> None:
        self.kind, self.base, self._builtin = kind, base, dict(builtin)

    def __getitem__(self, name: str) -> Callable[..., T]:
        name = self.canonical(name)
        if name in self._builtin:
            found = self._builtin[name]
            return cast("Callable[..., T]", pkgutil.resolve_name(found)) if isinstance(found, str) else found
        return cast("Callable[..., T]", next(p for p in self._entry_points() if p.name == name).load())

    def __contains__(self, name: object) -> bool:
        return self._registered(name) is not None

    def canonical(self, name: Any) -> str:
        """Return a name as it is registered, whatever the case of its letters; raise an UnknownNameError."""
        found = self._registered(name)
        if found is None:
            raise UnknownNameError.of(self.kind, name, self._names())
        return found

    def _registered(self, name: object) -> str | None:
        if not isinstance(name, str):
            return None
        # Entry points last: reading those of all installed packages takes tens of milliseconds.
        for names in (lambda: self._builtin, self._names):
            if name in (known := names()):
                return name
            if found := next((each for each in known if each.lower() == name.lower()), None):
                return found
        return None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        return list(dict.fromkeys([*self._builtin, *(point.name for point in self._entry_points())]))

    def _entry_points(self) -> Iterable[EntryPoint]:
        from importlib.metadata import entry_points  # lazily: the import takes longer than all of this module

        return entry_points(group=f"saccade.{self.kind.replace(' ', '_')}s")

    def make(
        self, given: str | T, options: Mapping[str, Any] | None = None, arguments: Mapping[str, Any] | None = None
    ) -> T:
        """Return an instance: the given one, or a new one of the class of that name.

        `options` are keyword arguments that the user gave, which an instance must not have; `arguments` are further
        ones. Raises an UnknownNameError, or a HyperparameterError for options.
        """
        options, arguments = options or {}, arguments or {}
        if isinstance(given, self.base):
            if options:
                raise HyperparameterError(
                    f"The options {sorted(options)} were given together with an instance of {type(given).__name__}. "
                    f"Pass them to its constructor, or give the {self.kind} by name."
                )
            return given
        if not isinstance(given, str):
            hint = f"Pass one of these names, or an instance of {self.base.__module__}.{self.base.__qualname__}."
            raise UnknownNameError.of(self.kind, given, self, hint)
        made = self[given]
        parameters = inspect.signature(made).parameters.values()
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        known = [parameter.name for parameter in parameters if parameter.name not in arguments]
        for option in options:
            if option not in known and not takes_any:
                near = near_names(option, known)
                advice = f"Did you mean {near[0]!r}? " if near else ""
                theirs = f"Its options: {', '.join(known)}." if known else "It has no options."
                raise HyperparameterError(f"The {self.kind} {given!r} has no option {option!r}. {advice}{theirs}")
        return made(**arguments, **options)
