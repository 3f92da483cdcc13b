"""Checks of the options of schedulers."""

from __future__ import annotations

import math
import numbers
from typing import Any

from saccade.errors import HyperparameterError


def whole_number(name: str, value: Any, least: int = 1, what: str = "") -> int:
    """Return an integer as Python's int.

    Raises
    ------
    HyperparameterError
        If it is not an integer of at least `least`; the message ends with `what`, the meaning of the number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise HyperparameterError(
            f"{name} was given {value!r}; expected a whole number, {least} or more" + (f": {what}" if what else "")
        )
    return int(value)


def reduction_factor_of(value: Any) -> float:
    """Return η of successive halving as a float.

    Raises
    ------
    HyperparameterError
        If it is not a finite number above 1.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 1 < value < math.inf:
        raise HyperparameterError(
            f"reduction_factor was given {value!r}; expected a number above 1, for instance 3: one trial in 3 is "
            "trained 3 times as long"
        )
    return float(value)
