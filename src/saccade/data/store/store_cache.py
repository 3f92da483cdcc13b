"""Decoded images shared by runs: the stores in the cache folder.

A store is found by the fingerprint of its images, so that a second run on the same images starts at once. Stores are in
the folder ``stores`` of `saccade.remote.urls.cache_folder`; remove it to clear the cache. The environment
variable ``SACCADE_STORE_CACHE_GB`` limits its size, and 0 disables it.
"""

from __future__ import annotations

import contextlib
import math
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

from saccade.checks import bytes_from_environment
from saccade.data.scanning import SecondsLeft
from saccade.data.store.store import SUMMARY_FILE, HasRoom, ImageStore
from saccade.errors import DataError
from saccade.remote.urls import cache_folder

LIMIT_VARIABLE = "SACCADE_STORE_CACHE_GB"

_MAX_BYTES, _MAX_FRACTION_OF_FREE = 20_000_000_000, 0.2  # default limit: the smaller of the two
_RESERVED_BYTES, _RESERVED_FRACTION = 1_000_000_000, 0.02  # kept free on a disk: the smaller of the two
_VERIFY_FRACTION = 0.02  # fraction of the time left to verify the pixels of a store
_LOCK_TIMEOUT_S = 20.0  # for another process that adds or removes a store
_WAIT_FRACTION = 0.5  # fraction of the time left to wait for another process that decodes the same images


@dataclass(frozen=True)
class StoreCache:
    """Stores in a folder by the fingerprints of their images; the least recently used one is removed first.

    One process builds a store while others that need the same one wait. A store in use, marked by a lease that ends
    with its process, is never removed. A store is built in another folder and then moved, so that it is complete or
    absent. `limit_bytes` is the maximum size of all stores; None is 20 GB, or a fifth of the free space if that is
    less.
    """

    folder: Path
    limit_bytes: int | None = None

    @classmethod
    def from_environment(cls) -> StoreCache | None:
        """Return the user's cache; None if ``SACCADE_STORE_CACHE_GB`` is 0, a HyperparameterError if it is invalid."""
        limit_bytes = bytes_from_environment(LIMIT_VARIABLE)
        return None if limit_bytes == 0 else cls(cache_folder() / "stores", limit_bytes)

    def get(
        self,
        compute_name: Callable[[], str],
        build: Callable[[Path, HasRoom], ImageStore],
        private: Path,
        seconds_left: SecondsLeft | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> ImageStore:
        """Return the store of that name, and build it by `build` (as `ImageStore.build`) if it is missing.

        `compute_name` returns the fingerprint; it is called again after building, to detect files that changed
        meanwhile. `private` is the folder for a store that is incomplete because of a deadline. If another process
        builds the same store, call `on_wait`, and wait for half of the time left.

        Raises OSError or NotImplementedError if the folder cannot be written or locked, filelock.Timeout if the other
        process takes too long.
        """
        name = compute_name()
        for subfolder in ("building", "leases", "locks"):
            (self.folder / subfolder).mkdir(parents=True, exist_ok=True)
        if (store := self.open(name, seconds_left)) is not None:
            return store
        with self._building(name, seconds_left, on_wait):
            if (store := self.open(name, seconds_left)) is not None:  # built by the other process
                return store
            for path in (self.folder / "building").iterdir():  # remains of killed processes
                if name in path.name or path.name.startswith(".removed-"):
                    shutil.rmtree(path, ignore_errors=True)
            building = self.folder / "building" / name
            built = build(building, partial(self._make_room, name))
            is_complete = not built.skipped
            del built  # not every platform can move a mapped file
            if not is_complete:
                with contextlib.suppress(OSError):  # `private` is on another disk, which is full
                    shutil.move(building, private)
                    return ImageStore.open(private)
                shutil.rmtree(private, ignore_errors=True)
            if not is_complete or compute_name() != name:
                name = f"{name}-{secrets.token_hex(4)}"  # matches no fingerprint; removed when it is the oldest
            building.rename(self.folder / name)
            store = self.open(name)
        assert store is not None
        return store

    def open(self, name: str, seconds_left: SecondsLeft | None = None) -> ImageStore | None:
        """Return the store of that name, protected from removal; None if there is none. A damaged one is removed."""
        folder = self.folder / name
        if not folder.is_dir():
            return None
        with self._locked():  # prevents a removal before the lease exists
            lease = _Lease(self.folder / "leases" / f"{name}.{secrets.token_hex(4)}")
            try:
                store = ImageStore.open(folder)
                os.utime(folder)  # the files do not change
            except (DataError, OSError):
                lease.end()
                self._remove(folder)
                return None
        store.lease = lease
        if store.is_damaged(seconds_to_verify(seconds_left)):
            lease.end()
            self._remove(folder)
            return None
        return store

    def clear(self) -> int:
        """Remove all stores that are not in use; return the number of bytes freed."""
        if not self.folder.is_dir():
            return 0
        with self._locked():
            idle = [folder for folder in self._by_last_use() if not self._is_in_use(folder.name)]
            freed = sum(map(_num_bytes, idle))
            for folder in idle:
                self._remove(folder)
        return freed

    def _make_room(self, name: str, num_bytes: int, num_written: int) -> bool:
        """Remove stores until one of `num_bytes` fits limit and disk; remove none and return False if impossible."""
        with self._locked():
            # Remains of other builds whose process was killed: their lock is free.
            for remains in (self.folder / "building").iterdir():
                if name not in remains.name and (found := re.search("[0-9a-f]{32}", remains.name)):
                    with contextlib.suppress(filelock.Timeout), self._lock(found[0]).acquire(timeout=0):
                        self._remove(remains)
            stores = {folder: _num_bytes(folder) for folder in self._by_last_use()}
            others = [path for path in (self.folder / "building").iterdir() if name not in path.name]
            used = sum(stores.values()) + sum(map(_num_bytes, others))
            limit, to_free = bytes_to_free(
                self.folder, used, num_bytes, self.limit_bytes, _MAX_BYTES, _MAX_FRACTION_OF_FREE, num_written
            )
            idle = [folder for folder in stores if not self._is_in_use(folder.name)]
            if num_bytes > limit or to_free > sum(stores[folder] for folder in idle):
                return False
            for folder in idle:
                if to_free <= 0:
                    break
                to_free -= stores[folder]
                self._remove(folder)
        return True

    def _by_last_use(self) -> list[Path]:
        """Return the folders of all stores, the least recently used one first."""
        folders = [summary.parent for summary in self.folder.glob(f"*/{SUMMARY_FILE}")]
        return sorted(folders, key=lambda folder: folder.stat().st_mtime)

    def _remove(self, folder: Path) -> None:
        """Remove a folder so that at every instant it is complete or absent."""
        doomed = self.folder / "building" / f".removed-{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            doomed.parent.mkdir(exist_ok=True)
            folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _is_in_use(self, name: str) -> bool:
        return any(_Lease.is_held(path) for path in (self.folder / "leases").glob(f"{name}.*"))

    def _lock(self, name: str) -> filelock.BaseFileLock:
        return filelock.FileLock(self.folder / "locks" / name)

    def _locked(self) -> filelock.BaseFileLock:
        """Return the lock of the whole cache, which is held for short times only."""
        return filelock.FileLock(self.folder / ".lock", timeout=_LOCK_TIMEOUT_S)

    @contextlib.contextmanager
    def _building(
        self, name: str, seconds_left: SecondsLeft | None, on_wait: Callable[[], None] | None
    ) -> Iterator[None]:
        """Hold the lock of the only process that builds this store."""
        lock = self._lock(name)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if on_wait is not None:
                on_wait()
            lock.acquire(timeout=-1 if seconds_left is None else max(0.0, _WAIT_FRACTION * seconds_left()))
        try:
            yield
        finally:
            lock.release()


class _Lease:
    """Marks a store as in use until `end`, the last reference to this object, or the end of the process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        lock = filelock.FileLock(path, thread_local=False)
        lock.acquire()
        self.end = weakref.finalize(self, _end_lease, lock, path, os.getpid())

    @staticmethod
    def is_held(path: Path) -> bool:
        """Return whether a process holds the lease; remove the file if none does."""
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return True
        lock.release()
        path.unlink(missing_ok=True)
        return False


def _end_lease(lock: filelock.BaseFileLock, path: Path, pid: int) -> None:
    if os.getpid() == pid:  # in a forked process, the lease belongs to the parent
        lock.release()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def seconds_to_verify(seconds_left: SecondsLeft | None) -> float:
    """Return how long the pixels of a store may be verified."""
    return math.inf if seconds_left is None else _VERIFY_FRACTION * seconds_left()


def _num_bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):  # another process may remove it now
        for path in folder.iterdir():
            total += path.stat().st_size
    return total


def bytes_to_free(
    folder: Path,
    used: int,
    num_bytes: int,
    limit_bytes: int | None,
    max_bytes: int,
    max_fraction_of_free: float,
    num_written: int = 0,
) -> tuple[int, int]:
    """Return the limit of a cache of `used` bytes, and how many to remove for an entry of `num_bytes` to fit.

    The default limit is `max_bytes`, or that fraction of the space that is free without the cache. `num_written` bytes
    of the entry are on the disk already.
    """
    disk = shutil.disk_usage(folder)
    limit = limit_bytes
    if limit is None:
        limit = int(min(max_bytes, max_fraction_of_free * (disk.free + used + num_written)))
    missing_on_disk = num_bytes - num_written + reserved_bytes(disk.total) - disk.free
    return limit, max(used + num_bytes - limit, missing_on_disk)


def reserved_bytes(disk_bytes: int) -> int:
    """Return the number of bytes to keep free on a disk of that size."""
    return int(min(_RESERVED_BYTES, _RESERVED_FRACTION * disk_bytes))
