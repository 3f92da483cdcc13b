"""Run the web application: sockets, limits of connections and of time, and an orderly end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from saccade.errors import DataError
from saccade.serve.app import create_app
from saccade.serve.models import ServedModel
from saccade.serve.settings import KEY_VARIABLE, LOOPBACK, ServerSettings

MAX_HEADER_BYTES = 65_536
MAX_CONNECTIONS = 16_384
_SPARE_FILES = 128  # file descriptors that are not connections
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large", 503: b"Busy"}


class _Protocol(HttpToolsProtocol):
    """Uvicorn's protocol with limits of headers, time and connections, and with errors in our form.

    Uvicorn limits neither the size of headers nor the time in which they, or a client's acknowledgements, arrive. Here
    a timer runs unless the application has the request, which limits the time of its body.
    """

    timeout_s = 30.0
    max_connections = MAX_CONNECTIONS

    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _num_header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(503, "busy", "Too many connections. Try again later.")
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep a connection of which the client has closed its half open for the answer."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        self._num_header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._timer is not None:
            self._timer.cancel()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline:
            self._start_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.timeout_s, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():  # a limit was exceeded
            self._refuse(400, "invalid_request", msg)

    def _count(self, num_bytes: int) -> None:
        self._num_header_bytes += num_bytes
        if self._num_header_bytes > MAX_HEADER_BYTES:
            self._refuse(431, "headers_too_large", f"The headers have more than {MAX_HEADER_BYTES} bytes.")
            raise ValueError("headers too large")  # ends the parsing

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(self.timeout_s, self._expire)

    def _expire(self) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and not self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self._refuse(408, "timeout", f"The request was not received within {self.timeout_s:g} s.")
            self._start_timer()  # for a client that does not read this either
        else:
            self._abort()

    def _abort(self) -> None:
        """Close the connection without waiting for the client; the system discards what it has not received."""
        if (connected := self.transport.get_extra_info("socket")) is not None:
            with suppress(OSError):  # it is closed already
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _refuse(self, status: int, code: str, message: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self.cycle.keep_alive = False  # what follows a whole request is wrong: the answer to that is the last
            return
        body = json.dumps({"error": {"code": code, "message": message, "file": None}}).encode()
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n%s"
            % (status, _REASONS[status], len(body), retry, body)
        )
        self.transport.close()


class _Server(uvicorn.Server):
    """Uvicorn's server, which refuses new images from the moment of the signal that stops it."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.state.is_stopping = True
        super().handle_exit(sig, frame)


def run_server(
    model: ServedModel, settings: ServerSettings, on_start: Callable[[str, Callable[[], None]], None] | None = None
) -> None:
    """Serve a model until SIGTERM or SIGINT, and finish the requests that were accepted.

    `on_start` is called with the address, and with a function that stops the server, when it listens. Raises a
    DataError if the address is not available.
    """
    listening = _listen(settings)
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if settings.host not in LOOPBACK and settings.api_key() is None:
        sys.stderr.write(
            f"warning: {url} can be reached from other machines, and no key is required. Set {KEY_VARIABLE}, or pass "
            "--api-key-file\n"
        )
    app = create_app(model, settings)
    limits = {"timeout_s": settings.timeout_s, "max_connections": _most_connections()}
    config = uvicorn.Config(
        app,
        http=type("_LimitedProtocol", (_Protocol,), limits),
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(settings.timeout_s) + 5,
    )
    server = _Server(config, app)

    def stop() -> None:
        server.handle_exit(signal.SIGTERM, None)

    original = server.startup

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await original(sockets)
        if on_start is not None:
            on_start(url, stop)

    server.startup = startup  # type: ignore[method-assign]
    with listening, _quiet_end():
        server.run(sockets=[listening])


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"Cannot listen on {settings.host}, port {settings.port}: {reason}. Pass another --host or --port"
        ) from None


def _most_connections() -> int:
    """Return how many connections fit the limit of open files, after raising that as far as allowed."""
    try:
        import resource  # not on Windows
    except ImportError:
        return MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - _SPARE_FILES))


@contextmanager
def _quiet_end() -> Iterator[None]:
    """Let the process end normally after a signal that the server handled: uvicorn raises it again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
