"""What a fitted predictor says of its own certainty: calibrated probabilities, sets, doubts and intervals."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import saccade as ag
from saccade import ImagePredictor
from saccade.errors import DataError, HyperparameterError
from saccade.inference.calibration import calibration_error
from saccade.inference.postprocessing import Trust
from saccade.tasks.metrics import make_metric

MakeColours = Callable[..., pd.DataFrame]
TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 2, "lr": 3e-3}
NAMES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def doubtful(make_colours_once: MakeColours) -> pd.DataFrame:
    """Validation images of which a fifth have a wrong label: there is something to doubt."""
    frame = make_colours_once(12, NAMES, seed=3)
    wrong = frame.index[::5]
    frame.loc[wrong, "label"] = frame.loc[wrong, "label"].map({"blue": "green", "green": "red", "red": "blue"})
    return frame


@pytest.fixture(scope="module")
def fitted(make_colours_once: MakeColours, doubtful: pd.DataFrame, tmp_path_factory: Any) -> ImagePredictor:
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    return predictor.fit(make_colours_once(10, NAMES), doubtful, hyperparameters={**TINY, "epochs": 4})


def uncalibrated(predictor: ImagePredictor, data: Any, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    assert predictor._saved is not None
    with monkeypatch.context() as patch:
        patch.setattr(type(predictor._saved.trust.calibration), "apply", lambda self, p, problem: p)
        return np.asarray(predictor.predict_proba(data, as_pandas=False))


def test_probabilities_are_calibrated_on_what_the_network_said_of_the_validation_images(
    fitted: ImagePredictor, doubtful: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, summary = fitted._saved, fitted.fit_summary()
    assert saved is not None
    assert summary["temperature"] == saved.trust.calibration.temperature != 1
    assert summary["calibrated_on"].startswith("36 validation images")
    raw, targets = uncalibrated(fitted, doubtful, monkeypatch), saved.problem.encode(doubtful["label"])
    # Numerics may be others than those of training.
    assert summary["ece_before"] == pytest.approx(calibration_error(raw, targets, saved.problem), abs=0.05)
    expected = Trust.of(raw, targets, saved.problem, make_metric(None, saved.problem))
    assert summary["temperature"] == pytest.approx(expected.calibration.temperature, rel=0.05)
    np.testing.assert_allclose(saved.trust.conformal.scores, expected.conformal.scores, atol=0.05)
    proba = fitted.predict_proba(doubtful, as_pandas=False)
    np.testing.assert_array_equal(proba, saved.trust.calibration.apply(raw, saved.problem))
    np.testing.assert_array_equal(proba.argmax(1), raw.argmax(1))


def test_a_predictor_is_as_sure_after_it_was_loaded(
    fitted: ImagePredictor, doubtful: pd.DataFrame, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "saved")
    loaded = ImagePredictor.load(tmp_path / "saved", verbosity=0)
    pd.testing.assert_frame_equal(loaded.predict_proba(doubtful), fitted.predict_proba(doubtful))
    pd.testing.assert_series_equal(loaded.predict_set(doubtful), fitted.predict_set(doubtful))


def test_a_predictor_of_old_is_taken_at_its_word(
    fitted: ImagePredictor, doubtful: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = Path(fitted.save(tmp_path / "saved")) / "predictor.json"
    record = json.loads(description.read_text())
    del record["trust"]
    description.write_text(json.dumps(record))
    loaded = ImagePredictor.load(tmp_path / "saved", verbosity=0)
    raw = uncalibrated(fitted, doubtful, monkeypatch)
    np.testing.assert_array_equal(loaded.predict_proba(doubtful, as_pandas=False), raw)
    with pytest.raises(DataError, match="9 validation images at least, and this predictor knows 0"):
        loaded.predict_set(doubtful)


def test_sets_hold_labels_the_likeliest_first_and_none_for_what_cannot_be_read(
    fitted: ImagePredictor, doubtful: pd.DataFrame, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    some = pd.concat([doubtful.iloc[[7, 3, 20]], pd.DataFrame({"image": [str(bad)]}, index=[99])])
    sets, proba = fitted.predict_set(some, coverage=0.9), fitted.predict_proba(some)
    assert sets.index.tolist() == [7, 3, 20, 99]
    assert sets.name == "label"
    assert sets[99] is None
    for number in (7, 3, 20):
        assert sets[number] == proba.loc[number].sort_values(ascending=False).index[: len(sets[number])].tolist()
    everything = fitted.predict_set(doubtful, coverage=0.9)
    is_held = [label in labels for label, labels in zip(doubtful["label"], everything, strict=True)]
    assert np.mean(is_held) >= 0.9  # of the very images that the sets are made by
    assert everything.map(len).max() > 1
    assert fitted.predict_set(some, as_pandas=False).tolist() == sets.tolist()


def test_doubts_stand_in_the_place_of_labels(fitted: ImagePredictor, doubtful: pd.DataFrame) -> None:
    labels, sets = fitted.predict(doubtful), fitted.predict_set(doubtful, coverage=0.95)
    asked = fitted.predict(doubtful, unsure="ask", coverage=0.95)
    assert asked.tolist() == ["ask" if len(each) > 1 else label for each, label in zip(sets, labels, strict=True)]
    assert "ask" in set(asked)
    certainty = fitted.predict_proba(doubtful).max(axis=1)
    asked = fitted.predict(doubtful, unsure="ask", min_proba=certainty.median())
    assert (asked == "ask").tolist() == (certainty < certainty.median()).tolist()


def test_what_cannot_be_promised_is_told_before_images_are_read(fitted: ImagePredictor) -> None:
    for ask in (
        lambda **how: fitted.predict_set("gone.png", **how),
        lambda **how: fitted.predict("gone.png", unsure="?", **how),
    ):
        with pytest.raises(DataError, match=r"99 validation images .* knows 36; up to 0\.972"):
            ask(coverage=0.99)
        with pytest.raises(HyperparameterError, match=r"for 90 % give 0\.9"):
            ask(coverage=90)
    with pytest.raises(HyperparameterError, match="give both"):
        fitted.predict("gone.png", min_proba=0.5)
    with pytest.raises(HyperparameterError, match="interval was given 95"):
        fitted.evaluate(pd.DataFrame(), interval=95)


def test_figures_come_with_intervals_where_they_are_asked_for(fitted: ImagePredictor, doubtful: pd.DataFrame) -> None:
    plain = fitted.evaluate(doubtful)
    told = fitted.evaluate(doubtful, interval=0.95, detailed=True)
    assert list(plain) == ["top1"]
    assert list(told) == [
        "top1",
        "top1_interval",
        "log_loss",
        "log_loss_interval",
        "ece",
        "ece_interval",
        "ece_by_chance",
    ]
    low, high = told["top1_interval"]
    assert low < plain["top1"] == told["top1"] < high
    assert 0 < told["ece_by_chance"] < 1
    assert told == fitted.evaluate(doubtful, interval=0.95, detailed=True)


def test_numbers_have_intervals(make_colours: MakeColours, tmp_path: Path) -> None:
    frame = make_colours(15)
    frame["label"] = np.where(frame["label"] == "red", 10.5, -3.25) + np.linspace(0, 1, len(frame))
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0).fit(frame, hyperparameters=TINY, holdout_frac=0.4)
    numbers, intervals = predictor.predict(frame), predictor.predict_set(frame, coverage=0.8)
    widths = np.array([high - low for low, high in intervals])
    assert np.allclose([low for low, _ in intervals], numbers - widths / 2)
    assert np.ptp(widths) < 1e-9
    assert "temperature" not in predictor.fit_summary()
    assert list(predictor.evaluate(frame, detailed=True)) == ["rmse", "mae"]
    with pytest.raises(HyperparameterError, match="regression"):
        predictor.predict(frame, unsure=0)


def test_labels_are_given_from_the_threshold_on_that_suits_the_metric(
    make_colours: MakeColours, tmp_path: Path
) -> None:
    train, tuning = make_colours(12), make_colours(20, seed=3)
    mixed = tuning.index[::4]
    tuning.loc[mixed, "label"] = tuning.loc[mixed, "label"].map({"blue": "red", "red": "blue"})
    predictor = ImagePredictor(eval_metric="f1", path=tmp_path / "run", verbosity=0)
    predictor.fit(train, tuning, hyperparameters=TINY)
    saved, summary = predictor._saved, predictor.fit_summary()
    assert saved is not None
    assert list(summary["thresholds"]) == ["red"]
    proba = predictor.predict_proba(tuning, as_pandas=False)[:, 1]
    for threshold in (0.5, 0.02, 0.98):
        trust = Trust(saved.trust.calibration, type(saved.trust.thresholds)((threshold,)), saved.trust.conformal)
        object.__setattr__(saved, "trust", trust)
        given = predictor.predict(tuning)
        assert (given == "red").tolist() == (proba > threshold).tolist()
        told = predictor.evaluate(tuning)
        assert told["top1"] == (given == tuning["label"]).mean()
        is_red, right = given == "red", tuning["label"] == "red"
        assert told["f1"] == pytest.approx(2 * (is_red & right).sum() / max(1, is_red.sum() + right.sum()))


def test_each_of_several_choices_is_calibrated_by_itself(make_colours: MakeColours, tmp_path: Path) -> None:
    space = {**TINY, "model": ag.Categorical("test_resnet", "test_efficientnet")}
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(
        make_colours(10), make_colours(12, seed=3), hyperparameters=space, objectives=["accuracy", "params"],
        num_trials=2, searcher="grid",
    )  # fmt: skip
    loaded = ImagePredictor.load(predictor.save(tmp_path / "saved"), verbosity=0)
    assert loaded._saved is not None
    for choice in loaded._saved.choices:
        chosen = loaded.choose(max_params=choice.costs["num_params"])
        assert chosen._saved is not None
        assert chosen.fit_summary()["temperature"] == chosen._saved.trust.calibration.temperature
        assert len(chosen._saved.trust.conformal.scores) == 24


def test_many_labels_are_calibrated_but_have_no_sets(make_colours: MakeColours, tmp_path: Path) -> None:
    tags = make_colours(20).assign(label=[["a"], ["a", "b"], ["b"], []] * 10)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(tags, tags, hyperparameters={**TINY, "epochs": 1})
    assert {"temperature", "ece_before", "ece_after"} <= predictor.fit_summary().keys()
    assert predictor.fit_summary()["thresholds"].keys() == {"a", "b"}
    for ask in (predictor.predict_set, partial(predictor.predict, unsure="?")):
        with pytest.raises(HyperparameterError, match="multilabel"):
            ask(tags)
