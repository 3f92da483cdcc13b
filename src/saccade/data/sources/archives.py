"""Unpack zip and tar archives: completely or not at all, never outside their own folder, and within limits.

The content may be 100 times as large as the archive, or 200 MB, and have a member for each 200 bytes of the archive, or
100,000. ``SACCADE_MAX_UNPACKED_GB`` sets another limit in gigabytes.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from filelock import FileLock
from rich.filesize import decimal

from saccade.checks import bytes_from_environment
from saccade.data.sources.download import transfer_progress
from saccade.errors import ArchiveError

_COPY_BYTES = 1 << 20
_LONG_ARCHIVE_BYTES = 20_000_000  # smaller archives are unpacked before a progress bar could be read
_TAR_BLOCK_BYTES = 512
_LITTER = "__MACOSX"
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
_BROKEN_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_UNPACK_YOURSELF = "If you trust it, unpack it yourself and pass the folder."

LIMIT_VARIABLE = "SACCADE_MAX_UNPACKED_GB"
_MAX_BYTES, _MAX_RATIO = 200_000_000, 100  # of the content, the larger of both
_MAX_MEMBERS, _BYTES_OF_MEMBER = 100_000, 200  # a member takes at least so many bytes of a zip file
_TAR_BLOCKS_OF_MEMBER = 4  # a header, padding, and a header with block for a long name
_MAX_DEPTH = 100
_MAX_HEADER_BYTES = 1 << 18  # of a member; tarfile reads them into memory
_CHECKED_BYTES = 1 << 25  # of a tar file; the members in them are checked before anything is written
_ZIP_ENTRY = b"PK\x01\x02"
_OTHER_KINDS = {
    b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x04\x22\x4d\x18": "LZ4",
    b"LZIP": "lzip",
    b"\x1f\x9d": "compress",
}
_IS_WINDOWS = os.name == "nt"
_WINDOWS_DEVICE = re.compile(r'(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*[<>:"|?*\\].*|.*[. ]', re.IGNORECASE)


def unpack(archive: Path, cache: Path, *, quiet: bool = False) -> Path:
    """Unpack a zip or tar archive, recognised by its content, into a folder of its own below `cache`, once.

    The folder appears complete or not at all, even if the process is killed or two processes unpack the same archive.
    Its name depends on the archive's path, size and modification time. Tar archives are extracted by `tarfile` with its
    ``data`` filter; links in zip archives are refused. Raises an ArchiveError if the file is not an archive, is
    damaged, encrypted, or larger than the free disk space or the limits of this module; or if it has a member that lies
    outside the folder, is a device or a link to a folder, or has an invalid name.
    """
    stem = re.sub(r"(\.tar)?\.(zip|tar|tgz|tbz2?|txz|gz|bz2|xz)$", "", archive.name, flags=re.IGNORECASE)
    facts = archive.stat()
    key = f"{archive.resolve()}|{facts.st_size}|{facts.st_mtime_ns}".encode(errors="surrogateescape")
    target = cache / f"{stem}-{hashlib.sha256(key).hexdigest()[:12]}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{target.name}.lock"):
        if target.is_dir():  # another process was faster
            return target
        unfinished = target.with_name(f"{target.name}.part")
        shutil.rmtree(unfinished, ignore_errors=True)  # left by a process that was killed
        unfinished.mkdir()
        try:
            _extract(archive, unfinished, quiet=quiet or facts.st_size < _LONG_ARCHIVE_BYTES)
            unfinished.rename(target)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return target


def _extract(archive: Path, folder: Path, *, quiet: bool) -> None:
    """Write all members of `archive` below `folder`; turn every way in which that can fail into an ArchiveError."""
    limits = _Limits(archive, folder)
    broken = f"{archive} is a broken archive ({{}}). Was it copied or downloaded completely?"
    num_bytes = archive.stat().st_size
    with archive.open("rb") as file, transfer_progress(f"Unpacking {archive.name}", num_bytes, quiet=quiet) as show:
        try:
            for write in _members(file, folder, limits):
                write()
                show(file.tell())
        except (ArchiveError, tarfile.FilterError, NotImplementedError) as error:  # the last: a rare compression method
            raise ArchiveError(f"{archive} cannot be unpacked: {error}. {_UNPACK_YOURSELF}") from error
        # KeyError: a hard link to a member that does not exist; ValueError: names that are not Unicode, or contain NUL.
        except (*_BROKEN, KeyError, ValueError, OverflowError, RecursionError, struct.error) as error:
            raise ArchiveError(broken.format(error)) from error
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            name = Path(str(error.filename)).relative_to(folder)
            raise ArchiveError(broken.format(f"its member '{name}' is both a file and a folder")) from error
        except OSError as error:
            if error.errno not in (None, *_BROKEN_NAMES):  # of a full disk, or a folder without write permission
                raise
            if error.filename is None:  # bz2 and gzip, for bad data
                raise ArchiveError(broken.format(error)) from error
            raise ArchiveError(
                f"{archive} cannot be unpacked: this system does not accept the name of its member "
                f"{Path(str(error.filename)).name[:60]!r}… ({error.strerror})"
            ) from error


class _Limits:
    """Counts the members of an archive and their bytes, and raises an ArchiveError if they are too many."""

    def __init__(self, archive: Path, folder: Path) -> None:
        given, num_bytes = bytes_from_environment(LIMIT_VARIABLE), archive.stat().st_size
        self._max_bytes = max(_MAX_BYTES, _MAX_RATIO * num_bytes) if given is None else given
        self._max_members = max(_MAX_MEMBERS, max(num_bytes, given or 0) // _BYTES_OF_MEMBER)
        self._num_free, self._cache = shutil.disk_usage(folder).free, folder.parent
        self._ignores_case = folder.with_name(folder.name.swapcase()).exists()  # on such a file system
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self._num_bytes = self._num_members = 0
        self._names: dict[str, str] = {}

    def check(self, name: str, is_folder: bool, num_bytes: int) -> None:
        """Count a member, and check its name."""
        parts = PurePosixPath(name).parts
        if not parts and not is_folder:
            raise ArchiveError("it has a member without a name")
        if len(parts) > _MAX_DEPTH:
            raise ArchiveError(f"its member {name[:60]!r}… lies {len(parts)} folders deep, more than {_MAX_DEPTH}")
        if _IS_WINDOWS and (odd := next(filter(_WINDOWS_DEVICE.fullmatch, parts), "")):
            raise ArchiveError(f"Windows does not accept {odd!r} in the name of its member {name[:60]!r}")
        for path in [PurePosixPath(name), *PurePosixPath(name).parents] if self._ignores_case else ():
            key = unicodedata.normalize("NFC", str(path)).casefold()
            if (other := self._names.setdefault(key, str(path))) != str(path):
                raise ArchiveError(f"this file system cannot hold both of its members {other!r} and {str(path)!r}")
        self._num_bytes += num_bytes
        if self._num_bytes > self._num_free:
            raise ArchiveError(
                f"its content is {decimal(self._num_bytes)} or more, and only {decimal(self._num_free)} are free in "
                f"{self._cache}; set SACCADE_CACHE to a folder on a larger disk"
            )
        if self._num_bytes > self._max_bytes:
            raise self._error(f"its content is {decimal(self._num_bytes)} or more", decimal(self._max_bytes))
        self.check_number(self._num_members + 1)

    def check_number(self, num_members: int) -> None:
        """Check the number of members."""
        self._num_members = num_members
        if num_members > self._max_members:
            raise self._error(f"it has {num_members} or more members", str(self._max_members))

    def check_position(self, num_bytes: int) -> None:
        """Check the size of a decompressed tar file, with its headers."""
        most = self._max_bytes + _TAR_BLOCKS_OF_MEMBER * tarfile.BLOCKSIZE * self._max_members
        if num_bytes > most:
            raise self._error(f"its content is {decimal(num_bytes)} or more, with headers", decimal(most))

    def _error(self, what: str, limit: str) -> ArchiveError:
        return ArchiveError(
            f"{what}, and the limit for an archive of this size is {limit}. Set {LIMIT_VARIABLE} to change it"
        )


_Members = Iterator[Callable[[], None]]


def _members(file: BinaryIO, folder: Path, limits: _Limits) -> _Members:
    """Yield for each member a function that writes it below `folder`."""
    if zipfile.is_zipfile(file):
        yield from _zip_members(file, folder, limits)
        return
    try:
        tar, stream = _open_tar(file, limits)
    except ArchiveError:
        raise
    except (*_BROKEN, OSError) as error:
        file.seek(0)
        start = file.read(24)
        if kind := next((kind for magic, kind in _OTHER_KINDS.items() if start.startswith(magic)), ""):
            raise ArchiveError(f"it is a file of {kind}, and only zip and tar files can be unpacked") from error
        raise ArchiveError(
            f"it is not a zip or tar file; it begins with {start!r}. Check that it was copied or downloaded completely"
        ) from error
    with tar:
        for _ in _tar_infos(tar, stream, limits):
            if file.tell() > _CHECKED_BYTES:
                break
    limits.reset()
    tar, stream = _open_tar(file, limits)
    with tar:
        yield from _tar_members(tar, stream, folder, limits)


class _TarStream:
    """A tar file without its compression, whose headers are limited."""

    def __init__(self, file: BinaryIO, limits: _Limits) -> None:
        file.seek(0)
        start = file.read(6)
        file.seek(0)
        self._file: Any = file
        if start.startswith(b"\x1f\x8b"):
            self._file = gzip.GzipFile(fileobj=file)
        elif start.startswith(b"BZh"):
            self._file = bz2.BZ2File(file)
        elif start.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
            self._file = lzma.LZMAFile(file)  # noqa: SIM115 (the file below it is closed)
        self._limits = limits
        self.num_header_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Read as a file does."""
        self.num_header_bytes += size
        if size < 0 or self.num_header_bytes > _MAX_HEADER_BYTES:
            raise ArchiveError(f"it has a member with headers of more than {decimal(_MAX_HEADER_BYTES)}")
        return bytes(self._file.read(size))

    def read_content(self, size: int) -> bytes:
        """Read something else than a header."""
        self._limits.check_position(self.tell())
        return bytes(self._file.read(size))

    def seek(self, offset: int) -> int:
        """Go to an absolute position."""
        self._limits.check_position(offset)
        return int(self._file.seek(offset))

    def tell(self) -> int:
        """Return the position."""
        return int(self._file.tell())


def _open_tar(file: BinaryIO, limits: _Limits) -> tuple[tarfile.TarFile, _TarStream]:
    stream = _TarStream(file, limits)
    return tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:"), stream


class _ZipStream:
    """A zip file whose number of members is checked before zipfile makes an object of each."""

    def __init__(self, file: BinaryIO, limits: _Limits) -> None:
        self._file, self._limits = file, limits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Read as a file does."""
        content = self._file.read(size)
        if content.startswith(_ZIP_ENTRY):  # all entries of the central directory are read at once
            self._limits.check_number(content.count(_ZIP_ENTRY))
            self._limits.reset()
        return content


def _zip_members(file: BinaryIO, folder: Path, limits: _Limits) -> _Members:
    with zipfile.ZipFile(cast("IO[bytes]", _ZipStream(file, limits))) as archive:
        members = archive.infolist()
        for info in members:  # all of them before the first is written
            name = info.filename.replace("\\", "/")
            limits.check(name, name.endswith("/"), info.file_size)
        for info in members:
            name = info.filename
            if info.flag_bits & 0x1:
                raise ArchiveError(f"it is encrypted (its member {name!r} is)")
            if not info.flag_bits & 0x800:  # without this flag, zipfile reads names as code page 437
                with contextlib.suppress(UnicodeError):
                    name = name.encode("cp437").decode("utf-8")
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", str(path)):
                raise ArchiveError(f"its member {name!r} would land outside the folder")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(f"its member {name!r} is a link, a device or a pipe, not a file")
            if _LITTER in path.parts:
                continue
            yield partial(_write_zip_member, archive, info, folder / path, info.is_dir() or kind == stat.S_IFDIR)


def _write_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, is_folder: bool) -> None:
    (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
    if is_folder:
        return
    with archive.open(info) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, _COPY_BYTES)
        if target.tell() != info.file_size:
            raise zipfile.BadZipFile(f"the size of {info.filename!r} is wrong")


def _tar_infos(tar: tarfile.TarFile, stream: _TarStream, limits: _Limits) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar file, which are checked and not kept in memory."""
    sizes: dict[str, int] = {}
    while (info := tar.next()) is not None:
        name, target = str(PurePosixPath(info.name)), str(PurePosixPath(info.linkname))
        if info.islnk() and (target not in sizes or target == name):
            raise KeyError(f"the hard link {name!r} is to {target!r}, which does not precede it")
        # A hard link counts as a copy, which it is on file systems without links.
        sizes[name] = sizes[target] if info.islnk() else info.size
        limits.check(info.name, info.isdir(), sizes[name])
        if sum(map(len, tar.pax_headers.values())) > _MAX_HEADER_BYTES:
            raise ArchiveError(f"it has global headers of more than {decimal(_MAX_HEADER_BYTES)}")
        tar.members.clear()  # type: ignore[attr-defined]  # it keeps all of them
        yield info
        stream.num_header_bytes = 0


def _tar_members(tar: tarfile.TarFile, stream: _TarStream, folder: Path, limits: _Limits) -> _Members:
    if not hasattr(tarfile, "data_filter"):  # Python before 3.10.12 and 3.11.4
        raise ArchiveError("this version of Python has no safe way to unpack it; use 3.12 or later")
    links: list[str] = []
    for info in _tar_infos(tar, stream, limits):
        links += [info.name] if info.issym() else []
        if _LITTER in PurePosixPath(info.name).parts:
            continue

        def write(info: tarfile.TarInfo = info) -> None:
            stream.num_header_bytes = -info.size  # its content is read next
            tar.extract(info, folder, set_attrs=False, filter="data")

        yield write
    for link in links:
        if (folder / link).is_dir():  # a few of them can make a tree of any size
            raise ArchiveError(f"its member {link!r} is a link to a folder")
    # tarfile takes a header that it cannot read for the end of the archive, so a truncated archive would pass. A
    # compressed file is compared with its checksum when its end is read.
    stream.seek(tar.offset)
    if stream.read_content(_TAR_BLOCK_BYTES) != bytes(_TAR_BLOCK_BYTES):
        raise tarfile.ReadError("it ends too early")
    while rest := stream.read_content(_COPY_BYTES):
        if rest.strip(b"\0"):
            raise tarfile.ReadError("it has more content after its end, such as a second archive")
