from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.batches import Batches
from saccade.data.store.store import ImageStore
from saccade.inference.classifier import Classifier, features_of
from saccade.numerics.device import Numerics, choose_device
from saccade.tasks.problem import Problem
from saccade.training.probes import probe as probe_module
from saccade.training.probes.probe import cached_features
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask


@pytest.fixture
def task(make_task: Callable[..., ImageTask]) -> ImageTask:
    return make_task()


@pytest.fixture(autouse=True)
def _memory_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_FEATURE_CACHE_GB", "0")


@pytest.fixture
def num_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with every pass over images."""
    passes: list[int] = []

    def counted(*arguments: object) -> np.ndarray:
        passes.append(1)
        return features_of(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(probe_module, "features_of", counted)
    return passes


class _Images(list[int]):
    """Images that can be cached."""

    def __init__(self, num: int) -> None:
        super().__init__(range(num))

    __hash__ = object.__hash__  # type: ignore[assignment]


class _Backbone:
    """As much of a classifier as the cache needs; its batches are positions."""

    def backbone_digest(self, form: str) -> str:
        return f"backbone{form}"

    def batches(self, images: object, indices: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(indices=indices)

    def fuse(self) -> None: ...

    def unfuse(self) -> None: ...


def classifier(task: ImageTask, seed: int = 0, img_size: int = 32) -> Classifier:
    torch.manual_seed(seed)
    recipe = Recipe(model="test_resnet", pretrained=False, img_size=img_size)
    return new_classifier(recipe, task.problem, Numerics(choose_device("cpu")))


def test_features_of_the_same_network_and_images_are_cached(task: ImageTask, num_passes: list[int]) -> None:
    first = cached_features(classifier(task), task.store, task.train.indices)
    other_head = classifier(task)
    with torch.no_grad():
        other_head.network.get_classifier().weight.add_(1.0)
    again = cached_features(other_head, task.store, task.train.indices)
    assert len(num_passes) == 1
    assert np.array_equal(again, first)
    assert not first.flags.writeable
    expected = features_of(classifier(task), classifier(task).batches(task.store, task.train.indices))
    assert np.array_equal(first, expected)


def test_features_are_computed_again_for_other_weights_or_sizes(task: ImageTask, num_passes: list[int]) -> None:
    all_ = task.train.indices
    for each in (
        (classifier(task), all_),
        (classifier(task, seed=1), all_),
        (classifier(task, img_size=64), all_),
        (classifier(task), all_[1:]),
    ):
        cached_features(each[0], task.store, each[1])
    assert len(num_passes) == 3


@given(st.lists(st.lists(st.integers(0, 19), min_size=1), min_size=1, max_size=4))
def test_each_image_is_computed_once(requests: list[list[int]]) -> None:
    images: Any = _Images(20)
    computed: list[int] = []

    def compute(_: Classifier, batches: Any, seconds_left: Callable[[], float]) -> np.ndarray:
        computed.extend(batches.indices.tolist())
        return np.stack([np.full(3, index, np.float32) for index in batches.indices])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_module, "features_of", compute)
        for request in requests:
            found = cached_features(_Backbone(), images, np.array(request))  # type: ignore[arg-type]
            assert found[:, 0].tolist() == request
    assert sorted(computed) == sorted({index for request in requests for index in request})


def test_features_of_the_images_before_the_deadline_are_kept(task: ImageTask, num_passes: list[int]) -> None:
    network, indices = classifier(task), task.train.indices
    images = [np.zeros((40, 40, 3), np.uint8)] * 70
    assert 0 < len(cached_features(network, images, np.arange(70), lambda: 0.0)) < 70  # a batch
    assert len(cached_features(network, task.store, indices, lambda: 0.0)) == len(indices)  # fewer than that
    assert len(num_passes) == 2


def test_least_recently_used_features_are_dropped_first(task: ImageTask, num_passes: list[int]) -> None:
    networks = [classifier(task, seed=seed) for seed in range(3)]
    num_bytes = cached_features(networks[0], task.store, task.train.indices).nbytes
    for network in (networks[1], networks[0], networks[2], networks[0]):
        cached_features(network, task.store, task.train.indices, max_bytes=2 * num_bytes)
    assert len(num_passes) == 3
    cached_features(networks[1], task.store, task.train.indices)
    assert len(num_passes) == 4


def test_features_are_dropped_with_their_images(make_task: Callable[..., ImageTask]) -> None:
    task = make_task()
    before = len(probe_module._cache)
    cached_features(classifier(task), task.store, task.train.indices)
    assert len(probe_module._cache) == before + 1
    del task
    gc.collect()
    assert len(probe_module._cache) <= before


def test_features_of_images_in_a_list_are_not_cached(task: ImageTask, num_passes: list[int]) -> None:
    images = [np.zeros((40, 40, 3), np.uint8)] * 4
    for _ in range(2):
        cached_features(classifier(task), images, np.arange(4))
    assert len(num_passes) == 2


def test_features_are_computed_again_in_other_numerics(task: ImageTask, num_passes: list[int]) -> None:
    network = classifier(task)
    plain = cached_features(network, task.store, task.train.indices)
    network.use(network.numerics, Numerics(choose_device("cpu"), torch.bfloat16))
    half = cached_features(network, task.store, task.train.indices)
    assert len(num_passes) == 2
    assert not np.array_equal(half, plain)
    assert np.allclose(half, plain, atol=0.1 * np.abs(plain).max())


def test_a_later_run_reads_features_from_the_disk_and_computes_those_of_other_images(
    make_colours: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_FEATURE_CACHE_GB", "1")
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    computed: list[int] = []

    def counted(classifier: Classifier, batches: Batches, seconds_left: Callable[[], float]) -> np.ndarray:
        computed.append(batches.num_images)
        return features_of(classifier, batches, seconds_left)

    monkeypatch.setattr(probe_module, "features_of", counted)
    paths = make_colours(6)["image"].tolist()
    torch.manual_seed(0)
    problem = Problem.of(["blue", "red"])
    network = new_classifier(
        Recipe(model="test_resnet", pretrained=False, img_size=32), problem, Numerics(choose_device("cpu"))
    )

    def features(images: list[str], shorter_side: int = 32) -> np.ndarray:
        folder = tmp_path / f"run {len(list(tmp_path.iterdir()))}"
        store = ImageStore.build(images, folder, shorter_side=shorter_side)
        return cached_features(network, store, np.arange(len(images)))

    first = features(paths[:8])
    again = features(paths[11:3:-1])  # other images, in another order
    assert computed == [8, 4]
    assert np.array_equal(again[4:], first[:3:-1])
    assert np.allclose(again, features(paths[11:3:-1], shorter_side=20), atol=10)  # other pixels
    assert computed == [8, 4, 8]
