"""Predictions for the validation images that are stored with a predictor."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from saccade import ImagePredictor
from saccade.errors import SavedPredictorError
from saccade.fit.run_data import read_run_data
from saccade.fit.run_folder import DATA
from saccade.inference import validation
from saccade.inference.validation import VALIDATION, ValidationRecord
from saccade.tasks.problem import Multiclass, Multilabel, Regression


@pytest.fixture(scope="module")
def fitted(make_colours_once: Callable[..., pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    tiny = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1, "lr": 3e-3}
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    return predictor.fit(make_colours_once(20, ("blue", "green", "red")), hyperparameters=tiny, holdout_frac=0.4)


def test_a_fit_stores_the_predictions_of_its_score(fitted: ImagePredictor, tmp_path: Path) -> None:
    record = fitted.pipeline.saved.validation
    assert record is not None
    assert (record.num_train, record.num_val, record.train_counts.tolist()) == (36, 24, [12, 12, 12])
    assert (record.adjusted.argmax(1) == record.targets).mean() == fitted.fit_summary()["valid_acc"]
    assert np.allclose(record.predictions.sum(1), 1, atol=1e-5)
    (train, _), paths = read_run_data(Path(fitted.path) / DATA), record.paths
    assert [train.images[row] for row in record.rows] == list(paths)
    labels = [train.labels.iloc[row] for row in record.rows]
    assert [fitted.classes[target] for target in record.targets] == labels
    fitted.save(tmp_path / "saved")
    saved = ImagePredictor.load(tmp_path / "saved").pipeline.saved.validation
    assert saved is not None
    assert np.array_equal(saved.predictions, record.predictions)
    assert (saved.paths, saved.rows.tolist()) == (paths, record.rows.tolist())


def test_images_of_a_tuning_set_and_images_in_memory_have_rows(
    make_colours_once: Callable[..., pd.DataFrame], tmp_path: Path, tiny: dict[str, object]
) -> None:
    train, tuning = make_colours_once(8, ("blue", "red"), seed=1), make_colours_once(4, ("blue", "red"), seed=2)
    tuning["image"] = tuning["image"].astype(object)
    tuning.loc[0, "image"] = Path(tuning["image"][0]).read_bytes()
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0).fit(train, tuning, hyperparameters=tiny)
    record = predictor.pipeline.saved.validation
    assert record is not None
    assert sorted(record.rows.tolist()) == list(range(16, 24))
    paths = ["", *tuning["image"][1:]]
    assert record.paths == tuple(paths[row - 16] for row in record.rows)


def test_a_file_of_another_predictor_or_a_damaged_one_is_not_used(fitted: ImagePredictor, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    shutil.copytree(fitted.pipeline.saved.folder, folder)
    with safe_open(folder / VALIDATION, "numpy") as file:
        metadata, known = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, changed in (
        ("targets", known["targets"] + 9),
        ("targets", known["targets"][1:]),
        ("predictions", known["predictions"] * np.nan),
        ("predictions", known["predictions"] + 2),
        ("adjusted", known["adjusted"][:, 1:].copy()),
        ("train_counts", -known["train_counts"]),
        ("rows", known["rows"][1:]),
        ("rows", -1 - known["rows"]),
        ("paths", known["paths"][:100]),
    ):
        save_file({**known, name: changed}, folder / VALIDATION, metadata)
        with pytest.raises(SavedPredictorError, match=r"validation\.safetensors is damaged"):
            _ = ImagePredictor.load(folder).pipeline.saved.validation
    earlier = {name: known[name] for name in known if name not in ("rows", "paths")}
    save_file(earlier, folder / VALIDATION, metadata)
    record = ImagePredictor.load(folder).pipeline.saved.validation
    assert record is not None
    assert (record.rows.tolist(), record.paths) == ([], ())
    save_file(known, folder / VALIDATION, {**metadata, "key": "another"})
    assert ImagePredictor.load(folder).pipeline.saved.validation is None
    (folder / VALIDATION).unlink()
    assert ImagePredictor.load(folder).pipeline.saved.validation is None


@pytest.mark.parametrize("problem", [Multiclass(("a", "b", "c")), Multilabel(("a", "b", "c")), Regression(5.0, 2.0)])
def test_all_problems_are_stored_and_many_images_are_sampled(
    problem: Multiclass, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    targets = {
        "multiclass": rng.integers(0, 3, 40),
        "multilabel": rng.integers(0, 2, (40, 3)).astype(np.float32),
        "regression": rng.normal(size=40).astype(np.float32),
    }[problem.type]
    predictions = problem.activate(torch.from_numpy(rng.normal(size=(40, problem.num_outputs)))).numpy()
    rows, paths = 60 + np.arange(40), [f"/photos/{number}\udcff.png" for number in range(100)]
    record = ValidationRecord.of(problem, targets, predictions, predictions, targets, rows, paths)
    record.save(tmp_path, "key")
    loaded = ValidationRecord.load(tmp_path, "key", problem)
    assert loaded is not None
    assert np.array_equal(loaded.predictions, predictions)
    assert len(loaded.train_counts) == len(problem.classes)
    monkeypatch.setattr(validation, "MAX_NUMBERS", 30)
    some = ValidationRecord.of(problem, targets, predictions, predictions, targets, rows, paths)
    assert list(some.paths) == [paths[row] for row in some.rows]
    assert np.array_equal(targets[some.rows - 60], some.targets)
    assert (len(some.targets), some.num_val) == (30 // problem.num_outputs, 40)
    none = ValidationRecord.of(problem, targets, predictions[:0], predictions[:0], targets)
    assert (len(none.targets), none.num_train, none.num_val) == (0, 40, 40)
