"""Clients that misbehave, against a process of its own."""

from __future__ import annotations

import json
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from contracts.servers import photo, png, serving
from forked import Forked, forked_saccade
from saccade import ImagePredictor
from saccade.errors import DataError
from saccade.serve import ServerSettings, serve
from saccade.serve.models import ServedPredictor

TIMEOUT_S = 2
GOOD = png(photo(1))
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


@dataclass(frozen=True)
class Process:
    process: Forked
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def ask(self, *parts: bytes, close_half: bool = False) -> bytes:
        """Return all that the server sends until it closes the connection."""
        with self.connect() as client:
            try:
                for part in parts:
                    client.sendall(part)
                if close_half:
                    client.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has answered and closed
            return read_all(client)

    def num_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def memory(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def read_all(client: socket.socket) -> bytes:
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def start(run: str, *options: str) -> Process:
    process = forked_saccade("serve", run, "--port", "0", *options)
    line = process.stdout.readline()
    found = re.search(r":(\d+) ", line)
    assert found, (line, process.communicate())
    return Process(process, int(found[1]))


@pytest.fixture(scope="module")
def server(predictor: ImagePredictor) -> Iterator[Process]:
    found = start(predictor.path, "--timeout-s", str(TIMEOUT_S), "--queue", "64", "--max-mb", "2")
    with found.process:
        yield found
        found.process.kill()


def request(body: bytes, close: bool = True) -> bytes:
    return HEAD + (b"Connection: close\r\n" if close else b"") + b"Content-Length: %d\r\n\r\n" % len(body) + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def error_of(answer: bytes) -> str:
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"])


def is_well(server: Process) -> bool:
    return status_of(server.ask(request(GOOD))) == 200


def test_huge_headers(server: Process) -> None:
    for line in (b"X: " + b"a" * 200_000 + b"\r\n", b"X: a\r\n" * 20_000):
        answer = server.ask(HEAD + line + b"\r\n")
        assert status_of(answer) == 431
        assert error_of(answer) == "headers_too_large"
    assert status_of(server.ask(b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n")) == 431


BROKEN = [
    b"hello\r\n\r\n",
    b"\0" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"GET http://[ HTTP/1.1\r\n\r\n",
    b"GET \xff\xfe HTTP/1.1\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    HEAD + b"bad header\r\n\r\n",
    HEAD + b"X: a\0b\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
]


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_what_is_not_http_gets_an_error_or_a_closed_connection(server: Process, data: bytes) -> None:
    answer = server.ask(data, close_half=True)
    assert not answer or status_of(answer) in (400, 404, 408, 415)


def test_unusual_requests_get_an_error_of_our_form(server: Process) -> None:
    for line in (
        b"OPTIONS * HTTP/1.1",
        b"CONNECT a:1 HTTP/1.1",
        b"TRACE / HTTP/1.1",
        b"GET /%00%ff HTTP/1.1",
        b"FOO / HTTP/1.1",
    ):
        answer = server.ask(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert status_of(answer) in (400, 404, 405)
        error_of(answer)


def test_slow_clients_do_not_hold_connections(server: Process) -> None:
    def drip(*parts: bytes) -> bytes:
        with server.connect() as client:
            try:
                for part in parts:
                    client.sendall(part)
                    time.sleep(0.1)
            except OSError:
                pass
            return read_all(client)

    body = b"Content-Length: 100\r\n\r\n"
    forever = [b"a"] * (TIMEOUT_S * 30)
    kinds = {
        "nothing": [], "no end of headers": [HEAD], "header bytes": [HEAD, b"X: ", *forever],
        "no body": [HEAD + body], "body bytes": [HEAD + body, *forever],
        "between requests": [request(GOOD, close=False)],
        "after a refusal": [b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", *forever],
    }  # fmt: skip
    with ThreadPoolExecutor(len(kinds)) as pool:
        answers = dict(zip(kinds, pool.map(lambda parts: drip(*parts), kinds.values()), strict=True))
    for kind in ("nothing", "no end of headers", "header bytes", "no body", "body bytes"):
        assert status_of(answers[kind]) == 408, kind
        assert error_of(answers[kind]) == "timeout"
    assert status_of(answers["between requests"]) == 200
    assert status_of(answers["after a refusal"]) == 415


def test_a_client_that_does_not_read_is_disconnected(server: Process) -> None:
    before = server.num_files()
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        client.settimeout(20)

        def send_forever() -> None:
            while True:
                client.sendall(ask * 1000)

        with pytest.raises(OSError, match=r"reset|Broken"):
            send_forever()
    wait_until(lambda: server.num_files() <= before)


def wait_until(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_half_closed_connections_get_their_answer(server: Process) -> None:
    answer = server.ask(request(GOOD, close=False), close_half=True)
    assert status_of(answer) == 200
    assert server.ask(HEAD + b"Content-Length: 100\r\n\r\nabc", close_half=True) == b""
    assert server.ask(b"GET /hea", close_half=True) == b""


def test_pipelined_requests_are_answered_in_order(server: Process) -> None:
    answer = server.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + request(GOOD, close=False) + request(b"bad"))
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"200", b"422"]


def test_what_follows_a_whole_request_does_not_disturb_its_answer(server: Process) -> None:
    for rest in (b"more bytes than the length states\r\n\r\n", HEAD + b"X: " + b"a" * 200_000 + b"\r\n\r\n"):
        answer = server.ask(request(GOOD, close=False) + rest)
        assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200"]


def test_an_oversized_body_is_refused_before_it_is_sent(server: Process) -> None:
    answer = server.ask(HEAD + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n")
    assert status_of(answer) == 413
    whole = server.ask(request(b"x" * 3_000_000))
    assert not whole or status_of(whole) == 413
    chunks = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    chunked = server.ask(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunks] * 40, b"0\r\n\r\n", close_half=True)
    assert not chunked or status_of(chunked) == 413


def test_many_connections_and_bad_requests_leave_nothing_behind(server: Process) -> None:
    assert is_well(server)
    bad = [
        request(b"x" * 10_000),
        HEAD + b"\r\n",
        b"GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"junk\r\n\r\n",
    ]

    def storm(num: int) -> list[int]:
        idle = [server.connect() for _ in range(200)]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda number: server.ask(bad[number % len(bad)], close_half=True), range(num)))
            well = list(pool.map(lambda _: server.ask(request(GOOD)), range(32)))
        for client in idle:
            client.close()
        statuses = [status_of(answer) for answer in answers if answer]
        assert set(statuses) <= {400, 404, 415, 422}
        assert {status_of(answer) for answer in well} <= {200, 503}
        return statuses

    storm(200)
    wait_until(lambda: server.num_files() < 100)
    files, memory = server.num_files(), server.memory()
    for _ in range(3):
        assert storm(200)
    wait_until(lambda: server.num_files() <= files + 2)
    assert server.memory() < memory + 30e6
    assert is_well(server)


def test_a_full_queue_answers_503_and_no_request_is_lost(server: Process) -> None:
    def ask(_: int) -> httpx2.Response:
        with httpx2.Client(trust_env=False, timeout=60) as client:
            files = [("files", GOOD)] * 12
            return client.post(f"http://127.0.0.1:{server.port}/predict", files=files)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(48)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert 200 in {answer.status_code for answer in answers}
    for answer in answers:
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "busy"
        else:
            assert len(answer.json()["predictions"]) == 12


def test_a_signal_finishes_accepted_requests_and_refuses_new_ones(predictor: ImagePredictor) -> None:
    server = start(predictor.path)
    with server.process:
        started = threading.Barrier(9)

        def ask(_: int) -> int:
            with server.connect() as client:
                client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD[:-1])
                started.wait(30)
                time.sleep(0.5)  # the end of the body arrives after the signal
                client.sendall(GOOD[-1:])
                return status_of(read_all(client))

        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(ask, number) for number in range(8)]
            started.wait(30)
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)  # `test_onnx.py` sends SIGINT
            assert [answer.result(60) for answer in answers] == [200] * 8
        assert server.process.wait(60) == 0
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        assert "Traceback" not in server.process.stderr.read()


def test_settings_that_cannot_be_used_are_errors_before_the_model_is_loaded(tmp_path: Path) -> None:
    for given in ({"port": 70000}, {"max_batch": 0}, {"timeout_s": 0}, {"cors": ("example.org",)}, {"queue": 1.5}):
        with pytest.raises(ValueError, match="was given"):
            serve(tmp_path, **given)
    with pytest.raises(DataError, match="No such file"):
        serve(tmp_path, api_key_file=tmp_path / "key")
    (tmp_path / "key").write_text(" \n")
    with pytest.raises(ValueError, match="no usable key"):
        serve(tmp_path, api_key_file=tmp_path / "key")


def test_a_port_in_use_is_a_clear_error(model: object) -> None:
    from saccade.serve.server import run_server

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DataError, match=rf"Cannot listen on 127.0.0.1, port {port}: .*--port"):
            run_server(model, ServerSettings(port=port))  # type: ignore[arg-type]


def test_all_addresses_without_a_key_are_a_warning(
    model: ServedPredictor, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(model):
        pass
    assert not capfd.readouterr().err
    with serving(model, host="0.0.0.0"):
        pass
    assert "can be reached from other machines, and no key is required" in capfd.readouterr().err
    monkeypatch.setenv("SACCADE_API_KEY", "secret")
    with serving(model, host="0.0.0.0"):
        pass
    assert not capfd.readouterr().err
