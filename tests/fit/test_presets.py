from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from saccade import ImagePredictor
from saccade.errors import HyperparameterError, UnknownNameError
from saccade.fit.options import FitOptions
from saccade.fit.presets import Preset, find_preset
from saccade.models.catalogue import resolve_name
from saccade.training.recipes.recipe import edges_of, recipe_space

OLD = [
    "best_quality",
    "good_quality_fast_inference",
    "medium_quality_faster_train",
    "medium_quality_faster_inference",
]
NEW = ["medium_quality", "high_quality", "best_quality", "fast_inference"]


@pytest.mark.parametrize("name", sorted({*OLD, *NEW}))
@pytest.mark.parametrize("limit_s", [None, 60.0])
def test_every_preset_is_valid(name: str, limit_s: float | None) -> None:
    preset = find_preset(name, limit_s)
    space = recipe_space(preset.hyperparameters)
    if "model" in preset.hyperparameters:
        for model in edges_of(space["model"]) or [space["model"]]:
            resolve_name(model)
    FitOptions().with_defaults(preset.options)
    assert preset.options["time_limit"]
    assert name in NEW or "model" in preset.hyperparameters


@pytest.mark.parametrize("name", OLD)
def test_autogluons_presets(name: str) -> None:
    epochs, num_trials, hours = {
        "best_quality": (200, 1024, 12),
        "good_quality_fast_inference": (150, 512, 8),
        "medium_quality_faster_train": (50, 1, 1),
        "medium_quality_faster_inference": (50, 32, 2),
    }[name]
    preset = find_preset(name)
    assert preset.hyperparameters["epochs"] == epochs
    assert preset.options["num_trials"] == num_trials
    assert preset.options["time_limit"] == 3600 * hours


def test_no_networks_are_named_if_time_is_short() -> None:
    for name in NEW:
        assert "model" not in find_preset(name, 600).hyperparameters
    assert "model" in find_preset("best_quality", 2 * 3600).hyperparameters


def test_better_presets_allow_more_networks() -> None:
    settings = [FitOptions().with_defaults(find_preset(name).options) for name in NEW]
    assert [one.max_members for one in settings] == [1, 3, 5, 5]
    assert [one.distill for one in settings] == [False, False, False, True]


@pytest.mark.parametrize("besides", [{"refit_full": True}, {"objectives": ["accuracy", "params"]}, {"num_folds": 9}])
def test_options_of_the_user_take_precedence_over_the_ensemble_of_a_preset(besides: dict[str, Any]) -> None:
    settings = FitOptions.of(besides).with_defaults(find_preset("best_quality").options)
    assert settings.ensemble == "auto"
    assert FitOptions.of({"ensemble": 2}).with_defaults(find_preset("best_quality").options).max_members == 2
    alone = FitOptions.of({"num_folds": 3}).with_defaults(find_preset("medium_quality").options)
    assert alone.ensemble == "auto"


def test_a_preset_searches_available_networks(
    make_colours: Callable[..., pd.DataFrame], tiny_weights: Path, tmp_path: Path
) -> None:
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    few = {"img_size": 32, "epochs": 1, "batch_size": 8}
    predictor.fit(
        make_colours(10), presets="medium_quality", hyperparameters=few, weights=tiny_weights, num_trials=2,
        time_limit=60, executor="inline",
    )  # fmt: skip
    asked = json.loads((tmp_path / "run" / "run.json").read_text())["arguments"]
    assert (asked["ensemble"], asked["num_trials"]) == (False, 2)
    assert set(predictor.leaderboard()["model"]) == {"test_resnet"}
    assert predictor.fit_summary()["ensemble"] == []


def test_later_presets_take_precedence() -> None:
    both = find_preset(["best_quality", "medium_quality_faster_train"])
    assert both.hyperparameters["epochs"] == 50
    assert both.options["num_trials"] == 1
    assert both.options["time_limit"] == 3600


def test_none_and_dictionaries() -> None:
    assert find_preset(None) == Preset()
    assert find_preset({"lr": 0.1}) == Preset(hyperparameters={"lr": 0.1})
    both = find_preset(["fast_inference", "high_quality"])
    assert both.options["ensemble"] == 3
    assert both.options["distill"] is True


def test_a_misspelt_preset_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="'best_quality'"):
        find_preset("best_qualty")
    with pytest.raises(HyperparameterError, match="presets was given 3"):
        find_preset(3)  # type: ignore[arg-type]
