from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.training.probes.probe import MAX_IMAGES
from saccade.training.recipes.default_space import images_per_epoch, max_held_out, max_used, num_short_epochs


@given(num_images=st.integers(1, 10**7), limit_s=st.floats(0.1, 1e6), is_gpu=st.booleans())
def test_epochs_are_parts_only_of_many_images(num_images: int, limit_s: float, is_gpu: bool) -> None:
    num = images_per_epoch(num_images, limit_s, is_gpu)
    if num is None:
        assert num_images < 1.5 * 20 * MAX_IMAGES
        return
    assert num < num_images
    assert num_short_epochs(num_images, num, limit_s, is_gpu) >= 3


@pytest.mark.parametrize("limit_s", [5.0, 30.0, 120.0, 3600.0])
def test_a_data_set_of_a_thousand_is_used_as_it_is(limit_s: float) -> None:
    assert max_used(limit_s, is_gpu=False) >= 1000
    assert images_per_epoch(1000, limit_s, is_gpu=False) is None
    assert max_held_out(limit_s, is_gpu=False) >= 100


@given(limit_s=st.floats(0.1, 1e6), more=st.floats(1.0, 100.0))
def test_more_time_has_use_for_more_images(limit_s: float, more: float) -> None:
    for is_gpu in (False, True):
        assert max_used(limit_s, is_gpu) <= max_used(more * limit_s, is_gpu) < math.inf
        assert max_held_out(limit_s, is_gpu) <= max_held_out(more * limit_s, is_gpu)
        assert max_used(limit_s, is_gpu=False) <= max_used(limit_s, is_gpu=True)


def test_without_a_limit_all_are_used() -> None:
    assert max_used(None, is_gpu=False) == math.inf
    assert images_per_epoch(10**7, None, is_gpu=False) is None


def test_of_many_classes_each_has_images_that_judge() -> None:
    assert max_held_out(60.0, is_gpu=False, num_classes=1000) == 2000
