"""The decoded-image store: every image decoded once into one memory-mapped file.

Decoding is the largest cost of an input pipeline, and it is the same in every epoch of every trial. So each image is
decoded once, at the size that training needs, and all trials and worker processes map the same pixels.
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
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saccade.data.decoding import ImageSource, decode_image
from saccade.data.pixel_range import PixelRange
from saccade.data.scanning import ImageFacts, Progress, Scan, SecondsLeft, map_in_threads, num_readers
from saccade.data.store.stored_form import pixels_of, shrunk
from saccade.errors import DataError, HyperparameterError, ImageReadError

FORMAT_VERSION = 6

PIXELS_FILE = "pixels.bin"  # the images one after the other, each (height, width, channels) uint8
INDEX_FILE = "index.npz"  # offset and size of each image, and the results of the scan
SUMMARY_FILE = "store.json"

_BROKEN_ZIP = (zipfile.BadZipFile, RuntimeError)  # the latter if flags say that it is encrypted, or of another version
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_IMAGES_AT_ONCE = 64  # verified by a thread at a time
_FIRST_ESTIMATE = 64  # images after which the size of the store is first estimated

HasRoom = Callable[[int, int], bool]
"""``has_room(num_bytes, num_written)``: whether a store of `num_bytes`, `num_written` of them written, has room."""


class NoRoomError(DataError):
    """The store does not fit on the disk; `recorder` is the scan of the images that were decoded so far."""

    def __init__(self, message: str, recorder: Scan) -> None:
        super().__init__(message)
        self.recorder = recorder


@dataclass(frozen=True, eq=False)
class Index:
    """Byte offset, size and CRC-32 of each image in the file of pixels; the offset of a missing image is -1."""

    offsets: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]
    checksums: npt.NDArray[np.uint32]

    @classmethod
    def empty(cls, num_images: int) -> Index:
        """Return the index of a store without pixels."""
        zeros = np.zeros(num_images, dtype=np.int32)
        return cls(np.full(num_images, -1, dtype=np.int64), zeros, zeros.copy(), zeros.astype(np.uint32))


class ImageStore:
    """Images decoded once into a folder: `build` creates the folder, `open` opens it again.

    ``store[i]`` is a read-only (H, W, channels) uint8 array: a view of the memory-mapped file, so that processes on one
    machine share the memory. A pickled store is its folder; unpickling opens the folder.

    Examples
    --------
    >>> import tempfile
    >>> images = [np.zeros((20, 30, 3), dtype=np.uint8), b"no image"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = ImageStore.build(images, Path(folder) / "store", shorter_side=10)
    ...     print(len(store), store[0].shape, store.readable.tolist(), store.errors)
    2 (10, 15, 3) [True, False] {1: 'not an image: cannot identify its format'}
    """

    decodes = False  # whether each access decodes the image, as in a store without pixels

    def __init__(
        self,
        folder: Path,
        pixels: npt.NDArray[np.uint8],
        index: Index,
        scan: Scan,  # size, digest and error of each image, for the data checks and the split
        shorter_side: int | None,  # in pixels, to which larger images were shrunk; None: full size
        channels: int = 3,  # 1, 3 or 4
        pixel_range: PixelRange | None = None,  # of samples of more than 8 bits: see `saccade.data.pixel_range`
    ) -> None:
        self.folder, self.scan, self.shorter_side, self.channels = folder, scan, shorter_side, channels
        self.pixel_range = pixel_range
        self.lease: object | None = None  # has the lifetime of this store, such as the lock of a folder in use
        self._pixels, self._index = pixels, index
        self._is_verified = np.zeros(len(scan), np.bool_)  # by this process

    @classmethod
    def build(
        cls,
        images: Sequence[ImageSource],
        folder: str | os.PathLike[str],
        *,
        shorter_side: int | None,
        channels: int = 3,
        pixel_range: PixelRange | None = None,
        num_threads: int | None = None,
        deadline: SecondsLeft | None = None,
        order: Iterable[int] | None = None,
        on_progress: Progress | None = None,
        has_room: HasRoom | None = None,
    ) -> ImageStore:
        """Decode `images` into `folder`, which must not exist.

        After a kill at any instant the folder is complete or absent. Only a few images are in memory at a time. Larger
        images are shrunk to `shorter_side`, see `stored_size`. `order` are the positions of the images to decode, each
        once; the others, and those left when `deadline` returns 0 or less, are listed in `skipped`. `on_progress` is
        called after each image with the number of decoded images and their total; `has_room` with the estimated size
        after 64, 128, 256, ... images, and with the size after the last one.

        Raises a NoRoomError, and removes the incomplete folder, if the disk is full or `has_room` returns False; a
        DataError or HyperparameterError if the folder exists, or `shorter_side` or `order` is invalid.
        """
        folder = Path(folder).absolute()
        positions = _checked_order(order, len(images))
        if shorter_side is not None and shorter_side < 1:
            raise HyperparameterError(f"shorter_side must be at least 1 pixel or None, got {shorter_side!r}.")
        if folder.exists():
            raise DataError(f"{folder} exists already: open it with ImageStore.open, or remove it first.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.partial")
        writer = _StoreWriter(partial, images, shorter_side, channels, pixel_range)
        try:
            partial.mkdir()
            writer.write_pixels(positions, num_threads, deadline, on_progress, has_room)
            writer.write_index()
            try:
                partial.rename(folder)
            except OSError:
                # Another process may have built the same store in the meantime: use that one.
                if not (folder / SUMMARY_FILE).exists():
                    raise
        except OSError as error:
            if error.errno in _DISK_IS_FULL:
                raise writer.no_room(folder) from error
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # absent after the rename
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> ImageStore:
        """Open the store in `folder`; a DataError if it has no complete store of the current format."""
        folder = Path(folder).absolute()
        try:
            summary: dict[str, Any] = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
            if summary["format"] != FORMAT_VERSION:
                raise ValueError(f"its format is {summary['format']}, expected {FORMAT_VERSION}")
            if summary.pop("checksum") != _checksum(summary):
                raise ValueError(f"{SUMMARY_FILE} differs from its checksum")
            with (folder / INDEX_FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                index = Index(*(arrays[name] for name in ("offsets", "heights", "widths", "checksums")))
                digests = [row.tobytes().hex() for row in arrays["digests"]]
                scan = Scan(
                    digests=[digests[i] if offset >= 0 else "" for i, offset in enumerate(index.offsets)],
                    sizes=arrays["full_sizes"],
                    is_constant=arrays["is_constant"],
                    errors={int(position): reason for position, reason in summary["errors"].items()},
                    min_shorter_side=summary["shorter_side"],
                )
            num_bytes = (folder / PIXELS_FILE).stat().st_size
            if num_bytes != summary["num_bytes"]:
                raise ValueError(f"{PIXELS_FILE} has {num_bytes} bytes, expected {summary['num_bytes']}")
        except (OSError, LookupError, ValueError, TypeError, AttributeError, EOFError, *_BROKEN_ZIP) as error:
            raise DataError(
                f"{folder} contains no readable image store ({error}): remove it and build it again."
            ) from error
        pixels = np.zeros(0, dtype=np.uint8)  # mmap refuses an empty file
        if num_bytes > 0:
            pixels = np.memmap(folder / PIXELS_FILE, dtype=np.uint8, mode="r").view(np.ndarray)
        pixel_range = None if summary["pixel_range"] is None else tuple(summary["pixel_range"])
        return cls(folder, pixels, index, scan, summary["shorter_side"], summary["channels"], pixel_range)

    def __len__(self) -> int:
        return len(self.scan)

    def __getitem__(self, position: int) -> npt.NDArray[np.uint8]:
        """Return the (H, W, channels) uint8 pixels of one image.

        Raises ImageReadError if it is not in the store, and DataError if its pixels differ from their checksum, which
        is verified at the first access; such a store is not opened again.
        """
        position = range(len(self))[position]
        offset = int(self._index.offsets[position])
        if offset < 0:
            reason = self.errors.get(position, "skipped, because the time to decode images ended before it")
            raise ImageReadError(f"image {position} is not in the store: {reason}")
        if not self._is_verified[position] and not self._verify(position):
            with contextlib.suppress(OSError):  # it has been removed, or cannot be written
                (self.folder / SUMMARY_FILE).unlink()
            raise DataError(
                f"The decoded images in {self.folder} are damaged (image {position} differs from its checksum). Start "
                "the fit again: images are decoded anew"
            )
        return self._pixels_of(position)

    def _pixels_of(self, position: int) -> npt.NDArray[np.uint8]:
        offset = int(self._index.offsets[position])
        shape = (int(self._index.heights[position]), int(self._index.widths[position]), self.channels)
        return self._pixels[offset : offset + math.prod(shape)].reshape(shape)

    def _verify(self, position: int) -> bool:
        is_sound = zlib.crc32(self._pixels_of(position).data) == self._index.checksums[position]
        self._is_verified[position] = is_sound
        return bool(is_sound)

    def is_damaged(self, seconds: float = math.inf) -> bool:
        """Return whether pixels differ from their checksums, comparing for so many seconds, about 1 GB/s a thread."""
        start_s, positions = time.perf_counter(), np.flatnonzero(self.readable)

        def is_part_damaged(first: int) -> bool:
            return not all(self._verify(i) for i in positions[first : first + _IMAGES_AT_ONCE])

        firsts = range(0, len(positions), _IMAGES_AT_ONCE)
        verified = map_in_threads(is_part_damaged, firsts, deadline=lambda: seconds - time.perf_counter() + start_s)
        with contextlib.closing(verified):
            return any(is_damaged for _, is_damaged in verified)

    def files(self) -> list[Path | tuple[Path, ...]]:
        """Return the files that a pickled store needs: its folder, or a tuple of the images that it decodes."""
        return [self.folder]

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageStore.open, (self.folder,)

    def __repr__(self) -> str:
        form = f"num_images={len(self)}, shorter_side={self.shorter_side}, num_bytes={self.num_bytes}"
        return f"ImageStore({str(self.folder)!r}, {form})"

    @property
    def num_bytes(self) -> int:
        """Size of the pixels in bytes."""
        return self._pixels.size

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: whether each image is in the store."""
        return self._index.offsets >= 0

    @property
    def errors(self) -> dict[int, str]:
        """Position of each unreadable image -> reason."""
        return self.scan.errors

    @property
    def skipped(self) -> list[int]:
        """Positions of the images that were skipped because of `order` or the deadline, ascending."""
        return self.scan.skipped

    @property
    def digests(self) -> list[str]:
        """A digest per image, equal for equal images (see `ImageFacts`); empty for images not in the store."""
        return self.scan.digests


class _StoreWriter:
    """Writes the files of one store into a new folder."""

    def __init__(
        self,
        folder: Path,
        images: Sequence[ImageSource],
        shorter_side: int | None,
        channels: int,
        pixel_range: PixelRange | None,
    ) -> None:
        self._folder, self._images, self._shorter_side, self._channels = folder, images, shorter_side, channels
        self._pixel_range = pixel_range
        self._scan = Scan.empty(len(images), shorter_side)
        self._index = Index.empty(len(images))
        self._num_total = len(images)
        self._num_bytes = self._num_done = 0

    def write_pixels(
        self,
        order: Sequence[int],
        num_threads: int | None,
        deadline: SecondsLeft | None,
        on_progress: Progress | None,
        has_room: HasRoom | None,
    ) -> None:
        """Decode in threads, and append the pixels in the order in which they are ready."""
        next_estimate = _FIRST_ESTIMATE
        self._num_total = len(order)
        with (
            (self._folder / PIXELS_FILE).open("wb") as file,
            contextlib.closing(
                map_in_threads(self._decode, order, num_threads or num_readers(self._images), deadline)
            ) as outcomes,
        ):
            for position, outcome in outcomes:
                if isinstance(outcome, ImageReadError):
                    self._scan.record(position, outcome)
                else:
                    facts, pixels, self._index.checksums[position] = outcome
                    file.write(pixels.data)
                    self._scan.record(position, facts)
                    self._index.offsets[position] = self._num_bytes
                    self._index.heights[position], self._index.widths[position] = pixels.shape[:2]
                    self._num_bytes += pixels.nbytes
                self._num_done += 1
                if on_progress is not None:
                    on_progress(self._num_done, self._num_total)
                if has_room is not None and self._num_done in (next_estimate, self._num_total):
                    next_estimate *= 2
                    if not has_room(self._estimated_bytes(), self._num_bytes):
                        raise self.no_room(self._folder)

    def _estimated_bytes(self) -> int:
        return round(self._num_bytes / max(1, self._num_done) * self._num_total)

    def _decode(self, position: int) -> tuple[ImageFacts, npt.NDArray[np.uint8], int] | ImageReadError:
        try:
            decoded = decode_image(
                self._images[position],
                min_shorter_side=self._shorter_side,
                channels=self._channels,
                pixel_range=self._pixel_range,
            )
            pixels = pixels_of(decoded.image)
            stored = np.ascontiguousarray(shrunk(decoded, self._shorter_side, pixels))
            return ImageFacts.of(pixels, decoded.full_size), stored, zlib.crc32(stored.data)
        except ImageReadError as error:
            return error

    def write_index(self) -> None:
        """Write the index and the summary."""
        scan = self._scan
        digests = bytes.fromhex("".join(digest or "0" * 32 for digest in scan.digests))
        np.savez(
            self._folder / INDEX_FILE,
            offsets=self._index.offsets,
            heights=self._index.heights,
            widths=self._index.widths,
            checksums=self._index.checksums,
            full_sizes=scan.sizes,
            is_constant=scan.is_constant,
            digests=np.frombuffer(digests, dtype=np.uint8).reshape(len(scan), 16),
            skipped=np.array(scan.skipped, dtype=np.int64),
        )
        summary = {
            "format": FORMAT_VERSION,
            "num_images": len(scan),
            "num_bytes": self._num_bytes,
            "shorter_side": self._shorter_side,
            "channels": self._channels,
            "pixel_range": self._pixel_range,
            "errors": {str(position): reason for position, reason in sorted(scan.errors.items())},
        }
        text = json.dumps({**summary, "checksum": _checksum(summary)}, indent=1, ensure_ascii=False)
        (self._folder / SUMMARY_FILE).write_text(text, encoding="utf-8")

    def no_room(self, folder: Path) -> NoRoomError:
        """Return the error with the written and the estimated size."""
        message = (
            f"No space left for the decoded images in {folder.parent}: {self._num_done} of {self._num_total} images "
            f"took {self._num_bytes / 1e9:.2f} GB, so about {self._estimated_bytes() / 1e9:.2f} GB are needed. "
            "Free some space, choose another folder or a smaller image size."
        )
        return NoRoomError(message, self._scan)


def _checksum(summary: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(summary, sort_keys=True).encode())


def _checked_order(order: Iterable[int] | None, num_images: int) -> Sequence[int]:
    if order is None:
        return range(num_images)
    positions = [int(position) for position in order]
    num_valid = len(set(positions) & set(range(num_images)))
    if num_valid < len(positions):
        raise HyperparameterError(
            f"order must contain positions of the {num_images} images, each once; got {len(positions)} positions, "
            f"{num_valid} of them valid and different."
        )
    return positions
