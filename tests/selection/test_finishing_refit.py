from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from contracts.executors import PicklingExecutor
from saccade import ImageDataset, ImagePredictor
from saccade.errors import HyperparameterError, NotFittedError

MakeColours = Callable[..., pd.DataFrame]


def events(predictor: ImagePredictor, kind: str) -> list[dict[str, Any]]:
    lines = (Path(predictor.path) / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def weights(predictor: ImagePredictor) -> dict[str, torch.Tensor]:
    return load_file(Path(predictor.path) / "predictor" / "weights.safetensors")


def test_a_refit_trains_on_the_validation_images_too(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(8)
    frame.loc[frame.index[-1:], "label"] = "red"
    predictors = [
        ImagePredictor(path=tmp_path / name, verbosity=0).fit(
            frame, hyperparameters=tiny, executor=PicklingExecutor(), nthreads_per_trial=1, refit_full=refit_full
        )
        for name, refit_full in (("search", False), ("refit", True))
    ]
    search, refit = predictors
    assert refit.fit_summary()["refit_full"] is True
    assert search.fit_summary()["refit_full"] is False
    assert refit.fit_summary()["valid_acc"] == search.fit_summary()["valid_acc"]  # still the search's
    assert refit.fit_summary()["result"].startswith("refit of trial 0, accuracy ")
    loaded = ImagePredictor.load(refit.path, verbosity=0)
    for name in ("result", "valid_score", "valid_score_how", "best_trial", "best_config", "why_not_best_trial"):
        assert loaded.fit_summary()[name] == refit.fit_summary()[name], name
    pd.testing.assert_frame_equal(loaded.leaderboard(), refit.leaderboard(), check_dtype=False)
    assert any(not torch.equal(tensor, weights(refit)[name]) for name, tensor in weights(search).items())
    assert refit.predict(frame).notna().all()
    assert not (Path(refit.path) / "refit").exists()


def test_a_refit_of_a_probe_probes_all_images(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, tiny_weights: Path
) -> None:
    space = {**tiny, "pretrained": True, "lr": 1e-9, "epochs": 1}
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(make_colours(8), hyperparameters=space, weights=tiny_weights, refit_full=True)
    assert predictor.fit_summary()["best_epoch"] == 0
    assert predictor.fit_summary()["refit_full"] is True


def test_a_refit_without_time_warns_and_keeps_the_best_trial(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(40)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(frame, time_limit=0.5, hyperparameters={**tiny, "batch_size": 1, "epochs": 1000}, refit_full=True)
    assert predictor.fit_summary()["refit_full"] is False
    assert any("no refit" in event["text"] for event in events(predictor, "warned"))
    assert predictor.predict(frame).notna().all()


def test_warm_start_continues_from_the_fitted_network_and_keeps_the_split(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(10, ("blue", "green", "red"))
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(frame, hyperparameters={**tiny, "epochs": 6})
    before, score = weights(predictor), predictor.fit_summary()["valid_acc"]
    split = predictor.pipeline.saved.earlier_split
    assert split is not None
    predictor.fit(frame, hyperparameters={"epochs": 1, "lr": 1e-12}, warm_start=True, overwrite=True)
    # With next to no learning rate it is still the same network, in a run of its own.
    assert predictor.fit_summary()["best_config"]["model"] == "test_resnet"
    assert predictor.fit_summary()["best_config"]["lr"] == 1e-12
    assert predictor.fit_summary()["valid_acc"] == score  # on the same images
    again = predictor.pipeline.saved.earlier_split
    assert again is not None
    assert (again.fitted == split.fitted).all()
    assert (again.held_out == split.held_out).all()
    for name, tensor in weights(predictor).items():
        if name.endswith("weight"):
            assert torch.allclose(tensor, before[name], atol=1e-6), name
    assert [path.name for path in (Path(predictor.path) / "trials").iterdir()] == ["0000"]


def test_warm_start_after_a_refit_holds_out_new_images_or_warns(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame, more = make_colours(8), make_colours(4, seed=5)
    first = ImagePredictor(path=tmp_path / "run", verbosity=0).fit(frame, hyperparameters=tiny, refit_full=True)
    first.save(tmp_path / "saved")
    both = pd.concat([frame, more], ignore_index=True)
    new = ImagePredictor.load(tmp_path / "saved", verbosity=0)
    new.fit(both, hyperparameters={"epochs": 1}, warm_start=True, holdout_frac=0.2)
    assert not [event for event in events(new, "warned") if "warm_start" in event["text"]]
    assert "too high" not in new.fit_summary()["valid_score_how"]
    split = new.pipeline.saved.earlier_split
    assert split is not None
    assert len(split.held_out) == 2 * round(0.2 * len(both))  # two keys for each image
    assert not set(split.held_out) & set(split.fitted)
    assert new.predict(both).notna().all()
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "features.safetensors",
        "history.jsonl",
        "predictor.json",
        "split.safetensors",
        "validation.safetensors",
        "weights.safetensors",
    ]

    first.fit(frame, hyperparameters={"epochs": 1}, warm_start=True, overwrite=True)
    assert [event for event in events(first, "warned") if "No other images are left" in event["text"]]
    assert "too high" in first.fit_summary()["valid_score_how"]


def test_a_warm_start_keeps_the_classes_of_the_predictor(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    names = ["blue", "green", "red"]
    make_colours(8, tuple(names))
    folders = ImageDataset.from_folder(tmp_path / "colours_0")
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0).fit(folders, hyperparameters={**tiny, "epochs": 6})
    make_colours(8, ("green", "red"), seed=1)
    lacking = ImageDataset.from_folder(tmp_path / "colours_1", labels="numbers")  # here green is 0
    predictor.fit(lacking, hyperparameters={"epochs": 1, "lr": 1e-12}, warm_start=True, overwrite=True)
    assert predictor.classes == names
    assert predictor.evaluate(folders)["top1"] > 0.8
    assert json.loads((tmp_path / "run" / "run.json").read_text())["problem"]["classes"] == names


def test_warm_start_requires_known_classes_the_same_network_and_a_fitted_predictor(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    with pytest.raises(NotFittedError):
        predictor.fit(make_colours(8), hyperparameters=tiny, warm_start=True)
    predictor.fit(make_colours(8), hyperparameters=tiny)
    with pytest.raises(HyperparameterError, match="network 'test_resnet'"):
        predictor.fit(make_colours(8), hyperparameters={"model": "test_vit"}, warm_start=True)


def test_warm_start_with_a_new_class_keeps_the_backbone(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(make_colours(8), hyperparameters={**tiny, "epochs": 1})
    before = load_file(predictor.pipeline.saved.weights_path)
    frame = make_colours(8, ("green", "red"), seed=1)
    predictor.fit(frame, hyperparameters={"epochs": 1, "lr": 1e-12}, warm_start=True, overwrite=True)
    assert predictor.classes == ["green", "red"]
    after = load_file(predictor.pipeline.saved.weights_path)
    changed = [name for name in before if name.endswith("weight") and not torch.allclose(before[name], after[name])]
    assert changed == ["fc.weight"]
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert "train_data has new classes" in events
