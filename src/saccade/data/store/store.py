"""The decoded-image store: every image decoded once into one memory-mapped file.

Decoding is the largest cost of feeding a network, and it is the same in every epoch of every trial. So it is
done once, at the size that training needs, and all trials and worker processes map the same pixels.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saccade.data.decoding import ImageSource
from saccade.data.scanning import Progress, Scan, SecondsLeft
from saccade.data.store.store_writing import (
    FORMAT_VERSION,
    INDEX_FILE,
    PIXELS_FILE,
    SUMMARY_FILE,
    HasRoom,
    Index,
    StoreWriter,
)
from saccade.errors import DataError, HyperparameterError, ImageReadError

_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ABANDONED_AFTER_S = 600  # a build writes several times a second; one that has not for so long was killed


class ImageStore:
    """Images decoded once, in a folder; made by `build`, found again by `open`.

    ``store[i]`` is a read-only (H, W, channels) uint8 array: a view of the memory-mapped file, so that processes on
    one machine share the memory. A store can be pickled: it is opened again by its folder.

    Attributes
    ----------
    folder : Path
    shorter_side : int or None
        To which shorter side images were shrunk; None: not at all.
    channels : int
        1, 3 or 4.
    scan : Scan
        Size, digest and errors of each image, for the data checks and the split.
    decodes : bool
        Whether each access decodes an image, as in a store that keeps no pixels.
    lease : object or None
        Whatever is to live as long as this object, such as a mark that the folder is in use.

    Examples
    --------
    >>> import tempfile
    >>> images = [np.zeros((20, 30, 3), dtype=np.uint8), b"no image"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = ImageStore.build(images, Path(folder) / "store", shorter_side=10)
    ...     print(len(store), store[0].shape, store.readable.tolist(), store.errors)
    2 (10, 15, 3) [True, False] {1: 'not an image: cannot identify its format'}
    """

    decodes = False

    def __init__(
        self,
        folder: Path,
        pixels: npt.NDArray[np.uint8],
        index: Index,
        scan: Scan,
        shorter_side: int | None,
        channels: int = 3,
    ) -> None:
        self.folder = folder
        self.shorter_side = shorter_side
        self.channels = channels
        self.scan = scan
        self.lease: object | None = None
        self._pixels = pixels
        self._index = index

    @classmethod
    def build(
        cls,
        images: Sequence[ImageSource],
        folder: str | os.PathLike[str],
        *,
        shorter_side: int | None,
        channels: int = 3,
        num_threads: int | None = None,
        deadline: SecondsLeft | None = None,
        order: Iterable[int] | None = None,
        on_progress: Progress | None = None,
        has_room: HasRoom | None = None,
    ) -> ImageStore:
        """Decode `images` into `folder`, which must not exist yet.

        After a kill at any instant the folder is complete or absent. Memory stays flat: a few images are in
        flight at a time.

        Parameters
        ----------
        images
            Paths, bytes, Pillow images or arrays, as `read_image` takes them.
        folder
            Where the store will be.
        shorter_side
            Shrink larger images to this shorter side in pixels, see `stored_size`; None keeps the full size.
        channels
            1 for grey, 3 for RGB, 4 for RGBA; see `decode_image`.
        num_threads
            Defaults to the number of usable cores.
        deadline
            Tells the seconds left; once it is 0 or less the rest is left out and listed in `skipped`.
        order
            Which images to decode, and in which order, each once; None is all of them. Those left out are listed in
            `skipped`. With a shuffled order a deadline leaves a fair sample.
        on_progress
            Called after each image with the number of images done and of those to do.
        has_room
            Asked after 64 images and now and then, and at the end, whether there is room for as many bytes as the store
            is going to have.

        Raises
        ------
        NoRoomError
            The disk is full, or `has_room` says so; nothing half-made is left.
        DataError
            The folder exists already.
        HyperparameterError
            `shorter_side` is not positive, or `order` names an image twice, or one that is not there.
        """
        folder = Path(folder).absolute()
        positions = _checked_order(order, len(images))
        if shorter_side is not None and shorter_side < 1:
            raise HyperparameterError(f"shorter_side must be at least 1 pixel or None, got {shorter_side!r}.")
        if folder.exists():
            raise DataError(f"{folder} exists already: open it with ImageStore.open, or remove it first.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        partial = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.partial")
        writer = StoreWriter(partial, images, shorter_side, channels)
        try:
            partial.mkdir()
            writer.write_pixels(positions, num_threads, deadline, on_progress, has_room)
            writer.write_index()
            _move_into_place(partial, folder)
        except OSError as error:
            if error.errno in _DISK_IS_FULL:
                raise writer.no_room(folder) from error
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # it is no longer there once it was moved into place
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> ImageStore:
        """Open the store in `folder`.

        Raises
        ------
        DataError
            There is no complete store of a version that can be read.
        """
        folder = Path(folder).absolute()
        try:
            summary: dict[str, Any] = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
            index, scan = _read_index(folder, summary)
            num_bytes = (folder / PIXELS_FILE).stat().st_size
            if num_bytes != summary["num_bytes"]:
                raise ValueError(f"{PIXELS_FILE} has {num_bytes} bytes, expected {summary['num_bytes']}")
        except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{folder} holds no image store that can be read ({error}): remove it and build it again."
            ) from error
        pixels = np.zeros(0, dtype=np.uint8)  # an empty file cannot be mapped
        if num_bytes > 0:
            pixels = np.memmap(folder / PIXELS_FILE, dtype=np.uint8, mode="r").view(np.ndarray)
        return cls(folder, pixels, index, scan, summary["shorter_side"], summary["channels"])

    def __len__(self) -> int:
        return len(self.scan)

    def __getitem__(self, position: int) -> npt.NDArray[np.uint8]:
        """Return the (H, W, channels) uint8 pixels of one image; raises ImageReadError if it is not there."""
        position = range(len(self))[position]
        offset = int(self._index.offsets[position])
        if offset < 0:
            reason = self.errors.get(position, "left out, because the time to decode it had run out")
            raise ImageReadError(f"image {position} is not in the store: {reason}")
        height, width = int(self._index.heights[position]), int(self._index.widths[position])
        shape = (height, width, self.channels)
        return self._pixels[offset : offset + math.prod(shape)].reshape(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageStore.open, (self.folder,)

    def __repr__(self) -> str:
        return (
            f"ImageStore({str(self.folder)!r}, num_images={len(self)}, shorter_side={self.shorter_side}, "
            f"num_bytes={self.num_bytes})"
        )

    @property
    def num_bytes(self) -> int:
        """How many bytes of pixels the store holds."""
        return self._pixels.size

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: whether each image is in the store."""
        return self._index.offsets >= 0

    @property
    def errors(self) -> dict[int, str]:
        """Position of each image that cannot be read -> why."""
        return self.scan.errors

    @property
    def skipped(self) -> list[int]:
        """Positions of the images that the order or the deadline left out, ascending."""
        return self.scan.skipped

    @property
    def digests(self) -> list[str]:
        """A digest per image, equal for the same image (see `ImageFacts`); empty where there is none."""
        return self.scan.digests


def _checked_order(order: Iterable[int] | None, num_images: int) -> Sequence[int]:
    if order is None:
        return range(num_images)
    positions = [int(position) for position in order]
    known = set(positions)
    if len(known) < len(positions) or not known <= set(range(num_images)):
        raise HyperparameterError(
            f"order must hold positions of the {num_images} images, each once; got {len(positions)}, "
            f"{len(known & set(range(num_images)))} of them different and there."
        )
    return positions


def _remove_abandoned(folder: Path) -> None:
    """Remove what builds of this same store left behind when they were killed."""
    for partial in folder.parent.glob(f".{folder.name}-*.partial"):
        with contextlib.suppress(FileNotFoundError):  # that build may just be finishing
            pixels = partial / PIXELS_FILE
            last_write_s = (pixels if pixels.exists() else partial).stat().st_mtime
            if time.time() - last_write_s > _ABANDONED_AFTER_S:
                shutil.rmtree(partial, ignore_errors=True)


def _move_into_place(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        # Another process may have built the same store in the meantime: then its store is as good.
        if not (folder / SUMMARY_FILE).exists():
            raise


def _read_index(folder: Path, summary: dict[str, Any]) -> tuple[Index, Scan]:
    if summary["format"] != FORMAT_VERSION:
        raise ValueError(f"its format is {summary['format']}, expected {FORMAT_VERSION}")
    errors = {int(position): reason for position, reason in summary["errors"].items()}
    with np.load(folder / INDEX_FILE, allow_pickle=False) as arrays:
        index = Index(arrays["offsets"], arrays["heights"], arrays["widths"])
        hexadecimal = arrays["digests"].tobytes().hex()
        scan = Scan(
            digests=[
                hexadecimal[32 * i : 32 * i + 32] if offset >= 0 else "" for i, offset in enumerate(index.offsets)
            ],
            sizes=arrays["full_sizes"],
            is_constant=arrays["is_constant"],
            errors=errors,
            skipped=arrays["skipped"].tolist(),
            min_shorter_side=summary["shorter_side"],
        )
    return index, scan
