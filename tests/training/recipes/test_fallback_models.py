from __future__ import annotations

from pathlib import Path

import pytest

from saccade import Categorical
from saccade.errors import WeightsNotFoundError
from saccade.training.recipes.default_space import FROM_SCRATCH, fall_back_to_available_models
from saccade.training.recipes.recipe import recipe_space


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("SACCADE_WEIGHTS", raising=False)


def test_networks_without_weights_are_left_out_and_named(tiny_weights: Path) -> None:
    space = recipe_space({"model": Categorical("resnet18", "test_resnet"), "lr": 0.1})
    narrowed, told = fall_back_to_available_models(space, tiny_weights)
    assert narrowed.data == {"model": "test_resnet", "lr": 0.1}
    assert "resnet18; this fit uses test_resnet instead" in told


def test_networks_of_the_local_folder_replace_unavailable_ones(tiny_weights: Path) -> None:
    narrowed, told = fall_back_to_available_models(recipe_space({"model": "resnet18"}), tiny_weights)
    assert narrowed.data["model"] == "test_resnet"
    assert "resnet18" in told


def test_available_networks_do_not_change(tiny_weights: Path) -> None:
    space = recipe_space({"model": "test_resnet"})
    assert fall_back_to_available_models(space, tiny_weights) == (space, "")


def test_random_weights_need_no_files() -> None:
    space = recipe_space({"model": "resnet18", "pretrained": False})
    assert fall_back_to_available_models(space, None) == (space, "")


def test_without_any_weights_small_networks_start_from_random_ones_and_that_is_told() -> None:
    space = recipe_space({"model": "resnet18", "lr": 0.1, "epochs": 2})
    scratch, told = fall_back_to_available_models(space, None, given={"lr", "epochs"})
    assert scratch.data["pretrained"] is False
    assert scratch.data["model"].data == FROM_SCRATCH
    assert (scratch.data["lr"], scratch.data["epochs"]) == (0.1, 2)
    assert told.startswith("NO PRETRAINED WEIGHTS")
    assert "SACCADE_WEIGHTS" in told  # what to do about it


def test_who_wants_pretrained_weights_does_not_get_random_ones() -> None:
    space = recipe_space({"model": "resnet18", "pretrained": True})
    with pytest.raises(WeightsNotFoundError, match="pretrained=False"):
        fall_back_to_available_models(space, None, given={"pretrained"})
