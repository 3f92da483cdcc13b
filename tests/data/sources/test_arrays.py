from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade.data.sources.arrays import check_finite, image_list, rows_as_images, square_shape
from saccade.errors import DataError

PATHS = ["a/cat.jpg", "a/dog.jpg"]


@pytest.mark.parametrize(
    "given_paths",
    [
        PATHS,
        tuple(PATHS),
        np.array(PATHS),
        np.array(PATHS, object),
        np.array(PATHS)[:, None],
        pd.Series(PATHS, index=[7, 3]),
        pd.Index(PATHS),
        pd.DataFrame({"file": PATHS}),
        pd.DataFrame({"age": [1, 2], "image": PATHS}),
    ],
)
def test_a_column_of_paths_is_a_list_of_images_in_any_container(given_paths: Any) -> None:
    assert image_list(given_paths) == PATHS


def test_paths_bytes_and_pictures_are_returned_unchanged() -> None:
    for images in ([Path("cat.jpg")], [b"GIF89a"], [Image.new("RGB", (2, 2))], [np.zeros((3, 4)), np.zeros((5, 6, 3))]):
        found = image_list(images)
        assert found is not None
        assert all(one is other for one, other in zip(found, images, strict=True))


@pytest.mark.parametrize("shape", [(5, 8, 9), (5, 8, 9, 1), (5, 8, 9, 3), (5, 8, 9, 4)])
def test_arrays_and_nested_lists_of_pixels_are_lists_of_images(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    for pictures in (array, array.tolist()):
        found = image_list(pictures)
        assert found is not None
        np.testing.assert_array_equal(np.stack(found), array)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "table", [np.zeros((5, 64)), [[0, 1], [2, 3]], pd.DataFrame(np.zeros((5, 4))), np.zeros(5), [1.0, 2.0], [], None]
)
def test_tables_and_numbers_are_not_images(table: Any) -> None:
    assert image_list(table) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("cat.jpg", r"X is one image, 'cat.jpg'; expected several: pass \[X\]"),
        (Path("cat.jpg"), "X is one image"),
        (np.zeros((8, 8, 3)), r"X has shape \(8, 8, 3\).* looks like one image: pass X\[None\]"),
        (np.zeros((5, 3, 8, 8)), r"channels come last: pass X.transpose\(0, 2, 3, 1\)"),
        (np.zeros((5, 8, 8, 2)), r"X has shape \(5, 8, 8, 2\); expected \(n, height, width\)"),
        (np.zeros((5, 8, 8, 3, 1)), "X has shape"),
        (np.zeros((5, 8, 8), complex), "X is an array of complex128; expected integers or floating-point numbers"),
    ],
)
def test_invalid_images_are_errors_with_advice(wrong: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        image_list(wrong)


@given(st.integers(1, 200), st.sampled_from([(), (3,)]))
def test_square_shape_is_found_from_the_number_of_values(side: int, last_axis: tuple[int, ...]) -> None:
    shape = (side, side, *last_axis)
    assert square_shape(int(np.prod(shape))) == shape


def test_rows_are_reshaped() -> None:
    rows = np.arange(24).reshape(2, 12)
    np.testing.assert_array_equal(rows_as_images(rows, (3, 4)), rows.reshape(2, 3, 4))
    assert rows_as_images(rows).shape == (2, 2, 2, 3)
    with pytest.raises(DataError, match=r"has 12 values, which is not image_shape=\(5, 2\)"):
        rows_as_images(rows, (5, 2))
    with pytest.raises(DataError, match=r"has 12 values, which is not image_shape=\(12,\)"):
        rows_as_images(rows, (12,))
    with pytest.raises(DataError, match=r"has 10 values, which is not a square image.*pass image_shape=\(height"):
        rows_as_images(rows[:, :10])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    check_finite(["cat.jpg", np.zeros((2, 2))])
    with pytest.raises(DataError, match="NaN or infinity"):
        check_finite([np.array([[0.0, bad, 300.0]])])
