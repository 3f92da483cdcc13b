from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from saccade.checks import fraction, real_number, whole_number
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


def test_the_ends_of_a_range_are_included_or_not() -> None:
    assert type(real_number("rate", np.float32(0.5), below=1)) is float
    assert real_number("rate", 0, "0 or more", least=0) == 0
    assert real_number("time_limit", math.inf, above=0) == math.inf
    for value, limits in [(0, {"above": 0}), (1, {"below": 1}), (1.1, {"most": 1}), (math.inf, {"below": math.inf})]:
        with pytest.raises(HyperparameterError, match=f"rate was given {value!r}; expected x"):
            real_number("rate", value, "x", **limits)


@pytest.mark.parametrize("value", [True, "1", None, math.nan])
def test_what_is_not_a_number_is_refused(value: Any) -> None:
    with pytest.raises(HyperparameterError, match=r"expected a number$"):
        real_number("rate", value)
