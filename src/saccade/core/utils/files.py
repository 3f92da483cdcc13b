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
    """Download a file, and return its path.

    Parameters
    ----------
    url
        An ``http://``, ``https://`` or ``file://`` URL.
    path
        The file to write, or a folder: an existing one, or a path with a slash at its end. None is the working
        directory. In a folder, the file has the name of the URL.
    overwrite
        Download again if the file exists.
    sha1_hash
        Expected SHA-1 digest of the file. An existing file with another one is downloaded again.

    Raises
    ------
    DownloadError
        If it cannot be downloaded, or has another digest.

    Examples
    --------
    >>> download("https://example.org/shop.zip", "shop.zip", sha1_hash="2fd4e1c6…")   # doctest: +SKIP
    'shop.zip'
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

    Raises
    ------
    ArchiveError
        If the archive is damaged, or would write outside the folder; nothing is written then.
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
