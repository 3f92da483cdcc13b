from __future__ import annotations

from pathlib import Path

import pytest

from saccade import Categorical, Int
from saccade.errors import UnknownModelError, WeightsNotFoundError
from saccade.training.networks import check_networks, stored_side
from saccade.training.recipe import recipe_space


def test_a_misspelt_network_anywhere_in_the_space_fails_before_the_search(tiny_weights: Path) -> None:
    space = recipe_space({"model": Categorical("test_resnet", "resnet18x"), "pretrained": False})
    with pytest.raises(UnknownModelError, match="resnet18"):
        check_networks(space, None)


def test_weights_that_are_nowhere_fail_before_the_search(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    space = recipe_space({"model": Categorical("test_resnet", "resnet18")})
    with pytest.raises(WeightsNotFoundError, match="pretrained=False"):
        check_networks(space, tiny_weights)
    check_networks(recipe_space({"model": "test_resnet"}), tiny_weights)
    check_networks(recipe_space({"model": "resnet18", "pretrained": False}), tiny_weights)


def test_weights_of_the_recipe_come_before_those_of_the_fit(tiny_weights: Path, tmp_path: Path) -> None:
    check_networks(recipe_space({"model": "test_resnet", "weights": str(tiny_weights)}), tmp_path)


def test_images_are_stored_as_large_as_the_largest_recipe_needs() -> None:
    assert stored_side(recipe_space({"model": "test_resnet", "img_size": 32, "crop_pct": 1.0})) == 32
    assert stored_side(recipe_space({"model": "test_resnet", "img_size": Int(32, 64), "crop_pct": 0.8})) == 80
    assert stored_side(recipe_space({"model": Categorical("resnet18", "inception_v3")})) >= 299
