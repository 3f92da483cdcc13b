"""The one door for images: a folder, an archive or an address becomes a folder on this machine."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

from saccade.data.sources.archives import unpack
from saccade.data.sources.download import cache_folder, fetch
from saccade.errors import DataError, near_names


def is_url(text: str | Path) -> bool:
    """Tell whether this is an address with a scheme, such as ``https://host/file.zip``, rather than a path.

    Examples
    --------
    >>> is_url("https://host/file.zip"), is_url("images/train"), is_url("C:/images")
    (True, False, False)
    """
    return isinstance(text, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def local_file(path: str | Path, *, sha256: str | None = None, quiet: bool = False) -> Path:
    """Return the absolute path of a file or folder that exists, fetching it first if it is an address.

    Raises
    ------
    DataError
        If there is no such file; the message says how far the path exists, and names near ones.
    DownloadError
        If an address cannot be fetched.

    Examples
    --------
    >>> local_file(".") == Path.cwd()
    True
    """
    if is_url(path):
        return fetch(str(path), sha256=sha256, quiet=quiet)
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise DataError(_missing(path, found))
    return found


def local_path(root: str | Path, *, sha256: str | None = None, quiet: bool = False) -> Path:
    """Return a folder on this machine for a folder, an archive, or the address of an archive.

    Parameters
    ----------
    root
        A folder, returned as an absolute path; a zip or tar archive, which is unpacked into the cache; or the
        address of one (``http://``, ``https://``, ``file://``), which is fetched first. Both are done only
        once.
    sha256
        The digest that a fetched file must have, in hexadecimal.
    quiet
        Show no progress.

    Raises
    ------
    DataError
        If there is no such file or folder, or it is a file but no archive.
    ArchiveError
        If an archive is broken or unsafe; see `saccade.data.sources.archives.unpack`.
    DownloadError
        If an address cannot be fetched; see `saccade.data.sources.download.fetch`.

    Examples
    --------
    >>> local_path(".") == Path.cwd()
    True
    """
    found = local_file(root, sha256=sha256, quiet=quiet)
    if found.is_dir():
        return found
    if not is_url(root) and not _looks_like_archive(found):
        raise DataError(
            f"{str(root)!r} is a file, but neither a zip nor a tar archive. "
            "Expected a folder, an archive of one, or the address of an archive."
        )
    return unpack(found, cache_folder() / "unpacked", quiet=quiet)


def _looks_like_archive(path: Path) -> bool:
    """Tell an archive, even a broken one, of which `unpack` will say what is wrong with it."""
    by_name = re.search(r"\.(zip|tar|tgz|tbz2?|txz|tar\.\w+)$", path.name, flags=re.IGNORECASE)
    return by_name is not None or zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def _missing(given: str | Path, path: Path) -> str:
    """Say how far a path exists, and what is there instead of what was meant."""
    above = next(parent for parent in path.parents if parent.exists())
    name = path.relative_to(above).parts[0]
    message = f"There is no {str(given)!r} (looked for {path})."
    if not above.is_dir():
        return f"{message} {above} is a file."
    names = sorted(entry.name for entry in above.iterdir() if not entry.name.startswith("."))
    near = near_names(name, names)
    if near:
        return f"{message} Did you mean {' or '.join(repr(str(above / match)) for match in near)}?"
    inside = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") if names else "nothing"
    return f"{message} {above} exists and holds: {inside}."
