"""Download and unpack files as ``autogluon.core.utils.files`` does; `ImageDataset.from_folders` does both by itself."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from os import PathLike
from pathlib import Path


def download(
    url: str, path: str | PathLike[str] | None = None, overwrite: bool = False, sha1_hash: str | None = None
) -> str:
    """Download a file from an ``http://``, ``https://`` or ``file://`` URL, and return its path.

    `path` is the file to write, or a folder, in which the file has the name of the URL: an existing one, a path with a
    slash at its end, or by default the working directory. A file that exists is kept, unless `overwrite`, or if its
    SHA-1 digest is not `sha1_hash`. Raises a DownloadError if it cannot be downloaded, or has another digest.
    """
    from saccade.data.sources.download import fetch  # lazily, as tuning does without it
    from saccade.errors import DownloadError

    name = url.partition("?")[0].partition("#")[0].rstrip("/").rpartition("/")[2]
    file = Path(name) if path is None else Path(path).expanduser()
    is_folder = file.is_dir() or str(path).endswith(("/", os.sep))
    file = file / name if is_folder else file
    if overwrite or not file.is_file() or (sha1_hash and not _has_sha1(file, sha1_hash)):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download_", dir=file.parent) as folder:
            complete = shutil.copyfile(fetch(url, Path(folder) / "fetched"), Path(folder) / name)
            if sha1_hash and not _has_sha1(complete, sha1_hash):
                raise DownloadError(f"{url} was downloaded, but its SHA-1 digest is not {sha1_hash}")
            complete.replace(file)
    return str(file)


def unzip(zip_file_path: str | PathLike[str], root: str | PathLike[str] = "./") -> str | tuple[str, ...]:
    """Unpack a zip or tar archive into a folder, and return the name of its top folder, or all names if it has several.

    Raises an ArchiveError if it is damaged, or would write outside the folder; nothing is written then.
    """
    from saccade.data.sources.archives import unpack  # lazily, as tuning does without it

    target = Path(root).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unzip_", dir=target) as folder:
        unpacked = unpack(Path(zip_file_path).expanduser(), Path(folder))
        names = sorted(entry.name for entry in unpacked.iterdir())
        shutil.copytree(unpacked, target, dirs_exist_ok=True)
    return names[0] if len(names) == 1 else tuple(names)


def _has_sha1(file: Path, expected: str) -> bool:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest() == expected.lower()
