"""Decoded images shared by runs: the stores that are kept in the cache folder.

A store is found again by the fingerprint of its images, so that a run on images that an earlier one has decoded begins
at once. Stores are in the folder ``stores`` of `saccade.data.sources.download.cache_folder`; remove it to clear the
cache.
The environment variable ``SACCADE_STORE_CACHE_GB`` bounds it, and 0 switches it off.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import filelock

from saccade.data.scanning import SecondsLeft
from saccade.data.sources.download import cache_folder
from saccade.data.store.store import ImageStore
from saccade.data.store.store_writing import SUMMARY_FILE, HasRoom
from saccade.errors import DataError, HyperparameterError

LIMIT_VARIABLE = "SACCADE_STORE_CACHE_GB"

_MOST_BYTES, _PART_OF_FREE = 20_000_000_000, 0.2  # what the cache takes unless it is told otherwise
_SPARED_BYTES, _SPARED_PART = 1_000_000_000, 0.02  # what is left free on a disk: the smaller of the two
_PATIENCE = 0.5  # part of the time left for decoding in which to wait for another process that decodes the same


@dataclass(frozen=True)
class StoreCache:
    """Stores in a folder, by the fingerprints of their images; the one that was not used for longest goes first.

    One process builds a store while others that want the same one wait. What a process has in use, by a lease that ends
    with it, is never removed; nor is there ever half a store: it is built beside, and moved into place.

    Parameters
    ----------
    folder : Path
        Holds a folder for each store.
    limit_bytes : int or None
        How much all stores may take; None is 20 GB, or a fifth of what is free, if that is less.

    Examples
    --------
    >>> import tempfile
    >>> cache = StoreCache(Path(tempfile.mkdtemp()))
    >>> cache.open("0" * 32) is None
    True
    """

    folder: Path
    limit_bytes: int | None = None

    @classmethod
    def from_environment(cls) -> StoreCache | None:
        """Return the user's cache; None when it is switched off.

        Raises
        ------
        HyperparameterError
            When ``SACCADE_STORE_CACHE_GB`` is set to what is no number.
        """
        given, folder = os.environ.get(LIMIT_VARIABLE, "").strip(), cache_folder() / "stores"
        if not given:
            return cls(folder)
        try:
            limit_bytes = int(float(given) * 1e9)
        except (ValueError, OverflowError):
            limit_bytes = -1
        if limit_bytes < 0:
            raise HyperparameterError(
                f"{LIMIT_VARIABLE}={given!r} is no number; expected how many gigabytes of decoded images to keep for "
                "later runs, such as 50, or 0 to keep none"
            )
        return cls(folder, limit_bytes) if limit_bytes else None

    @property
    def is_limit_own(self) -> bool:
        """Whether somebody has set the limit."""
        return self.limit_bytes is not None

    def get(
        self,
        name_of: Callable[[], str],
        build: Callable[[Path, HasRoom], ImageStore],
        private: Path,
        seconds_left: SecondsLeft | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> ImageStore:
        """Return the store of that name, built when it is not there.

        Parameters
        ----------
        name_of : callable
            Returns the fingerprint; asked again after building, to see that no file was changed meanwhile.
        build : callable
            ``build(folder, has_room)``, as `ImageStore.build`.
        private : Path
            Where a store goes that `build` has cut short.
        seconds_left : callable or None
            Another process that builds the same store is waited for during half of it.
        on_wait : callable or None
            Called before waiting.

        Raises
        ------
        NoRoomError
            By `build`, when the store does not fit the limit.
        filelock.Timeout
            When the other process takes too long.
        OSError, NotImplementedError
            When the folder cannot be written or locked.
        """
        name = name_of()
        for place in ("building", "leases", "locks"):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        if (store := self.open(name)) is not None:
            return store
        with self._building(name, seconds_left, on_wait):
            if (store := self.open(name)) is not None:  # the other process has built it
                return store
            self._remove_remains(name)
            building = self.folder / "building" / name
            built = build(building, partial(self._make_room, name))
            is_whole = not built.skipped
            del built  # a file that is mapped cannot be moved on every platform
            if not is_whole:
                with contextlib.suppress(OSError):  # on another disk, which is full
                    shutil.move(building, private)
                    return ImageStore.open(private)
                shutil.rmtree(private, ignore_errors=True)
            if not is_whole or name_of() != name:
                name = f"{name}-{secrets.token_hex(4)}"  # which nobody will ask for; its turn to go will come
            building.rename(self.folder / name)
            store = self.open(name)
        assert store is not None
        return store

    def open(self, name: str) -> ImageStore | None:
        """Return the store of that name, which stays while it is in use; None when there is none."""
        folder = self.folder / name
        if not folder.is_dir():
            return None
        with self._locked():  # nobody removes it between the look and the lease
            lease = _Lease(self.folder / "leases" / f"{name}.{secrets.token_hex(4)}")
            try:
                store = ImageStore.open(folder)
                os.utime(folder / SUMMARY_FILE)
            except (DataError, OSError):
                lease.end()
                self._remove(folder)
                return None
        store.lease = lease
        return store

    def clear(self) -> int:
        """Remove all stores but those in use; return how many bytes that gives back.

        Examples
        --------
        >>> import tempfile
        >>> StoreCache(Path(tempfile.mkdtemp())).clear()
        0
        """
        if not self.folder.is_dir():
            return 0
        with self._locked():
            idle = [folder for folder in self._by_last_use() if not self._is_in_use(folder.name)]
            freed = sum(map(_num_bytes, idle))
            for folder in idle:
                self._remove(folder)
        return freed

    def _make_room(self, name: str, num_bytes: int, num_written: int) -> bool:
        """Remove stores until one of `num_bytes` fits limit and disk; nothing, when that cannot be."""
        with self._locked():
            for remains in (self.folder / "building").iterdir():
                if name not in remains.name and (found := re.search("[0-9a-f]{32}", remains.name)):
                    with contextlib.suppress(filelock.Timeout), self._lock(found[0]).acquire(timeout=0):
                        self._remove(remains)
            stores = {folder: _num_bytes(folder) for folder in self._by_last_use()}
            others = [path for path in (self.folder / "building").iterdir() if name not in path.name]
            used = sum(stores.values()) + sum(map(_num_bytes, others))
            disk = shutil.disk_usage(self.folder)
            limit = self.limit_bytes
            if limit is None:
                limit = int(min(_MOST_BYTES, _PART_OF_FREE * (disk.free + used + num_written)))
            spare = num_bytes - num_written + spared_bytes(disk.total) - disk.free
            too_many = max(used + num_bytes - limit, spare)
            idle = [folder for folder in stores if not self._is_in_use(folder.name)]
            if num_bytes > limit or too_many > sum(stores[folder] for folder in idle):
                return False
            for folder in idle:
                if too_many <= 0:
                    break
                too_many -= stores[folder]
                self._remove(folder)
        return True

    def _by_last_use(self) -> list[Path]:
        """Return the folders of all stores, the one first that was not used for longest."""
        summaries = [(summary.stat().st_mtime, summary.parent) for summary in self.folder.glob(f"*/{SUMMARY_FILE}")]
        return [folder for _, folder in sorted(summaries)]

    def _remove(self, folder: Path) -> None:
        """Remove a folder so that at every instant it is whole or absent."""
        doomed = self.folder / "building" / f".removed-{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            doomed.parent.mkdir(exist_ok=True)
            folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _remove_remains(self, name: str) -> None:
        """Remove what was left by processes that were killed: of this store, and of what was being removed."""
        for path in (self.folder / "building").iterdir():
            if name in path.name or path.name.startswith(".removed-"):
                shutil.rmtree(path, ignore_errors=True)

    def _is_in_use(self, name: str) -> bool:
        return any(_Lease.is_held(path) for path in (self.folder / "leases").glob(f"{name}.*"))

    def _lock(self, name: str) -> filelock.BaseFileLock:
        return filelock.FileLock(self.folder / "locks" / name)

    def _locked(self) -> filelock.BaseFileLock:
        """Return the lock of the whole cache, which is held for moments only."""
        return filelock.FileLock(self.folder / ".lock")

    @contextlib.contextmanager
    def _building(
        self, name: str, seconds_left: SecondsLeft | None, on_wait: Callable[[], None] | None
    ) -> Iterator[None]:
        """Be the only process that builds this store."""
        lock = self._lock(name)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if on_wait is not None:
                on_wait()
            lock.acquire(timeout=-1 if seconds_left is None else max(0.0, _PATIENCE * seconds_left()))
        try:
            yield
        finally:
            lock.release()


class _Lease:
    """Marks a store as in use until `end`, until nobody has this object, or until the process ends in any way."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        lock = filelock.FileLock(path, thread_local=False)
        lock.acquire()
        self.end = weakref.finalize(self, _end_lease, lock, path, os.getpid())

    @staticmethod
    def is_held(path: Path) -> bool:
        """Tell whether somebody holds a lease; remove it when nobody does."""
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return True
        lock.release()
        path.unlink(missing_ok=True)
        return False


def _end_lease(lock: filelock.BaseFileLock, path: Path, pid: int) -> None:
    if os.getpid() == pid:  # a process that was forked leaves it to its parent
        lock.release()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _num_bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):  # it may just be going away
        for path in folder.iterdir():
            total += path.stat().st_size
    return total


def spared_bytes(disk_bytes: int) -> int:
    """Return how much is left free on a disk of that size."""
    return int(min(_SPARED_BYTES, _SPARED_PART * disk_bytes))
