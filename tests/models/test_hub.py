from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from safetensors.numpy import save

from saccade.errors import WeightsNotFoundError
from saccade.models import weights
from saccade.models.weights import find_weights, hub_cache_folder, hub_endpoint

NAME, FILE = "test_resnet", "timm/test_resnet.r160_in1k/model.safetensors"
CONTENT = save({})


def test_a_download_is_found_in_the_cache_after_the_hub_is_gone(hub: Any) -> None:
    hub.files[FILE] = CONTENT
    path = find_weights(NAME)
    assert path.read_bytes() == CONTENT
    assert hub_cache_folder() in path.parents
    hub.stop()
    assert find_weights(NAME) == path


def test_the_token_is_sent_to_the_hub(hub: Any) -> None:
    hub.files[FILE] = CONTENT
    find_weights(NAME)
    assert {method for method, _, _ in hub.requests} == {"HEAD", "GET"}
    assert {authorization for _, _, authorization in hub.requests} == {"Bearer hf_of_a_test"}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "refuses .*private, gated or missing, or HF_TOKEN is wrong"),
        (404, f"does not have {FILE}"),
        (429, "answers HTTP 429"),
    ],
)
def test_the_hub_is_asked_once_if_it_refuses(hub: Any, status: int, reason: str) -> None:
    hub.failure = (status, {})
    with pytest.raises(WeightsNotFoundError, match=reason):
        find_weights(NAME)
    assert len(hub.requests) == 1


def test_a_hub_that_closes_the_connection_is_tried_once(closing_hub: list[object]) -> None:
    with pytest.raises(WeightsNotFoundError, match="cannot be reached"):
        find_weights(NAME)
    assert len(closing_hub) == 1


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "ftp://127.0.0.1", "http://[::1", "nonsense"])
def test_an_unreachable_hub_raises_an_error_of_saccade(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(WeightsNotFoundError, match="cannot be reached"):
        find_weights(NAME)


@pytest.mark.parametrize("value", ["1", "true"])
def test_the_hub_is_not_asked_in_offline_mode(hub: Any, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(WeightsNotFoundError, match="HF_HUB_OFFLINE"):
        find_weights(NAME)
    assert hub.requests == []


@pytest.mark.slow  # huggingface_hub resumes a download five times, a second apart
def test_an_incomplete_download_raises_an_error_of_saccade(hub: Any) -> None:
    hub.files[FILE] = CONTENT * 1000
    hub.cut_bodies_to = 10
    with pytest.raises(WeightsNotFoundError, match=r"does not send|without sending"):
        find_weights(NAME)


@pytest.mark.parametrize(
    ("variable", "seconds_left", "advice"), [("0.1", 60.0, "SACCADE_DOWNLOAD_LIMIT_S"), ("", 2.0, "time_limit")]
)
def test_a_download_ends_at_its_limit(
    hub: Any, monkeypatch: pytest.MonkeyPatch, variable: str, seconds_left: float, advice: str
) -> None:
    hub.files[FILE] = CONTENT
    released = threading.Event()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: released.wait(60))
    monkeypatch.setenv("SACCADE_DOWNLOAD_LIMIT_S", variable)
    with pytest.raises(WeightsNotFoundError, match=rf"no answer within [\d.]+ seconds; increase {advice}"):
        find_weights(NAME, seconds_left=seconds_left)
    released.set()


def test_a_download_that_makes_no_progress_is_stopped(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files[FILE] = CONTENT
    released = threading.Event()

    def stalls(*_: object, tqdm_class: Any, **__: object) -> None:
        bar = tqdm_class(total=10, disable=True)
        while bar.update(1) or not released.wait(0.01):
            if num_bytes.pop():
                released.wait(60)

    num_bytes = [True, False, False]
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", stalls)
    monkeypatch.setattr(weights, "HUB_STALL_S", 0.2)
    with pytest.raises(WeightsNotFoundError, match=r"too slow: .* no progress within 0.2 seconds\n"):
        find_weights(NAME)
    released.set()
    with pytest.raises(WeightsNotFoundError, match="no progress"):  # it is not asked again at once
        find_weights(NAME)
    assert len(hub.requests) == 1


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


def test_the_hub_is_not_asked_after_the_limit(hub: Any) -> None:
    with pytest.raises(WeightsNotFoundError, match="not asked, because the time limit is over"):
        find_weights(NAME, seconds_left=0.0)
    assert hub.requests == []
