from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from contracts.space_strategies import JSON_VALUES
from saccade.space import canonical_key
from saccade.space.base import copied


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (0.0, -0.0),
        (math.nan, float("nan")),
        ([1, [2]], (1, (2,))),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1, 2}, frozenset([2, 1])),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
    ],
)
def test_equal_keys(one, other):
    assert canonical_key(one) == canonical_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (0, False),
        (0, None),
        (1, "1"),
        ("nan", math.nan),
        ([], {}),
        ([1, 2], [2, 1]),
        ([[1], 2], [1, [2]]),
        ({"a": 1}, {"a": True}),
        ({1: "a"}, {True: "a"}),
        ({"a": 1}, [("a", 1)]),
        ([1, 2], {1, 2}),
    ],
)
def test_different_keys(one, other):
    assert canonical_key(one) != canonical_key(other)


@given(JSON_VALUES)
def test_a_copy_is_alike_and_fractions_no_list(value):
    again = copied(value)
    assert canonical_key(again) == canonical_key(value)
    hash(canonical_key(value))
    if isinstance(value, (list, dict)):
        assert again is not value
