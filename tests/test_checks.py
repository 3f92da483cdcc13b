from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from saccade.checks import fraction, whole_number
from saccade.errors import HyperparameterError


def test_values_in_range_are_returned_as_python_numbers() -> None:
    assert type(whole_number("k", np.int64(3))) is int
    assert type(fraction("coverage", np.float32(0.5))) is float
    assert fraction("min_proba", 1, with_ends=True) == 1.0


@pytest.mark.parametrize("value", [0, 6, True, 2.0, "3", None])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(HyperparameterError, match=f"given {value!r}; expected a whole number, from 1 to 5: x"):
        whole_number("k", value, most=5, meaning="x")


@pytest.mark.parametrize("value", [0, 1, -0.1, True, "0.5", float("nan")])
def test_what_is_not_a_fraction_is_refused(value: Any) -> None:
    with pytest.raises(HyperparameterError, match=r"expected a number between 0 and 1$"):
        fraction("coverage", value)


def test_a_percentage_gets_the_right_value() -> None:
    with pytest.raises(HyperparameterError, match=r"for 90 % give 0\.9"):
        fraction("coverage", 90)
