from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
import pytest
from safetensors.numpy import save

from saccade import ImagePredictor
from saccade.deadline import Deadline
from saccade.models.downloads import Downloads
from saccade.models.weights import hub_cache_folder
from saccade.training.recipes import default_space

FIRST, SECOND = "test_resnet", "test_vit"
FILES = {name: f"timm/{name}.r160_in1k/model.safetensors" for name in (FIRST, SECOND)}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = Deadline(30)
    while not condition():
        assert deadline.seconds_left() > 0
        time.sleep(0.005)


def test_weights_arrive_in_order_and_failures_have_reasons(hub: Any) -> None:
    hub.files[FILES[SECOND]] = save({})
    with Downloads([FIRST, SECOND], Deadline(60)) as downloads:
        wait_for(lambda: downloads.has(SECOND))
        assert downloads.has("a network on this machine")
        assert not downloads.has(FIRST)
        assert "does not have timm/test_resnet" in downloads.failures[FIRST]
    wait_for(lambda: downloads.progress() is None)


def test_a_damaged_file_is_a_failure(hub: Any) -> None:
    hub.files[FILES[FIRST]] = b"<html>not found</html>"
    with Downloads([FIRST], Deadline(60)) as downloads:
        wait_for(lambda: downloads.failures)
    assert "cannot be read as safetensors" in downloads.failures[FIRST]


def test_a_slow_hub_is_given_up_at_the_deadline(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files = {file: save({}) for file in FILES.values()}
    released = threading.Event()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: released.wait(60))
    with Downloads([FIRST, SECOND], Deadline(0.3)) as downloads:
        wait_for(lambda: len(downloads.failures) == 2)
    assert "is too slow" in downloads.failures[FIRST]
    released.set()


def test_the_progress_names_the_size(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vit_small_patch14_reg4_dinov2.lvd142m"
    hub.files[f"timm/{name}/model.safetensors"] = save({})
    started, released = threading.Event(), threading.Event()

    def download(*_: object, **__: object) -> str:
        path = hub_cache_folder() / f"models--timm--{name}" / "blobs" / "1.incomplete"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"0" * 12_000_000)
        started.set()
        released.wait(60)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with Downloads([name], Deadline(60)) as downloads:
        assert started.wait(30)
        progress = downloads.progress()
        released.set()
        wait_for(lambda: downloads.progress() is None)
    assert progress is not None
    assert progress.what == f"downloading {name} (MB)"
    assert (progress.done, progress.total) == (12, 86)


def test_nothing_is_begun_after_the_context(hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.files = {file: save({}) for file in FILES.values()}
    started, released = threading.Event(), threading.Event()

    def download(*_: object, **__: object) -> str:
        started.set()
        released.wait(60)
        (tmp_path / "model.safetensors").write_bytes(save({}))
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with Downloads([FIRST, SECOND], Deadline(60)) as downloads:
        assert started.wait(30)
    released.set()
    wait_for(lambda: SECOND in downloads.failures)
    assert downloads.has(FIRST)
    assert "not downloaded in time" in downloads.failures[SECOND]


def test_a_fit_searches_the_networks_that_a_hub_with_damaged_and_wrong_files_has(
    hub: Any,
    tiny_weights: Path,
    make_colours: Callable[..., pd.DataFrame],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    resnet = (tiny_weights / "test_resnet.safetensors").read_bytes()
    names = ["test_vit", "test_convnext", "test_efficientnet", "test_resnet"]
    hub.files = {
        f"timm/{name}.r160_in1k/model.safetensors": content
        for name, content in zip(names, [b"<html>", resnet, b"", resnet], strict=True)
        if content
    }
    monkeypatch.setattr(default_space, "default_networks", lambda *_: names)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=2)
    fast = {"img_size": 32, "epochs": 1, "batch_size": 8, "transfer_lr_mult": 0.0}
    predictor.fit(make_colours(10), hyperparameters=fast, hyperparameter_tune_kwargs={"num_trials": 1})
    assert predictor.fit_summary()["best_config"]["model"] == "test_resnet"
    shown = "".join(capsys.readouterr())
    assert "test_convnext is left out" in shown
    assert "kept 1 of" in shown
