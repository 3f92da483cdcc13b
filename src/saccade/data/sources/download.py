"""Fetching a file once into a cache folder: resumed when broken off, verified, then moved into place."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import httpx2
from filelock import FileLock

from saccade.data.sources.progress import transfer_progress
from saccade.errors import DownloadError

BACKOFF_S = (0.5, 1.0, 2.0)  # pauses between attempts that got no further; after the last one we give up
_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_BLOCK_BYTES = 1 << 18
_BUSY_STATUSES = (408, 429, 500, 502, 503, 504)


class _TryAgainError(Exception):
    """The server's answer was no use this time; the message says why."""


def cache_folder() -> Path:
    """Return the folder in which fetched and unpacked files are kept; it need not exist.

    It is ``$SACCADE_CACHE`` where that is set, else ``saccade`` in the platform's cache folder, such as
    ``~/.cache``.

    Examples
    --------
    >>> cache_folder().is_absolute()
    True
    """
    own = os.environ.get("SACCADE_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "saccade" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "saccade"
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path there is to be ignored.
    return (Path(shared) if shared.startswith("/") else Path.home() / ".cache") / "saccade"


def fetch(url: str, cache: Path | None = None, sha256: str | None = None, *, quiet: bool = False) -> Path:
    """Fetch a file once; when it is already in the cache, nothing is sent.

    A transfer that broke off is resumed where the server allows that and the file has not changed. To fetch a
    file anew, delete the one that this returned.

    Parameters
    ----------
    url
        An ``http://``, ``https://`` or ``file://`` address. A ``file://`` one is not copied.
    cache
        The folder to keep it in; None for ``downloads`` in `cache_folder`.
    sha256
        The SHA-256 digest that the file must have, 64 hexadecimal digits.
    quiet
        Show no progress.

    Returns
    -------
    Path
        The complete file.

    Raises
    ------
    DownloadError
        If the address cannot be reached, the server refuses, the transfer keeps breaking off, or the file has
        another digest than `sha256`.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = path.write_text("image,label")
    >>> fetch(path.as_uri()) == path
    True
    """
    scheme = urlsplit(url).scheme.lower()
    if scheme == "file":
        path = _path_of_file_url(url)
        if sha256 is not None:
            _verify(path, sha256, url)
        return path
    if scheme not in ("http", "https"):
        raise DownloadError(
            f"{url!r} cannot be fetched: expected http://, https:// or file://. Download it yourself and pass its path."
        )
    folder = (cache or cache_folder() / "downloads") / hashlib.sha256(url.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _file_name(url)
    with FileLock(folder / "lock"):
        if target.exists() and (sha256 is None or _digest(target) == sha256.lower()):
            return target
        part = folder / f"{target.name}.part"
        _download(url, part, quiet=quiet)
        if sha256 is not None:
            _verify(part, sha256, url, delete=True)
        part.replace(target)
        _validator_file(part).unlink(missing_ok=True)
    return target


def _path_of_file_url(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise DownloadError(f"{url!r} names a file on the host {parts.netloc!r}; expected file:///path.")
    path = Path(url2pathname(parts.path))
    if not path.exists():
        raise DownloadError(f"{url!r} cannot be read: there is no {path}.")
    return path


def _file_name(url: str) -> str:
    """Return the last part of the address, made fit for any file system."""
    name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name).strip(". ")[-100:] or "download"


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _verify(path: Path, sha256: str, url: str, *, delete: bool = False) -> None:
    found = _digest(path)
    if found == sha256.lower():
        return
    if delete:
        path.unlink()
        _validator_file(path).unlink(missing_ok=True)
    raise DownloadError(
        f"{url} is not the expected file: its SHA-256 is {found}, expected {sha256.lower()}. "
        "Either the file was changed at its source, or the expected digest is wrong."
    )


def _download(url: str, part: Path, *, quiet: bool) -> None:
    """Fetch `url` into `part`, in as many attempts as it takes while each gets further than the last."""
    failures, farthest = 0, _size(part)
    while True:
        try:
            _attempt(url, part, quiet=quiet)
        except (httpx2.TransportError, _TryAgainError) as error:
            if _size(part) > farthest:
                failures, farthest = 0, _size(part)
            if failures == len(BACKOFF_S) or isinstance(error, httpx2.UnsupportedProtocol):
                raise DownloadError(f"{url} cannot be fetched: {_reason(url, error)}") from error
            time.sleep(BACKOFF_S[failures])
            failures += 1
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise DownloadError(f"{url} cannot be fetched: {_reason(url, error)}") from error
        else:
            return


def _attempt(url: str, part: Path, *, quiet: bool) -> None:
    """Fetch what is missing of `part`, or all of it where it cannot be continued."""
    num_kept, validator = _resumable(part)
    # Compressed on the way, the length and the ranges would count other bytes than the file's.
    headers = {"Accept-Encoding": "identity"}
    if num_kept:
        headers |= {"Range": f"bytes={num_kept}-", "If-Range": validator}
    with httpx2.stream("GET", url, headers=headers, follow_redirects=True, timeout=_TIMEOUT) as response:
        _check_status(url, response, part)
        if response.status_code != 206:
            num_kept = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {num_kept}-"):
            part.unlink()
            raise _TryAgainError("the server sent another part of the file than was asked for")
        length = response.headers.get("Content-Length")
        total = None if length is None else num_kept + int(length)
        title = f"Fetching {'the rest of ' if num_kept else ''}{_file_name(url)} from {response.url.host}"
        with (
            part.open("ab" if num_kept else "wb") as file,
            transfer_progress(title, total, quiet=quiet) as show_done,
        ):
            # Only after the old content is gone may the new content's mark be written.
            _validator_file(part).write_text(_validator(response), encoding="utf-8")
            # Of no given size, for else what came of an unfinished chunk before a break would be lost.
            for chunk in response.iter_bytes():
                file.write(chunk)
                show_done(num_kept + response.num_bytes_downloaded)
        if length is not None and response.num_bytes_downloaded != int(length):
            raise _TryAgainError(f"{response.num_bytes_downloaded} bytes came instead of {length}")


def _check_status(url: str, response: httpx2.Response, part: Path) -> None:
    """Raise what fits an answer other than "here it is"."""
    status = response.status_code
    if status in (200, 206):
        return
    said = f"the server answered {status} {response.reason_phrase}".rstrip()
    if status == 416 and part.exists():
        part.unlink()
        raise _TryAgainError(said)
    if status in _BUSY_STATUSES:
        raise _TryAgainError(said)
    advice = {
        401: " It asks for a login: download the file in a browser and pass its path.",
        403: " It may ask for a login: download the file in a browser and pass its path.",
        404: " There is no such file: check the address.",
    }.get(status, "")
    raise DownloadError(f"{url} cannot be fetched: {said}.{advice}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _validator_file(part: Path) -> Path:
    """Return the file that keeps the mark by which the server knows the version that `part` is of."""
    return part.with_name(f"{part.name}.version")


def _validator(response: httpx2.Response) -> str:
    """Return the mark of the answer's version, or nothing where it cannot be continued (RFC 9110, 13.1.5)."""
    etag: str = response.headers.get("ETag", "")
    if "Content-Encoding" in response.headers:
        return ""
    if etag and not etag.startswith("W/"):
        return etag
    return str(response.headers.get("Last-Modified", ""))


def _resumable(part: Path) -> tuple[int, str]:
    """Return how many bytes of `part` can be kept, and the mark of the version that they are of."""
    mark = _validator_file(part)
    validator = mark.read_text(encoding="utf-8") if mark.exists() else ""
    return (_size(part), validator) if validator else (0, "")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _reason(url: str, error: Exception) -> str:
    """Say in plain words why a request failed."""
    host = urlsplit(url).hostname
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return f"the name {host!r} cannot be looked up. Is it spelt right, and is this machine online?"
        if isinstance(cause, ConnectionRefusedError):
            return f"{host!r} refused the connection. Is the address right, with its port?"
        if isinstance(cause, ssl.SSLError):
            return f"no secure connection to {host!r}: {cause}."
        if isinstance(cause, httpx2.TimeoutException):
            return f"{host!r} did not answer in time."
    return f"{str(error) or type(error).__name__}."
