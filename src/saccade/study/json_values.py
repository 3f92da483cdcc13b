"""Python values as JSON and back, without loss: tuples, sets, non-finite numbers, keys that are not strings."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from saccade.space.base import plain

_COLLECTIONS: dict[str, Callable[[list[Any]], Any]] = {"!tuple": tuple, "!set": set, "!frozenset": frozenset}


class LostObjectError(ValueError):
    """A value was stored as its `repr` only, which is the message."""


def to_json_value(value: Any) -> Any:
    """Return a JSON value from which `from_json_value` restores the value; of objects without a JSON form, the `repr`.

    What JSON lacks becomes an object with a single key that starts with an exclamation mark.
    """
    value = plain(value)
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"!float": str(value)}
    if kind is list:
        return [to_json_value(part) for part in value]
    if kind is dict:
        if all(type(key) is str for key in value) and _tag(value) is None:
            return {key: to_json_value(part) for key, part in value.items()}
        return {"!dict": [[to_json_value(part) for part in item] for item in value.items()]}
    if kind in (tuple, set, frozenset):
        return {f"!{kind.__name__}": [to_json_value(part) for part in value]}
    return {"!lost": repr(value)}


def from_json_value(value: Any, *, as_text: bool = False) -> Any:
    """Return the value from which `to_json_value` made this one.

    An object of which only the `repr` was stored raises a LostObjectError, or is returned as that text (`as_text`).
    """
    restored = partial(from_json_value, as_text=as_text)
    if isinstance(value, list):
        return [restored(part) for part in value]
    if not isinstance(value, dict):
        return value
    tag = _tag(value)
    if tag is None:
        return {key: restored(part) for key, part in value.items()}
    inner = value[tag]
    if tag == "!float":
        return float(inner)
    if tag in _COLLECTIONS:
        return _COLLECTIONS[tag](restored(inner))
    if tag == "!dict":
        return dict(restored(inner))
    if as_text:
        return str(inner)
    raise LostObjectError(str(inner))


def _tag(value: dict[Any, Any]) -> str | None:
    """Return the single key of a dict if it starts with an exclamation mark."""
    key = next(iter(value)) if len(value) == 1 else None
    return key if isinstance(key, str) and key.startswith("!") else None
