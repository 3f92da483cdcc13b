"""Settings and tiny data sets for all tests."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from hypothesis import settings
from safetensors.torch import save_file

from colours import colour_image
from saccade.data.examples import read_labelled_examples
from saccade.fit.preparation import prepare_data
from saccade.tasks.metrics import make_metric
from saccade.training.task import ImageTask

pytest.register_assert_rewrite("contracts")

from ray_cluster import ray_address as ray_address  # noqa: E402
from ray_cluster import ray_cluster as ray_cluster  # noqa: E402


def pytest_collection() -> None:
    """Look for no garbage while tests are collected: it takes a fifth of that time, and there is little."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again, but do not look for it among modules and tests, which stay."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let the interpreter end as usual: some libraries complain of objects that are left."""
    gc.unfreeze()


# A busy machine may take any time for an example.
settings.register_profile("saccade", deadline=None, max_examples=50)
settings.load_profile("saccade")


@pytest.fixture
def react_to_ctrl_c() -> Iterator[None]:
    """Let this process and its children react to SIGINT, which they ignore under nohup and in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests' decoded images out of the user's cache, and do not wait until files have reached the disk.

    That matters when the power fails. Tests kill processes, whose files the system keeps.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SACCADE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_reports_unless_asked() -> Iterator[None]:
    """Let fits write a report only with `report=True`: it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saccade.fit.reporting.REPORT_FROM_S", float("nan"))
        yield


@pytest.fixture
def make_colours(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Write images of colours, and return a frame of their paths and labels."""
    return _colour_maker(tmp_path)


@pytest.fixture(scope="module")
def make_colours_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., pd.DataFrame]:
    """Do the same for what all tests of a file share."""
    return _colour_maker(tmp_path_factory.mktemp("colours"))


def _colour_maker(root: Path) -> Callable[..., pd.DataFrame]:
    def make(num: int = 8, names: tuple[str, ...] = ("blue", "red"), seed: int = 0) -> pd.DataFrame:
        rows = []
        for index, name in enumerate(names):
            folder = root / f"colours_{seed}" / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(num):
                path = folder / f"{number:03}.png"
                colour_image(name, 10_000 * seed + 100 * index + number).save(path)
                rows.append((str(path), name))
        return pd.DataFrame(rows, columns=["image", "label"])

    return make


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pretrained` weights of timm's test_resnet."""
    import timm
    import torch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), folder / "test_resnet.safetensors")
    return folder


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that installs another package of weights, and returns the path of its file."""
    from saccade.models.embedded import EMBEDDED

    monkeypatch.syspath_prepend(tmp_path / "site")

    def install(package: str, content: bytes | None, version: str = "0.1.0") -> Path:
        record = tmp_path / "site" / f"{package.replace('-', '_')}-{version}.dist-info"
        record.mkdir(parents=True)
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        file = tmp_path / "site" / next(weights.file for weights in EMBEDDED.values() if weights.package == package)
        if content is not None:
            file.parent.mkdir(parents=True)
            file.write_bytes(content)
        importlib.invalidate_caches()
        return file

    return install


@pytest.fixture(autouse=True)
def _ask_hub_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test know from an earlier one that the hub cannot be reached."""
    monkeypatch.delenv("SACCADE_HUB_FAILURE", raising=False)


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Hyperparameters of a trial that takes less than a second."""
    return {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 2, "lr": 3e-3}


@pytest.fixture(scope="module")  # while a browser is open, this thread has a running event loop
def browser() -> Iterator[Any]:
    """A headless Chromium of playwright, with a camera that shows a moving pattern."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update"
    camera = "disable-sync use-fake-device-for-media-stream use-fake-ui-for-media-stream"
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=chromium, args=[f"--{flag}" for flag in f"{flags} {camera}".split()]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[str]:
    """A real S3 server, moto's, whose address is returned."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'saccade[remote]'")
    server = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = server.ThreadedMotoServer(port=0)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host.replace('0.0.0.0', '127.0.0.1')}:{port}"
    started.stop()


@pytest.fixture
def s3(_s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket; credentials and the endpoint are in the environment, also for other processes."""
    import s3fs

    values = {"ACCESS_KEY_ID": "testing", "SECRET_ACCESS_KEY": "testing", "DEFAULT_REGION": "us-east-1"}
    for name, value in {**values, "ENDPOINT_URL": _s3_server}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"bucket-{secrets.token_hex(4)}"
    s3fs.S3FileSystem().mkdir(bucket)
    yield f"s3://{bucket}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def memory() -> Iterator[str]:
    """The URL of an empty folder in fsspec's memory file system."""
    name = secrets.token_hex(4)
    yield f"memory://{name}"
    if (files := fsspec.filesystem("memory")).exists(f"/{name}"):
        files.rm(f"/{name}", recursive=True)


@pytest.fixture
def make_task(tmp_path: Path, make_colours: Callable[..., pd.DataFrame]) -> Callable[..., ImageTask]:
    """Return a task of telling colours apart."""

    def make(frame: pd.DataFrame | None = None, **changes: Any) -> ImageTask:
        frame = make_colours(10) if frame is None else frame
        data = prepare_data(
            read_labelled_examples(frame, "label"),
            None,
            None,
            folder=tmp_path / f"store_{len(list(tmp_path.glob('store_*')))}",
            shorter_side=36,
            holdout_frac=0.3,
            random_state=0,
            seconds_left=None,
            notify=lambda event: None,
        )
        return ImageTask(data.store, data.train, data.val, data.problem, make_metric(None, data.problem), **changes)

    return make
