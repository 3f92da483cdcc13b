"""Download a file once into a cache folder: resume interrupted transfers, verify the file, move it into place.

A transfer may take 6 hours and 100 GB, or 10 GB if the server does not send the size, and must not become slower than
1 kB/s for 30 seconds. ``SACCADE_DOWNLOAD_LIMIT_S`` and ``SACCADE_MAX_DOWNLOAD_GB`` set other limits.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import queue
import re
import shutil
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import unquote, urlsplit

import httpx2
from filelock import FileLock
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from saccade.checks import bytes_from_environment
from saccade.errors import DownloadError, HyperparameterError
from saccade.remote.urls import UrlFile, cache_folder, is_remote, local_path_of_url

T = TypeVar("T")

SIZE_VARIABLE, TIME_VARIABLE = "SACCADE_MAX_DOWNLOAD_GB", "SACCADE_DOWNLOAD_LIMIT_S"
STALL_S, MIN_BYTES_PER_S = 30.0, 1000  # a transfer that is slower on average, for so many seconds, is interrupted

BACKOFF_S = (0.5, 1.0, 2.0)  # pauses between attempts without progress; the attempt after the last pause is final
_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_BLOCK_BYTES = 1 << 18
_BUSY_STATUSES = (408, 429, 500, 502, 503, 504)
_MAX_BYTES, _MAX_BYTES_OF_UNKNOWN = 100_000_000_000, 10_000_000_000
_MAX_S = 6 * 3600.0
_MIN_PROGRESS_BYTES = 10_000  # an attempt with less counts as one without progress
_EXPANDED_BYTES, _MAX_EXPANSION = 200_000_000, 100  # of a compressed response, the larger of both
_RESERVED_BYTES = 100_000_000  # kept free on the disk
_CHECKED_BYTES = 1 << 24  # after so many bytes, the free space is looked up again
_WEB_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*(<\?xml[^>]*>\s*)?<(!doctype html|html|head|body|title|meta|script)\b",
    re.IGNORECASE | re.DOTALL,
)
_ENCODINGS = ("", "identity", "gzip", "x-gzip")
_ANY_HEADER = 47  # window size of zlib that accepts gzip
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class _RetryError(Exception):
    """A response of the server that may be different at the next attempt; the message is the reason."""


def cached_file(url: str, cache: Path | None = None) -> Path | None:
    """Return the local file of a URL, if it was downloaded before or is a ``file://`` URL; no request is made."""
    if urlsplit(url).scheme.lower() in ("file", "local"):
        path = local_path_of_url(url)
    else:
        path = _folder_of(url, cache) / _file_name(url)
    return path if path.exists() else None


def _folder_of(url: str, cache: Path | None) -> Path:
    return (cache or cache_folder() / "downloads") / hashlib.sha256(url.encode()).hexdigest()[:16]


def fetch(url: str, cache: Path | None = None, sha256: str | None = None, *, quiet: bool = False) -> Path:
    """Download a file once into `cache`; a cached file of the web is returned without a request.

    An interrupted transfer is resumed if the server supports that and the file has not changed. The file of a
    ``file://`` URL is not copied. `sha256` is the expected digest, 64 hexadecimal digits. Raises a DownloadError if the
    server cannot be reached or refuses; if the transfer is interrupted repeatedly, or exceeds a limit of this module or
    the free disk space; if the server sends a web page instead of the file; or if the file has another digest.
    """
    scheme = urlsplit(url).scheme.lower()
    if scheme in ("file", "local"):
        path = local_path_of_url(url)
        if not path.exists():
            raise DownloadError(f"{url!r} cannot be read: {path} does not exist.")
        if sha256 is not None:
            _verify(path, sha256, url)
        return path
    if is_remote(url):
        return _fetch_remote(url, cache, sha256, quiet=quiet)
    folder = _folder_of(url, cache)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _file_name(url)
    with FileLock(folder / "lock"):
        if target.exists() and (sha256 is None or _digest(target) == sha256.lower()):
            return target
        part = folder / f"{target.name}.part"
        _download(url, part, quiet=quiet)
        if sha256 is not None:
            _verify(part, sha256, url, delete=True)
        _check_content(part, url)
        part.replace(target)
        _validator_file(part).unlink(missing_ok=True)
    return target


def _fetch_remote(url: str, cache: Path | None, sha256: str | None, *, quiet: bool) -> Path:
    """Download the file of an object store, again if it has changed there; the limits are those of other downloads."""
    file = UrlFile(url)
    num_bytes, version = file.facts()
    folder = _folder_of(f"{url} {version}", cache)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _file_name(url.replace("?", "%3F").replace("#", "%23"))
    with FileLock(folder / "lock"):
        if not target.exists():
            _Limits(url, target, num_bytes, 0, math.inf)  # raises an error for a file that is too large
            with transfer_progress(f"Fetching {target.name}", num_bytes, quiet=quiet):
                file.download(target)
        if sha256 is not None:
            _verify(target, sha256, url, delete=True)
    return target


def _file_name(url: str) -> str:
    """Return the last part of the URL, with characters that every file system allows."""
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
        _discard(path)
    raise DownloadError(
        f"{url} is not the expected file: its SHA-256 is {found}, expected {sha256.lower()}. "
        "Either the file was changed at its source, or the expected digest is wrong."
    )


def _check_content(part: Path, url: str) -> None:
    """Raise the error for no content, or a web page in place of a file, such as that of a login; remove it."""
    if not _size(part):
        _discard(part)
        raise DownloadError(f"{url} cannot be fetched: the server sent an empty file.")
    with part.open("rb") as file:
        is_page = _WEB_PAGE.match(file.read(512)) is not None
    if is_page and not _file_name(url).lower().endswith((".html", ".htm")):
        _discard(part)
        raise DownloadError(
            f"{url} is a web page (HTML), not a file. Open it in a browser: it may require a login, or contain the "
            "link of the file."
        )


def _download(url: str, part: Path, *, quiet: bool) -> None:
    """Download `url` into `part`; attempts without progress are limited, attempts with progress are not."""
    failures, farthest, deadline_s = 0, _size(part), time.monotonic() + time_limit_s()
    while True:
        try:
            _attempt(url, part, deadline_s, quiet=quiet)
        except (httpx2.TransportError, _RetryError) as error:
            if _size(part) > farthest + _MIN_PROGRESS_BYTES:
                failures, farthest = 0, _size(part)
            if failures == len(BACKOFF_S) or isinstance(error, httpx2.UnsupportedProtocol):
                raise DownloadError(f"{url} cannot be fetched: {_reason(url, error)}") from error
            time.sleep(BACKOFF_S[failures])
            failures += 1
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, zlib.error) as error:
            raise DownloadError(f"{url} cannot be fetched: {_reason(url, error)}") from error
        else:
            return


def time_limit_s() -> float:
    """Return the most seconds of a download."""
    given = os.environ.get(TIME_VARIABLE, "").strip()
    try:
        limit_s = float(given) if given else _MAX_S
    except ValueError:
        limit_s = 0.0
    if not limit_s > 0:
        raise HyperparameterError(f"{TIME_VARIABLE}={given!r} is not a time; expected a number of seconds above 0")
    return limit_s


def _attempt(url: str, part: Path, deadline_s: float, *, quiet: bool) -> None:
    """Download the missing bytes of `part`, or the whole file if it cannot be resumed."""
    version = _validator_file(part).read_text(encoding="utf-8") if _validator_file(part).exists() else ""
    validator = version.partition("\n")[0]
    num_kept = _size(part) if validator else 0
    # With compression, length and ranges would refer to the compressed bytes.
    headers = {"Accept-Encoding": "identity"}
    if num_kept:
        headers |= {"Range": f"bytes={num_kept}-", "If-Range": validator}
    with httpx2.Client(follow_redirects=True, timeout=_TIMEOUT) as client:
        request = client.build_request("GET", url, headers=headers)
        try:
            response = in_time(lambda: client.send(request, stream=True), 2 * STALL_S)
        except TimeoutError as error:
            raise _RetryError(f"{error}: the server sends its headers too slowly") from None
        with contextlib.closing(response):
            _check_status(url, response, part)
            num_kept = num_kept if response.status_code == 206 else 0
            total = _total_bytes(response, part, num_kept, version)
            limits = _Limits(url, part, total, num_kept, deadline_s)
            title = f"Fetching {'the rest of ' if num_kept else ''}{_file_name(url)} from {response.url.host}"
            with (
                part.open("ab" if num_kept else "wb") as file,
                transfer_progress(title, total, quiet=quiet) as report_done,
            ):
                if not num_kept:
                    # `open` has truncated the old content by now, so that the version belongs to the new content.
                    version = f"{_validator(response)}\n{'' if total is None else total}"
                    _validator_file(part).write_text(version, encoding="utf-8")
                for chunk in _content(response):
                    limits.check(len(chunk), response.num_bytes_downloaded)
                    file.write(chunk)
                    report_done(num_kept + response.num_bytes_downloaded)
            if total not in (None, num_kept + response.num_bytes_downloaded):
                raise _RetryError(f"received {num_kept + response.num_bytes_downloaded} of {total} bytes")


def _total_bytes(response: httpx2.Response, part: Path, num_kept: int, version: str) -> int | None:
    """Return the size of the whole file; None if it is not sent. An answer that is not the rest of `part` is an error.

    `version` are the validator of `part` and its size when it is whole, if they are known.
    """
    if response.status_code != 206:
        length = response.headers.get("Content-Length")
        return None if length is None else int(length)
    validator, _, known = version.partition("\n")
    found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not num_kept or found is None or int(found[1]) != num_kept:
        _discard(part)
        raise _RetryError("the server sent another range of the file than the requested one")
    if _validator(response) not in ("", validator) or (known and found[3] not in ("*", known)):
        _discard(part)
        raise _RetryError("the file has changed at the server since the transfer began")
    return None if found[3] == "*" else int(found[3])


def _content(response: httpx2.Response) -> Iterator[bytes]:
    """Yield the content without its compression; a _RetryError if that ends too early."""
    is_compressed = response.headers.get("Content-Encoding", "").strip().lower().endswith("gzip")
    decoder = zlib.decompressobj(_ANY_HEADER) if is_compressed else None
    # Without a chunk size: the bytes of an incomplete chunk before an interruption would be lost.
    for chunk in response.iter_raw():
        yield chunk if decoder is None else decoder.decompress(chunk)
    if decoder is not None and (not decoder.eof or decoder.unused_data):
        raise _RetryError("the compressed data ends too early, or has more after its end")


def in_time(
    call: Callable[[], T], limit_s: float, num_done: Callable[[], int] = lambda: 0, stall_s: float = math.inf
) -> T:
    """Return the result of a call in a daemon thread; raise a TimeoutError, and leave the thread, if it takes longer.

    It is also raised if `num_done` stays the same for `stall_s` seconds. For calls whose own timeouts hold for each
    read, so that a server could send one byte at a time.
    """
    answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((call(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=run, name="saccade-download", daemon=True).start()
    end_s, num_before = time.monotonic() + limit_s, num_done()
    while True:
        left_s = max(0.0, end_s - time.monotonic())
        try:
            result, error = answers.get(timeout=min(left_s, stall_s))
            break
        except queue.Empty:
            if left_s <= stall_s:
                raise TimeoutError(f"no answer within {limit_s:g} seconds") from None
            if num_done() == num_before:
                raise TimeoutError(f"no progress within {stall_s:g} seconds") from None
            num_before = num_done()
    if error is not None:
        raise error
    return cast("T", result)


class _Limits:
    """Limits of a transfer: `check` raises an error if one is exceeded."""

    def __init__(self, url: str, part: Path, total: int | None, num_bytes: int, deadline_s: float) -> None:
        given = bytes_from_environment(SIZE_VARIABLE)
        default = _MAX_BYTES_OF_UNKNOWN if total is None else _MAX_BYTES
        self._url, self._part, self._max_bytes = url, part, default if given is None else given
        self._num_bytes, self._num_expanded, self._deadline_s = num_bytes, 0, deadline_s
        self._window_start_s, self._num_in_window = time.monotonic(), 0
        self._num_checked = num_bytes
        if total is not None:
            self._check_size(total)
            self._check_disk(total - num_bytes)

    def check(self, num_new: int, num_transferred: int) -> None:
        """Count new bytes of the file, of which `num_transferred` were transferred in this attempt."""
        now_s = time.monotonic()
        if now_s > self._deadline_s:
            reason = f"the transfer takes too long; call again to resume it, or set {TIME_VARIABLE}"
            raise DownloadError(f"{self._url} cannot be fetched: {reason}.")
        self._num_bytes += num_new
        self._num_expanded += num_new
        self._num_in_window += num_new
        if self._num_expanded > max(_EXPANDED_BYTES, _MAX_EXPANSION * num_transferred):
            raise self._error("the server sent compressed data that expands without limit")
        if now_s > self._window_start_s + STALL_S:
            if self._num_in_window < MIN_BYTES_PER_S * STALL_S:
                raise _RetryError(f"the server sent {self._num_in_window} bytes in {STALL_S:g} seconds")
            self._window_start_s, self._num_in_window = now_s, 0
        self._check_size(self._num_bytes)
        if self._num_bytes > self._num_checked + _CHECKED_BYTES:
            self._num_checked = self._num_bytes
            self._check_disk(0)

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise self._error(
                f"it has {decimal(num_bytes)} or more, and the limit is {decimal(self._max_bytes)}; set {SIZE_VARIABLE}"
            )

    def _check_disk(self, num_bytes: int) -> None:
        num_free = shutil.disk_usage(self._part.parent).free
        if num_bytes + _RESERVED_BYTES > num_free:
            raise self._error(
                f"only {decimal(num_free)} are free in {self._part.parent}; set SACCADE_CACHE to a folder on a larger "
                "disk"
            )

    def _error(self, reason: str) -> DownloadError:
        _discard(self._part)
        return DownloadError(f"{self._url} cannot be fetched: {reason}.")


def _check_status(url: str, response: httpx2.Response, part: Path) -> None:
    """Raise the error for a status other than 200 and 206, or for a compression other than gzip."""
    status = response.status_code
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if status in (200, 206) and encoding not in _ENCODINGS:
        raise DownloadError(
            f"{url} cannot be fetched: the server compresses it as {encoding[:40]!r}, which was not asked for. "
            "Download it yourself and pass its path."
        )
    if status in (200, 206):
        return
    message = f"the server answered {status} {response.reason_phrase}".rstrip()
    if status == 416 and part.exists():
        part.unlink()
        raise _RetryError(message)
    if status in _BUSY_STATUSES:
        raise _RetryError(message)
    advice = {
        401: " It requires a login: download the file in a browser and pass its path.",
        403: " It may require a login: download the file in a browser and pass its path.",
        404: " There is no such file: check the URL.",
    }.get(status, "")
    raise DownloadError(f"{url} cannot be fetched: {message}.{advice}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _validator_file(part: Path) -> Path:
    """Return the file with the validator (ETag or date) of the version of `part`."""
    return part.with_name(f"{part.name}.version")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


def _validator(response: httpx2.Response) -> str:
    """Return the validator of the response, or "" if it does not allow to resume (RFC 9110, 13.1.5)."""
    etag: str = response.headers.get("ETag", "")
    if "Content-Encoding" in response.headers:
        return ""
    validator = etag if etag and not etag.startswith("W/") else str(response.headers.get("Last-Modified", ""))
    return validator if validator.isascii() else ""  # it is sent back in a header


def _reason(url: str, error: Exception) -> str:
    """Return why a request failed, for the error message."""
    host = urlsplit(url).hostname
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return f"the name {host!r} cannot be resolved. Check the spelling, and that this machine is online."
        if isinstance(cause, ConnectionRefusedError):
            return f"{host!r} refused the connection. Check the URL and its port."
        if isinstance(cause, ssl.SSLError):
            return f"no secure connection to {host!r}: {cause}."
        if isinstance(cause, httpx2.TimeoutException):
            return f"{host!r} did not answer in time."
        cause = cause.__cause__ or cause.__context__
    return f"{str(error) or type(error).__name__}."


@contextlib.contextmanager
def transfer_progress(title: str, total_bytes: int | None, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Yield a function of the number of bytes done, which shows a bar on a terminal; else print one line."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        if not quiet:
            size = "" if total_bytes is None else f" ({decimal(total_bytes)})"
            console.print(f"{title}{size}", markup=False, highlight=False, soft_wrap=True)
        yield lambda _num_bytes: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(title), total=total_bytes)
        yield lambda num_bytes: progress.update(task, completed=num_bytes)
