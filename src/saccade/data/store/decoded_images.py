"""The images of a run, decoded: found in the cache, decoded into it, into the run's own folder, or each time anew.

With ``SACCADE_STORE_CACHE_GB=0`` there is no cache: then images are decoded into the run folder, and removed when the
run ends. ``SACCADE_STORE_KEY=content`` knows images by their bytes instead of by path, size and time of change.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import filelock

from saccade.data.decoding import ImageSource
from saccade.data.scanning import Progress, SecondsLeft, scan_images
from saccade.data.store.fingerprint import fingerprint
from saccade.data.store.on_demand import StreamedStore
from saccade.data.store.store import ImageStore
from saccade.data.store.store_cache import LIMIT_VARIABLE, StoreCache, spared_bytes
from saccade.data.store.store_writing import HasRoom, NoRoomError
from saccade.errors import DataError

KEY_VARIABLE = "SACCADE_STORE_KEY"


def decoded_images(
    images: Sequence[ImageSource],
    folder: Path,
    *,
    shorter_side: int | None,
    channels: int = 3,
    deadline: SecondsLeft | None = None,
    order: Iterable[int] | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> ImageStore:
    """Return the images decoded: from `folder`, from the cache, or now.

    Parameters
    ----------
    images, shorter_side, channels, deadline, order, on_progress
        As in `ImageStore.build`.
    folder : Path
        Of this run alone. A store goes there that is not to be shared: one that the deadline has cut short, or any
        while the cache is off. What is there already is taken if it fits.
    on_wait : callable or None
        Called when another process is decoding the same images, before waiting for it.
    warn : callable or None
        Told when there is no room for a store, and images are decoded each time instead.

    Raises
    ------
    HyperparameterError
        When ``SACCADE_STORE_CACHE_GB`` holds no number.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> images = [np.zeros((20, 30, 3), dtype=np.uint8)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     os.environ[LIMIT_VARIABLE] = "0"
    ...     store = decoded_images(images, Path(folder) / "store", shorter_side=10)
    ...     print(store[0].shape, os.environ.pop(LIMIT_VARIABLE))
    (10, 15, 3) 0
    """
    cache, order = StoreCache.from_environment(), None if order is None else list(order)
    if (there := _store_there(folder, len(images), shorter_side, channels)) is not None:
        return there
    options: dict[str, Any] = {
        "shorter_side": shorter_side, "channels": channels, "deadline": deadline, "order": order,
        "on_progress": on_progress,
    }  # fmt: skip

    def build(folder: Path, has_room: HasRoom) -> ImageStore:
        return ImageStore.build(images, folder, has_room=has_room, **options)

    name_of = partial(
        fingerprint, images, shorter_side, channels, by_content=os.environ.get(KEY_VARIABLE, "") == "content"
    )
    try:
        if cache is not None:
            with contextlib.suppress(OSError, NotImplementedError, filelock.Timeout):  # then for this run alone
                return cache.get(name_of, build, folder, deadline, on_wait)
    except NoRoomError as error:
        if cache is not None and (cache.is_limit_own or _is_disk_full(error, cache.folder, folder.parent)):
            return _streamed(images, error, options, warn)
    try:
        return build(folder, partial(_disk_has_room, folder.parent))
    except NoRoomError as error:
        return _streamed(images, error, options, warn)


def _disk_has_room(folder: Path, num_bytes: int, num_written: int) -> bool:
    disk = shutil.disk_usage(folder)
    return num_bytes - num_written <= disk.free - spared_bytes(disk.total)


def _is_disk_full(error: NoRoomError, folder: Path, other: Path) -> bool:
    """Tell whether there is no more room in the other folder either, because it is on the same full disk."""
    return isinstance(error.__cause__, OSError) and other.exists() and folder.stat().st_dev == other.stat().st_dev


def _store_there(folder: Path, num_images: int, shorter_side: int | None, channels: int) -> ImageStore | None:
    """Return the store in the folder if it is whole and of this kind; make room for another one if it is not."""
    if not folder.exists():
        return None
    with contextlib.suppress(DataError):
        store = ImageStore.open(folder)
        if (len(store), store.shorter_side, store.channels) == (num_images, shorter_side, channels):
            return store
    shutil.rmtree(folder)
    return None


def _streamed(
    images: Sequence[ImageSource], error: NoRoomError, options: dict[str, Any], warn: Callable[[str], None] | None
) -> StreamedStore:
    """Look at the images that are still unknown, and decode them all again whenever they are wanted."""
    if warn is not None:
        warn(
            f"{str(error).partition(' Free some space')[0]} Images are decoded anew in every epoch instead, which is "
            f"slower. Free some space, name a folder on a larger disk by SACCADE_CACHE, allow more by "
            f"{LIMIT_VARIABLE}, or choose a smaller img_size"
        )
    shorter_side, channels = options["shorter_side"], options["channels"]
    known = {name: options[name] for name in ("channels", "deadline", "order", "on_progress")}
    scan = scan_images(images, min_shorter_side=shorter_side, recorder=error.recorder, **known)
    return StreamedStore(images, scan, shorter_side, channels)
