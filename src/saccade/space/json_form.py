"""Spaces from their JSON form.

A space is an object with its `type`; a constant is itself, but ``{"constant": {...}}`` if it is a dict::

    {"type": "Dict", "items": [["lr", {"type": "Real", "lower": 0.1, "upper": 1.0, ...}], ["epochs", 5]]}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from saccade.errors import SpaceError, near_names
from saccade.space.base import Space
from saccade.space.composite import Categorical, Dict, List
from saccade.space.numeric import Bool, Int, Real


def from_json(obj: Any) -> Space:
    """Return the space whose ``to_json()`` gave `obj`.

    Parameters
    ----------
    obj
        The object, as `json.load` reads it.

    Raises
    ------
    SpaceError
        If the object does not describe a space.

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
    """Return the space or constant that stands in a List, Dict or Categorical."""
    if not isinstance(obj, dict):
        return obj
    return obj["constant"] if obj.keys() == {"constant"} else from_json(obj)


def _categorical(values: list[Any]) -> Categorical:
    return Categorical(*(_member(value) for value in values))


def _list(items: list[Any]) -> List:
    return List(*(_member(item) for item in items))


def _dict(items: list[Any]) -> Dict:
    for item in items:
        if not isinstance(item, list) or len(item) != 2:
            raise SpaceError(f"{item!r} is not a pair of a key and a space, as the JSON form of a Dict has.")
    return Dict({key: _member(value) for key, value in items})


_READERS: dict[str, Callable[..., Space]] = {
    "Real": Real,
    "Int": Int,
    "Bool": Bool,
    "Categorical": _categorical,
    "List": _list,
    "Dict": _dict,
}
