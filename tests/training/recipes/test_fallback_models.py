from __future__ import annotations

from pathlib import Path

import pytest

from saccade import Categorical
from saccade.errors import WeightsNotFoundError
from saccade.training.recipes.default_space import FROM_SCRATCH
from saccade.training.recipes.fallback_models import with_networks_at_hand
from saccade.training.recipes.recipe import recipe_space


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("SACCADE_WEIGHTS", raising=False)


def test_networks_without_weights_are_left_out_and_named(tiny_weights: Path) -> None:
    space = recipe_space({"model": Categorical("resnet18", "test_resnet"), "lr": 0.1})
    narrowed, told = with_networks_at_hand(space, tiny_weights)
    assert narrowed.data == {"model": "test_resnet", "lr": 0.1}
    assert "resnet18; this fit takes test_resnet instead" in told


def test_where_none_is_at_hand_the_local_folder_stands_in(tiny_weights: Path) -> None:
    narrowed, told = with_networks_at_hand(recipe_space({"model": "resnet18"}), tiny_weights)
    assert narrowed.data["model"] == "test_resnet"
    assert "resnet18" in told


def test_where_all_are_at_hand_nothing_changes(tiny_weights: Path) -> None:
    space = recipe_space({"model": "test_resnet"})
    assert with_networks_at_hand(space, tiny_weights) == (space, "")


def test_random_weights_need_no_files() -> None:
    space = recipe_space({"model": "resnet18", "pretrained": False})
    assert with_networks_at_hand(space, None) == (space, "")


def test_without_any_weights_small_networks_start_from_random_ones_and_that_is_told() -> None:
    space = recipe_space({"model": "resnet18", "lr": 0.1, "epochs": 2})
    scratch, told = with_networks_at_hand(space, None, given={"lr", "epochs"})
    assert scratch.data["pretrained"] is False
    assert scratch.data["model"].data == FROM_SCRATCH
    assert (scratch.data["lr"], scratch.data["epochs"]) == (0.1, 2)
    assert told.startswith("NO PRETRAINED WEIGHTS")
    assert "SACCADE_WEIGHTS" in told  # what to do about it


def test_who_wants_pretrained_weights_does_not_get_random_ones() -> None:
    space = recipe_space({"model": "resnet18", "pretrained": True})
    with pytest.raises(WeightsNotFoundError, match="pretrained=False"):
        with_networks_at_hand(space, None, given={"pretrained"})
