"""Going over many images once, in threads: the size and digest of each, or why it cannot be read.

Pillow lets go of the interpreter while it decodes, so threads use all cores and nothing has to be copied
between processes.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from saccade.data.decoding import ImageSource, decode_image, quiet_pillow
from saccade.errors import ImageReadError

T = TypeVar("T")

SecondsLeft = Callable[[], float]
Progress = Callable[[int, int], None]  # images done, images in all

_NUM_DIGEST_BYTES = 16


@dataclass(frozen=True)
class ImageFacts:
    """What is kept of one image that was read.

    Parameters
    ----------
    digest
        32 hexadecimal digits: a hash of the upright RGB pixels as decoded, and of the full size. Two files of
        the same image have the same digest even when their metadata or their (lossless) formats differ.
    width, height
        Pixels of the upright image at full scale.
    is_constant
        Whether all pixels have one colour.
    """

    digest: str
    width: int
    height: int
    is_constant: bool

    @classmethod
    def of(cls, pixels: npt.NDArray[np.uint8], full_size: tuple[int, int]) -> ImageFacts:
        """Gather the facts of an image from its decoded (H, W, 3) pixels and its full width and height."""
        width, height = full_size
        digest = hashlib.sha256(f"{width}x{height} ".encode())  # processors have instructions for it
        digest.update(np.ascontiguousarray(pixels).data)
        first = pixels[0, 0]
        # The first row alone tells most images from constant ones.
        is_constant = bool((pixels[0] == first).all() and (pixels == first).all())
        return cls(digest.hexdigest()[: 2 * _NUM_DIGEST_BYTES], width, height, is_constant)


@dataclass(frozen=True, eq=False)
class Scan:
    """What is known of a sequence of images after each was decoded once.

    Parameters
    ----------
    digests
        One `ImageFacts.digest` per image; empty for an image that was not read.
    sizes
        (N, 2) int32: width and height in pixels at full scale, upright; 0 where not read.
    is_constant
        (N,) bool: whether the image has one colour only.
    errors
        Position -> why that image cannot be read.
    skipped
        Positions that the order or a deadline left out, ascending.
    min_shorter_side
        To which size large JPEGs were decoded (None: full). Digests of such JPEGs can be compared only
        between scans that have this in common, and only with those of other JPEGs.
    """

    digests: list[str]
    sizes: npt.NDArray[np.int32]
    is_constant: npt.NDArray[np.bool_]
    errors: dict[int, str]
    skipped: list[int]
    min_shorter_side: int | None = None

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: whether the image was read."""
        return np.array([bool(digest) for digest in self.digests], dtype=np.bool_)

    def take(self, positions: Iterable[int]) -> Scan:
        """Return the scan of the images at `positions`, in that order."""
        old = [int(position) for position in positions]
        skipped = set(self.skipped)
        return Scan(
            digests=[self.digests[position] for position in old],
            sizes=self.sizes[old],
            is_constant=self.is_constant[old],
            errors={new: self.errors[position] for new, position in enumerate(old) if position in self.errors},
            skipped=[new for new, position in enumerate(old) if position in skipped],
            min_shorter_side=self.min_shorter_side,
        )


class ScanRecorder:
    """Fills a `Scan` image by image; images never recorded count as skipped."""

    def __init__(self, num_images: int, min_shorter_side: int | None) -> None:
        self._min_shorter_side = min_shorter_side
        self._digests = [""] * num_images
        self._sizes = np.zeros((num_images, 2), dtype=np.int32)
        self._is_constant = np.zeros(num_images, dtype=np.bool_)
        self._errors: dict[int, str] = {}

    def record(self, position: int, outcome: ImageFacts | ImageReadError) -> None:
        """Keep the facts of the image at `position`, or why it has none."""
        if isinstance(outcome, ImageReadError):
            self._errors[position] = str(outcome)
            return
        self._digests[position] = outcome.digest
        self._sizes[position] = (outcome.width, outcome.height)
        self._is_constant[position] = outcome.is_constant

    def is_recorded(self, position: int) -> bool:
        """Tell whether that image has been recorded."""
        return bool(self._digests[position]) or position in self._errors

    def finish(self) -> Scan:
        """Return the scan."""
        return Scan(
            digests=self._digests,
            sizes=self._sizes,
            is_constant=self._is_constant,
            errors=dict(sorted(self._errors.items())),
            skipped=[position for position in range(len(self._digests)) if not self.is_recorded(position)],
            min_shorter_side=self._min_shorter_side,
        )


def scan_images(
    images: Sequence[ImageSource],
    *,
    min_shorter_side: int | None = None,
    channels: int = 3,
    num_threads: int | None = None,
    deadline: SecondsLeft | None = None,
    order: Iterable[int] | None = None,
    on_progress: Progress | None = None,
    recorder: ScanRecorder | None = None,
) -> Scan:
    """Decode every image once and keep what the data checks need.

    (`ImageStore.build` gathers the same while it decodes: use `ImageStore.scan` where there is a store.)

    Parameters
    ----------
    images
        Paths, bytes, Pillow images or arrays, as `read_image` takes them.
    min_shorter_side
        Decode large JPEGs at a reduced scale down to this shorter side: faster, but see `Scan`.
    channels
        1 for grey, 3 for RGB, 4 for RGBA; see `decode_image`.
    num_threads
        Defaults to the number of usable cores.
    deadline
        Tells the seconds left; once it is 0 or less the rest is skipped.
    order
        Which images to decode, and in which order; None is all of them.
    on_progress
        Called with the number of images done and of those to do.
    recorder
        What is known already of some of the images; they are not decoded again.

    Examples
    --------
    >>> import numpy as np
    >>> scan = scan_images([np.zeros((4, 6), dtype=np.uint8), b"no image"])
    >>> scan.sizes[0].tolist(), scan.errors
    ([6, 4], {1: 'not an image: cannot identify its format'})
    """

    def facts_at(position: int) -> ImageFacts | ImageReadError:
        try:
            decoded = decode_image(images[position], min_shorter_side=min_shorter_side, channels=channels)
        except ImageReadError as error:
            return error
        pixels = np.asarray(decoded.image)
        return ImageFacts.of(pixels[:, :, None] if pixels.ndim == 2 else pixels, decoded.full_size)

    recorder = recorder or ScanRecorder(len(images), min_shorter_side)
    known = recorder.is_recorded
    wanted = range(len(images)) if order is None else list(order)
    open_positions = [position for position in wanted if not known(position)]
    with closing(map_in_threads(facts_at, open_positions, num_threads, deadline)) as outcomes:
        for num_done, (position, outcome) in enumerate(outcomes, start=1 + len(wanted) - len(open_positions)):
            recorder.record(position, outcome)
            if on_progress is not None:
                on_progress(num_done, len(wanted))
    return recorder.finish()


def map_in_threads(
    work: Callable[[int], T],
    positions: Iterable[int],
    num_threads: int | None = None,
    deadline: SecondsLeft | None = None,
) -> Generator[tuple[int, T], None, None]:
    """Yield ``(position, work(position))`` in order, computed by threads, until the deadline.

    At most twice as many results as threads wait in memory, however slowly they are consumed. Close the
    generator (``contextlib.closing``) if it may be left early.
    """
    num_threads = num_threads or num_usable_cores()
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
                deadline = None  # everything was handed out: let it finish
            for position, future in waiting:
                if deadline is None or not future.cancel():
                    yield position, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def num_usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
