"""Size and digest of many images, decoded once each in threads.

Pillow releases the GIL while it decodes, so threads use all cores without copies between processes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from saccade.data.decoding import ImageSource, decode_image, deep_values, quiet_pillow
from saccade.data.pixel_range import PixelRange, own_range, some_samples
from saccade.errors import ImageReadError
from saccade.executor.slots import num_usable_cpus
from saccade.remote.urls import NUM_THREADS, is_remote

T = TypeVar("T")

SecondsLeft = Callable[[], float]
Progress = Callable[[int, int], None]  # images done, images in all

_NUM_DIGEST_BYTES = 16
_HEADERS_READ, _IMAGES_MEASURED, _SAMPLES_OF_EACH = 1000, 64, 4096


@dataclass(frozen=True)
class ImageFacts:
    """Size and digest of a decoded image.

    The digest, 32 hexadecimal digits, is a hash of the upright RGB pixels as decoded, and of the full size. Two files
    of the same image have the same digest even when their metadata or their (lossless) formats differ.
    """

    digest: str
    width: int  # pixels of the upright image at full scale
    height: int
    is_constant: bool  # whether all pixels have one colour

    @classmethod
    def of(cls, pixels: npt.NDArray[np.uint8], full_size: tuple[int, int]) -> ImageFacts:
        """Compute them from the decoded pixels (H, W, 3), and the full width and height."""
        width, height = full_size
        digest = hashlib.sha256(f"{width}x{height} ".encode())  # fast: processors have instructions for it
        digest.update(np.ascontiguousarray(pixels).data)
        first = pixels[0, 0]
        # The first row alone rules out most images.
        is_constant = bool((pixels[0] == first).all() and (pixels == first).all())
        return cls(digest.hexdigest()[: 2 * _NUM_DIGEST_BYTES], width, height, is_constant)


@dataclass(frozen=True, eq=False)
class Scan:
    """Sizes and digests of images that were decoded once: `record` adds one to an `empty` scan."""

    digests: list[str]  # one `ImageFacts.digest` per image; empty if it was not read
    sizes: npt.NDArray[np.int32]  # (N, 2): width and height in pixels at full scale, upright; 0 if not read
    is_constant: npt.NDArray[np.bool_]  # (N,): whether the image has one colour only
    errors: dict[int, str]  # reason why an image is unreadable, by position

    # Size to which large JPEGs were decoded (None: full). Digests of such JPEGs are comparable only between scans with
    # the same value, and only with those of other JPEGs.
    min_shorter_side: int | None = None

    @classmethod
    def empty(cls, num_images: int, min_shorter_side: int | None) -> Scan:
        """Return a scan of which nothing is recorded yet."""
        sizes, is_constant = np.zeros((num_images, 2), np.int32), np.zeros(num_images, np.bool_)
        return cls([""] * num_images, sizes, is_constant, {}, min_shorter_side)

    def __len__(self) -> int:
        return len(self.digests)

    def record(self, position: int, outcome: ImageFacts | ImageReadError) -> None:
        """Store the facts of the image at `position`, or the error."""
        if isinstance(outcome, ImageReadError):
            self.errors[position] = str(outcome)
            return
        self.digests[position] = outcome.digest
        self.sizes[position] = (outcome.width, outcome.height)
        self.is_constant[position] = outcome.is_constant

    def is_recorded(self, position: int) -> bool:
        """Return whether the image at `position` was read, or found to be unreadable."""
        return bool(self.digests[position]) or position in self.errors

    @property
    def skipped(self) -> list[int]:
        """Positions of the images that the order or a deadline left out, ascending."""
        return [position for position in range(len(self)) if not self.is_recorded(position)]

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: whether the image was read."""
        return np.array([bool(digest) for digest in self.digests], dtype=np.bool_)

    def take(self, positions: Iterable[int]) -> Scan:
        """Return the scan of the images at `positions`, in that order."""
        old = [int(position) for position in positions]
        return Scan(
            digests=[self.digests[position] for position in old],
            sizes=self.sizes[old],
            is_constant=self.is_constant[old],
            errors={new: self.errors[position] for new, position in enumerate(old) if position in self.errors},
            min_shorter_side=self.min_shorter_side,
        )


def scan_images(
    images: Sequence[ImageSource],
    *,
    min_shorter_side: int | None = None,
    channels: int = 3,
    pixel_range: PixelRange | None = None,
    num_threads: int | None = None,
    deadline: SecondsLeft | None = None,
    order: Iterable[int] | None = None,
    on_progress: Progress | None = None,
    recorder: Scan | None = None,
) -> Scan:
    """Decode every image once and return what the data checks need; a store has the same as `ImageStore.scan`.

    `images` are paths, bytes, Pillow images or arrays, see `read_image`. Large JPEGs may be decoded at a reduced scale
    down to `min_shorter_side`: faster, but see `Scan`. `channels` and `pixel_range` are those of `decode_image`;
    `num_threads` is by default the number of usable cores. `deadline` returns the seconds left; once it is 0 or less
    the rest is skipped. `order` has the positions of the images to decode, None is all. `on_progress` is called with
    the number of images done and the total. `recorder` is a scan to continue, whose images are not decoded again.

    Examples
    --------
    >>> import numpy as np
    >>> scan = scan_images([np.zeros((4, 6), dtype=np.uint8), b"no image"])
    >>> scan.sizes[0].tolist(), scan.errors
    ([6, 4], {1: 'not an image: cannot identify its format'})
    """

    def facts_at(position: int) -> ImageFacts | ImageReadError:
        try:
            decoded = decode_image(
                images[position], min_shorter_side=min_shorter_side, channels=channels, pixel_range=pixel_range
            )
        except ImageReadError as error:
            return error
        pixels = np.asarray(decoded.image)
        return ImageFacts.of(pixels[:, :, None] if pixels.ndim == 2 else pixels, decoded.full_size)

    scan = Scan.empty(len(images), min_shorter_side) if recorder is None else recorder
    chosen = range(len(images)) if order is None else list(order)
    open_positions = [position for position in chosen if not scan.is_recorded(position)]
    with closing(map_in_threads(facts_at, open_positions, num_threads or num_readers(images), deadline)) as outcomes:
        for num_done, (position, outcome) in enumerate(outcomes, start=1 + len(chosen) - len(open_positions)):
            scan.record(position, outcome)
            if on_progress is not None:
                on_progress(num_done, len(chosen))
    return replace(scan, errors=dict(sorted(scan.errors.items())))


def measure_pixel_range(images: Sequence[ImageSource]) -> PixelRange | None:
    """Return the values of black and white of a data set; None if its images have 8 bits.

    Headers of up to 1,000 images, drawn at random, are read, and samples of up to 64 of those with more than 8 bits.
    """
    most = _IMAGES_MEASURED if any(map(is_remote, images)) else _HEADERS_READ  # of a URL, the whole file is read
    drawn = np.random.default_rng(0).permutation(len(images))[:most].tolist()

    def samples_of(position: int) -> npt.NDArray[np.generic] | None:
        values = deep_values(images[position])
        return None if values is None else some_samples(values, _SAMPLES_OF_EACH)

    measured: list[npt.NDArray[np.generic]] = []
    with closing(map_in_threads(samples_of, drawn, num_readers(images))) as outcomes:
        for _, samples in outcomes:
            if samples is not None and samples.size:
                measured.append(samples)
            if len(measured) == _IMAGES_MEASURED:
                break
    return own_range(np.concatenate(measured)) if measured else None


def num_readers(images: Sequence[ImageSource]) -> int:
    """Return the number of threads that decode images: more if they wait for an object store."""
    return NUM_THREADS if any(map(is_remote, images)) else num_usable_cpus()


def map_in_threads(
    work: Callable[[int], T],
    positions: Iterable[int],
    num_threads: int | None = None,
    deadline: SecondsLeft | None = None,
) -> Generator[tuple[int, T], None, None]:
    """Yield ``(position, work(position))`` in order, computed by threads, until the deadline.

    At most twice as many results as threads wait in memory. Close the generator if it may not be exhausted.
    """
    num_threads = num_threads or num_usable_cpus()
    waiting: deque[tuple[int, Future[T]]] = deque()
    with quiet_pillow(), ThreadPoolExecutor(num_threads, thread_name_prefix="saccade-decode") as pool:
        try:
            for position in positions:
                if deadline is not None and deadline() <= 0:
                    break
                if len(waiting) >= 2 * num_threads:
                    oldest, future = waiting.popleft()
                    yield oldest, future.result()
                waiting.append((position, pool.submit(work, position)))
            else:
                deadline = None  # all work was submitted: let it finish
            for position, future in waiting:
                if deadline is None or not future.cancel():
                    yield position, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
