"""Unpacking zip and tar archives: wholly or not at all, and never outside their own folder.

No link and no permission bit of an archive is ever made on the disk: files are written as plain files, and
a link inside an archive becomes a copy of what it points to. So no order of members can lead a later one
astray.
"""

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
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from filelock import FileLock
from rich.filesize import decimal

from saccade.data.sources.progress import transfer_progress
from saccade.errors import ArchiveError

_COPY_BYTES = 1 << 20
_LONGEST_LINK_BYTES = 4096
_LONG_ARCHIVE_BYTES = 20_000_000  # unpacking less than this takes no time worth a progress bar
_TAR_BLOCK_BYTES = 512
_LITTER = "__MACOSX"
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)


@dataclass(frozen=True)
class _Member:
    """One entry of an archive. A folder has neither `open` nor `link`, and a link no `open`."""

    name: str
    num_bytes: int = 0
    open: Callable[[], IO[bytes]] | None = None
    link: str | None = None


def unpack(archive: Path, cache: Path, *, quiet: bool = False) -> Path:
    """Unpack a zip or tar archive into a folder of its own below `cache`, once.

    The folder appears complete or not at all, also when the process is killed or two do the same. Its name is
    made from the archive's path, size and time of change, so a changed archive is unpacked anew.

    Parameters
    ----------
    archive
        A zip, tar, tar.gz, tar.bz2 or tar.xz file, told by its content and not by its name.
    cache
        The folder in which the unpacked folder is made. It is created if need be.
    quiet
        Show no progress for large archives.

    Returns
    -------
    Path
        The folder that holds what was in the archive.

    Raises
    ------
    ArchiveError
        If the file is not an archive, is broken, encrypted or larger than the free disk space, or has a
        member that would land outside the folder (an absolute name, ``..``, a link that leads out) or is a
        device.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with zipfile.ZipFile(folder / "shoes.zip", "w") as file:
    ...     file.writestr("boots/1.txt", "a boot")
    >>> (unpack(folder / "shoes.zip", folder / "cache") / "boots" / "1.txt").read_text()
    'a boot'
    """
    target = cache / f"{_stem(archive)}-{_fingerprint(archive)}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{target.name}.lock"):
        if target.is_dir():  # another process was faster
            return target
        unfinished = target.with_name(f"{target.name}.part")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
        unfinished.mkdir()
        try:
            _extract_all(archive, unfinished, quiet=quiet or archive.stat().st_size < _LONG_ARCHIVE_BYTES)
            unfinished.rename(target)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return target


def _stem(archive: Path) -> str:
    """Return the file's name without what marks it as an archive."""
    return re.sub(r"(\.tar)?\.(zip|tar|tgz|tbz2?|txz|gz|bz2|xz)$", "", archive.name, flags=re.IGNORECASE)


def _fingerprint(archive: Path) -> str:
    """Twelve letters that change when the file at that path does."""
    facts = archive.stat()
    text = f"{archive.resolve()}|{facts.st_size}|{facts.st_mtime_ns}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def _extract_all(archive: Path, folder: Path, *, quiet: bool) -> None:
    """Write every member of `archive` below `folder`; what goes wrong in reading is an ArchiveError."""
    num_bytes = archive.stat().st_size
    with (
        archive.open("rb") as file,
        transfer_progress(f"Unpacking {archive.name}", num_bytes, quiet=quiet) as show,
    ):
        try:
            links = _extract_files(_members(file), folder, lambda: show(file.tell()))
            _copy_links(links, folder)
        except ArchiveError as error:
            raise ArchiveError(f"{archive} cannot be unpacked: {error}") from error
        except _BROKEN as error:
            raise ArchiveError(_broken(archive, error)) from error
        except NotImplementedError as error:  # zipfile's word for a rare compression method
            advice = "Unpack it yourself and pass the folder."
            raise ArchiveError(f"{archive} cannot be unpacked: {error}. {advice}") from error
        except OSError as error:
            if error.errno is not None:  # the operating system's: a full disk, a folder that may not be written
                raise
            raise ArchiveError(_broken(archive, error)) from error  # bz2 and gzip say so of bad data


def _broken(archive: Path, error: Exception) -> str:
    return f"{archive} is a broken archive ({error}). Was it copied or downloaded completely?"


def _extract_files(members: Iterator[_Member], folder: Path, show_done: Callable[[], None]) -> dict[str, str]:
    """Write the files and folders, and return the links: their names, and the names they point to."""
    links: dict[str, str] = {}
    num_free_bytes = shutil.disk_usage(folder).free
    num_bytes = 0
    for member in members:
        name = _safe_name(member.name)
        if _LITTER in PurePosixPath(name).parts:
            continue
        num_bytes += member.num_bytes
        if num_bytes > num_free_bytes:
            raise ArchiveError(
                f"its content is {decimal(num_bytes)} or more, and only {decimal(num_free_bytes)} "
                f"are free in {folder.parent}. Set SACCADE_CACHE to a folder on a larger disk."
            )
        if member.link is not None:
            links[name] = _safe_link(member.name, member.link)
        elif member.open is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            _make_parent(folder, name)
            with member.open() as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)
        show_done()
    return links


def _make_parent(folder: Path, name: str) -> None:
    try:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveError(f"its member {name!r} lies below a file, which cannot be.") from error
    if (folder / name).is_dir():
        raise ArchiveError(f"its member {name!r} is both a file and a folder.")


def _copy_links(links: dict[str, str], folder: Path) -> None:
    """Make each link a copy of the file that it points to, in the end."""
    for name, first_target in links.items():
        target, seen = first_target, {name}
        while target in links and target not in seen:
            seen.add(target)
            target = links[target]
        if not (folder / target).is_file():
            raise ArchiveError(f"its member {name!r} is a link to {first_target!r}, which is no file in it.")
        _make_parent(folder, name)
        shutil.copyfile(folder / target, folder / name)


def _safe_name(name: str) -> str:
    """Return the name of a member in its simplest form, or refuse one that could lead out of the folder."""
    path = PurePosixPath(name)
    is_drive = re.match(r"[A-Za-z]:", name) is not None
    if path.is_absolute() or ".." in path.parts or is_drive or "\0" in name:
        raise ArchiveError(
            f"its member {name!r} would land outside the folder that it is unpacked into. "
            "Such an archive is broken or an attack; get it from a source that you trust."
        )
    return str(path)


def _safe_link(name: str, target: str) -> str:
    """Return the member that a link points to, or refuse a link that leads out of the folder."""
    parts: list[str] = []
    for part in PurePosixPath(target).parts:
        if part == ".." and parts:
            parts.pop()
        elif part == ".." or part.startswith("/"):
            raise ArchiveError(f"its member {name!r} is a link that leads outside the archive, to {target!r}.")
        else:
            parts.append(part)
    return _safe_name("/".join(parts))


def _members(file: BinaryIO) -> Iterator[_Member]:
    """Read the archive from the open `file`, whichever kind it is."""
    if zipfile.is_zipfile(file):
        file.seek(0)
        yield from _zip_members(file)
        return
    file.seek(0)
    try:
        tar = tarfile.open(fileobj=file, mode="r:*")  # noqa: SIM115 (closed below)
    except (*_BROKEN, OSError) as error:
        file.seek(0)
        raise ArchiveError(
            f"it is no zip or tar file that can be read; it begins with {file.read(24)!r}. "
            "Was it copied or downloaded completely?"
        ) from error
    with tar:
        yield from _tar_members(tar)


def _zip_members(file: BinaryIO) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        encrypted = next((info.filename for info in infos if info.flag_bits & 0x1), None)
        if encrypted is not None:
            raise ArchiveError(
                f"it is encrypted (its member {encrypted!r} is). Unpack it yourself and pass the folder."
            )
        for info in infos:
            name = _zip_name(info)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                with archive.open(info) as link:
                    target = link.read(_LONGEST_LINK_BYTES).decode(errors="surrogateescape")
                at = PurePosixPath(name).parent
                yield _Member(name, info.file_size, link=target if target.startswith("/") else str(at / target))
            elif info.is_dir() or kind == stat.S_IFDIR:
                yield _Member(name)
            elif kind in (0, stat.S_IFREG):
                yield _Member(name, info.file_size, open=partial(archive.open, info))
            else:
                raise ArchiveError(f"its member {name!r} is a device or a pipe, not a file.")


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the member's name with forward slashes; in UTF-8 where the archive forgot to say so."""
    name = info.filename
    if not info.flag_bits & 0x800:  # without this flag, zipfile reads names as code page 437
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def _tar_members(tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar:
        if info.issym():
            target = info.linkname
            at = PurePosixPath(info.name).parent
            yield _Member(info.name, link=target if target.startswith("/") else str(at / target))
        elif info.islnk():
            yield _Member(info.name, link=info.linkname)
        elif info.isdir():
            yield _Member(info.name)
        elif info.isfile():
            yield _Member(info.name, info.size, open=partial(_open_tar_member, tar, info))
        else:
            raise ArchiveError(f"its member {info.name!r} is a device or a pipe, not a file.")
    # To tarfile a header that it cannot read is the end, so that a cut archive would pass for a whole one.
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    end = tar.fileobj.read(_TAR_BLOCK_BYTES)
    if len(end) < _TAR_BLOCK_BYTES or any(end):
        raise tarfile.ReadError("it ends too early")


def _open_tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    assert file is not None, "regular files can always be opened"
    return file
