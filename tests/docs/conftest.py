"""What a reader of the pages is supposed to have: photos, tables, an address, and weights of small networks."""

from __future__ import annotations

import functools
import math
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

COLOURS = {"cat": (200, 120, 40), "dog": (60, 120, 200), "horse": (60, 160, 60)}
NETWORKS = ("mobilenetv3_small_050", "mobilenetv3_small_100")
NUM_PHOTOS, SIDE = 10, 64


def write_photos(root: Path, num: int, seed: int) -> list[Path]:
    """Write noise in which one colour prevails, a folder for each class."""
    rng = np.random.default_rng(seed)
    paths = []
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(num):
            pixels = np.array(colour) + rng.integers(-40, 40, (SIDE, SIDE, 3))
            paths.append(root / name / f"{number:03}.jpg")
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def write_tables(root: Path, photos: list[Path]) -> None:
    """Write the tables of labels that the pages read; paths in them are relative to `photos`."""
    names = [path.relative_to(root / "photos").as_posix() for path in photos]
    animals = [path.parent.name for path in photos]
    rng = np.random.default_rng(0)
    tables = {
        "labels.csv": {"image": names, "label": animals},
        "animals.csv": {"file": names, "animal": animals},
        "tags.csv": {
            "image": names,
            "tags": [f"{animal};outdoors" if number % 2 else animal for number, animal in enumerate(animals)],
        },
        "prices.csv": {"image": names, "price": rng.uniform(5, 50, len(names)).round(2)},
    }
    for name, columns in tables.items():
        pd.DataFrame(columns).to_csv(root / name, index=False)


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
    photos = write_photos(tmp_path / "photos", NUM_PHOTOS, seed=0)
    write_photos(tmp_path / "shop" / "train", NUM_PHOTOS, seed=1)
    write_photos(tmp_path / "shop" / "test", 2, seed=2)
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        for path in sorted((tmp_path / "shop").rglob("*.jpg")):
            archive.write(path, path.relative_to(tmp_path))
    write_tables(tmp_path, photos)
    Image.open(photos[0]).save(tmp_path / "new.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SACCADE_WEIGHTS", str(small_weights))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
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
