from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from saccade.data.sources import download
from saccade.data.sources.download import fetch
from saccade.errors import DataError, DownloadError, HyperparameterError
from saccade.remote.urls import cache_folder

CONTENT = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(file_server):
    file_server.files["/a%20file.zip"] = CONTENT
    return file_server


@pytest.fixture
def url(server):
    return server.url("/a%20file.zip")


@pytest.fixture
def raw_server(file_server) -> Iterator[Callable[..., str]]:
    """Return the URL of a server that sends these bytes to each client, and then one byte every few milliseconds."""
    listeners = []

    def serve(start: bytes, drip: bytes = b"") -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, contextlib.suppress(OSError):
                        client.recv(10_000)
                        client.sendall(start)
                        while drip:
                            client.sendall(drip)
                            time.sleep(0.01)

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/a.zip"

    yield serve
    for listener in listeners:
        listener.close()


@pytest.fixture
def scripted_server(monkeypatch) -> Iterator[Callable[..., str]]:
    """Return the URL of a server that sends these bytes to one client after the other, the last ones to the rest."""
    monkeypatch.setattr(download, "BACKOFF_S", (0.0, 0.0, 0.0))
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(*answers: bytes) -> str:
        def answer() -> None:
            with contextlib.suppress(OSError):
                for each in itertools.chain(answers, itertools.repeat(answers[-1])):
                    client, _ = listener.accept()
                    with client, contextlib.suppress(OSError):
                        client.recv(10_000)
                        client.sendall(each)

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/a.zip"

    yield serve
    listener.close()


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "], ids=["body", "headers"])
def test_a_very_slow_transfer_is_stopped(raw_server, monkeypatch, start):
    monkeypatch.setattr(download, "STALL_S", 0.1)
    monkeypatch.setattr(download, "MIN_BYTES_PER_S", 100_000)
    with pytest.raises(DownloadError, match=r"(sent \d+ bytes in|no answer within) 0\.\d"):
        fetch(raw_server(start, b"x"))


def test_an_endless_transfer_is_stopped(raw_server, monkeypatch, own_cache):
    url = raw_server(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000)
    monkeypatch.setenv("SACCADE_MAX_DOWNLOAD_GB", "0.00002")
    with pytest.raises(DownloadError, match=r"limit is 20\.0 kB; set SACCADE_MAX_DOWNLOAD_GB"):
        fetch(url)
    assert leftovers(own_cache) == []
    monkeypatch.delenv("SACCADE_MAX_DOWNLOAD_GB")
    monkeypatch.setenv("SACCADE_DOWNLOAD_LIMIT_S", "0.2")
    with pytest.raises(DownloadError, match="takes too long; call again to resume it, or set SACCADE_DOWNLOAD_LIMIT_S"):
        fetch(url)
    monkeypatch.setenv("SACCADE_DOWNLOAD_LIMIT_S", "soon")
    with pytest.raises(HyperparameterError, match="'soon' is not a time"):
        fetch(url)


def test_a_file_that_is_larger_than_the_disk_is_refused(raw_server):
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 90000000000\r\n\r\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(total=10**12, free=10**9))
        with pytest.raises(DownloadError, match=r"only 1\.0 GB are free.*SACCADE_CACHE"):
            fetch(raw_server(start))
    with pytest.raises(DownloadError, match=r"900\.0 GB or more, and the limit is 100\.0 GB"):
        fetch(raw_server(start.replace(b"9", b"90", 1)))


def test_a_compressed_response_may_not_expand_without_limit(server, url, monkeypatch):
    server.headers["Content-Encoding"] = "gzip"
    server.files["/a%20file.zip"] = gzip.compress(CONTENT)
    assert fetch(url).read_bytes() == CONTENT
    monkeypatch.setattr(download, "_EXPANDED_BYTES", 1_000_000)
    server.files["/bomb.zip"] = gzip.compress(bytes(5_000_000))
    with pytest.raises(DownloadError, match="expands without limit"):
        fetch(server.url("/bomb.zip"))


def response(status: str, body: bytes, **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in {"Content_Length": len(body), **headers}.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


FIRST = response("200 OK", CONTENT[:100_000], Content_Length=len(CONTENT), ETag='"v1"')
WHOLE = response("200 OK", CONTENT, ETag='"v2"')


def partial(start: int, end: int, etag: str = '"v1"', total: object = len(CONTENT)) -> bytes:
    body = CONTENT[start:end] if etag == '"v1"' else bytes(end - start)
    return response("206 Partial Content", body, ETag=etag, Content_Range=f"bytes {start}-{end - 1}/{total}")


@pytest.mark.parametrize(
    "answers",
    [
        [FIRST, partial(100_000, len(CONTENT))],
        [FIRST, partial(100_000, 200_000), partial(200_000, len(CONTENT))],  # shorter than asked for
        [FIRST, partial(100_000, len(CONTENT), '"v2"'), WHOLE],  # of another version
        [FIRST, partial(100_000, len(CONTENT), total=""), WHOLE],
        [FIRST, partial(100_000, 100_010, total=100_010), WHOLE],
        [FIRST, partial(50_000, len(CONTENT)), WHOLE],
        [FIRST, response("206 Partial Content", b"--x", Content_Type="multipart/byteranges; boundary=x"), WHOLE],
        [FIRST, response("416 Range Not Satisfiable", b""), WHOLE],
        [FIRST, WHOLE],
        [response("500 Oops", b""), b"no HTTP", response("200 OK", CONTENT[:9], Content_Length="many"), WHOLE],
        [response("302 Found", b"", Location="/elsewhere"), WHOLE],
        [response("200 OK", gzip.compress(CONTENT), Content_Encoding="gzip")],
    ],
)
def test_whatever_a_server_answers_before_the_file_is_whole_at_the_end(scripted_server, answers):
    assert fetch(scripted_server(*answers)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (response("302 Found", b"", Location="/again"), "[Rr]edirect"),
        (response("302 Found", b"", Location="file:///etc/passwd"), "cannot be fetched"),
        (response("200 OK", CONTENT[:9], Content_Length=99), "cannot be fetched"),
        (response("200 OK", b"x", Content_Encoding="br"), "compresses it as 'br'"),
        (response("200 OK", gzip.compress(gzip.compress(b"")), Content_Encoding="gzip, gzip"), "'gzip, gzip'"),
        (response("200 OK", CONTENT, Content_Encoding="gzip"), "cannot be fetched"),
        (response("200 OK", gzip.compress(CONTENT)[:-9], Content_Encoding="gzip"), "ends too early"),
        (response("200 OK", b""), "empty file"),
        (response("200 OK", b"\xef\xbb\xbf<!-- x --><HEAD><title>Sign in"), "web page"),
        (partial(5, 10), "another range"),
        (response("416 Range Not Satisfiable", b""), "416"),
        (response("304 Not Modified", b""), "304"),
        (b"", "cannot be fetched"),
    ],
)
def test_an_answer_without_the_file_is_an_error_in_a_sentence(scripted_server, own_cache, answer, words):
    with pytest.raises(DownloadError, match=words):
        fetch(scripted_server(answer))
    assert all(name.endswith((".part", ".version")) for name in leftovers(own_cache))


def test_a_validator_that_is_not_ascii_is_not_sent_back(server, url):
    server.headers["ETag"] = '"\xe9"'
    server.breaks.append(100_000)
    assert fetch(url).read_bytes() == CONTENT
    assert [request.get("If-Range") for request in server.requests] == [None, None]


def test_a_web_page_instead_of_a_file_is_refused(server, url, own_cache):
    page = b"\n<!DOCTYPE html><p>Please log in"
    server.files |= {"/a%20file.zip": page, "/a.html": page}
    with pytest.raises(DownloadError, match="is a web page"):
        fetch(url)
    assert leftovers(own_cache) == []
    assert fetch(server.url("/a.html")).read_bytes() == page


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file() and path.name != "lock"]


def test_a_file_is_downloaded_once_and_keeps_its_name(server, url, own_cache):
    first, second = fetch(url), fetch(url)
    assert first == second
    assert first.name == "a file.zip"
    assert first.is_relative_to(own_cache)
    assert first.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert leftovers(own_cache) == ["a file.zip"]


def test_files_with_the_same_name_have_separate_folders(server):
    server.files |= {"/one/a.bin": b"one", "/two/a.bin": b"two", "/three/a.bin?v=2": b"three"}
    contents = [fetch(server.url(path)).read_bytes() for path in ("/one/a.bin", "/two/a.bin", "/three/a.bin?v=2")]
    assert contents == [b"one", b"two", b"three"]


def test_cache_sets_the_folder(url, tmp_path, own_cache):
    assert fetch(url, cache=tmp_path / "mine").is_relative_to(tmp_path / "mine")
    assert not own_cache.exists()


def test_an_interrupted_transfer_is_resumed(server, url):
    server.breaks.extend([100_000, 200_000])
    assert fetch(url, sha256=DIGEST).read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, "bytes=100000-", "bytes=300000-"]
    assert {request.get("If-Range") for request in server.requests} == {None, '"v1"'}


def test_a_transfer_is_resumed_by_a_later_call(server, url):
    server.breaks.extend([100_000, 0, 0, 0])
    with pytest.raises(DownloadError):
        fetch(url)
    assert fetch(url).read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == "bytes=100000-"


def test_attempts_with_progress_are_not_limited(server, url):
    server.breaks.extend([50_000] * 8)
    assert fetch(url).read_bytes() == CONTENT
    assert len(server.requests) == 9


def test_a_changed_file_is_downloaded_from_the_start(server, url):
    server.breaks.extend([100_000, 0, 0, 0])
    with pytest.raises(DownloadError):
        fetch(url)
    server.headers["ETag"] = '"v2"'
    server.files["/a%20file.zip"] = b"another content"
    assert fetch(url).read_bytes() == b"another content"


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}], ids=["no validator", "weak validator"])
def test_without_a_strong_validator_nothing_is_resumed(server, url, headers):
    server.headers = headers
    server.breaks.append(100_000)
    assert fetch(url).read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, None]


def test_a_server_without_ranges_starts_over(server, url):
    server.has_ranges = False
    server.breaks.append(100_000)
    assert fetch(url, sha256=DIGEST).read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, "bytes=100000-"]


def test_a_complete_partial_file_is_not_extended(server, url, own_cache):
    server.breaks.append(0)
    path = fetch(url)
    path.rename(path.with_name("a file.zip.part"))
    path.with_name("a file.zip.part.version").write_text('"v1"', encoding="utf-8")
    assert fetch(url).read_bytes() == CONTENT


def test_a_response_without_length(server, url):
    server.sends_length = False
    assert fetch(url).read_bytes() == CONTENT


def test_requests_to_a_busy_server_are_retried(server, url):
    server.statuses.extend([503, 429])
    assert fetch(url).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_repeated_interruptions_are_an_error(server, url, own_cache):
    server.breaks.extend([0] * 20)
    with pytest.raises(DownloadError, match="cannot be fetched"):
        fetch(url)
    assert len(server.requests) == 4
    assert "a file.zip" not in leftovers(own_cache)


@pytest.mark.parametrize(("status", "words"), [(404, "no such file"), (403, "login"), (401, "login"), (410, "410")])
def test_a_refusal_is_final_and_the_error_has_the_reason(server, url, status, words, own_cache):
    server.statuses.append(status)
    with pytest.raises(DownloadError, match=words) as caught:
        fetch(url)
    assert url in str(caught.value)
    assert str(status) in str(caught.value)
    assert len(server.requests) == 1
    assert leftovers(own_cache) == []


def test_a_wrong_checksum_is_an_error_with_both_digests_and_leaves_no_file(url, own_cache):
    wrong = "0" * 64
    with pytest.raises(DownloadError) as caught:
        fetch(url, sha256=wrong)
    assert wrong in str(caught.value)
    assert DIGEST in str(caught.value)
    assert leftovers(own_cache) == []


def test_a_checksum_may_be_in_capitals(url):
    assert fetch(url, sha256=DIGEST.upper()).read_bytes() == CONTENT


def test_a_cached_file_with_another_checksum_is_downloaded_again(server, url):
    fetch(url).write_bytes(b"damaged on the disk")
    assert fetch(url, sha256=DIGEST).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_simultaneous_calls_download_once(server, url):
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(fetch, [url] * 8))
    assert len(paths) == 1
    assert paths.pop().read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_refused_connection_is_named_in_the_error(file_server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(DownloadError, match="refused the connection"):
        fetch(f"http://127.0.0.1:{port}/a.zip")


def test_an_unknown_host_is_named_in_the_error(file_server):
    with pytest.raises(DownloadError, match=r"'no-such-host\.invalid' cannot be resolved"):
        fetch("http://no-such-host.invalid/a.zip")


def test_a_download_error_is_a_data_error_and_an_os_error():
    assert issubclass(DownloadError, DataError)
    assert issubclass(DownloadError, OSError)


def test_the_file_of_a_file_url_is_not_copied(tmp_path, own_cache):
    path = tmp_path / "é 1.bin"
    path.write_bytes(CONTENT)
    assert fetch(path.as_uri(), sha256=DIGEST) == path
    assert not own_cache.exists()
    with pytest.raises(DownloadError, match=DIGEST):
        fetch(path.as_uri(), sha256="0" * 64)
    assert path.exists()


@pytest.mark.parametrize("url", ["s3://bucket/a.zip", "ftp://host/a.zip", "file://host/a.zip", "file:///no/such.zip"])
def test_unsupported_urls_are_refused(url):
    with pytest.raises(DownloadError, match=url):
        fetch(url)


def test_without_a_terminal_one_line_is_printed_unless_quiet(server, url, tmp_path, capsys):
    fetch(url, quiet=True)
    assert capsys.readouterr() == ("", "")
    fetch(url, cache=tmp_path / "other")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "Fetching a file.zip from 127.0.0.1 (512.0 kB)\n"


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x"
    monkeypatch.delenv("SACCADE_CACHE")
    assert "saccade" in str(cache_folder())


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG is for other systems")
def test_the_cache_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("SACCADE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "saccade"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "saccade"


def test_a_terminal_gets_a_progress_bar(url, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich take standard error for a terminal
    monkeypatch.setenv("TERM", "xterm")
    fetch(url)
    output = capsys.readouterr()
    assert output.out == ""
    assert "\x1b[" in output.err
    assert "512.0/512.0 kB" in output.err
