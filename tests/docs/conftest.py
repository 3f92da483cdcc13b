"""What a reader of the pages is supposed to have: photos, tables, an address, and weights of small networks."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
from safetensors.torch import save_file

from saccade.apps.sample_data import write_documented_files, write_photos

NETWORKS = ("mobilenetv3_small_050", "mobilenetv3_small_100")
NUM_PHOTOS = 10


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random weights in place of those that the hub would send."""
    folder = tmp_path_factory.mktemp("weights")
    for name in NETWORKS:
        torch.manual_seed(0)
        save_file(timm.create_model(name, pretrained=False).state_dict(), folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def desk(tmp_path: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the reader works, as the working directory."""
    write_photos(tmp_path / "photos", NUM_PHOTOS)
    write_documented_files(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SACCADE_WEIGHTS", str(small_weights))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("saccade.training.recipes.recipe.usual_side", lambda model: 64)
    monkeypatch.setattr("saccade.executor.INLINE_BELOW_S", math.inf)  # worker processes take seconds to import torch
    return tmp_path


@pytest.fixture
def example_org(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on this machine that has the reader's files, and stands for https://example.org."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(desk)))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
