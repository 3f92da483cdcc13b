"""Local files that jobs read, on the nodes of a Ray cluster: a node that does not see a file gets one copy of it.

`Trainable.portable` lists the files of a job: for image trials the decoded images, the pretrained weights of the job's
network, and the weights that a warm start continues from. The process of the search describes them (`SharedFiles`) by
size, modification time and samples of their bytes. A process on a node (`NodeFiles`) that finds the same file at the
same path reads it there, as on the machine of the search or on a shared disk. Otherwise one process of the node asks
for the file part by part and writes it to a folder of the node, while the others wait.

A part is an object in Ray's object store, which nodes that ask for it at about the same time share. Only the last
`KEPT_PARTS` are kept, so that a file of any size takes a fixed amount of memory.
"""

from __future__ import annotations

import errno
import getpass
import hashlib
import io
import os
import pickle
import platform
import secrets
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cloudpickle
import filelock

from saccade.errors import is_disk_full
from saccade.study.trial import LocalFiles

PART_BYTES = 16 * 2**20
KEPT_PARTS = 8
SAMPLE_BYTES = 4096  # read at the start, in the middle and at the end of a file
RESERVED_BYTES, RESERVED_FRACTION = 1_000_000_000, 0.02  # kept free on the disk of a node: the smaller of the two


@dataclass(frozen=True)
class FileFacts:
    """A file on the machine of the search."""

    path: str  # absolute
    name: str  # in the folder of its bundle, with slashes
    num_bytes: int
    modified_ns: int
    sample: bytes  # digest of some of its bytes

    @classmethod
    def of(cls, path: str, name: str) -> FileFacts:
        """Return the facts of a file as it is now."""
        digest = hashlib.blake2b(digest_size=16)
        with open(path, "rb") as file:  # noqa: PTH123  there may be very many files
            facts = os.fstat(file.fileno())
            for place in sorted({0, facts.st_size // 2, max(0, facts.st_size - SAMPLE_BYTES)}):
                file.seek(place)
                digest.update(file.read(SAMPLE_BYTES))
        return cls(path, name, facts.st_size, facts.st_mtime_ns, digest.digest())

    @property
    def is_here(self) -> bool:
        """Whether this machine has the same file at the same path."""
        try:
            return FileFacts.of(self.path, self.name) == self
        except OSError:
            return False


@dataclass(frozen=True)
class Bundle:
    """Files that a node gets together, as one stream of bytes: a file, those of a folder, or many small ones."""

    files: tuple[FileFacts, ...]
    places: tuple[tuple[str, str, str], ...]
    """Paths as the trainable and the job have them: the path itself, absolute, and relative to the copy's folder."""

    @cached_property
    def key(self) -> str:
        """32 hexadecimal digits, different for other files and other contents."""
        return hashlib.blake2b(repr((self.files, self.places)).encode(), digest_size=16).hexdigest()

    @cached_property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.num_bytes for file in self.files)

    @classmethod
    def of(cls, paths: Path | tuple[Path, ...]) -> Bundle:
        """Return the bundle of a file, of all files in a folder, or of some files; an OSError if they are missing."""
        if isinstance(paths, tuple):
            names = [f"{number}-{path.name}" for number, path in enumerate(paths)]
            files = tuple(FileFacts.of(str(path.absolute()), name) for path, name in zip(paths, names, strict=True))
            places = [(str(path), file.path, file.name) for path, file in zip(paths, files, strict=True)]
            return cls(files, tuple(places))
        whole = paths.absolute()
        if whole.is_dir():
            found = sorted(path for path in whole.rglob("*") if path.is_file())
            files = tuple(FileFacts.of(str(path), path.relative_to(whole).as_posix()) for path in found)
            return cls(files, ((str(paths), str(whole), ""),))
        return cls((FileFacts.of(str(whole), whole.name),), ((str(paths), str(whole), whole.name),))

    def read(self, first: int, num: int) -> bytes:
        """Return some bytes of the stream; an OSError if a file has changed."""
        read = []
        for file in self.files:
            if first < file.num_bytes and num > 0:
                with open(file.path, "rb") as opened:  # noqa: PTH123
                    facts = os.fstat(opened.fileno())
                    opened.seek(first)
                    read.append(opened.read(min(num, file.num_bytes - first)))
                if (facts.st_size, facts.st_mtime_ns) != (file.num_bytes, file.modified_ns):
                    raise OSError(f"{file.path} has changed since the search began")
                num -= len(read[-1])
            first = max(0, first - file.num_bytes)
        return b"".join(read)


@dataclass(frozen=True)
class FilesRequest:
    """Asks for the bundle of a key, or with a number for a part of its bytes."""

    key: str
    part: int | None = None


class NodeFilesError(Exception):
    """A node cannot get the files that its jobs read."""


class SharedFiles:
    """The files of a search, for nodes that do not see them; `put` is ``ray.put``."""

    def __init__(self, put: Callable[[bytes], Any]) -> None:
        self.session = secrets.token_hex(8)
        self.num_bytes_read = 0  # by requests, for diagnosis: the same for any number of trials
        self._put = put
        self._keys: dict[Path | tuple[Path, ...], str] = {}
        self._bundles: dict[str, Bundle] = {}
        self._parts: OrderedDict[FilesRequest, Any] = OrderedDict()

    def keys(self, files: LocalFiles) -> tuple[str, ...]:
        """Return the keys of files as they were when they were first described; an OSError if they are missing."""
        for paths in files:
            if paths not in self._keys:
                bundle = Bundle.of(paths)
                key = self._keys[paths] = f"{self.session}/{bundle.key}"
                self._bundles[key] = bundle
        return tuple(self._keys[paths] for paths in files)

    def answer(self, request: FilesRequest) -> Any:
        """Return the bundle, or the reference of a part's bytes; an error is an answer, too."""
        bundle = self._bundles[request.key]
        if request.part is None:
            return bundle
        if request not in self._parts:
            try:
                part = bundle.read(request.part * PART_BYTES, PART_BYTES)
            except OSError as error:
                return error
            self.num_bytes_read += len(part)
            self._parts[request] = self._put(part)
            if len(self._parts) > KEPT_PARTS:
                self._parts.popitem(last=False)
        return self._parts[request]


class NodeFiles:
    """The files of searches on this node, for one process.

    `ask` sends a request to the search and returns the answer, or raises it. Copies are in the node's `copies_folder`,
    in a folder of their search. It is removed by `remove_copies` when the search ends; if that was killed, when the
    next search copies files to the node.
    """

    def __init__(self, ask: Callable[[FilesRequest], Any]) -> None:
        self._ask = ask
        self._bundles: dict[str, Bundle] = {}
        self._in_place: set[str] = set()
        self._lease: filelock.BaseFileLock | None = None  # held as long as this process lives

    def paths(self, keys: Sequence[str]) -> dict[str, str]:
        """Return where files are on this node, by their paths in the trainable and the job.

        Raises a NodeFilesError, with the reason, if this node cannot get them.
        """
        found: dict[str, str] = {}
        for key in keys:
            if (bundle := self._bundles.get(key)) is None:
                bundle = self._bundles[key] = self._ask(FilesRequest(key))
                if all(file.is_here for file in bundle.files):
                    self._in_place.add(key)
            if key in self._in_place:
                found |= {path: whole for path, whole, _ in bundle.places}
            else:
                copy = self._copy(bundle, key)
                found |= {path: str(copy / name) for path, _, name in bundle.places}
        return found

    def _copy(self, bundle: Bundle, key: str) -> Path:
        """Return the folder with the copy, which this process makes unless another one of the node has made it."""
        try:
            folder = self._in_use(copies_folder() / key)
            with filelock.FileLock(f"{folder}.lock"):
                if not _is_whole(folder, bundle):
                    shutil.rmtree(folder, ignore_errors=True)  # a damaged copy
                    part = folder.with_suffix(".part")  # continued if a process was killed that wrote it
                    try:
                        self._write(bundle, key, part)
                    except OSError:
                        shutil.rmtree(part, ignore_errors=True)
                        raise
                    part.rename(folder)
        except OSError as error:
            reason = str(error)
            if is_disk_full(error):
                reason = (
                    f"{bundle.num_bytes / 1e6:,.1f} MB do not fit on the disk of {copies_folder()}. Free some space "
                    "there, or start Ray on that node with TMPDIR set to a folder on a larger disk"
                )
            raise NodeFilesError(f"node {platform.node()} cannot get {bundle.places[0][1]}: {reason}") from error
        return folder

    def _write(self, bundle: Bundle, key: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        disk = shutil.disk_usage(folder)
        num_written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if disk.free + num_written - bundle.num_bytes < min(RESERVED_BYTES, RESERVED_FRACTION * disk.total):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        first, number, part = 0, -1, b""
        for file in bundle.files:
            path = folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as opened:
                while (num_left := file.num_bytes - opened.tell()) > 0:
                    wanted, start = divmod(first + opened.tell(), PART_BYTES)
                    if number != wanted:
                        number, part = wanted, self._ask(FilesRequest(key, wanted))
                    opened.write(part[start : start + num_left])
            first += file.num_bytes

    def _in_use(self, folder: Path) -> Path:
        """Return the folder of a copy; this process has marked those of its search as in use."""
        own = folder.parent
        if self._lease is None or not own.is_dir():
            with filelock.FileLock(own.parent / ".lock"):
                for other in own.parent.iterdir():
                    if other.is_dir() and other != own and not _is_in_use(other):
                        shutil.rmtree(other, ignore_errors=True)
                leases = own / "leases"
                leases.mkdir(parents=True, exist_ok=True)
                self._lease = filelock.FileLock(leases / f"{os.getpid()}-{secrets.token_hex(4)}", thread_local=False)
                self._lease.acquire()
        return folder


def copies_folder() -> Path:
    """Return the folder with copies of files on this node: ``saccade-<user>`` in ``TMPDIR``, which only we can read."""
    user = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir(), f"saccade-{user}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and (folder.is_symlink() or folder.stat().st_uid != os.getuid()):
        raise PermissionError(f"{folder} belongs to another user; remove it, or set TMPDIR to another folder")
    return folder


def remove_copies(session: str) -> None:
    """Remove a search's copies from this node; processes that have opened them can still read them."""
    shutil.rmtree(copies_folder() / session, ignore_errors=True)


def _is_whole(folder: Path, bundle: Bundle) -> bool:
    try:
        return folder.is_dir() and all((folder / each.name).stat().st_size == each.num_bytes for each in bundle.files)
    except OSError:
        return False


def _is_in_use(folder: Path) -> bool:
    for path in (folder / "leases").glob("*"):
        try:
            filelock.FileLock(path).acquire(timeout=0).lock.release()
        except filelock.Timeout:
            return True
    return False


def dumps(content: Any) -> bytes:
    """Pickle a trainable or a job with its paths apart, so that `loads` can replace them."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(content)
    return buffer.getvalue()


def loads(pickled: bytes, paths: Mapping[str, str]) -> Any:
    """Load what `dumps` has written by our own process, with paths as `NodeFiles.paths` returns them."""
    unpickler = _Unpickler(io.BytesIO(pickled))
    unpickler.paths = paths
    return unpickler.load()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def persistent_id(self, content: Any) -> str | None:
        return str(content) if type(content) is type(Path()) else None


class _Unpickler(pickle.Unpickler):
    paths: Mapping[str, str]

    def persistent_load(self, name: str) -> Path:
        path = Path(name)
        for known in (path, *path.parents):
            if (found := self.paths.get(str(known))) is not None:
                return Path(found, path.relative_to(known))
        return path
