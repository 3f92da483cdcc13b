from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from saccade.errors import WeightsNotFoundError
from saccade.models.hub import HubFile, download, find_cached, hub_cache_folder, hub_endpoint

FILE = HubFile("timm/some_network.tag")
CONTENT = b"not looked into here" * 1000


def test_a_download_is_found_in_the_cache_after_the_hub_is_gone(hub: Any) -> None:
    hub.files["timm/some_network.tag/model.safetensors"] = CONTENT
    assert find_cached(FILE) is None
    path = download(FILE)
    assert path.read_bytes() == CONTENT
    assert hub_cache_folder() in path.parents
    hub.stop()
    assert find_cached(FILE) == path


def test_the_token_goes_to_the_hub(hub: Any) -> None:
    hub.files["timm/some_network.tag/model.safetensors"] = CONTENT
    download(FILE)
    assert {method for method, _, _ in hub.requests} == {"HEAD", "GET"}
    assert {authorization for _, _, authorization in hub.requests} == {"Bearer hf_of_a_test"}


def test_a_revision_is_asked_for(hub: Any) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"some_network.tag@v2/model.safetensors"):
        download(HubFile(FILE.repo_id, revision="v2"))
    assert hub.requests[0][1] == "/timm/some_network.tag/resolve/v2/model.safetensors"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "refuses .*private, gated or missing, or HF_TOKEN is wrong"),
        (403, "refuses .*private, gated or missing, or HF_TOKEN is wrong"),
        (404, "does not have timm/some_network.tag/model.safetensors"),
        (429, "answers HTTP 429"),
        (503, "answers HTTP 503"),
    ],
)
def test_what_the_hub_refuses_is_asked_for_once(hub: Any, status: int, reason: str) -> None:
    hub.failure = (status, {})
    with pytest.raises(WeightsNotFoundError, match=reason):
        download(FILE)
    assert len(hub.requests) == 1


def test_a_hub_that_hangs_up_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        stopped = threading.Event()

        def hang_up() -> None:
            while not stopped.is_set():
                try:
                    connection, address = listener.accept()
                except TimeoutError:
                    continue
                attempts.append(address)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
            with pytest.raises(WeightsNotFoundError, match="cannot be reached"):
                download(FILE)
        finally:
            stopped.set()
            thread.join()
    assert len(attempts) == 1


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "ftp://127.0.0.1", "http://[::1", "nonsense"])
def test_an_address_where_nobody_answers_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(WeightsNotFoundError, match="cannot be reached"):
        download(FILE)


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_offline_the_hub_is_not_asked(hub: Any, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(WeightsNotFoundError, match="HF_HUB_OFFLINE"):
        download(FILE)
    assert hub.requests == []


@pytest.mark.slow  # huggingface_hub resumes a download five times, a second apart
def test_a_body_that_is_too_short_is_an_error_of_ours(hub: Any) -> None:
    hub.files["timm/some_network.tag/model.safetensors"] = CONTENT
    hub.cut_bodies_to = 10
    with pytest.raises(WeightsNotFoundError, match=r"the download of .* failed"):
        download(FILE)
    assert find_cached(FILE) is None


def test_the_environment_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1/")
    assert hub_endpoint() == "http://127.0.0.1:1"
    monkeypatch.delenv("HF_ENDPOINT")
    assert hub_endpoint().startswith("http")
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert hub_cache_folder() == tmp_path / "hub"
    monkeypatch.delenv("HF_HOME")
    assert hub_cache_folder().is_absolute()
