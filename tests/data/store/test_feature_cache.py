from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.data.store.feature_cache import FeatureCache
from saccade.errors import HyperparameterError

NAMES = [f"image {number}" for number in range(8)]


def vectors(names: list[str], width: int = 3) -> np.ndarray:
    """Return the true features of images."""
    return np.array([[float(name.split()[1])] * width for name in names], np.float32).reshape(len(names), width)


def recorded(names: list[str], computed: list[str], width: int = 3) -> Callable[[np.ndarray], np.ndarray]:
    def compute(positions: np.ndarray) -> np.ndarray:
        some = [names[position] for position in positions]
        computed.extend(some)
        return vectors(some, width)

    return compute


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache" / "features.sqlite")


@settings(max_examples=25)
@given(calls=st.lists(st.lists(st.sampled_from(NAMES), min_size=1), max_size=5))
def test_each_image_is_computed_once(tmp_path_factory: pytest.TempPathFactory, calls: list[list[str]]) -> None:
    cache = FeatureCache(tmp_path_factory.mktemp("cache") / "features.sqlite")
    before: set[str] = set()
    for names in calls:
        computed: list[str] = []
        assert np.array_equal(cache.get("network", names, recorded(names, computed)), vectors(names))
        assert computed == [name for name in names if name not in before]
        before |= set(names)


def test_other_networks_have_other_features(cache: FeatureCache) -> None:
    for network in ("one", "other"):
        computed: list[str] = []
        cache.get(network, NAMES, recorded(NAMES, computed))
        assert computed == NAMES


def test_features_of_the_first_images_are_enough_and_unreadable_images_are_tried_again(cache: FeatureCache) -> None:
    cache.get("network", NAMES[:1] + NAMES[3:5], recorded(NAMES[:1] + NAMES[3:5], []))

    def compute_two(positions: np.ndarray) -> np.ndarray:
        assert positions.tolist() == [1, 2, 5, 6, 7]
        return np.array([[1, 1, 1], [np.nan] * 3], np.float32)

    found = cache.get("network", NAMES, compute_two)
    assert np.array_equal(found, [[0] * 3, [1] * 3, [np.nan] * 3, [3] * 3, [4] * 3], equal_nan=True)
    computed: list[str] = []
    cache.get("network", NAMES, recorded(NAMES, computed))
    assert computed == [NAMES[2], *NAMES[5:]]


def test_networks_with_features_of_half_of_the_images_are_named(cache: FeatureCache) -> None:
    assert not cache.names(NAMES)
    for network, names in (("few", NAMES[:3]), ("half", NAMES[4:])):
        cache.get(f"digest of {network}", names, recorded(names, []), network)
    assert cache.names(NAMES) == {"half"}
    assert cache.names(NAMES[:3]) == {"few"}


def test_an_image_without_a_digest_is_not_cached(cache: FeatureCache) -> None:
    names = ["image 1", ""]
    cache.get("network", names, lambda positions: vectors([NAMES[1]] * len(positions)))
    assert np.array_equal(cache.get("network", names, lambda _: vectors([NAMES[5]])), vectors([NAMES[1], NAMES[5]]))


@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_file_gives_no_wrong_features(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    cache = FeatureCache(tmp_path_factory.mktemp("cache") / "features.sqlite")
    cache.get("network", NAMES, recorded(NAMES, [], 1000))
    content = bytearray(cache.path.read_bytes())
    first = data.draw(st.integers(0, len(content) - 1))
    length = data.draw(st.integers(1, 5000))
    content[first : first + length] = data.draw(st.sampled_from([b"", b"\xff" * length, b"\0" * length]))
    cache.path.write_bytes(content)
    for _ in range(2):
        assert np.array_equal(cache.get("network", NAMES, recorded(NAMES, [], 1000)), vectors(NAMES, 1000))
    computed: list[str] = []
    cache.get("network", NAMES, recorded(NAMES, computed, 1000))
    assert len(computed) < len(NAMES)  # the file is usable again


def test_the_least_recently_used_features_are_removed_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features.sqlite", limit_bytes=2_000_000)
    for network in ("a", "b", "a", "c"):
        cache.get(network, NAMES, recorded(NAMES, [], 20_000))  # 640 kB
    assert cache.path.stat().st_size <= 2_000_000
    computed: list[str] = []
    for network in ("a", "c"):
        cache.get(network, NAMES, recorded(NAMES, computed, 20_000))
    assert not computed
    cache.get("b", NAMES, recorded(NAMES, computed, 20_000))
    assert computed == NAMES
    smaller = FeatureCache(cache.path, limit_bytes=200_000)
    smaller.get("d", NAMES, recorded(NAMES, []))
    assert cache.path.stat().st_size <= 300_000  # a few pages are always there
    cache.get("d", NAMES, recorded(NAMES, computed))
    assert computed == NAMES


def test_features_larger_than_the_limit_are_not_cached(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features.sqlite", limit_bytes=1000)
    for _ in range(2):
        computed: list[str] = []
        assert np.array_equal(cache.get("network", NAMES, recorded(NAMES, computed, 1000)), vectors(NAMES, 1000))
        assert computed == NAMES


@pytest.mark.parametrize("is_file", [True, False])
def test_an_unusable_folder_is_not_used(tmp_path: Path, *, is_file: bool) -> None:
    path = tmp_path / "cache" / "features.sqlite"
    if is_file:
        path.parent.write_text("a file is in the way")
    else:
        path.mkdir(parents=True)
    names = NAMES[:2]
    assert np.array_equal(FeatureCache(path).get("network", names, recorded(names, [])), vectors(names))


def test_processes_share_the_file(cache: FeatureCache) -> None:
    script = """
import sys
import numpy as np
from pathlib import Path
from saccade.data.store.feature_cache import FeatureCache
path, first = Path(sys.argv[1]), int(sys.argv[2])
for number in range(first, first + 20):
    FeatureCache(path).get("network", [str(number)], lambda positions: np.full((1, 500), number, np.float32))
"""
    started = [subprocess.Popen([sys.executable, "-c", script, str(cache.path), str(first)]) for first in (0, 10)]
    assert [process.wait() for process in started] == [0, 0]
    names, computed = [f"{number}" for number in range(30)], []

    def compute(positions: np.ndarray) -> np.ndarray:
        computed.extend(positions)
        return np.repeat(positions[:, None], 500, 1).astype(np.float32)

    assert np.array_equal(cache.get("network", names, compute)[:, 0], np.arange(30))
    assert len(computed) < 15  # a process that waits too long for the lock does not write


def test_the_variable_limits_the_cache_and_0_disables_it(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FeatureCache.from_environment() == FeatureCache(own_cache / "features.sqlite")
    monkeypatch.setenv("SACCADE_FEATURE_CACHE_GB", "0.5")
    assert FeatureCache.from_environment() == FeatureCache(own_cache / "features.sqlite", 500_000_000)
    monkeypatch.setenv("SACCADE_FEATURE_CACHE_GB", "0")
    assert FeatureCache.from_environment() is None
    monkeypatch.setenv("SACCADE_FEATURE_CACHE_GB", "much")
    with pytest.raises(HyperparameterError, match="SACCADE_FEATURE_CACHE_GB='much'"):
        FeatureCache.from_environment()


def test_a_folder_that_cannot_be_looked_into_is_no_cache(tmp_path: Path) -> None:
    cache, computed = FeatureCache(tmp_path / ("x" * 300) / "features.sqlite"), list[str]()
    assert np.array_equal(cache.get("network", NAMES, recorded(NAMES, computed)), vectors(NAMES))
    assert computed == NAMES
