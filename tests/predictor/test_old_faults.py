"""The faults of the system whose API this is, by their numbers, each shown to be mended."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

import saccade as ag
from contracts.executors import PicklingExecutor
from saccade import ImageDataset, ImagePredictor
from saccade.data.examples import read_labelled_examples
from saccade.errors import (
    DownloadError,
    HyperparameterError,
    SearchFailedError,
    UnknownArgumentError,
    UnknownModelError,
    UnknownNameError,
)
from saccade.fit.preparation import prepare_data
from saccade.fit.presets import find_preset
from saccade.study.trial_files import LocalTrialFiles
from saccade.training.recipes.recipe import Recipe
from saccade.training.trial.trainer import Trainer

MakeColours = Callable[..., pd.DataFrame]


@pytest.fixture
def fit(tmp_path: Path, make_colours: MakeColours, tiny: dict[str, Any]) -> Callable[..., ImagePredictor]:
    """Fit a new predictor in a folder of its own, without a worker process unless it is asked for."""

    def fit(frame: pd.DataFrame | None = None, *args: Any, **kwargs: Any) -> ImagePredictor:
        predictor = ImagePredictor(path=tmp_path / f"run_{len(list(tmp_path.glob('run_*')))}", verbosity=0)
        hyperparameters = {**tiny, "epochs": 1, **kwargs.pop("hyperparameters", {})}
        kwargs = {"executor": "inline", **kwargs}
        return predictor.fit(
            make_colours(8) if frame is None else frame, *args, hyperparameters=hyperparameters, **kwargs
        )

    return fit


def test_fault_01_the_split_obeys_random_state(make_colours: MakeColours, tmp_path: Path) -> None:
    examples = read_labelled_examples(make_colours(20), "label")

    def held_out(random_state: int, name: str) -> set[int]:
        data = prepare_data(
            examples, None, None, folder=tmp_path / name, shorter_side=32, holdout_frac=0.2,
            random_state=random_state, seconds_left=None, notify=lambda event: None,
        )  # fmt: skip
        return set(data.val.indices.tolist())

    assert held_out(1, "a") == held_out(1, "b") != held_out(2, "c")


def test_fault_02_presets_none_works_and_dictionaries_are_unchanged(
    fit: Callable[..., ImagePredictor], tiny: dict[str, Any]
) -> None:
    mine, tuning = {"lr": ag.Categorical(1e-3, 1e-2), "wd": 0.01}, {"num_trials": 1}
    before = dict(mine), dict(tuning)
    config = fit(presets="medium_quality", hyperparameters=mine, hyperparameter_tune_kwargs=tuning).fit_summary()
    assert (mine, tuning) == before
    assert config["best_config"]["early_stop_patience"] == 5
    assert "early_stop_patience" not in fit(presets=None).fit_summary()["best_config"]
    find_preset("medium_quality").hyperparameters["early_stop_patience"] = "changed"
    assert find_preset("medium_quality").hyperparameters["early_stop_patience"] != "changed"


def test_fault_03_grid_and_fifo_work_and_unknown_searchers_are_errors(fit: Callable[..., ImagePredictor]) -> None:
    space = {"lr": ag.Categorical(1e-3, 1e-2), "hflip": ag.Categorical(0.0, 0.5)}
    board = fit(
        hyperparameters=space, hyperparameter_tune_kwargs={"searcher": "grid", "scheduler": "fifo"}
    ).leaderboard()
    tried = set(board.sort_values("trial")[["lr", "hflip"]].itertuples(index=False, name=None))
    assert tried == {(1e-3, 0.0), (1e-3, 0.5), (1e-2, 0.0), (1e-2, 0.5)}
    with pytest.raises(UnknownNameError, match="grid"):
        fit(hyperparameter_tune_kwargs={"searcher": "gird"})
    with pytest.raises(UnknownNameError, match="fifo"):
        fit(hyperparameter_tune_kwargs={"scheduler": "fofi"})


def test_fault_04_the_summary_and_the_model_are_those_of_the_best_trial(
    fit: Callable[..., ImagePredictor], make_colours: MakeColours
) -> None:
    tuning = make_colours(10, seed=1)
    space = {"lr": ag.Categorical(3e-3, 1e-9, 1e-10), "epochs": 6}
    predictor = fit(make_colours(20), tuning, hyperparameters=space, hyperparameter_tune_kwargs={"searcher": "grid"})
    summary, board = predictor.fit_summary(), predictor.leaderboard()
    assert summary["best_trial"] == 0  # neither the last trial ...
    assert summary["valid_acc"] == board["score_val"].max() > board["score_val"].min()
    assert predictor.evaluate(tuning)["top1"] == summary["valid_acc"]  # ... nor another one's weights


@pytest.mark.parametrize(
    ("hyperparameters", "error", "message"),
    [
        ({"learn_rate": 0.1}, HyperparameterError, "'learning_rate'"),
        ({"model": "resnet_18"}, UnknownModelError, "'resnet18'"),
        ({"epochs": "many"}, HyperparameterError, "'epochs'"),
    ],
)
def test_fault_05_unknown_names_and_wrong_types_are_errors_at_once(
    fit: Callable[..., ImagePredictor], hyperparameters: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fit(hyperparameters=hyperparameters)


def test_fault_06_a_trials_exception_is_shown(fit: Callable[..., ImagePredictor]) -> None:
    class Broken(torch.optim.SGD):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise ZeroDivisionError("so it goes")

    with pytest.raises(SearchFailedError, match="so it goes") as raised:
        fit(hyperparameters={"opt": Broken}, executor=PicklingExecutor())
    assert "Traceback (most recent call last)" in str(raised.value)


@pytest.mark.parametrize("batch_size", [ag.Int(2, 4), 1, 14, 1000])
def test_fault_07_batches_of_any_size_use_every_image(fit: Callable[..., ImagePredictor], batch_size: Any) -> None:
    predictor = fit(hyperparameters={"batch_size": batch_size}, hyperparameter_tune_kwargs={"num_trials": 2})
    events = [json.loads(line) for line in (Path(predictor.path) / "events.jsonl").read_text().splitlines()]
    parts = [event["metrics"]["train_part"] for event in events if event["kind"] == "epoch_done"]
    assert parts
    assert set(parts) == {1.0}


def test_fault_08_a_limit_within_the_first_epoch_leaves_a_model(
    fit: Callable[..., ImagePredictor], make_colours: MakeColours
) -> None:
    frame = make_colours(40)
    predictor = fit(frame, time_limit=0.5, hyperparameters={"batch_size": 1, "epochs": 10_000})
    assert len(predictor.predict(frame)) == len(frame)


def test_fault_08_waiting_for_data_counts(
    fit: Callable[..., ImagePredictor], make_colours: MakeColours, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade.data.store import store

    decode = store.decode_image
    monkeypatch.setattr(store, "decode_image", lambda *args, **kwargs: time.sleep(0.05) or decode(*args, **kwargs))
    frame = make_colours(200)
    predictor = fit(frame, time_limit=4, hyperparameters={"epochs": 10_000})
    # 400 images at 0.05 s take 10 s even on two threads: it must stop decoding, and still train and return.
    ready = next(
        json.loads(line)
        for line in (Path(predictor.path) / "events.jsonl").read_text().splitlines()
        if "data_ready" in line
    )
    assert ready["num_train"] + ready["num_val"] < 400


def test_fault_09_learning_rate_multipliers_and_ema_are_used(
    make_task: Any, tiny: dict[str, Any], tmp_path: Path, tiny_weights: Path
) -> None:
    recipe = {**tiny, "pretrained": True, "transfer_lr_mult": 0.0, "output_lr_mult": 2.0, "freeze_bn": True}
    trainer = Trainer(
        make_task(weights=tiny_weights), Recipe.of({**recipe, "model_ema": True}), LocalTrialFiles(tmp_path)
    )
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.steps.take_epoch(trainer_deadline())
    changed = {name for name, tensor in trainer.network.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed == {"fc.weight", "fc.bias"}
    assert trainer.steps.ema is not None
    averaged = trainer.steps.ema.module.get_classifier().weight
    assert not torch.equal(averaged, trainer.network.get_classifier().weight)
    assert not torch.equal(averaged, before["fc.weight"])


def test_fault_08_a_refit_is_not_starved_by_the_search(
    fit: Callable[..., ImagePredictor], make_colours: MakeColours
) -> None:
    space = {"lr": ag.Real(1e-3, 1e-2), "epochs": 1}
    predictor = fit(make_colours(8), time_limit=3, hyperparameters=space, refit_full=True)
    assert predictor.fit_summary()["refit_full"] is True


def test_fault_10_a_refit_on_training_and_validation_images_happens(
    fit: Callable[..., ImagePredictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_images = []
    run = Trainer.run
    monkeypatch.setattr(
        Trainer, "run", lambda self, *args: num_images.append(len(self.task.train.indices)) or run(self, *args)
    )
    fit(refit_full=True, holdout_frac=0.25)
    assert num_images == [12, 16]


def test_fault_11_a_second_fit_obeys_its_own_arguments(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(make_colours(8), hyperparameters=tiny)
    other = make_colours(8, ("green", "red", "yellow"), seed=1)
    predictor.fit(other, hyperparameters={**tiny, "model": "test_vit", "epochs": 1}, overwrite=True)
    assert predictor.classes == ["green", "red", "yellow"]
    assert predictor.fit_summary()["best_config"]["model"] == "test_vit"
    assert len(predictor.leaderboard()) == 1


def test_fault_12_data_sets_need_no_root_and_splits_are_seeded_by_0_and_stratified(make_colours: MakeColours) -> None:
    frame = make_colours(10)
    data = ImageDataset.from_name_func(list(frame["image"]), lambda name: Path(name).parent.name)
    assert set(data["label"]) == {"blue", "red"}
    splits = [data.random_split(test_size=0.2, random_state=0) for _ in range(2)]
    assert splits[0][0].equals(splits[1][0])
    for part, num in zip(splits[0], (8, 0, 2), strict=True):
        assert list(part["label"].value_counts()) == ([num, num] if num else [])


def test_fault_12_downloads_have_checksums(
    make_colours: MakeColours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    make_colours(3)
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "colours_0"))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *args: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/photos.zip"
        with pytest.raises(DownloadError, match=r"(?i)sha-?256"):
            ImageDataset.from_folder(url, sha256="0" * 64)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert len(ImageDataset.from_folder(url, sha256=digest)) == 6
        server.shutdown()


def test_fault_13_top5_is_not_reported_for_five_classes_or_fewer(
    fit: Callable[..., ImagePredictor], make_colours: MakeColours
) -> None:
    frame = make_colours(12, ("blue", "red", "green"))
    frame["label"] = np.arange(len(frame)) % 5
    assert fit(frame).evaluate(frame).keys() == {"top1"}
    frame["label"] = np.arange(len(frame)) % 6
    assert fit(frame).evaluate(frame).keys() == {"top1", "top5"}


def test_fault_14_what_is_saved_is_safetensors_and_json(fit: Callable[..., ImagePredictor], tmp_path: Path) -> None:
    folder = Path(fit().save(tmp_path / "saved"))
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".jsonl", ".safetensors"}
    json.loads((folder / "predictor.json").read_text())
    with safe_open(folder / "weights.safetensors", "pt") as file:
        assert list(file.keys())


def test_fault_15_one_unreadable_image_does_not_end_a_fit(
    fit: Callable[..., ImagePredictor], make_colours: MakeColours
) -> None:
    frame = make_colours(8)
    Path(frame["image"][0]).write_bytes(b"\xff\xd8\xff torn")
    predictor = fit(frame)
    assert predictor.predict(frame).notna().sum() == len(frame) - 1


def test_fault_15_weights_are_saved_for_any_device(fit: Callable[..., ImagePredictor]) -> None:
    weights = Path(fit().path) / "predictor" / "weights.safetensors"
    with safe_open(weights, "pt", device="cpu") as file:
        assert all(file.get_tensor(name).device.type == "cpu" for name in file.keys())  # noqa: SIM118


def test_unknown_arguments_are_key_errors(fit: Callable[..., ImagePredictor]) -> None:
    with pytest.raises(UnknownArgumentError) as raised:
        fit(holdout=0.1)
    assert isinstance(raised.value, KeyError)


def trainer_deadline() -> Any:
    from saccade.deadline import Deadline

    return Deadline(None)
