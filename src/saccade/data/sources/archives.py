"""Unpack zip and tar archives: completely or not at all, and never outside their own folder."""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from filelock import FileLock
from rich.filesize import decimal

from saccade.data.sources.download import transfer_progress
from saccade.errors import ArchiveError

_COPY_BYTES = 1 << 20
_LONG_ARCHIVE_BYTES = 20_000_000  # smaller archives are unpacked before a progress bar could be read
_TAR_BLOCK_BYTES = 512
_LITTER = "__MACOSX"
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
_UNPACK_YOURSELF = "If you trust it, unpack it yourself and pass the folder."


def unpack(archive: Path, cache: Path, *, quiet: bool = False) -> Path:
    """Unpack a zip or tar archive into a folder of its own below `cache`, once.

    The folder appears complete or not at all, even if the process is killed or two processes unpack the same
    archive. Its name depends on the archive's path, size and modification time, so a changed archive is unpacked again.

    Parameters
    ----------
    archive
        A zip, tar, tar.gz, tar.bz2 or tar.xz file, recognised by its content.
    cache
        The folder in which the unpacked folder is made. It is created if necessary.
    quiet
        Show no progress for large archives.

    Returns
    -------
    Path
        The folder with the content of the archive.

    Raises
    ------
    ArchiveError
        If the file is not an archive, is damaged, encrypted or larger than the free disk space, or has a member that
        lies outside the folder (an absolute name, ``..``, a link that leads out) or is a device.

    Notes
    -----
    Tar archives are extracted by `tarfile` with its ``data`` filter. Links in zip archives are refused.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with zipfile.ZipFile(folder / "shoes.zip", "w") as file:
    ...     file.writestr("boots/1.txt", "a boot")
    >>> (unpack(folder / "shoes.zip", folder / "cache") / "boots" / "1.txt").read_text()
    'a boot'
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
    num_bytes, num_free_bytes, num_written = archive.stat().st_size, shutil.disk_usage(folder).free, 0
    broken = f"{archive} is a broken archive ({{}}). Was it copied or downloaded completely?"
    with archive.open("rb") as file, transfer_progress(f"Unpacking {archive.name}", num_bytes, quiet=quiet) as show:
        try:
            for num_member_bytes, write in _members(file, folder):
                num_written += num_member_bytes
                if num_written > num_free_bytes:
                    raise ArchiveError(
                        f"its content is {decimal(num_written)} or more, and only {decimal(num_free_bytes)} "
                        f"are free in {folder.parent}; set SACCADE_CACHE to a folder on a larger disk"
                    )
                write()
                show(file.tell())
        except (ArchiveError, tarfile.FilterError, NotImplementedError) as error:  # the last: a rare compression method
            raise ArchiveError(f"{archive} cannot be unpacked: {error}. {_UNPACK_YOURSELF}") from error
        except (*_BROKEN, KeyError) as error:  # KeyError: a hard link to a member that does not exist
            raise ArchiveError(broken.format(error)) from error
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            name = Path(str(error.filename)).relative_to(folder)
            raise ArchiveError(broken.format(f"its member '{name}' is both a file and a folder")) from error
        except OSError as error:
            if error.errno is not None:  # of the operating system: a full disk, a folder without write permission
                raise
            raise ArchiveError(broken.format(error)) from error  # bz2 and gzip, for bad data


_Members = Iterator[tuple[int, Callable[[], None]]]


def _members(file: BinaryIO, folder: Path) -> _Members:
    """Yield the size of each member in bytes, and a function that writes it below `folder`."""
    if zipfile.is_zipfile(file):
        yield from _zip_members(file, folder)
        return
    file.seek(0)
    try:
        tar = tarfile.open(fileobj=file, mode="r:*")  # noqa: SIM115 (closed below)
    except (*_BROKEN, OSError) as error:
        file.seek(0)
        raise ArchiveError(
            f"it is not a zip or tar file; it begins with {file.read(24)!r}. Check that it was copied or downloaded "
            "completely"
        ) from error
    with tar:
        yield from _tar_members(tar, folder)


def _zip_members(file: BinaryIO, folder: Path) -> _Members:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
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

            def write(info: zipfile.ZipInfo = info, path: Path = folder / path, kind: int = kind) -> None:
                if info.is_dir() or kind == stat.S_IFDIR:
                    path.mkdir(parents=True, exist_ok=True)
                    return
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target, _COPY_BYTES)

            yield info.file_size, write


def _tar_members(tar: tarfile.TarFile, folder: Path) -> _Members:
    if not hasattr(tarfile, "data_filter"):  # Python before 3.10.12 and 3.11.4
        raise ArchiveError("this version of Python has no safe way to unpack it; use 3.12 or later")
    for info in tar:
        if _LITTER in PurePosixPath(info.name).parts:
            continue

        def write(info: tarfile.TarInfo = info) -> None:
            tar.extract(info, folder, set_attrs=False, filter="data")

        yield info.size, write
    # tarfile takes a header that it cannot read for the end of the archive, so a truncated archive would pass.
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    end = tar.fileobj.read(_TAR_BLOCK_BYTES)
    if len(end) < _TAR_BLOCK_BYTES or any(end):
        raise tarfile.ReadError("it ends too early")
