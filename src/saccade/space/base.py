"""The base class of all domains, the space of a single constant, and what can be done with constants."""

from __future__ import annotations

import functools
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, NoReturn, ParamSpec

from saccade.errors import SpaceError

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import BaseDistribution

_P = ParamSpec("_P")


class Space(ABC):
    """A set of values to search: the base class of all domains.

    Spaces are immutable; they can be compared, hashed, copied, pickled and printed (evaluating the printed form
    creates the same space). ``value in space`` checks whether a value belongs to it.
    """

    usage: ClassVar[str] = ""

    @property
    @abstractmethod
    def default(self) -> Any:
        """The value to try first."""

    @property
    @abstractmethod
    def num_configurations(self) -> int | float:
        """The number of values; ``math.inf`` if it contains a `Real`.

        A value in two branches of a `Categorical` is counted twice.
        """

    @abstractmethod
    def sample(self, rng: np.random.Generator | int | None = None) -> Any:
        """Draw a value, which consists of plain Python values, never NumPy scalars.

        `rng` is a generator, which is advanced; or a seed; or None for a draw that is not reproducible.
        """

    @abstractmethod
    def __contains__(self, value: object) -> bool: ...

    @abstractmethod
    def to_json(self) -> Any:
        """Return a form for `json.dump`, which `from_json` reads; a constant without one raises a SpaceError."""

    @abstractmethod
    def _arguments(self) -> tuple[Any, ...]:
        """Return the positional arguments that create an equal space."""

    def to_optuna(self) -> BaseDistribution:
        """Return the Optuna distribution of this one parameter; a space that is more raises a SpaceError."""
        raise SpaceError(
            f"A {type(self).__name__} has no single Optuna distribution. "
            "Use saccade.space.to_optuna(space), which gives one for each of its parameters."
        )

    def children(self) -> Iterator[tuple[Hashable, Space]]:
        """Yield the spaces in this one, each with its position or key. Constants are spaces too."""
        return iter(())

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return canonical_key(self._arguments()) == canonical_key(other._arguments())

    def __hash__(self) -> int:
        return hash((type(self), canonical_key(self._arguments())))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self!r} cannot be changed ({name} = {value!r}). Create a new space instead.")

    def _set(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Constant(Space):
    """The space of one value: a plain value in a `List`, `Dict` or `Categorical` becomes a Constant."""

    value: Any
    _key: Hashable

    def __init__(self, value: Any) -> None:
        own = copied(value)
        self._set(value=own, _key=canonical_key(own))

    @property
    def default(self) -> Any:
        """The value; a list or dict is copied."""
        return copied(self.value)

    @property
    def num_configurations(self) -> int:
        """One."""
        return 1

    def sample(self, rng: np.random.Generator | int | None = None) -> Any:  # noqa: ARG002
        """Return the value."""
        return self.default

    def __contains__(self, value: object) -> bool:
        return canonical_key(value) == self._key

    def to_json(self) -> Any:
        """Return the value; a dict in a wrapper, because a bare one stands for a space."""
        value = json_value(self.value)
        return {"constant": value} if isinstance(value, dict) else value

    def _arguments(self) -> tuple[Any, ...]:
        return (self.value,)

    def __repr__(self) -> str:
        return repr(self.value)


def as_generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """Return the generator itself, or a new one with the given seed."""
    import numpy as np  # lazily: a space can be defined without NumPy

    return np.random.default_rng(rng)


def explain_arguments(init: Callable[Concatenate[Any, _P], None]) -> Callable[Concatenate[Any, _P], None]:
    """Decorate an ``__init__``: missing or unknown arguments raise a SpaceError with an example."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def explained(self: Any, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            signature.bind(self, *args, **kwargs)
        except TypeError as error:
            raise SpaceError(f"{type(self).__name__}: {error}. Write for instance {self.usage}.") from None
        init(self, *args, **kwargs)

    return explained


def plain(value: Any) -> Any:
    """Return `value`; a NumPy or torch scalar as a Python number or string."""
    # By its attributes, so that NumPy and torch need not be imported.
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return value.item()
    return value


def copied(value: Any) -> Any:
    """Copy the lists, tuples, sets and dicts in `value`, with plain scalars; other objects are not copied."""
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(copied(part) for part in value)
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    return plain(value)


def canonical_key(value: Any) -> Hashable:
    """Return a hashable key, valid in this process, which is equal for equal configurations, or for any parts of them.

    Lists equal tuples, as in JSON; the order of a dict does not matter; 1 equals 1.0 but not ``True``; NaN equals
    itself. Objects that are not hashable are compared by identity.

    Examples
    --------
    >>> canonical_key({"lr": 1, "size": [2, 3]}) == canonical_key({"size": (2, 3), "lr": 1.0})
    True
    >>> canonical_key({"flag": 1}) == canonical_key({"flag": True})
    False
    """
    value = plain(value)
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, (int, float)):
        return ("number", "nan" if value != value else value)
    if isinstance(value, (list, tuple)):
        return ("list", tuple(canonical_key(part) for part in value))
    if isinstance(value, dict):
        items = ((canonical_key(key), canonical_key(part)) for key, part in value.items())
        return ("dict", frozenset(items))
    if isinstance(value, (set, frozenset)):
        return ("set", frozenset(canonical_key(part) for part in value))
    try:
        hash(value)
    except TypeError:
        return ("identity", id(value))
    return ("object", type(value), value)


def json_value(value: Any) -> Any:
    """Return `value` for JSON (a tuple becomes a list)."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise SpaceError(f"{value!r} has no JSON form, which has finite numbers only. Use None instead.")
    if isinstance(value, (list, tuple)):
        return [json_value(part) for part in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise SpaceError(
                    f"The constant {value!r} has no JSON form, because its key {key!r} is not a string. "
                    "Use string keys, or a space.Dict."
                )
        return {key: json_value(part) for key, part in value.items()}
    raise SpaceError(
        f"{value!r} ({type(value).__name__}) has no JSON form. "
        "Use numbers, strings, True, False, None, and lists and dicts of these."
    )
