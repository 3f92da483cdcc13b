from __future__ import annotations

import io
import json
import multiprocessing
import operator
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.decoding import read_image
from saccade.data.store.store import ImageStore
from saccade.data.store.stored_form import read_as_stored, stored_size
from saccade.errors import DataError, HyperparameterError, ImageReadError


@pytest.fixture(scope="module")
def three_images(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    images = [noise(16, 16, number) for number in range(3)]
    folder = tmp_path_factory.mktemp("stores") / "store"
    return ImageStore.build([*images, b""], folder, shorter_side=8, pixel_range=(0.0, 0.5))


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def jpeg(width: int, height: int, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(max(1, width // 16), max(1, height // 16), seed)).resize((width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_small_images_are_stored_unchanged(tmp_path: Path) -> None:
    images = [noise(9, 5), noise(3, 8, seed=1), noise(6, 6, seed=2)]
    store = ImageStore.build(images, tmp_path / "store", shorter_side=16)
    assert len(store) == 3
    for original, stored in zip(images, store, strict=True):
        assert np.array_equal(original, stored)
    assert np.array_equal(store[-1], images[-1])
    assert store.num_bytes == sum(image.nbytes for image in images)


def test_large_images_are_shrunk_to_the_shorter_side(tmp_path: Path) -> None:
    images = [jpeg(640, 480), jpeg(300, 400), noise(90, 60), noise(30, 20)]
    store = ImageStore.build(images, tmp_path / "store", shorter_side=40)
    assert [image.shape for image in store] == [(40, 53, 3), (53, 40, 3), (40, 60, 3), (20, 30, 3)]
    assert store.scan.sizes.tolist() == [[640, 480], [300, 400], [90, 60], [30, 20]]
    full = np.asarray(read_image(images[0]).resize((53, 40), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(full - store[0]).mean() < 4, "reduced-scale decoding must not change how the image looks"


def test_without_a_shorter_side_images_keep_their_size(tmp_path: Path) -> None:
    store = ImageStore.build([jpeg(640, 480)], tmp_path / "store", shorter_side=None)
    assert np.array_equal(store[0], np.asarray(read_image(jpeg(640, 480))))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600))
def test_stored_size_bounds_the_sides_and_keeps_the_aspect_ratio(width: int, height: int, side: int) -> None:
    new_width, new_height = stored_size(width, height, side)
    if max(width, height) > 3 * min(width, height):
        assert new_width == new_height == side
        return
    assert 1 <= new_width <= width
    assert 1 <= new_height <= height
    assert min(new_width, new_height) <= side
    if min(width, height) >= side:
        assert min(new_width, new_height) == side
    exact = min(1.0, new_width / width)
    assert abs(new_height - height * exact) <= 1 + height / width  # the aspect ratio, up to rounding


def test_an_elongated_image_is_squeezed_into_a_square() -> None:
    pixels = np.zeros((30, 200, 3), np.uint8)
    pixels[:, :40, 0] = pixels[:, 160:, 2] = 255
    stored = read_as_stored(Image.fromarray(pixels), 20)
    assert stored.shape == (20, 20, 3)
    assert stored[10, 1].tolist() == [255, 0, 0]
    assert stored[10, 18].tolist() == [0, 0, 255]


@pytest.mark.parametrize("shorter_side", [None, 40])
def test_read_as_stored_equals_the_store(shorter_side: int | None, tmp_path: Path) -> None:
    images = [jpeg(640, 480), noise(2000, 3), noise(30, 20)]
    store = ImageStore.build(images, tmp_path / "store", shorter_side=shorter_side)
    for position, image in enumerate(images):
        assert np.array_equal(store[position], read_as_stored(image, shorter_side))


def test_unreadable_images_have_errors_and_no_pixels(tmp_path: Path) -> None:
    images = [noise(4, 4), b"", tmp_path / "missing.png", noise(5, 5)]
    store = ImageStore.build(images, tmp_path / "store", shorter_side=None)
    assert store.errors == {1: "file is empty", 2: "no such file"}
    assert store.readable.tolist() == [True, False, False, True]
    assert [bool(digest) for digest in store.digests] == [True, False, False, True]
    with pytest.raises(ImageReadError, match="image 1 is not in the store: file is empty"):
        store[1]
    with pytest.raises(IndexError):
        store[4]


@pytest.mark.parametrize("images", [[], [b""], [b"", b"x"]])
def test_an_empty_store_can_be_opened(images: list[bytes], tmp_path: Path) -> None:
    ImageStore.build(images, tmp_path / "store", shorter_side=8)
    store = ImageStore.open(tmp_path / "store")
    assert len(store) == len(images) == len(store.errors)
    assert store.num_bytes == 0


def test_an_opened_store_equals_the_built_one(tmp_path: Path) -> None:
    images = [noise(9, 5), b"", np.full((3, 3), 7, dtype=np.uint8)]
    built = ImageStore.build(images, tmp_path / "store", shorter_side=4)
    opened = ImageStore.open(tmp_path / "store")
    assert opened.shorter_side == opened.scan.min_shorter_side == 4
    assert opened.digests == built.digests
    assert opened.digests[0] != opened.digests[2]
    assert opened.errors == built.errors
    assert opened.scan.sizes.tolist() == [[9, 5], [0, 0], [3, 3]]
    assert opened.scan.is_constant.tolist() == [False, False, True]
    assert np.array_equal(opened[0], built[0])


def test_pixels_are_read_only(tmp_path: Path) -> None:
    store = ImageStore.build([noise(4, 4)], tmp_path / "store", shorter_side=None)
    with pytest.raises(ValueError, match="read-only"):
        store[0][0, 0, 0] = 1


def test_a_pickled_store_is_small_and_opens_again(tmp_path: Path) -> None:
    store = ImageStore.build([noise(200, 200)], tmp_path / "store", shorter_side=None)
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert np.array_equal(pickle.loads(data)[0], store[0])


def test_spawned_worker_processes_read_the_store(tmp_path: Path) -> None:
    store = ImageStore.build([noise(20, 20)], tmp_path / "store", shorter_side=None)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(operator.getitem, (store, 0)), store[0])


def test_a_deadline_skips_the_end_of_the_order(tmp_path: Path) -> None:
    images = [noise(4, 4, seed) for seed in range(20)]
    order = list(reversed(range(20)))
    seconds_left = iter([1.0] * 8 + [0.0] * 20)
    store = ImageStore.build(
        images, tmp_path / "store", shorter_side=None, num_threads=1, order=order, deadline=lambda: next(seconds_left)
    )
    assert store.errors == {}
    decoded = np.flatnonzero(store.readable).tolist()
    assert 6 <= len(decoded) <= 8
    assert decoded == list(range(20 - len(decoded), 20))
    assert store.skipped == list(range(20 - len(decoded)))
    for position in decoded:
        assert np.array_equal(store[position], images[position])
    with pytest.raises(ImageReadError, match="skipped, because the time"):
        store[0]
    assert ImageStore.open(tmp_path / "store").skipped == store.skipped


def test_images_missing_in_the_order_are_skipped(tmp_path: Path) -> None:
    images, progress = [noise(4, 4, seed) for seed in range(5)], []
    store = ImageStore.build(
        images,
        tmp_path / "store",
        shorter_side=None,
        order=[3, 1],
        on_progress=lambda *numbers: progress.append(numbers),
    )
    assert (store.readable.tolist(), store.skipped) == ([False, True, False, True, False], [0, 2, 4])
    assert np.array_equal(store[3], images[3])
    assert progress == [(1, 2), (2, 2)]


def test_an_expired_deadline_skips_all_images(tmp_path: Path) -> None:
    store = ImageStore.build([noise(4, 4)] * 3, tmp_path / "store", shorter_side=None, deadline=lambda: -1.0)
    assert store.skipped == [0, 1, 2]


def test_on_progress_counts_all_images(tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    ImageStore.build(
        [noise(4, 4), b""], tmp_path / "store", shorter_side=None, on_progress=lambda *numbers: progress.append(numbers)
    )
    assert progress == [(1, 2), (2, 2)]


@pytest.mark.parametrize("order", [[0, 0], [1, 2], [0, 1, 2], [-1]])
def test_an_order_with_duplicate_or_unknown_positions_is_refused(order: list[int], tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match="positions of the 2 images, each once"):
        ImageStore.build([noise(4, 4)] * 2, tmp_path / "store", shorter_side=None, order=order)


def test_a_shorter_side_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match="shorter_side"):
        ImageStore.build([], tmp_path / "store", shorter_side=0)


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    ImageStore.build([noise(4, 4)], tmp_path / "store", shorter_side=None)
    with pytest.raises(DataError, match="exists already"):
        ImageStore.build([], tmp_path / "store", shorter_side=None)
    assert len(ImageStore.open(tmp_path / "store")) == 1


def test_an_error_during_a_build_leaves_no_files(tmp_path: Path) -> None:
    def fail(done: int, num_images: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        ImageStore.build([noise(4, 4)] * 50, tmp_path / "store", shorter_side=None, on_progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_two_simultaneous_builds_give_one_store(tmp_path: Path) -> None:
    def build_another(done: int, num_images: int) -> None:
        if not (tmp_path / "store").exists():
            ImageStore.build([noise(4, 4)], tmp_path / "store", shorter_side=None)

    store = ImageStore.build([noise(4, 4)], tmp_path / "store", shorter_side=None, on_progress=build_another)
    assert np.array_equal(store[0], noise(4, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


FULL_DISK = """
import resource, sys
import numpy as np
from saccade.data.store.store import ImageStore
from saccade.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    ImageStore.build([np.zeros((64, 64, 3), dtype=np.uint8)] * 50, sys.argv[1], shorter_side=None)
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_is_an_error_and_leaves_no_files(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "No space left for the decoded images" in done.stdout
    assert "of 50 images" in done.stdout
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys
import numpy as np
from saccade.data.store.store import ImageStore
def wait(done, num_images):
    print(done, flush=True)
    if done == 3:
        sys.stdin.read()
ImageStore.build([np.zeros((64, 64, 3), dtype=np.uint8)] * 50, sys.argv[1], shorter_side=None, on_progress=wait)
"""


def test_a_kill_leaves_no_store_and_the_next_build_succeeds(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "store")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        process.wait()
    assert not (tmp_path / "store").exists()
    assert len(ImageStore.build([noise(4, 4)], tmp_path / "store", shorter_side=None)) == 1


def test_an_incomplete_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no readable image store"):
        ImageStore.open(tmp_path)
    store = ImageStore.build([noise(4, 4), noise(4, 4)], tmp_path / "store", shorter_side=None)
    pixels = store.folder / "pixels.bin"
    complete = pixels.read_bytes()
    pixels.write_bytes(complete[:-1])
    with pytest.raises(DataError, match="has 95 bytes, expected 96"):
        ImageStore.open(store.folder)
    pixels.write_bytes(complete)
    (store.folder / "index.npz").write_bytes(b"PK no index")
    with pytest.raises(DataError, match="build it again"):
        ImageStore.open(store.folder)


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    store = ImageStore.build([noise(4, 4)], tmp_path / "store", shorter_side=None)
    summary = store.folder / "store.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"format": 99}))
    with pytest.raises(DataError, match="format is 99"):
        ImageStore.open(store.folder)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_store_has_the_requested_number_of_channels(tmp_path: Path, channels: int) -> None:
    rgba = np.dstack([noise(12, 8), np.full((8, 12), 0, np.uint8)])
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    images = [rgba, buffer.getvalue(), noise(12, 8), noise(12, 8)[:, :, 0]]
    store = pickle.loads(
        pickle.dumps(ImageStore.build(images, tmp_path / "store", shorter_side=None, channels=channels))
    )
    assert [image.shape for image in store] == [(8, 12, channels)] * 4
    if channels == 4:  # no compositing; images without a fourth band are opaque
        assert np.array_equal(store[0], rgba)
        assert np.array_equal(store[1], rgba)
        assert (store[2][:, :, 3] == 255).all()
    elif channels == 1:  # grey pictures are kept exactly
        assert np.array_equal(store[3][:, :, 0], images[3])
    for image, stored in zip(images, store, strict=True):
        assert np.array_equal(read_as_stored(image, None, channels), stored)


def test_shrinking_does_not_mix_the_colours_with_the_fourth_band() -> None:
    rgba = np.dstack([np.full((40, 40, 3), 200, np.uint8), np.zeros((40, 40), np.uint8)])
    assert (read_as_stored(rgba, 10, 4) == (200, 200, 200, 0)).all()


def test_an_image_whose_pixels_changed_is_never_returned_and_the_store_is_not_opened_again(tmp_path: Path) -> None:
    images = [np.full((8, 8, 3), number + 1, np.uint8) for number in range(3)]
    ImageStore.build(images, tmp_path / "store", shorter_side=None)
    store = ImageStore.open(tmp_path / "store")
    with (tmp_path / "store" / "pixels.bin").open("r+b") as file:
        file.seek(8 * 8 * 3)
        file.write(bytes(8 * 8 * 3))
    assert store[0].max() == 1
    of_worker = pickle.loads(pickle.dumps(store))
    for each in (store, of_worker):
        with pytest.raises(DataError, match="image 1 differs from its checksum"):
            each[1]
    with pytest.raises(DataError, match="no readable image store"):
        ImageStore.open(tmp_path / "store")


@settings(max_examples=100)
@given(
    st.sampled_from(["pixels.bin", "index.npz", "store.json"]), st.floats(0, 1, exclude_max=True), st.integers(1, 255)
)
def test_a_changed_byte_gives_no_other_images(
    three_images: ImageStore, name: str, place: float, difference: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(three_images.folder, f"{folder}/store"))
        content = bytearray((copy / name).read_bytes())
        content[int(place * len(content))] ^= difference
        (copy / name).write_bytes(content)
        try:
            store = ImageStore.open(copy)
            images = [store[number] for number in range(3)]
        except DataError as error:
            assert str(copy) in str(error)  # noqa: PT017
        else:
            assert all(np.array_equal(image, three_images[number]) for number, image in enumerate(images))
            assert (store.digests, store.shorter_side, store.channels, store.pixel_range, store.errors) == (
                three_images.digests, 8, 3, (0.0, 0.5), {3: three_images.errors[3]},
            )  # fmt: skip
