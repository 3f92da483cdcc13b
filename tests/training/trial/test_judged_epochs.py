from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.training.recipes.recipe import Recipe
from saccade.training.trial.judged_epochs import JUDGING_PART, MOST_PART, judged_epochs


def judged(num_epochs: int = 12, num_val: int = 100, compared: list[int] | None = None, **recipe: Any) -> list[int]:
    is_judged = judged_epochs(Recipe.of(recipe), 1000, num_val, compared)
    return [epoch for epoch in range(1, num_epochs + 1) if is_judged(epoch)]


@given(num_train=st.integers(1, 10**6), num_val=st.integers(1, 10**6), compared=st.lists(st.integers(0, 60)))
def test_what_nobody_needs_costs_next_to_nothing(num_train: int, num_val: int, compared: list[int]) -> None:
    is_judged = judged_epochs(Recipe(), num_train, num_val, compared)
    epochs = [epoch for epoch in range(1, 61) if is_judged(epoch)]
    assert set(epochs) >= {epoch for epoch in compared if epoch >= 1}
    not_needed = set(epochs) - set(compared)
    assert len(not_needed) * num_val * JUDGING_PART <= 60 * num_train * MOST_PART + 1e-6


def test_a_tenth_of_the_images_judge_each_epoch() -> None:
    assert judged(compared=[]) == list(range(1, 13))


def test_of_many_validation_images_only_what_the_scheduler_needs_and_some_more() -> None:
    assert judged(num_val=1000, compared=[1, 3, 9]) == [1, 3, 7, 9]


@pytest.mark.parametrize("recipe", [{"early_stop_patience": 3}, {"early_stop_max_value": 0.9}])
def test_all_that_somebody_needs_are_judged(recipe: dict[str, Any]) -> None:
    assert judged(num_val=1000, compared=[], **recipe) == list(range(1, 13))
    assert judged(num_val=1000, compared=None) == list(range(1, 13))
    assert judged(num_val=1000, compared=[], early_stop_patience=-1) == [7]


def test_the_users_interval_is_taken_and_what_the_scheduler_needs() -> None:
    assert judged(compared=[1, 3], val_interval=5, early_stop_patience=2) == [1, 3, 5, 10]
    assert judged(compared=None, val_interval=5) == [5, 10]
