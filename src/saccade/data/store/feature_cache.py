"""Features of images, kept on disk for later fits and predictions.

They are in the SQLite file ``features.sqlite`` of `saccade.remote.urls.cache_folder`, which may be removed at
any time. SQLite makes writes atomic and locks the file between processes. The environment variable
``SACCADE_FEATURE_CACHE_GB`` limits its size, and 0 disables it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.checks import bytes_from_environment
from saccade.data.store.store_cache import bytes_to_free
from saccade.remote.urls import cache_folder

LIMIT_VARIABLE = "SACCADE_FEATURE_CACHE_GB"

_MAX_BYTES, _MAX_FRACTION_OF_FREE = 5_000_000_000, 0.05  # default limit: the smaller of the two
_LOCK_TIMEOUT_S = 2.0  # wait for another process that writes; without the lock, features are computed
_IMAGES_AT_ONCE = 500  # parameters of a query; SQLite allows at least 999
_PAGE_BYTES = 32_768  # holds several vectors, so that little of a page is unused
_USABLE = ("locked", "disk is full", "unable to open", "disk I/O")  # in errors of SQLite about files that are sound

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS batches (id INTEGER PRIMARY KEY, network TEXT, name TEXT, used REAL, num_bytes INTEGER);
    CREATE TABLE IF NOT EXISTS features (
        network TEXT, image TEXT, batch INTEGER, checksum INTEGER, vector BLOB, UNIQUE (network, image)
    );
    CREATE INDEX IF NOT EXISTS of_batch ON features (batch);
"""
"""Features that were computed together are a batch, which is removed as a whole."""


@dataclass(frozen=True)
class FeatureCache:
    """Feature vectors by network and image in a SQLite file; the least recently used ones are removed first.

    A file that is damaged is removed, and a vector that differs from its checksum, which includes the image's digest,
    is computed again. If the file cannot be used, because the disk is full or another process locks it, features are
    computed. `limit_bytes` is the maximum size of the file; None is 5 GB, or a twentieth of the free space, if that is
    less.
    """

    path: Path
    limit_bytes: int | None = None

    @classmethod
    def from_environment(cls) -> FeatureCache | None:
        """Return the user's cache; None if ``SACCADE_FEATURE_CACHE_GB`` is 0, an error if it is invalid."""
        limit_bytes = bytes_from_environment(LIMIT_VARIABLE)
        return None if limit_bytes == 0 else cls(cache_folder() / "features.sqlite", limit_bytes)

    def get(
        self, network: str, images: Sequence[str], compute: Callable[[np.ndarray], np.ndarray], name: str = ""
    ) -> np.ndarray:
        """Return the features of images, and compute those that are not in the cache.

        `network` is a digest of everything that features depend on besides the image, and `name` its name for `names`.
        `images` has at least one digest; "" for an image that has none, and is not cached. `compute` maps ascending
        positions in `images` to their features, float32 of shape (num_positions, num_features). It may return those of
        the first positions only, at least one; then the result has the first images only. Rows with NaN are not cached.
        """
        known = self._read(network, [image for image in images if image])
        missing = np.flatnonzero([image not in known for image in images])
        computed = compute(missing) if len(missing) else np.zeros((0, 0), np.float32)
        num_known = len(images) if len(computed) == len(missing) else int(missing[len(computed)])
        if len(computed):
            features = np.empty((num_known, computed.shape[1]), np.float32)
            features[missing[: len(computed)]] = computed
        else:
            features = np.empty((num_known, len(known[images[0]])), np.float32)
        for position, image in enumerate(images[:num_known]):
            if image in known:
                features[position] = known[image]
        new = {images[position]: row for position, row in zip(missing.tolist(), computed, strict=False)}
        self._write(network, name, {image: row for image, row in new.items() if image and np.isfinite(row).all()})
        return features

    def names(self, images: Sequence[str]) -> set[str]:
        """Return the names of the networks that have features of at least half of some images."""
        found: set[str] = set()
        some = images[:_IMAGES_AT_ONCE]
        query = "SELECT count(*) FROM features WHERE network = ? AND image IN "

        def read(database: sqlite3.Connection) -> None:
            for network, name in database.execute("SELECT DISTINCT network, name FROM batches").fetchall():
                ((num,),) = database.execute(query + _marks(some), [network, *some])
                if 2 * num >= len(some):
                    found.add(name)

        if os.path.isfile(self.path):  # noqa: PTH113  `Path.is_file` raises errors of permissions
            self._in_transaction(read)
        return found

    def _read(self, network: str, images: Sequence[str]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}

        def read(database: sqlite3.Connection) -> None:
            used: set[int] = set()
            for first in range(0, len(images), _IMAGES_AT_ONCE):
                some = images[first : first + _IMAGES_AT_ONCE]
                query = "SELECT image, batch, checksum, vector FROM features WHERE network = ? AND image IN "
                for image, batch, checksum, vector in database.execute(query + _marks(some), [network, *some]):
                    if _checksum(network, image, vector) == checksum:
                        found[image] = np.frombuffer(vector, np.float32)
                        used.add(batch)
            database.executemany("UPDATE batches SET used = ? WHERE id = ?", [(time.time(), batch) for batch in used])

        if os.path.isfile(self.path):  # noqa: PTH113  `Path.is_file` raises errors of permissions
            self._in_transaction(read)
        return found

    def _write(self, network: str, name: str, features: dict[str, np.ndarray]) -> None:
        """Write features, and remove the batches that are too many then."""
        num_bytes = sum(row.nbytes + len(network) + 2 * len(image) for image, row in features.items())

        def write(database: sqlite3.Connection) -> None:
            ((num_pages,),) = database.execute("PRAGMA page_count")
            limit, to_free = bytes_to_free(
                self.path.parent,
                num_pages * _PAGE_BYTES,
                num_bytes,
                self.limit_bytes,
                _MAX_BYTES,
                _MAX_FRACTION_OF_FREE,
            )
            if num_bytes > limit:
                return
            for batch, size in database.execute("SELECT id, num_bytes FROM batches ORDER BY used, id").fetchall():
                if to_free <= 0:
                    break
                to_free -= size
                database.execute("DELETE FROM features WHERE batch = ?", [batch])
                database.execute("DELETE FROM batches WHERE id = ?", [batch])
            batch = database.execute(
                "INSERT INTO batches (network, name, used, num_bytes) VALUES (?, ?, ?, ?)",
                [network, name, time.time(), num_bytes],
            )
            vectors = ((image, row.astype(np.float32).tobytes()) for image, row in features.items())
            database.executemany(
                "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?, ?)",
                (
                    (network, image, batch.lastrowid, _checksum(network, image, vector), vector)
                    for image, vector in vectors
                ),
            )

        if features:
            self._in_transaction(write)

    def _in_transaction(self, action: Callable[[sqlite3.Connection], None]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S)) as database, database:
                database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # of a new file
                database.execute("PRAGMA auto_vacuum = FULL")  # the file shrinks when rows are removed
                database.execute("PRAGMA synchronous = OFF")  # safe after a kill; after a power failure checksums count
                database.executescript(_SCHEMA)
                action(database)
        except OSError:  # a folder that is not writable
            return
        except (sqlite3.DatabaseError, TypeError, ValueError) as error:
            # With some damaged headers, SQLite takes a writable file for a read-only one.
            is_read_only = "readonly" in str(error) and not os.access(self.path, os.W_OK)
            if not is_read_only and not any(words in str(error) for words in _USABLE):  # damaged
                with contextlib.suppress(OSError):
                    self.path.unlink()


def _checksum(network: str, image: str, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(f"{network}|{image}".encode()))


def _marks(images: Sequence[str]) -> str:
    return f"({','.join('?' * len(images))})"
