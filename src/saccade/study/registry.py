"""Implementations of a seam by name: those of Saccade, and those that installed packages register as entry points."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, cast

from saccade.errors import HyperparameterError, UnknownNameError, near_names

T = TypeVar("T")


class Registry(Mapping[str, "type[T]"], Generic[T]):
    """The classes of one seam by name. A class is imported when it is first looked up.

    Parameters
    ----------
    kind : str
        What the classes are, for messages: ``"searcher"``.
    base : type
        The class that all of them inherit from.
    builtin : mapping of str to str
        Where each class of Saccade is defined, as ``"module:name"``.

    Notes
    -----
    A package adds a name by an entry point in the group ``saccade.<kind>s``::

        [project.entry-points."saccade.searchers"]
        mine = "my_package:MySearcher"

    Names of Saccade take precedence.

    Examples
    --------
    >>> from saccade.searcher import SEARCHERS
    >>> SEARCHERS["random"].__name__
    'RandomSearcher'
    """

    def __init__(self, kind: str, base: type[T], builtin: Mapping[str, str]) -> None:
        self.kind, self.base, self._builtin = kind, base, dict(builtin)

    def __getitem__(self, name: str) -> type[T]:
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            return cast("type[T]", getattr(importlib.import_module(module), attribute))
        for point in entry_points(group=f"saccade.{self.kind}s", name=name):
            return cast("type[T]", point.load())
        raise UnknownNameError.of(self.kind, name, self)

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        points = (point.name for point in entry_points(group=f"saccade.{self.kind}s"))
        return list(dict.fromkeys([*self._builtin, *points]))

    def make(
        self, given: str | T, options: Mapping[str, Any] | None = None, arguments: Mapping[str, Any] | None = None
    ) -> T:
        """Return an instance: the one that was given, or a new one of the class of that name.

        Parameters
        ----------
        given : str or instance
            A name of the registry, or an instance, which is returned as it is.
        options : mapping or None
            Keyword arguments that the user gave; their names are checked.
        arguments : mapping or None
            Further keyword arguments of the class, which are no options of the user's.

        Raises
        ------
        UnknownNameError
            If there is no class of that name.
        HyperparameterError
            If the class has no such option, or if an instance comes with options.
        """
        options, arguments = options or {}, arguments or {}
        if isinstance(given, self.base):
            if options:
                raise HyperparameterError(
                    f"The options {sorted(options)} came with an instance of {type(given).__name__}. "
                    f"Pass them to its constructor, or name the {self.kind}."
                )
            return given
        if not isinstance(given, str):
            raise UnknownNameError.of(self.kind, given, self)
        made = self[given]
        known = [name for name in inspect.signature(made).parameters if name not in arguments]
        for option in options:
            if option not in known:
                near = near_names(option, known)
                advice = f"Did you mean {near[0]!r}? " if near else ""
                theirs = f"Its options: {', '.join(known)}." if known else "It has none."
                raise HyperparameterError(f"The {self.kind} {given!r} has no option {option!r}. {advice}{theirs}")
        return made(**arguments, **options)
