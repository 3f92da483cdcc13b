"""Checks of scheduler options."""

from __future__ import annotations

import math
import numbers
from typing import Any

from saccade.errors import HyperparameterError


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
