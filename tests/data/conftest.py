"""Fixtures that create images, archives and a small web server."""

from __future__ import annotations

import tarfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from saccade.data.sources import download


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set a new cache folder for each test, so that no test reads the files of another one or of the user."""
    cache = tmp_path / "own cache"
    monkeypatch.setenv("SACCADE_CACHE", str(cache))
    return cache


@pytest.fixture
def make_image() -> Callable[..., Path]:
    """Write a small image of random colours to a path, whose extension decides the format."""

    def make(path: Path, size: tuple[int, int] = (24, 16), seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size).save(path)
        return path

    return make


@pytest.fixture
def make_class_folders(make_image: Callable[..., Path]) -> Callable[..., Path]:
    """Write a folder with one sub-folder per class; PNG and JPEG files take turns."""

    def make(root: Path, nums: Mapping[str, int]) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        for name, num in nums.items():
            (root / name).mkdir(parents=True)
            for number in range(num):
                make_image(root / name / f"{number:03}{'.png' if number % 2 else '.jpg'}", seed=number)
        return root

    return make


@pytest.fixture
def make_zip() -> Callable[[Path, Path], Path]:
    """Pack the content of a folder into a zip file."""

    def make(folder: Path, archive: Path) -> Path:
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder))
        return archive

    return make


@pytest.fixture
def make_tar() -> Callable[..., Path]:
    """Pack the content of a folder into a tar file; `mode` is that of `tarfile.open`."""

    def make(folder: Path, archive: Path, mode: str = "w") -> Path:
        with tarfile.open(archive, mode) as file:
            for path in sorted(folder.iterdir()):
                file.add(path, path.name)
        return archive

    return make


class FileServer:
    """A local web server with configurable faults.

    `files` maps paths such as "/a.zip" to content. `breaks` are the numbers of bytes after which the next responses
    are interrupted, `statuses` their status instead of 200; both are consumed from the left. `requests` are the headers
    of all requests.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {"ETag": '"v1"'}
        self.has_ranges = True
        self.sends_length = True
        self.breaks: deque[int] = deque()
        self.statuses: deque[int] = deque()
        self.requests: list[dict[str, str]] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805  `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(dict(self.headers.items()))
                content = server.files.get(self.path)
                status = server.statuses.popleft() if server.statuses else 200
                if content is None or status != 200:
                    self.send_error(404 if status == 200 else status)
                    return
                start = 0
                asked = self.headers.get("Range", "")
                is_same = self.headers.get("If-Range") in (None, server.headers.get("ETag"))
                if asked and server.has_ranges and is_same:
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                self.answer(content, start, is_partial=start > 0)

            def answer(self, content: bytes, start: int, is_partial: bool) -> None:
                if start >= len(content) and is_partial:
                    self.send_error(416)
                    return
                self.send_response(206 if is_partial else 200)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                if is_partial:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                if server.sends_length:
                    self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                body = content[start:]
                self.wfile.write(body[: server.breaks.popleft()] if server.breaks else body)

            def log_message(self, *args: object) -> None:
                """Keep quiet."""

        return Handler


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "BACKOFF_S", (0.0, 0.0, 0.0))
    server = FileServer()
    thread = Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()
