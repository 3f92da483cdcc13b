"""The language of values on the command line and in TOML files: durations, constants, and search spaces.

=============================  ================================================
``resnet18``                   a constant: text, a number, True, False, None
``resnet18,vgg11``             a choice
``1e-4:1e-1``                  a range of real numbers
``8:64``                       a range of whole numbers
``1e-4:1e-1:log``              a range on a logarithmic scale
``(0.7,1)``                    a constant tuple
``'1,2'``                      text in quotes
``Int(8, 64, default=16)``     a space in Python's syntax
``{'cat': 2.0, 'dog': 1.0}``   a dict in Python's syntax
=============================  ================================================

In TOML, numbers are numbers, texts are in this language, and arrays are choices.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

from saccade.errors import HyperparameterError, SpaceError
from saccade.space import Bool, Categorical, Dict, Int, List, Real, Space
from saccade.space.base import canonical_key

_SPACES: dict[str, type[Space]] = {kind.__name__: kind for kind in (Real, Int, Bool, Categorical, List, Dict)}
_PYTHON = re.compile(rf"({'|'.join(_SPACES)})\(.*\)|\{{.*\}}", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WHOLE_NUMBER = re.compile(r"[+-]?\d+")
_DURATION = re.compile(r"(?:([\d.]+) *h)? *(?:([\d.]+) *m(?:in)?)? *(?:([\d.]+) *s)?")
_WORDS = {"true": True, "false": False, "none": None}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def parse_duration(text: str) -> float:
    """Return the seconds of a duration."""
    given = text.strip().lower()
    if _NUMBER.fullmatch(given):
        return float(given)
    parts = _DURATION.fullmatch(given)
    numbers = parts.groups() if parts and given else ()
    if not numbers or not all(_NUMBER.fullmatch(number) for number in numbers if number):
        raise HyperparameterError(
            f"{text!r} is not a duration; write seconds (600), or a duration such as 90s, 10m or 1h30m"
        )
    hours, minutes, seconds = (float(number or 0) for number in numbers)
    return hours * 3600 + minutes * 60 + seconds


def parse_hyperparameters(settings: Sequence[str], **named: str | None) -> dict[str, Any]:
    """Return hyperparameters from ``name=value`` texts and from named options, which may be None."""
    hyperparameters = {name: parse_space(text) for name, text in named.items() if text is not None}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise HyperparameterError(f"--set was given {setting!r}; expected name=value, such as epochs=5")
        if name in hyperparameters:
            raise HyperparameterError(f"hyperparameter {name!r} is given twice; write {name}=a,b for a choice")
        hyperparameters[name] = parse_space(text)
    return hyperparameters


def parse_space(text: str) -> Any:
    """Return the constant, choice or range that a text stands for."""
    pieces = _split(text)
    if len(pieces) > 1:
        return Categorical(*(parse_space(piece) for piece in pieces))
    piece = pieces[0]
    if _PYTHON.fullmatch(piece):
        return _from_python(piece)
    lower, *others = (part.strip() for part in piece.split(":"))
    if not others or not _NUMBER.fullmatch(lower):
        return parse_constant(piece)
    upper, *scale = others
    if not _NUMBER.fullmatch(upper) or scale not in ([], ["log"]):
        raise HyperparameterError(f"the range {piece!r} is invalid; write lower:upper or lower:upper:log, with numbers")
    if _WHOLE_NUMBER.fullmatch(lower) and _WHOLE_NUMBER.fullmatch(upper):
        return Int(int(lower), int(upper), log=bool(scale))
    return Real(float(lower), float(upper), log=bool(scale))


def from_toml(value: Any) -> Any:
    """Return the constant, choice or range that a value in a TOML file stands for."""
    if isinstance(value, str):
        return parse_space(value)
    if isinstance(value, list):
        return Categorical(*(tuple(choice) if isinstance(choice, list) else from_toml(choice) for choice in value))
    if isinstance(value, bool | int | float):
        return value
    raise HyperparameterError(
        f"{value!r} is not a value of a hyperparameter; write a number, text such as '1e-4:1e-1:log', or an array"
    )


def to_toml(value: Any) -> Any:
    """Return the form in a TOML file, of which `from_toml` makes `value` again."""
    forms: list[Any] = [repr(value)]  # to try, the plainest first
    if isinstance(value, Categorical):
        forms = [[to_toml(choice) for choice in value.data]]
    elif isinstance(value, bool | int | float):
        forms = [value]
    elif isinstance(value, str):
        forms = [value, f"'{value}'", f'"{value}"']
    elif isinstance(value, Real | Int):
        forms.insert(0, f"{value.lower!r}:{value.upper!r}{':log' if value.log else ''}")
    for form in forms:
        try:
            read = from_toml(form)
        except (SyntaxError, ValueError):  # try the next form
            continue
        if canonical_key(read) == canonical_key(value):
            return form
    raise HyperparameterError(f"{value!r} cannot be written into a file")


def _from_python(text: str) -> Any:
    """Return the space or dict of a Python expression, which may contain only spaces and literals."""

    def made(node: ast.expr) -> Any:
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in _SPACES:
                named = {str(keyword.arg): made(keyword.value) for keyword in node.keywords}
                return _SPACES[name](*map(made, node.args), **named)
            case ast.Tuple() | ast.List():
                return tuple(map(made, node.elts)) if isinstance(node, ast.Tuple) else list(map(made, node.elts))
            case ast.Dict(keys=keys) if None not in keys:  # which ** is
                return {made(key): made(part) for key, part in zip(keys, node.values, strict=True) if key}
        return ast.literal_eval(node)

    try:
        return made(ast.parse(text, mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        if isinstance(error, HyperparameterError | SpaceError):
            raise
        raise HyperparameterError(f"the value {text!r} is not a valid Python expression: {error}") from None


def _split(text: str) -> list[str]:
    """Split at commas outside of brackets and quotes."""
    pieces, closings = [""], [""]
    for character in text:
        if character == "," and closings == [""]:
            pieces.append("")
            continue
        pieces[-1] += character
        if character == closings[-1]:
            closings.pop()
        elif closings[-1] not in ("'", '"'):
            if character in _CLOSING:
                closings.append(_CLOSING[character])
            elif character in "'\"" and not pieces[-1][:-1].strip(" (["):
                closings.append(character)
    pieces = [piece.strip() for piece in pieces]
    if closings != [""]:
        raise HyperparameterError(f"the value {text!r} has no closing {closings[-1]}")
    if not all(pieces):
        raise HyperparameterError(f"the value {text!r} has an empty part; write '' for empty text, a,b for a choice")
    return pieces


def parse_constant(text: str) -> Any:
    """Return the number, truth value, None, tuple or text that a text stands for."""
    first, last = text[0], text[-1]
    if len(text) > 1 and first in "'\"" and last == first:
        return text[1:-1]
    if first in "([" and _CLOSING[first] == last:
        inside = text[1:-1].strip()
        return tuple(parse_constant(piece) for piece in _split(inside)) if inside else ()
    if _WHOLE_NUMBER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    return _WORDS.get(text.lower(), text)
