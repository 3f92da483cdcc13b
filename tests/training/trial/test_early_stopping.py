from __future__ import annotations

import pytest

from saccade.training.recipes.recipe import Recipe
from saccade.training.trial.trainer import EarlyStopping


def stopped_after(scores: list[float], **recipe: object) -> int | None:
    stopping = EarlyStopping(Recipe.of(recipe))
    return next((number for number, score in enumerate(scores, 1) if stopping.reason(score, number)), None)


@pytest.mark.parametrize(
    ("recipe", "scores", "expected"),
    [
        ({}, [0.5, 0.4, 0.3, 0.2], None),
        ({"early_stop_patience": -1}, [0.5, 0.4, 0.3, 0.2], None),
        ({"early_stop_patience": 2}, [0.5, 0.4, 0.3, 0.2, 0.1], 4),
        ({"early_stop_patience": 2}, [0.5, 0.4, 0.6, 0.3, 0.2, 0.6], 6),
        ({"early_stop_patience": 1, "early_stop_min_delta": 0.2}, [0.5, 0.6, 0.65], 3),
        ({"early_stop_patience": 1, "early_stop_baseline": 0.9}, [0.5, 0.6], 2),
        ({"early_stop_max_value": 0.8}, [0.5, 0.8], 2),
    ],
)
def test_early_stopping_follows_the_recipe(
    recipe: dict[str, object], scores: list[float], expected: int | None
) -> None:
    assert stopped_after(scores, **recipe) == expected


def test_patience_counts_epochs_without_validation() -> None:
    stopping = EarlyStopping(Recipe.of({"early_stop_patience": 4}))
    reasons = [stopping.reason(score, epoch) for epoch, score in {3: 0.5, 6: 0.4, 9: 0.3}.items()]
    assert reasons == ["", "", "early stop: no improvement in 6 epochs"]


def test_early_stopping_continues_from_its_state() -> None:
    recipe = Recipe.of({"early_stop_patience": 1})
    first, second = EarlyStopping(recipe), EarlyStopping(recipe)
    second.load_state_dict(first.state_dict())
    assert second.best == first.best
    first.reason(0.5, 1)
    first.reason(0.4, 2)
    second.load_state_dict(first.state_dict())
    assert second.reason(0.3, 3)
