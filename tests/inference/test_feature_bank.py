"""Features stored with a predictor, and the novelty of images by them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from saccade import ImagePredictor
from saccade.errors import DataError, DataWarning, HyperparameterError, SavedPredictorError
from saccade.fit import fitting
from saccade.inference.feature_bank import FEATURES, FeatureBank
from saccade.selection import finishing

Fitted = tuple[ImagePredictor, pd.DataFrame]


@pytest.fixture(scope="module")
def fitted(make_colours_once: Callable[..., pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    frame = make_colours_once(30)
    tiny = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1, "lr": 3e-3}
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    return predictor.fit(frame, hyperparameters=tiny, holdout_frac=0.4), frame


def bank_of(train: np.ndarray, val: np.ndarray) -> FeatureBank:
    return FeatureBank(
        train.astype(np.float16),
        np.zeros(len(train)),
        val.astype(np.float16),
        np.zeros(len(val)),
        np.zeros(0, np.int64),
    )


def test_novelty_is_one_minus_the_cosine_to_the_fifth_nearest_image() -> None:
    rng = np.random.default_rng(0)
    train, images = rng.normal(size=(40, 8)).astype(np.float16), rng.normal(size=(7, 8)).astype(np.float32)
    found = bank_of(train, train).novelty(torch.from_numpy(images)).numpy()
    cosines = images @ train.T.astype(np.float32)
    cosines /= np.linalg.norm(images, axis=1)[:, None] * np.linalg.norm(train.astype(np.float32), axis=1)
    assert np.allclose(found, 1 - np.sort(cosines, 1)[:, -5], atol=1e-3)


def test_at_most_the_false_alarm_rate_of_new_images_is_above_the_threshold() -> None:
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(20):
        train, val, new = (rng.normal(1, 1, size=(num, 6)) for num in (50, 39, 300))
        bank = bank_of(train, val)
        rates.append((bank.novelty(torch.from_numpy(new)).numpy() > bank.threshold(0.1)).mean())
    assert 0.06 < np.mean(rates) < 0.12
    with pytest.raises(DataError, match=r"false_alarm_rate=0\.01 requires at least 99 validation images.*of 39\."):
        bank.threshold(0.01)
    with pytest.raises(HyperparameterError, match="false_alarm_rate"):
        bank.threshold(5)


def test_a_fit_stores_features_that_are_saved_and_loaded(fitted: Fitted, tmp_path: Path) -> None:
    predictor, frame = fitted
    bank = predictor.pipeline.bank
    assert (len(bank.train), len(bank.val), bank.class_counts.tolist(), bank.is_complete) == (36, 24, [18, 18], True)
    ImagePredictor.load(predictor.path, verbosity=0).save(tmp_path / "saved")
    loaded = ImagePredictor.load(tmp_path / "saved", verbosity=0)
    assert np.array_equal(loaded.pipeline.bank.train, bank.train)
    assert loaded.novelty(frame).equals(predictor.novelty(frame))
    validation = predictor.pipeline.saved.validation
    assert validation is not None
    both = np.concatenate([bank.train_rows, validation.rows])
    assert sorted(both) == list(range(60))
    labels = predictor.pipeline.saved.problem.encode(frame["label"])
    assert np.array_equal(labels[bank.train_rows], bank.train_targets)


def test_features_of_earlier_versions_have_no_rows(fitted: Fitted, tmp_path: Path) -> None:
    bank, problem = fitted[0].pipeline.bank, fitted[0].pipeline.saved.problem
    bank.save(tmp_path, "key")
    with safe_open(tmp_path / FEATURES, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != "train_rows"}  # noqa: SIM118
        save_file(tensors, tmp_path / "old", file.metadata())
    (tmp_path / "old").replace(tmp_path / FEATURES)
    old = FeatureBank.load(tmp_path, "key", problem)
    assert old is not None
    assert len(old.train_rows) == 0
    assert np.array_equal(old.train, bank.train)


def test_images_unlike_the_training_images_are_unknown(fitted: Fitted, tmp_path: Path) -> None:
    predictor, frame = fitted
    noise = np.random.default_rng(0).integers(0, 255, (10, 32, 32, 3), dtype=np.uint8)
    (tmp_path / "broken.png").write_text("")
    images = [*frame["image"].iloc[::6], *noise, str(tmp_path / "broken.png")]
    scores = predictor.novelty(images)
    labels = predictor.predict(images, unknown="?", false_alarm_rate=0.1)
    threshold = predictor.pipeline.bank.threshold(0.1)
    assert ((labels == "?") == (scores > threshold)).all()
    assert scores[:10].max() < scores[10:20].min()
    assert (labels[10:20] == "?").all()
    assert pd.isna(labels.iloc[20])
    assert np.isnan(scores.iloc[20])
    assert predictor.predict(images, unsure="!", min_proba=1.0, unknown="?", false_alarm_rate=0.1)[15] == "?"
    assert len(predictor.novelty([])) == 0
    with pytest.raises(HyperparameterError, match="pass unknown=… too"):
        predictor.predict(images, false_alarm_rate=0.1)


def test_features_that_a_fit_had_no_time_for_are_completed_in_the_run_folder(
    fitted: Fitted, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, write = fitted[1], finishing.write_features
    monkeypatch.setattr(finishing, "LEAST_FEATURES_S", 0.0)
    monkeypatch.setattr(fitting, "write_features", lambda *args: write(*args[:-1], lambda: 0.0))
    monkeypatch.setenv("SACCADE_FEATURE_CACHE_GB", "0")
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(frame, hyperparameters={**tiny, "epochs": 1}, holdout_frac=0.4)
    few = predictor.pipeline.stored_features()
    assert few is not None
    assert not few.is_complete
    ImagePredictor.load(predictor.path, verbosity=0).save(tmp_path / "saved")
    with pytest.warns(DataWarning, match=r"with only .* training images"):
        ImagePredictor.load(tmp_path / "saved", verbosity=0).novelty(frame)
    predictor.novelty(frame)
    bank = ImagePredictor.load(tmp_path / "run", verbosity=0).pipeline.bank
    assert (len(bank.train), len(bank.val), bank.is_complete) == (36, 24, True)
    assert bank.class_counts.tolist() == [18, 18]


def test_predictors_without_features_say_how_to_get_them(fitted: Fitted, tmp_path: Path) -> None:
    predictor, frame = fitted
    ImagePredictor.load(predictor.path, verbosity=0).save(tmp_path / "old")
    (tmp_path / "old" / FEATURES).unlink()
    with pytest.raises(DataError, match=r"has no features of its training images.*Fit again"):
        ImagePredictor.load(tmp_path / "old", verbosity=0).novelty(frame)
    (tmp_path / "old" / FEATURES).write_bytes(b"damaged")
    with pytest.raises(SavedPredictorError, match=r"features\.safetensors is damaged"):
        ImagePredictor.load(tmp_path / "old", verbosity=0).predict(frame, unknown="?", false_alarm_rate=0.1)
    other = tmp_path / "other"
    shutil.copytree(Path(predictor.path) / "predictor", other)
    FeatureBank.load(other, predictor.pipeline.saved.features_key, predictor.pipeline.saved.problem).save(
        other, "another network"
    )  # type: ignore[union-attr]
    with pytest.raises(DataError, match="Fit again"):
        ImagePredictor.load(other, verbosity=0).novelty(frame)
