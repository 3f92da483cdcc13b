"""Values as JSON, so that they come back as what they were: tuples, sets, numbers that are not finite, odd keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from saccade.space.constants import plain

_COLLECTIONS: dict[str, Callable[[list[Any]], Any]] = {"!tuple": tuple, "!set": set, "!frozenset": frozenset}


class LostObjectError(ValueError):
    """Something of which JSON kept no more than its `repr`, which is the message."""


def to_json_value(value: Any, encode_object: Callable[[Any], Any] | None) -> Any:
    """Return something that JSON has and that `from_json_value` makes the same value of.

    What JSON lacks is written as an object whose one key begins with an exclamation mark.

    Parameters
    ----------
    value
        Anything. Scalars of NumPy and torch become Python's.
    encode_object
        Called with objects of other kinds; returns something that JSON has, or raises TypeError. Without it, or when it
        raises, only the `repr` is kept.

    Examples
    --------
    >>> to_json_value({"betas": (0.9, math.inf)}, None)
    {'betas': {'!tuple': [0.9, {'!float': 'inf'}]}}
    """
    value = plain(value)
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"!float": str(value)}
    if kind is list:
        return [to_json_value(part, encode_object) for part in value]
    if kind is dict:
        if all(type(key) is str for key in value) and _tag(value) is None:
            return {key: to_json_value(part, encode_object) for key, part in value.items()}
        return {"!dict": [[to_json_value(part, encode_object) for part in item] for item in value.items()]}
    if kind in (tuple, set, frozenset):
        return {f"!{kind.__name__}": [to_json_value(part, encode_object) for part in value]}
    if encode_object is not None:
        try:
            return {"!object": encode_object(value)}
        except TypeError:
            pass
    return {"!lost": repr(value)}


def from_json_value(value: Any, decode_object: Callable[[Any], Any] | None) -> Any:
    """Return the value that `to_json_value` was given.

    Raises
    ------
    LostObjectError
        When something could not be kept, or there is no `decode_object` for it.

    Examples
    --------
    >>> from_json_value({"betas": {"!tuple": [0.9, {"!float": "inf"}]}}, None)
    {'betas': (0.9, inf)}
    """
    if isinstance(value, list):
        return [from_json_value(part, decode_object) for part in value]
    if not isinstance(value, dict):
        return value
    tag = _tag(value)
    if tag is None:
        return {key: from_json_value(part, decode_object) for key, part in value.items()}
    inner = value[tag]
    if tag == "!float":
        return float(inner)
    if tag in _COLLECTIONS:
        return _COLLECTIONS[tag](from_json_value(inner, decode_object))
    if tag == "!dict":
        return dict(from_json_value(inner, decode_object))
    if tag == "!object" and decode_object is not None:
        return decode_object(inner)
    raise LostObjectError(str(inner))


def _tag(value: dict[Any, Any]) -> str | None:
    """Return the one key of a dict if it begins as a tag does."""
    key = next(iter(value)) if len(value) == 1 else None
    return key if isinstance(key, str) and key.startswith("!") else None
