from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from saccade import Categorical, Int
from saccade.errors import HyperparameterError, UnknownModelError, WeightsNotFoundError
from saccade.models.network import build_network
from saccade.training.recipes.building import check_networks, stored_channels, stored_side
from saccade.training.recipes.recipe import recipe_space


def test_a_misspelt_network_anywhere_in_the_space_fails_before_the_search(tiny_weights: Path) -> None:
    space = recipe_space({"model": Categorical("test_resnet", "resnet18x"), "pretrained": False})
    with pytest.raises(UnknownModelError, match="resnet18"):
        check_networks(space, None, 2)


def test_missing_weights_are_an_error_before_the_search(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    space = recipe_space({"model": Categorical("test_resnet", "resnet18")})
    with pytest.raises(WeightsNotFoundError, match="pretrained=False"):
        check_networks(space, tiny_weights, 2)
    check_networks(recipe_space({"model": "test_resnet"}), tiny_weights, 2)
    check_networks(recipe_space({"model": "resnet18", "pretrained": False}), tiny_weights, 2)


def test_weights_of_the_recipe_come_before_those_of_the_fit(tiny_weights: Path, tmp_path: Path) -> None:
    check_networks(recipe_space({"model": "test_resnet", "weights": str(tiny_weights)}), tmp_path, 2)


def test_stored_side_is_that_of_the_largest_recipe() -> None:
    assert stored_side(recipe_space({"model": "test_resnet", "img_size": 32, "crop_pct": 1.0}), 2) == 32
    assert stored_side(recipe_space({"model": "test_resnet", "img_size": Int(32, 64), "crop_pct": 0.8}), 2) == 80
    assert stored_side(recipe_space({"model": "resnet18", "crop_pct": None}), 2) == round(224 / 0.95)
    assert stored_side(recipe_space({"model": Categorical("resnet18", "inception_v3")}), 2) >= 299


def test_custom_networks_are_tried_before_the_search_and_determine_the_image_size() -> None:
    own = recipe_space({"net": lambda num_classes: nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))})
    check_networks(own, None, 3)
    assert stored_side(own, 3) == 224
    with pytest.raises(HyperparameterError, match=r"\(1, 3\)"):
        check_networks(recipe_space({"net": nn.Flatten(), "img_size": 16}), None, 3)
    large = recipe_space({"net": lambda num_classes: build_network("inception_v3", num_classes, pretrained=False)})
    assert stored_side(large, 3) >= 299


def test_stored_channels_are_those_of_all_trials() -> None:
    assert stored_channels(recipe_space({})) == 3
    assert stored_channels(recipe_space({"in_chans": 1})) == 1
    with pytest.raises(HyperparameterError, match=r"in_chans was given \[1, 3\]"):
        stored_channels(recipe_space({"in_chans": Categorical(1, 3)}))
