"""Folders that timm loads: a network with its class names and preprocessing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner

from loopback_hub import LoopbackHub
from saccade import ImagePredictor
from saccade.cli.app import app
from saccade.errors import DataError, HyperparameterError, SaccadeError
from saccade.export.formats.timm_format import TimmFormat

TINY: dict[str, Any] = {"pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 2, "lr": 3e-3}


@pytest.fixture(scope="module")
def images(make_colours_once: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    return make_colours_once(20, ("blue", "green", "red"))


@pytest.fixture(scope="module")
def fitted(images: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    named = images.assign(label=images["label"].replace({"blue": 'b "l" ü'}))
    return predictor.fit(named, hyperparameters={**TINY, "model": "test_resnet", "crop_pct": 0.9}, holdout_frac=0.3)


def labels_by_timm(name: str, paths: list[str]) -> tuple[list[str], timm.models.PretrainedCfg]:
    """Predict as a user of timm does."""
    network = timm.create_model(name, pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    with torch.inference_mode():
        outputs = network(torch.stack([transform(Image.open(path).convert("RGB")) for path in paths]))
    names = network.pretrained_cfg["label_names"]
    return [names[row] for row in outputs.argmax(1)], network.pretrained_cfg


def test_timm_loads_the_folder_and_gives_the_same_labels(
    fitted: ImagePredictor, images: pd.DataFrame, tmp_path: Path
) -> None:
    file = Path(fitted.export("timm", tmp_path / "folder"))
    assert sorted(path.name for path in file.parent.iterdir()) == ["config.json", "model.safetensors"]
    labels, config = labels_by_timm(f"local-dir:{file.parent}", list(images["image"]))
    assert labels == list(fitted.predict(images))
    spec = fitted.pipeline.saved.blueprint.input
    assert (config["mean"], config["std"], config["crop_pct"]) == (list(spec.mean), list(spec.std), 0.9)
    assert (config["interpolation"], list(config["input_size"])) == (spec.interpolation, [3, 32, 32])
    saccade = json.loads((file.parent / "config.json").read_text())["saccade"]
    assert (saccade["network"], saccade["problem_type"]) == ("test_resnet", "multiclass")
    assert saccade["max_difference"] < 1e-4
    run = TimmFormat().load(file)
    pixels = np.stack([np.asarray(Image.open(path)) for path in images["image"][:3]])
    assert run(pixels)["outputs"].shape == (3, 3)


def test_the_hub_serves_the_folder_to_timm(
    fitted: ImagePredictor, images: pd.DataFrame, tmp_path: Path, hub: LoopbackHub
) -> None:
    fitted.export("timm", tmp_path / "folder")
    hub.create({"name": "colours", "organization": "me"})
    content = {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    hub.repositories["me/colours"].commit("main", content)
    code = (  # huggingface_hub reads the address of the hub at import
        "import timm, sys; n = timm.create_model('hf-hub:me/colours', pretrained=True); "
        "print(n.pretrained_cfg['label_names'][2], n.num_classes)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), timeout=120
    )
    assert done.stdout.split() == ["red", "3"], done.stderr


def test_of_an_ensemble_a_member_is_named(images: pd.DataFrame, tmp_path: Path) -> None:
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(images, hyperparameters={**TINY, "model": "test_resnet", "epochs": 1}, num_folds=2)
    members = predictor.pipeline.saved.members
    assert len(members) == 2
    with pytest.raises(HyperparameterError, match=r"an ensemble.*member=…: 0 \(test_resnet"):
        predictor.export("timm", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    done = CliRunner().invoke(
        app, ["export", predictor.path, "--to", "timm", "--out", str(tmp_path / "one"), "--member", "1"]
    )
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert config["saccade"]["network"] == members[1].blueprint.name
    with pytest.raises(HyperparameterError, match="member=9 does not exist"):
        predictor.export("timm", tmp_path / "none", member=9)
    with pytest.raises(HyperparameterError, match="member"):
        predictor.export("timm", tmp_path / "none", member="first")


def test_files_of_others_and_failures_leave_the_folder_as_it_was(
    fitted: ImagePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("mine")
    with pytest.raises(DataError, match=r"contains config\.json"):
        fitted.export("timm", folder)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert (folder / "config.json").read_text() == "mine"
    with pytest.raises(DataError, match=r"timm looks for model\.safetensors"):
        fitted.export("timm", tmp_path / "other.safetensors")
    monkeypatch.setattr(TimmFormat, "tolerance", -1.0)
    with pytest.raises(SaccadeError, match="loads another network"):
        fitted.export("timm", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("problem_type", ["multilabel", "regression"])
def test_other_problems(images: pd.DataFrame, tmp_path: Path, problem_type: str) -> None:
    labels: list[Any] = [[name, "any"] for name in images["label"]]
    if problem_type == "regression":
        labels = [float(number) for number in range(len(images))]
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(images.assign(label=labels), hyperparameters={**TINY, "model": "test_vit"})
    predictor.export("timm", tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    network = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, predictor.pipeline.saved.problem.num_outputs)
    if problem_type == "regression":
        assert config["saccade"]["calibration"]["mean"] == pytest.approx(29.5)
        assert "label_names" not in config
    else:
        assert config["label_names"] == ["any", "blue", "green", "red"]
