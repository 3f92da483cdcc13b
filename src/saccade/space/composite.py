"""Domains that hold others: Categorical, List and Dict."""

from __future__ import annotations

import keyword
import math
from collections.abc import Hashable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any

from saccade.errors import SpaceError
from saccade.space.base import Constant, Space, as_generator, explains_arguments
from saccade.space.constants import canonical_key, json_value

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import CategoricalDistribution


class Categorical(Space):
    """One of several values.

    Parameters
    ----------
    *values
        The choices, the first being the one to try first. A choice may be any object, and also a space (or
        a list or dict with spaces in it): then the parameters under it exist only where it was chosen.

    Raises
    ------
    SpaceError
        If there is no choice, or one twice, or if a single list was given in place of its values.

    Examples
    --------
    >>> Categorical("sgd", "adamw").default
    'sgd'
    >>> from saccade.space import Real
    >>> opt = Categorical({"name": "sgd", "momentum": Real(0.5, 0.99)}, {"name": "adamw"})
    >>> opt
    Categorical(Dict(name='sgd', momentum=Real(0.5, 0.99)), {'name': 'adamw'})
    >>> {"name": "sgd", "momentum": 0.9} in opt, {"name": "adamw", "momentum": 0.9} in opt
    (True, False)
    """

    usage = 'Categorical("resnet18", "resnet50")'
    members: tuple[Space, ...]

    @explains_arguments
    def __init__(self, *values: Any) -> None:
        if not values:
            raise SpaceError(f"Categorical has no values. Write for instance {self.usage}.")
        if len(values) == 1 and isinstance(values[0], (list, tuple, set, frozenset, range)):
            raise SpaceError(
                f"Categorical was given a single {type(values[0]).__name__}, {values[0]!r}. Write "
                "Categorical(*values) to choose among its values; for one constant, write the value itself."
            )
        members = tuple(as_space(value) for value in values)
        seen: set[Hashable] = set()
        for member in members:
            key = canonical_key(_unwrapped(member))
            if key in seen:
                raise SpaceError(f"Categorical holds {member!r} twice. Leave one out.")
            seen.add(key)
        self._set(members=members)

    @property
    def data(self) -> tuple[Any, ...]:
        """The choices."""
        return tuple(_unwrapped(member) for member in self.members)

    @property
    def default(self) -> Any:
        """The first choice, or its default if it is a space."""
        return self.members[0].default

    @property
    def num_configurations(self) -> int | float:
        """The sum over the choices."""
        counts = [member.num_configurations for member in self.members]
        return math.inf if math.inf in counts else sum(counts)

    @property
    def labels(self) -> tuple[bool | int | float | str | None, ...]:
        """What stands for each choice where only simple values can, as in Optuna.

        The choices themselves if they are strings, finite numbers, bools or None that Python's ``==`` tells
        apart; else 0, 1, 2, ...
        """
        values: list[Any] = [m.value if isinstance(m, Constant) else m for m in self.members]
        simple = all(
            value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))
            for value in values
        )
        return tuple(values) if simple and len(set(values)) == len(values) else tuple(range(len(values)))

    def sample(self, rng: np.random.Generator | int | None = None) -> Any:
        """Draw a choice, each as likely as any other, and a value from it if it is a space."""
        generator = as_generator(rng)
        return self.members[int(generator.integers(len(self.members)))].sample(generator)

    def to_optuna(self) -> CategoricalDistribution:
        """Return the Optuna distribution of the choice (see `labels`), without what lies under it."""
        from optuna.distributions import CategoricalDistribution  # lazily: importing Optuna is slow

        return CategoricalDistribution(self.labels)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": "Categorical", "values": [member.to_json() for member in self.members]}

    def children(self) -> Iterator[tuple[Hashable, Space]]:
        """Yield each choice with its position."""
        return iter(enumerate(self.members))

    def __contains__(self, value: object) -> bool:
        return any(value in member for member in self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.data[index]

    def _arguments(self) -> tuple[Any, ...]:
        return self.data

    def __repr__(self) -> str:
        return f"Categorical({', '.join(map(repr, self.members))})"


class List(Space):
    """Several values in a row, each from its own space.

    Parameters
    ----------
    *spaces
        Spaces and constants, at will.

    Examples
    --------
    >>> from saccade.space import Bool, Int
    >>> List(Int(1, 3), 7, Bool()).default
    [1, 7, False]
    """

    usage = "List(Int(16, 64), Int(16, 64))"
    members: tuple[Space, ...]

    @explains_arguments
    def __init__(self, *spaces: Any) -> None:
        self._set(members=tuple(as_space(space) for space in spaces))

    @property
    def data(self) -> tuple[Any, ...]:
        """The spaces and constants."""
        return tuple(_unwrapped(member) for member in self.members)

    @property
    def default(self) -> list[Any]:
        """The defaults, in a list."""
        return [member.default for member in self.members]

    @property
    def num_configurations(self) -> int | float:
        """The product over the places."""
        return _product(self.members)

    def sample(self, rng: np.random.Generator | int | None = None) -> list[Any]:
        """Draw each value."""
        generator = as_generator(rng)
        return [member.sample(generator) for member in self.members]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": "List", "items": [member.to_json() for member in self.members]}

    def children(self) -> Iterator[tuple[Hashable, Space]]:
        """Yield each space with its position."""
        return iter(enumerate(self.members))

    def __contains__(self, value: object) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(self.members)
            and all(part in member for part, member in zip(value, self.members, strict=True))
        )

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.data[index]

    def _arguments(self) -> tuple[Any, ...]:
        return self.data

    def __repr__(self) -> str:
        return f"List({', '.join(map(repr, self.members))})"


class Dict(Space):
    """Several named values, each from its own space: what a whole configuration is drawn from.

    Parameters
    ----------
    spaces
        A mapping from keys to spaces and constants. It may have any hashable keys, such as
        ``"model.name"`` or 1; for JSON they must be strings, numbers, bools or None.
    **named
        More of them, by keyword.

    Raises
    ------
    SpaceError
        If `spaces` is no mapping, or a key comes twice.

    Notes
    -----
    ``x in space`` asks whether x is a configuration of the space. For a key, ask ``x in space.keys()``.

    Examples
    --------
    >>> from saccade.space import Real
    >>> space = Dict(lr=Real(1e-4, 1e-1, log=True), epochs=5)
    >>> space.default
    {'lr': 0.0001, 'epochs': 5}
    >>> Dict({"optim.lr": Real(0.1, 1)})
    Dict({'optim.lr': Real(0.1, 1.0)})
    """

    usage = "Dict(lr=Real(1e-4, 1e-1, log=True), epochs=10)"
    members: dict[Hashable, Space]

    def __init__(self, spaces: Mapping[Any, Any] | Dict = {}, /, **named: Any) -> None:  # noqa: B006 (only read)
        if not isinstance(spaces, (Mapping, Dict)):
            raise SpaceError(
                f"Dict: {spaces!r} ({type(spaces).__name__}) is no mapping. Write for instance {self.usage}."
            )
        for key in named:
            if key in spaces.keys():  # noqa: SIM118 (`in` means something else for our Dict)
                raise SpaceError(f"Dict: the key {key!r} comes twice, in the mapping and as a keyword.")
        items = {**dict(spaces.items()), **named}
        self._set(members={key: as_space(value) for key, value in items.items()})

    @property
    def data(self) -> dict[Hashable, Any]:
        """The spaces and constants by key, as a new dict."""
        return {key: _unwrapped(member) for key, member in self.members.items()}

    @property
    def default(self) -> dict[Any, Any]:
        """The defaults, in a dict."""
        return {key: member.default for key, member in self.members.items()}

    @property
    def num_configurations(self) -> int | float:
        """The product over the keys."""
        return _product(self.members.values())

    def sample(self, rng: np.random.Generator | int | None = None) -> dict[Any, Any]:
        """Draw a value for each key."""
        generator = as_generator(rng)
        return {key: member.sample(generator) for key, member in self.members.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: a list of pairs, which keeps the order and the types of the keys."""
        return {
            "type": "Dict",
            "items": [[_json_key(key), member.to_json()] for key, member in self.members.items()],
        }

    def children(self) -> Iterator[tuple[Hashable, Space]]:
        """Yield each space with its key."""
        return iter(self.members.items())

    def keys(self) -> KeysView[Hashable]:
        """Return the keys, in the order in which they were given."""
        return self.members.keys()

    def values(self) -> ValuesView[Any]:
        """Return the spaces and constants."""
        return self.data.values()

    def items(self) -> ItemsView[Hashable, Any]:
        """Return keys with their spaces or constants."""
        return self.data.items()

    def __contains__(self, value: object) -> bool:
        return (
            isinstance(value, Mapping)
            and value.keys() == self.members.keys()
            and all(value[key] in member for key, member in self.members.items())
        )

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.members)

    def __getitem__(self, key: Hashable) -> Any:
        return _unwrapped(self.members[key])

    def _arguments(self) -> tuple[Any, ...]:
        return (self.data,)

    def __repr__(self) -> str:
        if all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in self):
            return f"Dict({', '.join(f'{key}={member!r}' for key, member in self.members.items())})"
        return f"Dict({{{', '.join(f'{key!r}: {member!r}' for key, member in self.members.items())}}})"


def as_space(value: Any) -> Space:
    """Return a space as it is, a list or dict that holds spaces as List or Dict, and all else as a constant.

    Raises
    ------
    SpaceError
        If the value is a class of spaces (``Bool`` in place of ``Bool()``), or a set that holds spaces.
    """
    if isinstance(value, Space):
        return value
    if isinstance(value, type) and issubclass(value, Space):
        raise SpaceError(f"{value.__name__} is a class, not a space. Write for instance {value.usage}.")
    if not _holds_space(value):
        return Constant(value)
    if isinstance(value, Mapping):
        return Dict(value)
    if isinstance(value, (list, tuple)):
        return List(*value)
    raise SpaceError(f"The spaces in {value!r} have no order. Write a list in place of the set.")


def _holds_space(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple, set, frozenset)):
        return False
    return any(
        isinstance(part, Space) or (isinstance(part, type) and issubclass(part, Space)) or _holds_space(part)
        for part in value
    )


def _unwrapped(member: Space) -> Any:
    return member.default if isinstance(member, Constant) else member


def _product(members: Iterable[Space]) -> int | float:
    # Asked for first, because a very large int times inf is an OverflowError.
    counts = [member.num_configurations for member in members]
    return math.inf if math.inf in counts else math.prod(counts)


def _json_key(key: Hashable) -> Any:
    if key is not None and not isinstance(key, (bool, int, float, str)):
        raise SpaceError(
            f"The key {key!r} ({type(key).__name__}) of a Dict has no JSON form. "
            "Use strings, numbers, bools or None as keys."
        )
    return json_value(key)
