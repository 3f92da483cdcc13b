from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.space import Categorical, Real
from saccade.training.recipes.default_space import (
    FROM_SCRATCH,
    MAX_NETWORKS,
    ON_CPU,
    ON_GPU,
    default_networks,
    default_space,
    num_epochs,
    scratch_space,
)
from saccade.training.recipes.recipe import choices, recipe_space


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SACCADE_WEIGHTS", raising=False)


def pictures(side: int, num: int = 40) -> list[np.ndarray]:
    return [np.zeros((side, 2 * side, 3), np.uint8)] * num


def test_a_local_folder_says_which_networks_there_are(tiny_weights: Path) -> None:
    assert default_networks(tiny_weights, is_gpu=False) == ["test_resnet"]


def test_a_large_folder_gives_the_networks_with_the_largest_files(tmp_path: Path) -> None:
    names = ["resnet10t", "resnet14t", "resnet18", "resnet26", "resnet34", "resnet50", "resnet101", "vgg11"]
    for size, name in enumerate(names):
        (tmp_path / f"{name}.safetensors").write_bytes(b"0" * size)
    assert default_networks(tmp_path, is_gpu=False) == names[: -MAX_NETWORKS - 1 : -1]


@pytest.mark.parametrize(("is_gpu", "expected"), [(False, ON_CPU), (True, ON_GPU)])
def test_without_a_folder_networks_suit_the_device(is_gpu: bool, expected: tuple[str, ...]) -> None:
    space = default_space(pictures(300), weights=None, is_gpu=is_gpu, time_limit_s=60)
    assert choices(recipe_space(space), "model") == list(expected)


@pytest.mark.parametrize("limit_s", [30.0, 3600.0, None])
@pytest.mark.parametrize("is_gpu", [False, True])
def test_every_default_is_a_recipe(limit_s: float | None, is_gpu: bool) -> None:
    space = recipe_space(default_space(pictures(300), weights=None, is_gpu=is_gpu, time_limit_s=limit_s))
    assert (space.num_configurations < np.inf) == (limit_s is None)  # without a limit, the search must end by itself
    recipe_space(scratch_space(100, is_gpu))


def test_a_long_search_tries_long_trainings_too() -> None:
    short = default_space(pictures(300), weights=None, is_gpu=False, time_limit_s=60)
    long = default_space(pictures(300), weights=None, is_gpu=False, time_limit_s=3600)
    assert isinstance(short["epochs"], int)
    assert isinstance(long["epochs"], Categorical)
    assert short["epochs"] in long["epochs"].data
    assert isinstance(long["lr"], Real)
    assert "scale" not in long  # the recipe's own, the strongest


@pytest.mark.parametrize(("num", "least"), [(100, 0.35), (1000, 0.6), (5000, 0.9)])
def test_the_shorter_a_training_the_less_images_are_varied(num: int, least: float) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    space = default_space([image] * num, weights=None, is_gpu=False, time_limit_s=60)
    assert space["scale"] == (least, 1.0)
    assert recipe_space(space).default["scale"] == (least, 1.0)


def test_of_many_images_an_epoch_is_a_part_as_large_as_the_time_allows() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    few = default_space([image] * 1000, weights=None, is_gpu=False, time_limit_s=120)
    many = default_space([image] * 20_000, weights=None, is_gpu=False, time_limit_s=120)
    longer = default_space([image] * 20_000, weights=None, is_gpu=False, time_limit_s=600)
    assert "images_per_epoch" not in few
    assert many["images_per_epoch"] == longer["images_per_epoch"] == 4000
    assert (many["epochs"], longer["epochs"]) == (3, 9)
    assert many["scale"] == (0.9, 1.0)  # each is seen once
    assert "images_per_epoch" not in default_space([image] * 20_000, weights=None, is_gpu=True, time_limit_s=600)
    assert "images_per_epoch" not in default_space([image] * 20_000, weights=None, is_gpu=False, time_limit_s=None)


@pytest.mark.parametrize(("side", "expected"), [(8, 64), (28, 128), (32, 128), (55, 224), (56, None), (400, None)])
def test_small_images_get_inputs_of_their_own_size(side: int, expected: int | None) -> None:
    space = default_space(pictures(side), weights=None, is_gpu=False, time_limit_s=60)
    assert space.get("img_size") == expected


def test_images_that_cannot_be_read_do_not_hinder(tmp_path: Path) -> None:
    space = default_space([tmp_path / "none.jpg", *pictures(28)], weights=None, is_gpu=False, time_limit_s=60)
    assert space["img_size"] == 128
    assert "img_size" not in default_space([tmp_path / "none.jpg"], weights=None, is_gpu=False, time_limit_s=60)


@given(num_images=st.integers(0, 10_000_000), is_gpu=st.booleans())
def test_more_images_are_seen_less_often(num_images: int, is_gpu: bool) -> None:
    assert 3 <= num_epochs(num_images + 1, is_gpu) <= num_epochs(num_images, is_gpu) <= 40
    assert num_epochs(num_images, False) <= num_epochs(num_images, True)


@given(num_images=st.integers(1, 3000))
def test_few_images_are_learned_slowly(num_images: int) -> None:
    image = np.zeros((8, 8, 3), np.uint8)

    def rate(num: int) -> Real:
        found = default_space([image] * num, weights=None, is_gpu=False, time_limit_s=60)["lr"]
        assert isinstance(found, Real)
        return found

    of_few, of_more = rate(num_images), rate(2 * num_images)
    assert 0 < of_few.lower < of_few.default < of_few.upper
    assert of_few.default <= of_more.default <= rate(3000).default == 1e-3
    without_limit = default_space([image] * num_images, weights=None, is_gpu=False, time_limit_s=None)
    assert without_limit["lr"] == of_few.default


def test_without_weights_trainings_are_longer() -> None:
    scratch = scratch_space(1000, is_gpu=False)
    assert scratch["epochs"] > num_epochs(1000, is_gpu=False)
    assert scratch_space(10_000, is_gpu=False)["scale"] == (0.35, 1.0)
    assert scratch["pretrained"] is False
    assert scratch["model"].data == FROM_SCRATCH
