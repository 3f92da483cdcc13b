"""Fits that end in an ensemble of several networks."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saccade import ImageClassifier, ImagePredictor
from saccade.errors import SavedPredictorError
from saccade.inference.feature_bank import FEATURES
from saccade.inference.pipeline import InferencePipeline
from saccade.inference.postprocessing import Postprocessing
from saccade.inference.saved import DESCRIPTION, HISTORY, SPLIT, SavedPredictor
from saccade.inference.validation import VALIDATION
from saccade.selection import combination
from saccade.selection.ensemble import Evaluation
from saccade.space import Categorical

MakeColours = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def frame(make_colours_once: MakeColours) -> pd.DataFrame:
    """Similar colours, so that no network classifies all of them."""
    frame = make_colours_once(30, ("blue", "green", "red"), seed=7)
    rng = np.random.default_rng(0)
    for path in frame["image"]:
        pixels = np.asarray(Image.open(path), np.float64)
        noise = rng.normal(0, 60, 3) + rng.normal(0, 40, pixels.shape)
        Image.fromarray(np.clip(128 + 0.3 * (pixels - 128) + noise, 0, 255).astype(np.uint8)).save(path)
    return frame


@pytest.fixture(scope="module")
def run(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    """A search whose two trials are an ensemble by a patched selection, which `tests/selection` tests itself."""
    space = {
        "model": Categorical("test_resnet", "test_vit"),
        "pretrained": False,
        "img_size": 32,
        "batch_size": 16,
        "epochs": 1,
        "lr": 3e-3,
    }
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("ensemble") / "run", verbosity=0)
    with pytest.MonkeyPatch.context() as patch:
        none = np.zeros(0)
        evaluations = [Evaluation(score, {"top1": score}, none, np.ones(36)) for score in (0.75, 0.5)]
        patch.setattr(combination, "cross_fit", lambda *_: evaluations)
        patch.setattr(combination, "select_weights", lambda *_: np.array([0.375, 0.625]))
        return predictor.fit(
            frame, hyperparameters=space, holdout_frac=0.4, searcher="grid", scheduler="fifo", executor="inline"
        )


def files(folder: str | Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_the_result_may_be_an_ensemble_which_is_reported(run: ImagePredictor) -> None:
    summary = run.fit_summary()
    members = summary["ensemble"]
    assert {member["model"] for member in members} == {"test_resnet", "test_vit"}
    assert [member["weight"] for member in members] == [0.375, 0.625]  # the one with the higher score is first
    board = run.leaderboard()
    assert summary["best_trial"] == members[0]["trial"] == board["trial"][0]
    assert summary["fit_history"]["best_reward"] == board["score_val"][0]
    assert dict(zip(board["trial"], board["weight"], strict=True)) == {
        member["trial"]: member["weight"] for member in members
    }
    best = f"trial {board['trial'][0]}, {board['score_val'][0]:.4g}"
    names = " and ".join(str(member["trial"]) for member in members)
    speed = f"{summary['images_per_s']:g} images/s without decoding"
    assert summary["result"] == f"ensemble of trials {names}, accuracy 0.75 (best single: {best}), {speed}"
    assert 1 / summary["images_per_s"] == pytest.approx((1 / board["images_per_s"]).sum(), rel=0.01)  # one by one
    assert summary["valid_score_how"].startswith("cross-fitted")
    assert summary["cross_fitted_scores"] == {"ensemble": 0.75, "single": 0.5}
    assert (summary["valid_score"], summary["valid_acc"]) == (0.75, 0.75)
    assert files(Path(run.path) / "predictor") == [
        FEATURES,
        HISTORY,
        "members/0001.safetensors",
        DESCRIPTION,
        SPLIT,
        VALIDATION,
        "weights.safetensors",
    ]
    assert len(list(Path(run.path).glob("trials/*/best*.safetensors"))) == 1


def test_an_ensemble_predicts_the_weighted_mean_of_its_members(run: ImagePredictor, frame: pd.DataFrame) -> None:
    saved = replace(SavedPredictor.read(run.path), postprocessing=Postprocessing())  # calibrated only after that

    def predicted(of: SavedPredictor) -> np.ndarray:
        predictor = ImagePredictor(verbosity=0)
        predictor._pipeline = InferencePipeline(of)
        return predictor.predict_proba(frame, as_pandas=False)

    each = [predicted(replace(saved, members=[replace(member, weight=1.0)])) for member in saved.members]
    together = predicted(saved)
    expected = sum(member.weight * rows for member, rows in zip(saved.members, each, strict=True))
    assert np.allclose(together, expected, atol=1e-6)
    assert not np.allclose(together, each[0], atol=1e-3)
    probabilities = run.predict_proba(frame, as_pandas=False)
    assert (run.predict(frame).to_numpy() == np.array(run.classes)[probabilities.argmax(1)]).all()


def test_features_are_those_of_the_first_member(run: ImagePredictor, frame: pd.DataFrame) -> None:
    saved = SavedPredictor.read(run.path)
    one = ImagePredictor(verbosity=0)
    one._pipeline = InferencePipeline(replace(saved, members=[replace(saved.members[0], weight=1.0)]))
    features = run.predict_feature(frame.iloc[:4], as_pandas=False)
    assert np.allclose(features, one.predict_feature(frame.iloc[:4], as_pandas=False), atol=1e-5)


def test_an_ensemble_is_saved_copied_and_loaded_whole(run: ImagePredictor, frame: pd.DataFrame, tmp_path: Path) -> None:
    expected = run.predict_proba(frame.iloc[:8])
    first = ImagePredictor.load(run.path, verbosity=0)
    first.save(tmp_path / "copy")
    second = ImagePredictor.load(tmp_path / "copy", verbosity=0)
    second.save(tmp_path / "copy of the copy")
    for predictor in (first, second, ImagePredictor.load(tmp_path / "copy of the copy", verbosity=0)):
        pd.testing.assert_frame_equal(predictor.predict_proba(frame.iloc[:8]), expected)
        assert predictor.fit_summary()["ensemble"] == run.fit_summary()["ensemble"]
    assert files(tmp_path / "copy") == files(tmp_path / "copy of the copy")
    (tmp_path / "copy" / "members" / "0001.safetensors").unlink()
    with pytest.raises(SavedPredictorError, match=r"0001\.safetensors cannot be loaded"):
        ImagePredictor.load(tmp_path / "copy", verbosity=0).predict(frame.iloc[:2])


@pytest.mark.parametrize("has_predicted", [False, True])
def test_an_estimator_of_an_ensemble_can_be_pickled(
    run: ImagePredictor, frame: pd.DataFrame, tmp_path: Path, has_predicted: bool
) -> None:
    estimator = ImageClassifier()
    estimator.predictor_ = ImagePredictor.load(run.path, verbosity=0)
    estimator.classes_ = np.array(run.classes)
    paths = frame["image"].tolist()[:8]
    if has_predicted:
        estimator.predict(paths)
    again = pickle.loads(pickle.dumps(estimator))
    assert again.predictor_.path != run.path
    np.testing.assert_array_equal(again.predict_proba(paths), run.predict_proba(paths, as_pandas=False))


@pytest.mark.parametrize(("number", "words"), [(4, "before the first release"), (6, "Update saccade")])
def test_predictors_of_other_formats_are_refused_in_a_sentence(number: int, words: str, tmp_path: Path) -> None:
    (tmp_path / DESCRIPTION).write_text(json.dumps({"format": number}))
    with pytest.raises(SavedPredictorError, match=words):
        ImagePredictor.load(tmp_path)


def test_without_ensemble_one_network_is_kept(frame: pd.DataFrame, tiny: dict[str, Any], tmp_path: Path) -> None:
    space = {**tiny, "epochs": 1, "lr": Categorical(1e-3, 3e-3)}
    predictor = ImagePredictor(eval_metric="log_loss", path=tmp_path / "run", verbosity=0)
    predictor.fit(frame, hyperparameters=space, ensemble=False, holdout_frac=0.4, searcher="grid", executor="inline")
    summary = predictor.fit_summary()
    assert summary["ensemble"] == []
    validation = predictor.leaderboard()["score_val"].max()
    assert summary["valid_score"] > validation  # with calibration
    assert f"({-validation:.4g} without calibration and thresholds)" in summary["result"]
    assert "chosen" in summary["valid_score_how"]
    assert files(Path(predictor.path) / "predictor") == [
        FEATURES,
        HISTORY,
        DESCRIPTION,
        SPLIT,
        VALIDATION,
        "weights.safetensors",
    ]
