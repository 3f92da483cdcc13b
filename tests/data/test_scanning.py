from __future__ import annotations

import io
import threading
import time
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from saccade.data.scanning import Scan, map_in_threads, scan_images


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def test_a_scan_has_sizes_errors_and_constant_images() -> None:
    almost = np.zeros((4, 6, 3), dtype=np.uint8)
    almost[3, 5] = 1
    scan = scan_images([noise(7, 5), b"", np.full((3, 2), 9, dtype=np.uint8), almost])
    assert scan.sizes.tolist() == [[7, 5], [0, 0], [2, 3], [6, 4]]
    assert scan.errors == {1: "file is empty"}
    assert scan.is_constant.tolist() == [False, False, True, False]
    assert scan.readable.tolist() == [True, False, True, True]
    assert scan.skipped == []


def test_equal_pixels_have_equal_digests_whatever_the_file() -> None:
    pixels = noise(12, 9)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    png, described, bmp = encoded(pixels, "PNG"), encoded(pixels, "PNG", exif=exif), encoded(pixels, "BMP")
    other = pixels.copy()
    other[0, 0, 0] ^= 1
    digests = scan_images([png, described, bmp, pixels, other, pixels.reshape(12, 9, 3)]).digests
    assert digests[0] == digests[1] == digests[2] == digests[3]
    assert len(set(digests)) == 3
    assert len(digests[0]) == 32


def test_large_jpegs_that_differ_in_metadata_only_are_the_same_at_a_reduced_scale() -> None:
    pixels = np.asarray(Image.fromarray(noise(16, 16)).resize((400, 400)))
    exif = Image.Exif()
    exif[0x010E] = "a description"
    images = [encoded(pixels, "JPEG"), encoded(pixels, "JPEG", exif=exif), encoded(255 - pixels, "JPEG")]
    digests = scan_images(images, min_shorter_side=100).digests
    assert digests[0] == digests[1] != digests[2]


def test_take_renumbers_errors_and_skipped_images() -> None:
    scan = Scan(
        digests=["a", "", "c", ""],
        sizes=np.array([[7, 5], [0, 0], [3, 3], [0, 0]], dtype=np.int32),
        is_constant=np.array([False, False, True, False]),
        errors={1: "file is empty"},
        min_shorter_side=9,
    )
    taken = scan.take(np.array([3, 1, 2]))
    assert taken.digests == ["", "", "c"]
    assert taken.sizes.tolist() == [[0, 0], [0, 0], [3, 3]]
    assert taken.is_constant.tolist() == [False, False, True]
    assert (taken.errors, taken.skipped, taken.min_shorter_side) == ({1: "file is empty"}, [0], 9)


def test_a_deadline_skips_the_rest() -> None:
    seconds_left = iter([1.0] * 5 + [0.0])
    scan = scan_images([noise(3, 3)] * 9, num_threads=1, deadline=lambda: next(seconds_left))
    assert scan.readable.tolist() == [position < 9 - len(scan.skipped) for position in range(9)]
    assert 4 <= len(scan.skipped) <= 6


def test_progress_is_reported_for_each_image() -> None:
    reported: list[tuple[int, int]] = []
    scan_images([noise(3, 3), b"", noise(3, 3)], on_progress=lambda *numbers: reported.append(numbers))
    assert reported == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("num_threads", [1, 3, None])
def test_mapping_keeps_the_order(num_threads: int | None) -> None:
    def work(position: int) -> int:
        time.sleep(0.002 * (position % 3))
        return position * position

    assert list(map_in_threads(work, [5, 3, 4, 1], num_threads)) == [(5, 25), (3, 9), (4, 16), (1, 1)]


def test_few_results_are_computed_ahead_of_a_slow_consumer() -> None:
    started: list[int] = []
    with closing(map_in_threads(started.append, range(100), 2)) as outcomes:
        next(outcomes)
        time.sleep(0.05)
        assert len(started) <= 6
    assert len(started) <= 6


def test_closing_early_stops_all_threads() -> None:
    with closing(map_in_threads(lambda position: position, range(100), 2)) as outcomes:
        next(outcomes)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("saccade-decode")]


def test_an_unforeseen_error_is_not_swallowed() -> None:
    def work(position: int) -> int:
        return 1 // (position - 3)

    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(work, range(10), 2))
