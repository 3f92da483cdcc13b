from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.examples import Examples
from saccade.errors import UnknownNameError
from saccade.insight.saliency import check_form, draw_overlay, in_form, place_in_image
from saccade.models.network import InputSpec


def spec(side: int, crop_pct: float) -> InputSpec:
    return InputSpec(side, crop_pct, "bilinear", (0.5,) * 3, (0.5,) * 3)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(8, 90), height=st.integers(8, 90), crop_pct=st.sampled_from([0.8, 0.875, 1.0, 1.2]))
def test_a_map_covers_the_area_of_the_network_input(width: int, height: int, crop_pct: float) -> None:
    placed = place_in_image(np.ones((16, 16), np.float32), (width, height), spec(16, crop_pct))
    assert placed.shape == (height, width)
    fraction = 16 / round(16 / crop_pct)
    is_squeezed = max(width, height) > 3 * min(width, height)
    covered_x, covered_y = (fraction * (length if is_squeezed else min(width, height)) for length in (width, height))
    expected = min(width, covered_x) * min(height, covered_y)
    assert abs((placed > 0.5).sum() - expected) <= width + height + 4


def test_a_position_in_the_map_is_the_position_in_the_image() -> None:
    map_HW = np.zeros((10, 10), np.float32)
    map_HW[2, 7] = 1
    placed = place_in_image(map_HW, (200, 100), spec(10, 1.0))
    top, left = np.unravel_index(placed.argmax(), placed.shape)
    assert abs(top - 25) <= 5
    assert abs(left - (50 + 75)) <= 5


def test_the_map_of_an_elongated_image_covers_all_of_it() -> None:
    map_HW = np.zeros((10, 10), np.float32)
    map_HW[2, 9] = 1
    top, left = np.unravel_index(place_in_image(map_HW, (400, 100), spec(10, 1.0)).argmax(), (100, 400))
    assert abs(top - 25) <= 5
    assert abs(left - 380) <= 20


def test_an_overlay_is_coloured_at_large_values_and_grey_elsewhere() -> None:
    image = Image.new("RGB", (40, 20), (200, 30, 30))
    map_HW = np.zeros((20, 40), np.float32)
    map_HW[:, 20:] = 1
    pixels = np.asarray(draw_overlay(image, map_HW), int)
    assert pixels.shape == (20, 40, 3)
    assert np.ptp(pixels[:, :15], axis=2).max() == 0
    assert pixels[:, 25:, 0].min() > pixels[:, :15, 0].max() + 50


def test_unreadable_images_are_nan_or_none_in_each_form() -> None:
    images = [np.zeros((20, 30, 3), np.uint8), b"no image"]
    examples = Examples(list(images), pd.RangeIndex(2))
    maps = np.ones((2, 8, 8), np.float32)
    found = {form: in_form(form, maps.copy(), examples, {1: "broken"}, spec(8, 1.0)) for form in ("image", "overlay")}
    assert found["image"][0].shape == (20, 30)
    assert found["overlay"][0].size == (30, 20)
    assert found["image"][1] is found["overlay"][1] is None
    of_network = in_form("network", maps, examples, {1: "broken"}, spec(8, 1.0))
    assert np.isnan(of_network[1]).all()
    assert (of_network[0] == 1).all()
    with pytest.raises(UnknownNameError, match="Did you mean 'overlay'"):
        check_form("overlays")
