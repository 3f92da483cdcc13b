"""Domains that contain other domains: Categorical, List and Dict; and spaces from their JSON form.

In JSON, a space is an object with its `type`; a constant is itself, but ``{"constant": {...}}`` if it is a dict::

    {"type": "Dict", "items": [["lr", {"type": "Real", "lower": 0.1, "upper": 1.0, ...}], ["epochs", 5]]}
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable, Hashable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, ClassVar

from saccade.errors import SpaceError, near_names
from saccade.space.base import Constant, Space, as_generator, canonical_key, explain_arguments, json_value
from saccade.space.numeric import Bool, Int, Real

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import CategoricalDistribution


class _Sequence(Space):
    """A row of spaces."""

    members: tuple[Space, ...]
    _json_field: ClassVar[str]

    @property
    def data(self) -> tuple[Any, ...]:
        """The spaces and constants."""
        return tuple(_unwrapped(member) for member in self.members)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": type(self).__name__, self._json_field: [member.to_json() for member in self.members]}

    def children(self) -> Iterator[tuple[Hashable, Space]]:
        """Yield each space with its position."""
        return iter(enumerate(self.members))

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.data[index]

    def _arguments(self) -> tuple[Any, ...]:
        return self.data

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.members))})"


class Categorical(_Sequence):
    """One of several values.

    No choice, a repeated one, or a single list instead of its values raises a SpaceError.

    Parameters
    ----------
    *values
        The choices; the first is the default. A choice may be any object, also a space (or a list or dict with
        spaces in it), whose parameters exist only where it is chosen.

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
    _json_field = "values"

    @explain_arguments
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
                raise SpaceError(f"Categorical holds {member!r} twice. Omit one.")
            seen.add(key)
        self._set(members=members)

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
        """A simple value for each choice, as Optuna requires.

        The choices themselves if they are strings, finite numbers, bools or None, and different by Python's ``==``;
        else 0, 1, 2, ...
        """
        values: list[Any] = [m.value if isinstance(m, Constant) else m for m in self.members]
        simple = all(
            value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))
            for value in values
        )
        return tuple(values) if simple and len(set(values)) == len(values) else tuple(range(len(values)))

    def sample(self, rng: np.random.Generator | int | None = None) -> Any:
        """Draw a choice uniformly, and a value from it if it is a space."""
        generator = as_generator(rng)
        return self.members[int(generator.integers(len(self.members)))].sample(generator)

    def to_optuna(self) -> CategoricalDistribution:
        """Return the Optuna distribution of the choice (see `labels`), without the parameters of its branches."""
        from optuna.distributions import CategoricalDistribution  # lazily: importing Optuna is slow

        return CategoricalDistribution(self.labels)

    def __contains__(self, value: object) -> bool:
        return any(value in member for member in self.members)


class List(_Sequence):
    """A list of values, each from its own space.

    Parameters
    ----------
    *spaces
        Spaces and constants.

    Examples
    --------
    >>> from saccade.space import Bool, Int
    >>> List(Int(1, 3), 7, Bool()).default
    [1, 7, False]
    """

    usage = "List(Int(16, 64), Int(16, 64))"
    _json_field = "items"

    @explain_arguments
    def __init__(self, *spaces: Any) -> None:
        self._set(members=tuple(as_space(space) for space in spaces))

    @property
    def default(self) -> list[Any]:
        """The defaults, in a list."""
        return [member.default for member in self.members]

    @property
    def num_configurations(self) -> int | float:
        """The product over the positions."""
        return _product(self.members)

    def sample(self, rng: np.random.Generator | int | None = None) -> list[Any]:
        """Draw each value."""
        generator = as_generator(rng)
        return [member.sample(generator) for member in self.members]

    def __contains__(self, value: object) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(self.members)
            and all(part in member for part, member in zip(value, self.members, strict=True))
        )


class Dict(Space):
    """Named values, each from its own space: the usual search space.

    Raises a SpaceError if `spaces` is not a mapping, or if a key is repeated.

    Parameters
    ----------
    spaces
        A mapping from keys to spaces and constants. Keys may be any hashable objects, such as ``"model.name"`` or 1;
        for JSON they must be strings, numbers, bools or None.
    **named
        Further spaces and constants, by keyword.

    Notes
    -----
    ``x in space`` checks whether x is a configuration of the space. For a key, use ``x in space.keys()``.

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
                f"Dict: {spaces!r} ({type(spaces).__name__}) is not a mapping. Write for instance {self.usage}."
            )
        for key in named:
            if key in spaces.keys():  # noqa: SIM118 (`in` checks configurations)
                raise SpaceError(f"Dict: the key {key!r} is both in the mapping and a keyword. Omit one.")
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
        for key in self.members:
            if key is not None and not isinstance(key, (bool, int, float, str)):
                raise SpaceError(
                    f"The key {key!r} ({type(key).__name__}) of a Dict has no JSON form. "
                    "Use strings, numbers, bools or None as keys."
                )
        return {"type": "Dict", "items": [[json_value(key), part.to_json()] for key, part in self.members.items()]}

    def children(self) -> Iterator[tuple[Hashable, Space]]:
        """Yield each space with its key."""
        return iter(self.members.items())

    def keys(self) -> KeysView[Hashable]:
        """Return the keys, in the given order."""
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


_OTHER_LIBRARIES = ("autogluon", "ConfigSpace", "hyperopt", "nevergrad", "optuna", "ray", "skopt")


def as_space(value: Any) -> Space:
    """Convert a value to a space: a list or dict that contains spaces to List or Dict, other values to a constant."""
    if isinstance(value, Space):
        return value
    if isinstance(value, type) and issubclass(value, Space):
        raise SpaceError(f"{value.__name__} is a class, not a space. Write for instance {value.usage}.")
    if type(value).__module__.partition(".")[0] in _OTHER_LIBRARIES or type(value).__name__ == "rv_frozen":
        raise SpaceError(
            f"{value!r} is a search space of {type(value).__module__}. Write saccade.Real(lower, upper, log=True), "
            "saccade.Int(lower, upper) or saccade.Categorical(...) instead."
        )
    if not _contains_space(value):
        return Constant(value)
    if isinstance(value, Mapping):
        return Dict(value)
    if isinstance(value, (list, tuple)):
        return List(*value)
    raise SpaceError(f"The spaces in {value!r} have no order. Write a list instead of the set.")


def _contains_space(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple, set, frozenset)):
        return False
    return any(
        isinstance(part, Space) or (isinstance(part, type) and issubclass(part, Space)) or _contains_space(part)
        for part in value
    )


def _unwrapped(member: Space) -> Any:
    return member.default if isinstance(member, Constant) else member


def _product(members: Iterable[Space]) -> int | float:
    # Checked first, because a very large int times inf is an OverflowError.
    counts = [member.num_configurations for member in members]
    return math.inf if math.inf in counts else math.prod(counts)


def from_json(obj: Any) -> Space:
    """Return the space of which `obj` is the JSON form: the result of ``space.to_json()``, as `json.load` reads it.

    Raises a SpaceError if the object does not describe a space.

    Examples
    --------
    >>> space = Dict({"lr": Real(1e-4, 1e-1, log=True), 1: Categorical("a", [1, 2], None)})
    >>> from_json(space.to_json()) == space
    True
    """
    if not isinstance(obj, dict) or "type" not in obj:
        raise SpaceError(f"{obj!r} is not the JSON form of a space, which is an object with a 'type'.")
    fields = dict(obj)
    kind = fields.pop("type")
    if not isinstance(kind, str) or kind not in _READERS:
        near = near_names(str(kind), _READERS) or list(_READERS)
        raise SpaceError(f"Unknown type of space {kind!r} in JSON. Did you mean {' or '.join(near)}?")
    try:
        return _READERS[kind](**fields)
    except TypeError as error:
        raise SpaceError(f"{obj!r} is not the JSON form of a {kind}: {error}.") from error


def _member(obj: Any) -> Any:
    """Return a member of a List, Dict or Categorical."""
    if not isinstance(obj, dict):
        return obj
    return obj["constant"] if obj.keys() == {"constant"} else from_json(obj)


def _dict(items: list[Any]) -> Dict:
    for item in items:
        if not isinstance(item, list) or len(item) != 2:
            raise SpaceError(f"{item!r} is not a pair of a key and a space, as the JSON form of a Dict has.")
    return Dict({key: _member(value) for key, value in items})


_READERS: dict[str, Callable[..., Space]] = {
    "Real": Real,
    "Int": Int,
    "Bool": Bool,
    "Categorical": lambda values: Categorical(*map(_member, values)),
    "List": lambda items: List(*map(_member, items)),
    "Dict": _dict,
}
