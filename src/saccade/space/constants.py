"""Copying, comparing and writing the constants of a space and the values of a configuration."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

from saccade.errors import SpaceError


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
