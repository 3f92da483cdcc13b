from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forked import Forked
from saccade.data.store import store_cache
from saccade.data.store.decoded_images import decoded_images
from saccade.data.store.on_demand import StreamedStore
from saccade.data.store.store import ImageStore
from saccade.data.store.store_cache import StoreCache
from saccade.data.store.stored_form import read_as_stored
from saccade.errors import HyperparameterError, ImageReadError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills by signals")


def images(num: int = 3, seed: int = 0, side: int = 20) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (side, side + 4, 3), dtype=np.uint8) for _ in range(num)]


@pytest.fixture
def stores(own_cache: Path) -> Callable[[], list[str]]:
    """Return the names of the stores in the cache."""
    return lambda: sorted(path.parent.name for path in (own_cache / "stores").glob("*/store.json"))


@pytest.fixture
def decode(tmp_path: Path) -> Callable[..., ImageStore]:
    def decode(of: list[Any], side: int | None = 10, **options: Any) -> ImageStore:
        return decoded_images(of, tmp_path / "run" / "store", shorter_side=side, **options)

    return decode


def test_a_store_is_built_once_and_then_reused(decode: Any, stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decode(images())
    monkeypatch.setattr(store_cache.ImageStore, "build", None)
    again = decode(images())
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert again.folder == first.folder
    assert stores() == [first.folder.name]
    assert again.digests == first.digests
    assert np.array_equal(pickle.loads(pickle.dumps(again))[1], first[1])


def test_other_images_sizes_and_channels_have_separate_stores(decode: Any, stores: Any) -> None:
    kept = [decode(images()), decode(images(seed=1)), decode(images(), side=9), decode(images(), channels=1)]
    assert len(stores()) == len({store.folder for store in kept}) == 4


def test_a_changed_file_is_decoded_again(decode: Any, stores: Any, make_image: Any, tmp_path: Path) -> None:
    path = make_image(tmp_path / "a.png", seed=1)
    before = decode([path])[0]
    make_image(path, seed=2)
    os.utime(path, (1, 1))
    assert not np.array_equal(decode([path])[0], before)
    assert len(stores()) == 2


def test_a_file_that_changes_during_decoding_does_not_match_its_fingerprint(
    decode: Any, stores: Any, make_image: Any, tmp_path: Path
) -> None:
    path = make_image(tmp_path / "a.png", seed=1)
    os.utime(path, (1, 1))
    before = path.read_bytes()

    def change(done: int, total: int) -> None:
        make_image(path, seed=2)

    decode([path], on_progress=change)
    path.write_bytes(before)
    os.utime(path, (1, 1))
    again: list[int] = []
    decode([path], on_progress=lambda done, total: again.append(done))
    assert again == [1]


def test_an_incomplete_store_stays_in_the_run_folder(decode: Any, stores: Any, tmp_path: Path) -> None:
    left = iter([1.0] * 4 + [-1.0] * 99)
    incomplete = decode(images(40), deadline=lambda: next(left))
    assert incomplete.skipped
    assert incomplete.folder == tmp_path / "run" / "store"
    assert stores() == []
    assert decode(images(40)).skipped == incomplete.skipped  # a resumed run uses the same images
    complete = decoded_images(images(40), tmp_path / "other", shorter_side=10)
    assert not complete.skipped
    assert stores() == [complete.folder.name]


def test_a_damaged_store_is_built_again(decode: Any, stores: Any) -> None:
    store = decode(images())
    (store.folder / "pixels.bin").write_bytes(b"short")
    assert np.array_equal(decode(images())[2], read_as_stored(images()[2], 10))
    assert stores() == [store.folder.name]


def test_a_store_in_use_stays_readable_when_its_folder_is_deleted(decode: Any, own_cache: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("a mapped file cannot be removed")
    store = decode(images())
    expected = store[0].copy()
    shutil.rmtree(own_cache)
    assert np.array_equal(store[0], expected)
    assert np.array_equal(decode(images())[0], expected)


def test_without_cache_the_store_is_in_the_run_folder(
    decode: Any, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_STORE_CACHE_GB", "0")
    assert decode(images()).folder == tmp_path / "run" / "store"
    assert not own_cache.exists()


@pytest.mark.parametrize("given", ["many", "-1", "nan", "inf"])
def test_an_invalid_limit_is_an_error(decode: Any, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("SACCADE_STORE_CACHE_GB", given)
    with pytest.raises(HyperparameterError, match=f"SACCADE_STORE_CACHE_GB='{given}' is not a size.*such as 50"):
        decode(images())


@pytest.mark.parametrize("damage", [b"", bytes(50)], ids=["intact", "zeroed"])
@pytest.mark.parametrize("is_cached", [True, False])
def test_a_store_with_changed_pixels_is_built_again(
    decode: Any, monkeypatch: pytest.MonkeyPatch, damage: bytes, is_cached: bool
) -> None:
    if not is_cached:
        monkeypatch.setenv("SACCADE_STORE_CACHE_GB", "0")
    built = decode(images())
    expected, pixels = built[2].copy(), built.folder / "pixels.bin"
    del built
    content = bytearray(pixels.read_bytes())
    content[-60 : len(damage) - 60] = damage
    pixels.write_bytes(content)
    decoded: list[int] = []
    store = decode(images(), on_progress=lambda done, _: decoded.append(done))
    assert np.array_equal(store[2], expected)
    assert bool(decoded) == bool(damage)


def test_an_unwritable_cache_is_not_used(decode: Any, own_cache: Path, tmp_path: Path) -> None:
    own_cache.write_text("a file is in the way")
    assert decode(images()).folder == tmp_path / "run" / "store"


def test_by_content_copies_of_files_share_a_store(
    stores: Any, make_image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_STORE_KEY", "content")
    for name in ("a", "b"):
        decoded_images([make_image(tmp_path / name / "x.png")], tmp_path / "run", shorter_side=10)
    assert len(stores()) == 1


def use(seed: int, tmp_path: Path) -> ImageStore:
    """Use a store of about 12 kB."""
    time.sleep(0.01)  # so that the times of use differ
    return decoded_images(images(10, seed=seed), tmp_path / "run", shorter_side=None)


def test_the_least_recently_used_store_is_removed_first_and_one_in_use_never(
    stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = use(1, tmp_path)
    size = sum(path.stat().st_size for path in one.folder.iterdir())
    monkeypatch.setenv("SACCADE_STORE_CACHE_GB", str(3.5 * size / 1e9))
    names = {1: one.folder.name, 2: use(2, tmp_path).folder.name, 3: use(3, tmp_path).folder.name}
    assert len(stores()) == 3
    names[4] = use(4, tmp_path).folder.name
    assert stores() == sorted([names[1], names[3], names[4]])  # 1 is older than 2, but in use
    use(3, tmp_path)
    names[5] = use(5, tmp_path).folder.name
    assert stores() == sorted([names[1], names[3], names[5]])
    del one
    names[6] = use(6, tmp_path).folder.name
    assert stores() == sorted([names[3], names[5], names[6]])


def test_clear_keeps_only_stores_in_use(stores: Any, tmp_path: Path, own_cache: Path) -> None:
    kept = use(1, tmp_path)
    use(2, tmp_path)
    cache = StoreCache.from_environment()
    assert cache is not None
    assert cache.clear() > 10_000
    assert stores() == [kept.folder.name]
    del kept
    cache.clear()
    assert not stores()
    assert not list((own_cache / "stores" / "building").iterdir())


@pytest.mark.parametrize("num", [5, 200])
def test_without_room_images_are_streamed_with_a_warning(
    decode: Any, stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num: int
) -> None:
    monkeypatch.setenv("SACCADE_STORE_CACHE_GB", "0.000001")
    warnings: list[str] = []
    done: list[int] = []
    of = [*images(num), b"no image"]
    store = decode(of, warn=warnings.append, on_progress=lambda number, total: done.append(number))
    assert isinstance(store, StreamedStore)
    assert store.decodes
    assert np.array_equal(store[2], read_as_stored(of[2], 10))
    assert store.readable.tolist() == [True] * num + [False]
    assert store.errors == {num: "not an image: cannot identify its format"}
    assert all(store.digests[:num])
    with pytest.raises(ImageReadError, match="cannot identify"):
        store[num]
    assert np.array_equal(pickle.loads(pickle.dumps(store))[1], store[1])
    (text,) = warnings
    assert "decoded anew in every epoch" in text
    assert "SACCADE_STORE_CACHE_GB" in text
    assert done == list(range(1, num + 2))  # none is decoded twice
    assert not stores()
    assert not (tmp_path / "run" / "store").exists()


def test_a_store_above_the_default_limit_is_in_the_run_folder(
    decode: Any, stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_cache, "_MAX_BYTES", 1000)
    assert decode(images()).folder == tmp_path / "run" / "store"
    assert not stores()


def build_on_a_full_disk(folder: Path) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    of = [np.full((64, 64, 3), number, dtype=np.uint8) for number in range(50)]
    store = decoded_images(of, folder / "store", shorter_side=None, warn=sys.stdout.write)
    sys.stdout.write(f"{type(store).__name__} {store[49].max()}\n")


@posix_only
def test_on_a_full_disk_images_are_streamed(tmp_path: Path) -> None:
    output, errors = Forked(build_on_a_full_disk, tmp_path).communicate()
    assert "No space left" in output
    assert output.endswith("StreamedStore 49\n"), errors
    assert not list(tmp_path.rglob("pixels.bin"))


def build(folder: Path) -> None:
    """Decode images, and wait for a line of input in between and before the end."""

    def wait(done: int, num_images: int) -> None:
        if done == 3:
            sys.stdout.write("decoding\n")
            sys.stdin.readline()

    of = [np.full((64, 64, 3), number, dtype=np.uint8) for number in range(50)]
    options: dict[str, Any] = {"on_progress": wait, "on_wait": lambda: sys.stdout.write("waiting\n")}
    store = decoded_images(of, folder / "store", shorter_side=8, **options)
    sys.stdout.write(f"{store.folder}\n")
    sys.stdin.readline()


def start(folder: Path) -> Forked:
    return Forked(build, folder)


def read_line(process: Forked) -> str:
    return process.stdout.readline().strip()


def resume(process: Forked) -> None:
    process.stdin.write("\n")


@posix_only
def test_one_of_two_processes_decodes_and_the_other_waits(tmp_path: Path, stores: Any) -> None:
    with start(tmp_path / "a") as first:
        assert read_line(first) == "decoding"
        with start(tmp_path / "b") as second:
            assert read_line(second) == "waiting"
            resume(first)
            folder = read_line(first)
            assert read_line(second) == folder
            assert stores() == [Path(folder).name]
            cache = StoreCache.from_environment()
            assert cache is not None
            assert cache.clear() == 0  # both use it
            resume(first)
            resume(second)
    assert cache.clear() > 0


@posix_only
def test_a_waiting_process_takes_over_from_a_killed_one(tmp_path: Path, stores: Any, own_cache: Path) -> None:
    with start(tmp_path / "a") as first:
        assert read_line(first) == "decoding"
        with start(tmp_path / "b") as second:
            assert read_line(second) == "waiting"
            first.send_signal(signal.SIGKILL)
            assert read_line(second) == "decoding"
            resume(second)
            assert Path(read_line(second)).name in stores()
            assert not list((own_cache / "stores" / "building").iterdir())  # also the remains of the first
            second.send_signal(signal.SIGKILL)
    cache = StoreCache.from_environment()
    assert cache is not None
    assert cache.clear() > 0  # a lease ends with its process


@posix_only
def test_the_remains_of_a_killed_process_are_removed_by_others(tmp_path: Path, own_cache: Path) -> None:
    with start(tmp_path / "a") as first:
        assert read_line(first) == "decoding"
        use(1, tmp_path)
        building = own_cache / "stores" / "building"
        assert list(building.iterdir())  # it still runs
        first.send_signal(signal.SIGKILL)
    use(2, tmp_path)
    assert not list(building.iterdir())


@posix_only
def test_a_process_that_waited_too_long_decodes_into_its_run_folder(tmp_path: Path) -> None:
    of = [np.full((64, 64, 3), number, dtype=np.uint8) for number in range(50)]
    with start(tmp_path / "a") as first:
        assert read_line(first) == "decoding"
        store = decoded_images(of, tmp_path / "b" / "store", shorter_side=8, deadline=lambda: 0.2)
        assert store.folder == tmp_path / "b" / "store"
        resume(first)
        read_line(first)
        resume(first)
