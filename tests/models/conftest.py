"""Small weights, and a server on loopback that speaks as much of the hub's protocol as a download needs."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LoopbackHub:
    """The hub's ``/{repo}/resolve/{revision}/{file}``: files by name, and what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.failure: tuple[int, dict[str, str]] | None = None
        self.cut_bodies_to: int | None = None
        self.requests: list[tuple[str, str, str | None]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, handler: BaseHTTPRequestHandler, with_body: bool) -> None:
        self.requests.append((handler.command, handler.path, handler.headers.get("Authorization")))
        body = self.files.get(handler.path.replace("/resolve/main/", "/").strip("/"))
        if self.failure is not None or body is None:
            status, headers = self.failure or (404, {"X-Error-Code": "EntryNotFound"})
            handler.send_response(status)
            for header, value in {**headers, "Content-Length": "0"}.items():
                handler.send_header(header, value)
            handler.end_headers()
            return
        handler.send_response(200)
        handler.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if with_body:
            handler.wfile.write(body[: self.cut_bodies_to])
            handler.close_connection = self.cut_bodies_to is not None

    def stop(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep each test away from this machine's cache and settings and from the real hub."""
    for variable in ("SACCADE_WEIGHTS", "HF_HUB_OFFLINE", "HF_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody answers


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """Start a hub without files, and let HF_ENDPOINT say where it is."""
    server = LoopbackHub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.stop()
    huggingface_hub.close_session()  # else its connections outlive the server


@pytest.fixture
def write_weights(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes a network's random weights: float16 by default, with a head or without."""

    def write(
        architecture: str,
        filename: str = "weights.safetensors",
        *,
        with_head: bool = True,
        dtype: torch.dtype = torch.float16,
        drop: tuple[str, ...] = (),
    ) -> Path:
        network = timm.create_model(architecture, num_classes=1000)
        head = () if with_head else (f"{network.pretrained_cfg['classifier']}.",)
        state = {
            key: tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor
            for key, tensor in network.state_dict().items()
            if not key.startswith(head) and key not in drop
        }
        path = tmp_path / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, path)
        return path

    return write


@pytest.fixture
def closing_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """A hub that closes each connection; returns a list of the connections."""
    connections: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        stopped = threading.Event()

        def hang_up() -> None:
            while not stopped.is_set():
                try:
                    connection, address = listener.accept()
                except TimeoutError:
                    continue
                connections.append(address)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
            yield connections
        finally:
            stopped.set()
            thread.join()
