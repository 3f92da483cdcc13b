"""Plain values that stand beside spaces: copied, compared, and written as JSON."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

from saccade.errors import SpaceError


def plain(value: Any) -> Any:
    """Return `value`, or the Python number or string that a NumPy or torch scalar stands for."""
    # Asking for the two attributes keeps NumPy and torch unimported here.
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return value.item()
    return value


def copied(value: Any) -> Any:
    """Copy the lists, tuples, sets and dicts in `value`, and make its scalars plain.

    Other objects are kept as they are. So nobody who changes a configuration changes the space.
    """
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(copied(part) for part in value)
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    return plain(value)


def canonical_key(value: Any) -> Hashable:
    """Return a hashable key that two values share exactly if they are the same configuration.

    Lists and tuples are alike, as they are in JSON; the order of a dict does not matter; 1 and 1.0 are
    alike, but not 1 and ``True``; NaN equals itself. Objects that cannot be hashed are compared by
    identity.

    Parameters
    ----------
    value
        A configuration, or any part of one.

    Returns
    -------
    collections.abc.Hashable
        The key; good in this process only.

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
    """Return `value` as JSON has it (a tuple becomes a list).

    Raises
    ------
    SpaceError
        If it has no JSON form that keeps it: NaN, an infinity, a dict with keys that are not strings, or
        any other object.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise SpaceError(f"{value!r} has no JSON form, which knows finite numbers only. Use None instead.")
    if isinstance(value, (list, tuple)):
        return [json_value(part) for part in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise SpaceError(
                    f"The constant {value!r} has no JSON form, because its key {key!r} is no string. "
                    "Use string keys, or a space.Dict."
                )
        return {key: json_value(part) for key, part in value.items()}
    raise SpaceError(
        f"{value!r} ({type(value).__name__}) has no JSON form. "
        "Use numbers, strings, True, False, None, and lists and dicts of these."
    )
