"""Checks of arguments. Each returns the value, or raises an error with what was given and what is expected."""

from __future__ import annotations

import math
import numbers
import os
from typing import Any

from saccade.errors import HyperparameterError


def whole_number(name: str, value: Any, least: int = 1, *, most: int | None = None, meaning: str = "") -> int:
    """Return a whole number from `least` to `most` as an int of Python; NumPy's integers are accepted, bools are not.

    Anything else is a HyperparameterError, which ends with `meaning`: what the number means.
    """
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if is_whole and least <= value and (most is None or value <= most):
        return int(value)
    limits = f"{least} or more" if most is None else f"from {least} to {most}"
    raise _error(name, value, f"a whole number, {limits}", meaning)


def real_number(
    name: str,
    value: Any,
    expected: str = "a number",
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return a number in a range as a float of Python; NumPy's numbers are accepted, bools and NaN are not.

    `least` and `most` are in the range, `above` and `below` are not; ``below=math.inf`` refuses infinity. Anything else
    is a HyperparameterError with `expected`, the description of the range.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_number and least <= value <= most and (above is None or above < value) and (below is None or value < below):
        return float(value)
    raise _error(name, value, expected)


def fraction(name: str, value: Any, *, with_ends: bool = False) -> float:
    """Return a number between 0 and 1, or one of these `with_ends`, as a float of Python.

    Anything else is a HyperparameterError; for a percentage the message contains the right value.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_number and (0 < value < 1 or (with_ends and value in (0, 1))):
        return float(value)
    hint = f"; for {value} % give {value / 100:g}" if is_number and 1 < value < 100 else ""
    raise HyperparameterError(f"{name} was given {value!r}; expected a number between 0 and 1{hint}")


def bytes_from_environment(variable: str) -> int | None:
    """Return the bytes that an environment variable gives in gigabytes; None if it is not set.

    A value that is not a number of at least 0 is a HyperparameterError.
    """
    given = os.environ.get(variable, "").strip()
    try:
        num_bytes = int(float(given) * 1e9) if given else None
    except (ValueError, OverflowError):
        num_bytes = -1
    if num_bytes is not None and num_bytes < 0:
        raise HyperparameterError(f"{variable}={given!r} is not a size; expected a number of gigabytes, such as 50")
    return num_bytes


def _error(name: str, value: Any, expected: str, meaning: str = "") -> HyperparameterError:
    return HyperparameterError(f"{name} was given {value!r}; expected {expected}" + (f": {meaning}" if meaning else ""))
