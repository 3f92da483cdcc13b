"""Files at URLs of object stores and cluster file systems, such as ``s3://`` and ``hdfs://``, by fsspec.

Credentials, endpoints and other options are those of fsspec: environment variables of the service (``AWS_…``), and
fsspec's own (``FSSPEC_S3_ENDPOINT_URL=…``) and configuration files. Addresses with ``http://`` and ``https://`` are
downloaded by `saccade.data.sources.download` instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from saccade.errors import DataError, RemoteError, UnknownNameError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

NUM_THREADS = 32  # for requests, whose time is mostly spent waiting
BACKOFF_S = (1.0,)  # pauses between attempts; the file systems retry requests themselves

_URL = re.compile(r"([a-z0-9+.-]+(://[^:]*)?::)*[A-Za-z][A-Za-z0-9+.-]+://")
_PATH_OF_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):[/\\][^/\\]")
_NOT_FSSPEC = ("http", "https", "file", "local")
# Stores in which an object appears when it is complete. Elsewhere files are written beside their place and renamed.
_ATOMIC = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "memory"))
_USUAL = ("s3", "gs", "az", "abfs", "hdfs", "webhdfs", "sftp", "memory", "file", "http", "https")
_VERSION_KEYS = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)
_FINAL = (FileExistsError, IsADirectoryError, NotADirectoryError, NotImplementedError, TypeError, ValueError)
_NO_CREDENTIALS = ("NoCredentialsError", "DefaultCredentialsError", "PartialCredentialsError", "ProfileNotFound")
_DENIED = ("ClientAuthenticationError", "RefreshError", "TokenRetrievalError", "UnauthorizedSSOTokenError")
_LOGGERS = ("s3fs", "gcsfs", "adlfs", "azure", "fsspec")
_MISSING = ("ResourceNotFoundError", "NoSuchBucket")


def is_url(text: object) -> bool:
    """Return whether this is a URL with a scheme, such as ``https://host/file.zip``, rather than a path."""
    return isinstance(text, str) and _URL.match(text) is not None


def is_remote(text: object) -> bool:
    """Return whether this is a URL that fsspec reads: not ``http``, ``https``, or that of a local file.

    Examples
    --------
    >>> [is_remote(each) for each in ("s3://bucket/a.png", "https://host/a.png", "file:///a.png", "C://a.png", "a.png")]
    [True, False, False, False, False]
    """
    return isinstance(text, str) and is_url(text) and text.partition("://")[0].lower() not in _NOT_FSSPEC


def place_of(path: str | os.PathLike[str]) -> Path | str:
    """Return the absolute path of a folder, or its URL without a slash at the end; a DataError for other addresses."""
    if isinstance(path, PurePath) and _PATH_OF_URL.match(str(path)) and not Path(path).exists():
        raise DataError(f"{path} was given as a Path, which has lost a slash of its URL. Pass the URL as text: a str")
    text = os.fspath(path)
    if is_remote(text):
        return text.rstrip("/")
    if is_url(text):
        if text.lower().startswith("http"):
            raise DataError(f"{text!r} is an address of the web. Pass a local folder, or a URL such as s3://bucket/run")
        return local_path_of_url(text)
    return Path(text).expanduser().absolute()


def output_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a file to write; a DataError for a URL, also one that a `Path` has shortened."""
    if is_url(text := os.fspath(path)) or (_PATH_OF_URL.match(text) and not Path(text).parent.is_dir()):
        raise DataError(f"{text} is a URL, but this file is written to a local path only. Pass one, and copy the file")
    return Path(text).expanduser().absolute()


def local_path_of_url(url: str) -> Path:
    """Return the path in a ``file://`` or ``local://`` URL; a RemoteError if it names another host."""
    if url.lower().startswith("local:"):
        return Path(url.partition("://")[2]).expanduser().absolute()
    parts = urlsplit(url.replace("#", "%23").replace("?", "%3F"))  # they are parts of names
    if parts.netloc not in ("", "localhost"):
        raise RemoteError(f"{url!r} names a file on the host {parts.netloc!r}; expected file:///path.")
    return Path(url2pathname(parts.path))


def cache_folder() -> Path:
    """Return ``$SACCADE_CACHE``, else ``saccade`` in the platform's cache folder; it may not exist yet."""
    own = os.environ.get("SACCADE_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "saccade" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "saccade"
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification requires to ignore a relative path.
    return (Path(shared) if shared.startswith("/") else Path.home() / ".cache") / "saccade"


def join(url: str, name: str) -> str:
    """Return the URL of a file in a folder.

    Examples
    --------
    >>> join("s3://bucket/run/", "run.json"), join("zip://images::s3://bucket/a.zip", "1.png")
    ('s3://bucket/run/run.json', 'zip://images/1.png::s3://bucket/a.zip')
    """
    links = url.split("::")
    place = next((number for number, link in enumerate(links) if "://" in link), 0)
    links[place] = f"{links[place].rstrip('/')}/{name}" if not links[place].endswith("://") else links[place] + name
    return "::".join(links)


class UrlFile:
    """A file or a folder at a URL. Its methods raise a RemoteError, whose `kind` is the reason.

    Temporary failures are retried; the file systems of fsspec retry requests as well.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if not url.endswith("://") else url
        self._found: tuple[AbstractFileSystem, str] | None = None

    def __truediv__(self, name: str) -> UrlFile:
        child = UrlFile(join(self.url, name))
        if "::" not in name and "::" not in self.url:
            fs, path = self._opened()
            child._found = fs, f"{path.rstrip('/')}/{name}"
        return child

    def __repr__(self) -> str:
        return f"UrlFile({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return UrlFile, (self.url,)

    def _opened(self) -> tuple[AbstractFileSystem, str]:
        """Return the file system, and the path in it."""
        if self._found is None:
            from fsspec.core import url_to_fs
            from fsspec.registry import available_protocols

            scheme = self.url.partition("://")[0].rpartition("::")[2].lower()
            for name in _LOGGERS:  # of libraries that print tracebacks of errors that they raise as well
                if (logger := logging.getLogger(name)).level == logging.NOTSET:
                    logger.setLevel(logging.CRITICAL)
            try:
                # Listings change while runs work on them. Other file systems take no such option, and cache nothing.
                fs, path = url_to_fs(self.url, **{"use_listings_cache": False} if scheme in _ATOMIC else {})
            except ImportError as error:
                raise RemoteError(
                    f"{self.url} needs a package that is not installed ({_first_line(error)}). Install it: "
                    'pip install "saccade[remote]"'
                ) from error
            except ValueError as error:
                if scheme not in available_protocols():
                    raise RemoteError(f"{self.url}: {UnknownNameError.of('protocol', scheme, _USUAL)}") from None
                raise _explained(self.url, error) from error
            except Exception as error:
                raise _explained(self.url, error) from error
            self._found = fs, path
        return self._found

    @contextlib.contextmanager
    def _attempt(self, num_done: int) -> Iterator[None]:
        try:
            yield
        except RemoteError:
            raise
        except Exception as error:
            explained = _explained(self.url, error)
            if not explained.is_temporary or num_done == len(BACKOFF_S):
                raise explained from error
            time.sleep(BACKOFF_S[num_done])

    def _do(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the file system with the path; retry temporary failures."""
        fs, path = self._opened()
        for num_done in range(len(BACKOFF_S) + 1):
            with self._attempt(num_done):
                return getattr(fs, method)(path, *args, **options)
        raise AssertionError

    def kind(self) -> Literal["file", "folder"] | None:
        """Return what is at the URL; None if nothing is."""
        try:
            return "folder" if self._do("info")["type"] == "directory" else "file"
        except RemoteError as error:
            if error.kind != "missing":
                raise
            return None

    def facts(self) -> tuple[int | None, str]:
        """Return the number of bytes of a file, None if it is not known, and a text that changes with its content."""
        info = self._do("info")
        return info.get("size"), _version(info)

    def read(self, max_bytes: int | None = None) -> bytes:
        """Return the content of a file, or its first bytes."""
        if max_bytes is None:
            return bytes(self._do("cat_file"))
        fs, path = self._opened()
        with contextlib.suppress(Exception):
            return bytes(fs.cat_file(path, start=0, end=max_bytes))
        # Services refuse a range of an empty file.
        return b"" if self._do("info")["size"] == 0 else bytes(self._do("cat_file", start=0, end=max_bytes))

    def write(self, content: bytes) -> None:
        """Write a file in one step."""
        with self._replaced() as target:
            target._do("pipe_file", content)

    def upload(self, source: Path) -> None:
        """Write a file in one step, from a local one."""
        fs, _ = self._opened()
        for num_done in range(len(BACKOFF_S) + 1):
            with self._attempt(num_done), self._replaced() as target:
                fs.put_file(str(source), target._opened()[1])
                return

    def download(self, target: Path) -> None:
        """Copy the file to a local one, beside its place first."""
        part = target.with_name(f"{target.name}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._do("get_file", str(part))
            if not part.exists():  # some file systems leave out empty files
                part.touch()
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def delete(self) -> None:
        """Remove the file, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            fs, path = self._opened()
            try:
                fs.rm_file(path)
            except NotImplementedError:
                fs.rm(path)
            except FileNotFoundError:
                raise
            except Exception as error:
                if (explained := _explained(self.url, error)).kind != "missing":
                    raise explained from error

    def names(self) -> list[str]:
        """Return the names of what is in a folder, in any order; [] if there is none."""
        try:
            found = self._do("ls", detail=False)
        except RemoteError as error:
            if error.kind != "missing":
                raise
            return []
        path = self._opened()[1].rstrip("/")
        return [name for each in found if (name := each.rstrip("/").rpartition("/")[2]) and each.rstrip("/") != path]

    def files(self) -> dict[str, str]:
        """Return the version of each file in a folder and below, by its relative path; {} if there is none."""
        try:
            found: dict[str, dict[str, Any]] = self._do("find", detail=True)
        except RemoteError as error:
            if error.kind != "missing":
                raise
            return {}
        prefix = self._opened()[1].strip("/") + "/"
        inside = {path.lstrip("/"): info for path, info in found.items() if info.get("type") != "directory"}
        if prefix == "/":
            return {path: _version(info) for path, info in inside.items()}
        return {path[len(prefix) :]: _version(info) for path, info in inside.items() if path.startswith(prefix)}

    def matches(self) -> list[str]:
        """Return the sorted URLs of the files that match this URL as a pattern."""
        path = self._opened()[1]
        found = [each.strip("/") for each in self._do("glob")]
        start = re.split(r"[*?\[]", path)[0].rpartition("/")[0].strip("/")  # the folder of all matches
        folder = self.url[: len(re.split(r"[*?\[]", self.url)[0].rpartition("/")[0])]
        return sorted(join(folder, each[len(start) :].strip("/")) for each in found)

    @contextlib.contextmanager
    def _replaced(self) -> Iterator[UrlFile]:
        """Yield the file to write; outside of object stores it is renamed when it is complete."""
        fs, path = self._opened()
        protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
        if not _ATOMIC.isdisjoint(protocols):
            yield self
            return
        with contextlib.suppress(NotImplementedError):
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        part = UrlFile(f"{self.url}.part")
        yield part
        self.delete()  # not every file system renames over an existing file
        fs.mv(f"{path}.part", path)


def read_many(files: list[UrlFile], max_bytes: int) -> list[bytes]:
    """Return the first bytes of each file; b"" for those that cannot be read."""

    def read(file: UrlFile) -> bytes:
        try:
            return file.read(max_bytes)
        except RemoteError:
            return b""

    with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="saccade-remote") as pool:
        return list(pool.map(read, files))


def versions_of(urls: list[str]) -> dict[str, str]:
    """Return the version of each file at a URL, by listing its folder; "" where that is not possible."""
    folders = sorted({url.rpartition("/")[0] for url in urls})

    def listed(folder: str) -> dict[str, str]:
        try:
            found = UrlFile(folder)._do("ls", detail=True)
        except RemoteError:
            return {}
        return {f"{folder}/{info['name'].rpartition('/')[2]}": _version(info) for info in found}

    known: dict[str, str] = {}
    with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="saccade-remote") as pool:
        for found in pool.map(listed, folders):
            known |= found
    return {url: known.get(url, "") for url in urls}


def _version(info: dict[str, Any]) -> str:
    return " ".join(str(info[key]) for key in ("size", *_VERSION_KEYS) if info.get(key) is not None)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0].strip(" .")
    return text[:300] or type(error).__name__


def _explained(url: str, error: BaseException) -> RemoteError:
    """Return the error of a file system with its kind, and what to do."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    names = {kind.__name__ for each in causes for kind in type(each).__mro__}
    why = _first_line(error)
    kind = "broken"
    is_temporary = False
    if any(isinstance(each, ImportError) for each in causes):
        text = f'{url} needs a package: {why}. Install it: pip install "saccade[remote]"'
    elif not names.isdisjoint(_NO_CREDENTIALS) or "credentials" in why.lower():
        text = f"{url} cannot be accessed: no credentials were found ({why}). Configure those of the service"
    elif isinstance(error, FileNotFoundError) or not names.isdisjoint(_MISSING):
        kind = "missing"
        text = f"{url} does not exist ({why}). Check the names of the bucket and the object"
    elif isinstance(error, PermissionError) or not names.isdisjoint(_DENIED):
        kind = "denied"
        text = f"{url} cannot be accessed ({why}). Check the credentials and their permissions"
    else:
        is_temporary = not isinstance(error, _FINAL)
        text = f"{url} cannot be reached or used ({type(error).__name__}: {why}). Check the URL and the connection"
    explained = RemoteError(text)
    explained.kind, explained.is_temporary = kind, is_temporary
    return explained
