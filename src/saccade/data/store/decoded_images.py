"""Decoded images of a run: from the cache, from the run folder, or decoded at each access.

With ``SACCADE_STORE_CACHE_GB=0`` there is no cache: images are decoded into the run folder, and removed when the run
ends. Files are identified by path, size, modification time and three samples of their bytes; with
``SACCADE_STORE_KEY=content`` by all of their bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from PIL import ExifTags, Image

from saccade.data.decoding import ImageSource, decoder_name
from saccade.data.pixel_range import PixelRange
from saccade.data.scanning import Progress, SecondsLeft, scan_images
from saccade.data.store.on_demand import StreamedStore
from saccade.data.store.store import FORMAT_VERSION, HasRoom, ImageStore, NoRoomError
from saccade.data.store.store_cache import LIMIT_VARIABLE, StoreCache, reserved_bytes, seconds_to_verify
from saccade.errors import DataError
from saccade.remote.urls import is_remote, versions_of

KEY_VARIABLE = "SACCADE_STORE_KEY"
_SAMPLE_BYTES = 4096  # read at the start, in the middle and at the end: microseconds, where decoding takes milliseconds


def decoded_images(
    images: Sequence[ImageSource],
    folder: Path,
    *,
    shorter_side: int | None,
    channels: int = 3,
    pixel_range: PixelRange | None = None,
    deadline: SecondsLeft | None = None,
    order: Iterable[int] | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> ImageStore:
    """Return the images decoded: from `folder`, from the cache, or decoded now, as `ImageStore.build` does.

    `folder` belongs to this run only. It receives a store that is not shared: an incomplete one because of the
    deadline, or any store without a cache. An existing store there is used if it matches. `on_wait` is called before
    waiting for another process that decodes the same images, and `warn` with a message if there is no room for a store,
    so that images are decoded at each access.
    """
    cache, order = StoreCache.from_environment(), None if order is None else list(order)
    if folder.exists():
        with contextlib.suppress(DataError):
            store = ImageStore.open(folder)
            known = (len(store), store.shorter_side, store.channels, store.pixel_range)
            is_same = known == (len(images), shorter_side, channels, pixel_range)
            if is_same and not store.is_damaged(seconds_to_verify(deadline)):
                return store
        shutil.rmtree(folder)
    form: dict[str, Any] = {"channels": channels, "pixel_range": pixel_range}
    options: dict[str, Any] = {**form, "deadline": deadline, "order": order, "on_progress": on_progress}

    def build(folder: Path, has_room: HasRoom) -> ImageStore:
        return ImageStore.build(images, folder, shorter_side=shorter_side, has_room=has_room, **options)

    def stream(error: NoRoomError) -> StreamedStore:
        if warn is not None:
            warn(
                f"{str(error).partition(' Free some space')[0]} Images are decoded anew in every epoch instead, which "
                f"is slower. Free some space, set SACCADE_CACHE to a folder on a larger disk, increase "
                f"{LIMIT_VARIABLE}, or choose a smaller img_size"
            )
        scan = scan_images(images, min_shorter_side=shorter_side, recorder=error.recorder, **options)
        return StreamedStore(images, scan, shorter_side, **form)

    compute_name = partial(fingerprint, images, f"{shorter_side}|{channels}|{pixel_range}")
    try:
        if cache is not None:
            # An unusable cache folder, or too long a wait: build a store for this run only.
            with contextlib.suppress(OSError, NotImplementedError, filelock.Timeout):
                return cache.get(compute_name, build, folder, deadline, on_wait)
    except NoRoomError as error:
        if cache is not None and (cache.limit_bytes is not None or _is_full_disk(error, cache.folder, folder.parent)):
            return stream(error)
    try:
        return build(folder, partial(_disk_has_room, folder.parent))
    except NoRoomError as error:
        return stream(error)


def _disk_has_room(folder: Path, num_bytes: int, num_written: int) -> bool:
    disk = shutil.disk_usage(folder)
    return num_bytes - num_written <= disk.free - reserved_bytes(disk.total)


def _is_full_disk(error: NoRoomError, folder: Path, other: Path) -> bool:
    """Return whether the disk of `folder` is full and `other` is on it as well."""
    return isinstance(error.__cause__, OSError) and other.exists() and folder.stat().st_dev == other.stat().st_dev


def fingerprint(images: Sequence[ImageSource], form: str) -> str:
    """Return the name of the store of these images in some form: 32 hexadecimal digits, different for other stores.

    Files are identified by absolute path, size, modification time and samples of their bytes, or with
    ``SACCADE_STORE_KEY=content`` by all of their bytes; images in memory by their content.
    """
    by_content = os.environ.get(KEY_VARIABLE, "") == "content"
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{FORMAT_VERSION}|{decoder_name()}|{form}|{len(images)}|{by_content}".encode())
    versions = versions_of([image for image in images if isinstance(image, str) and is_remote(image)])
    for image in images:
        if isinstance(image, str) and image in versions:
            digest.update(f"{image!r} {versions[image]}".encode())
            continue
        for piece in _identity(image, by_content):
            digest.update(b"%d:" % len(piece))
            digest.update(piece)
    return digest.hexdigest()


def _identity(image: ImageSource, by_content: bool) -> Iterator[bytes | memoryview]:
    """Yield the bytes that identify an image."""
    if isinstance(image, bytes):
        yield from (b"bytes", image)
    elif isinstance(image, np.ndarray):
        yield f"array {image.dtype.str} {image.shape}".encode()
        yield np.ascontiguousarray(image).reshape(-1).view(np.uint8).data if image.dtype != object else b""
    elif isinstance(image, Image.Image):
        with contextlib.suppress(Exception):  # a damaged image has no content to compare
            info = (image.mode, image.size, image.info.get("transparency"), image.getpalette())
            yield repr((info, image.getexif().get(ExifTags.Base.Orientation))).encode()
            yield image.tobytes()
    else:
        try:
            path = os.path.abspath(image)  # noqa: PTH100  ten times as fast as pathlib, noticeable with many files
            facts = os.stat(path)  # noqa: PTH116
            if by_content:
                yield from (b"file", Path(path).read_bytes())
                return
            with open(path, "rb") as file:  # noqa: PTH123
                for place in sorted({0, facts.st_size // 2, max(0, facts.st_size - _SAMPLE_BYTES)}):
                    file.seek(place)
                    yield file.read(_SAMPLE_BYTES)
            known = f"{path} {facts.st_size} {facts.st_mtime_ns}"
        except (OSError, ValueError, TypeError):
            known = f"{image!r} is not there"
        yield known.encode("utf-8", "surrogatepass")
