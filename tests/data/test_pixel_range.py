from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.pixel_range import own_range, to_uint8
from saccade.data.scanning import measure_pixel_range


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([3, 200], np.int64, (0, 255)),
        ([0.2, 0.7], np.float32, (0, 1)),
        ([3.0, 200.0], np.float32, (0, 255)),
        ([0.0, 0.02], np.float64, (0.00002, 0.01998)),
        ([0, 2000], np.uint16, (2, 1998)),
        ([-1000, 1000], np.int16, (-998, 998)),
        ([65535], np.uint16, (0, 65535)),
        ([70_000], np.int32, (70_000, 70_001)),
        ([], np.float32, (0, 1)),
    ],
)
def test_range_is_found_from_the_values(values: list[float], dtype: Any, expected: Any) -> None:
    assert own_range(np.array(values, dtype)) == pytest.approx(expected)


def test_a_dead_pixel_does_not_change_the_range() -> None:
    values = np.random.default_rng(0).integers(1000, 2000, 5000).astype(np.uint16)
    values[7] = 65535
    low, high = own_range(values)
    assert 1000 <= low < high < 2000


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=9))
def test_scaling_keeps_the_order(values: list[float]) -> None:
    image = np.array([sorted(value for value in values if np.isfinite(value)) or [0.0]])
    scaled = to_uint8(image, None)[0].astype(int)
    assert (np.diff(scaled) >= 0).all()
    assert (to_uint8(np.array([values]), None)[0][~np.isfinite(values)] == 0).all()


def test_the_range_of_a_data_set_is_that_of_its_deep_images() -> None:
    dark, bright = (np.full((9, 9), value, np.uint16) for value in (1000, 3000))
    assert measure_pixel_range([dark, b"no image", np.zeros((2, 2), np.uint8), bright]) == (1000, 3000)
    assert measure_pixel_range([b"no image", np.zeros((2, 2), np.uint8)]) is None
    unit = np.array([[0.0, 0.5]])
    assert to_uint8(unit, (1000, 3000)).tolist() == to_uint8(unit, None).tolist() == [[0, 128]]
