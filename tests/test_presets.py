from __future__ import annotations

import pytest

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.models.catalogue import resolve_name
from saccade.presets import Preset, find_preset
from saccade.settings import TuneSettings
from saccade.training.recipe import edges_of, recipe_space

NAMES = [
    "best_quality",
    "good_quality_fast_inference",
    "medium_quality_faster_train",
    "medium_quality_faster_inference",
    "high_quality",
    "medium_quality",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_a_fit_that_can_be(name: str) -> None:
    preset = find_preset(name)
    space = recipe_space(preset.hyperparameters)
    for model in edges_of(space["model"]) or [space["model"]]:
        resolve_name(model)
    assert TuneSettings(**preset.tune_kwargs).num_trials
    assert preset.time_limit_s


def test_of_several_presets_the_later_ones_count() -> None:
    both = find_preset(["best_quality", "medium_quality_faster_train"])
    assert both.hyperparameters["epochs"] == 50
    assert both.tune_kwargs == {"num_trials": 1}
    assert both.time_limit_s == 3600


def test_none_and_dictionaries() -> None:
    assert find_preset(None) == Preset()
    assert find_preset({"lr": 0.1}) == Preset({"lr": 0.1})


def test_a_misspelt_preset_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="'best_quality'"):
        find_preset("best_qualty")
    with pytest.raises(HyperparameterError, match="presets was given 3"):
        find_preset(3)  # type: ignore[arg-type]
