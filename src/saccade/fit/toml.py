"""TOML files: read by Python's own reader, written by a small writer for flat tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.errors import DataError, HyperparameterError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\t": r"\t", "\r": r"\r"}
_NOT_PRINTABLE = re.compile(r'[\x00-\x1f\x7f"\\]')


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises
    ------
    DataError
        When it is no TOML; the message says where.
    OSError
        When it cannot be read at all.
    """
    try:
        # Some editors of Windows begin a text with a byte order mark.
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no TOML file: {error}") from None
    return values


def toml_text(values: Mapping[str, Any]) -> str:
    """Return TOML: a line for each value, then a table for each mapping.

    Parameters
    ----------
    values : mapping
        Text, numbers, truth values, and lists and mappings of these, by name; a mapping becomes a table.

    Raises
    ------
    HyperparameterError
        When a value is of another kind, or holds text that is not Unicode.

    Examples
    --------
    >>> print(toml_text({"data": "pets.zip", "hyperparameters": {"epochs": 5, "model": ["resnet18", "vgg11"]}}))
    data = "pets.zip"
    <BLANKLINE>
    [hyperparameters]
    epochs = 5
    model = ["resnet18", "vgg11"]
    <BLANKLINE>
    """
    tables = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    lines = [f"{_key(name)} = {_value(value)}\n" for name, value in values.items() if name not in tables]
    for name, table in tables.items():
        lines.append(f"\n[{_key(name)}]\n")
        lines += [f"{_key(inner)} = {_value(value)}\n" for inner, value in table.items()]
    return "".join(lines).lstrip("\n")


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)  # TOML writes numbers as Python does, inf and nan too
        case str():
            return _text(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping() if all(isinstance(name, str) for name in value):
            pairs = ", ".join(f"{_key(name)} = {_value(inner)}" for name, inner in value.items())
            return f"{{{pairs}}}"
    raise HyperparameterError(f"{value!r} of type {type(value).__name__} has no place in a TOML file")


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise HyperparameterError(f"{text!r} is not Unicode, and has no place in a TOML file") from None
    return '"' + _NOT_PRINTABLE.sub(lambda found: _ESCAPES.get(found[0], f"\\u{ord(found[0]):04x}"), text) + '"'
