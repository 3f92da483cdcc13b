"""Calibrated probabilities, sets, abstention and intervals of fitted predictors; threads, devices and numerics."""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import saccade as ag
from saccade import ImagePredictor
from saccade.errors import DataError, HyperparameterError
from saccade.inference import classifier as classifier_module
from saccade.inference.calibration import Calibration, calibration_error
from saccade.inference.classifier import inference_candidates
from saccade.inference.pipeline import BATCH_SIZE, known_numerics
from saccade.inference.postprocessing import Postprocessing
from saccade.inference.thresholds import Thresholds
from saccade.numerics import choice as choice_module
from saccade.numerics.choice import MEMORY, Workload
from saccade.numerics.device import Numerics, choose_device, cpu_threads
from saccade.tasks.metrics import make_metric

MakeColours = Callable[..., pd.DataFrame]
TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 2, "lr": 3e-3}
NAMES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def doubtful(make_colours_once: MakeColours) -> pd.DataFrame:
    """Validation images of which a fifth have a wrong label, so that predictions are uncertain."""
    frame = make_colours_once(12, NAMES, seed=3)
    wrong = frame.index[::5]
    frame.loc[wrong, "label"] = frame.loc[wrong, "label"].map({"blue": "green", "green": "red", "red": "blue"})
    return frame


@pytest.fixture(scope="module")
def fitted(make_colours_once: MakeColours, doubtful: pd.DataFrame, tmp_path_factory: Any) -> ImagePredictor:
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    return predictor.fit(make_colours_once(10, NAMES), doubtful, hyperparameters={**TINY, "epochs": 4, "amp": False})


def uncalibrated(predictor: ImagePredictor, data: Any, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr(Calibration, "calibrate", lambda self, p, problem: p)
        return np.asarray(predictor.predict_proba(data, as_pandas=False))


def test_probabilities_are_calibrated_on_the_validation_images(
    fitted: ImagePredictor, doubtful: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, summary = fitted._saved, fitted.fit_summary()
    assert summary["temperature"] == saved.postprocessing.calibration.temperature != 1
    assert summary["calibrated_on"].startswith("36 validation images")
    raw, targets = uncalibrated(fitted, doubtful, monkeypatch), saved.problem.encode(doubtful["label"])
    # Numerics may be others than those of training.
    assert summary["ece_before"] == pytest.approx(calibration_error(raw, targets, saved.problem), abs=0.05)
    expected, _ = Postprocessing.fit(raw, targets, saved.problem, make_metric(None, saved.problem))
    assert summary["temperature"] == pytest.approx(expected.calibration.temperature, rel=0.05)
    np.testing.assert_allclose(saved.postprocessing.conformal.scores, expected.conformal.scores, atol=0.05)
    proba = fitted.predict_proba(doubtful, as_pandas=False)
    np.testing.assert_array_equal(proba, saved.postprocessing.calibration.apply(raw, saved.problem))
    np.testing.assert_array_equal(proba.argmax(1), raw.argmax(1))


def test_a_loaded_predictor_gives_the_same_probabilities_and_sets(
    fitted: ImagePredictor, doubtful: pd.DataFrame, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "saved")
    loaded = ImagePredictor.load(tmp_path / "saved", verbosity=0)
    pd.testing.assert_frame_equal(loaded.predict_proba(doubtful), fitted.predict_proba(doubtful))
    pd.testing.assert_series_equal(loaded.predict_set(doubtful), fitted.predict_set(doubtful))


def test_a_predictor_without_postprocessing_is_not_calibrated(
    fitted: ImagePredictor, doubtful: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = Path(fitted.save(tmp_path / "saved")) / "predictor.json"
    record = json.loads(description.read_text())
    del record["postprocessing"]
    description.write_text(json.dumps(record))
    loaded = ImagePredictor.load(tmp_path / "saved", verbosity=0)
    raw = uncalibrated(fitted, doubtful, monkeypatch)
    np.testing.assert_array_equal(loaded.predict_proba(doubtful, as_pandas=False), raw)
    with pytest.raises(DataError, match="at least 9 validation images; this predictor has 0"):
        loaded.predict_set(doubtful)


def test_sets_are_sorted_by_probability_and_none_for_unreadable_images(
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


def test_unsure_labels_are_replaced(fitted: ImagePredictor, doubtful: pd.DataFrame) -> None:
    labels, sets = fitted.predict(doubtful), fitted.predict_set(doubtful, coverage=0.95)
    asked = fitted.predict(doubtful, unsure="ask", coverage=0.95)
    assert asked.tolist() == ["ask" if len(each) > 1 else label for each, label in zip(sets, labels, strict=True)]
    assert "ask" in set(asked)
    certainty = fitted.predict_proba(doubtful).max(axis=1)
    asked = fitted.predict(doubtful, unsure="ask", min_proba=certainty.median())
    assert (asked == "ask").tolist() == (certainty < certainty.median()).tolist()


def test_invalid_coverage_is_an_error_before_images_are_read(fitted: ImagePredictor) -> None:
    for ask in (
        lambda **how: fitted.predict_set("gone.png", **how),
        lambda **how: fitted.predict("gone.png", unsure="?", **how),
    ):
        with pytest.raises(DataError, match=r"99 validation images; .* has 36, which suffice up to 0\.972"):
            ask(coverage=0.99)
        with pytest.raises(HyperparameterError, match=r"for 90 % give 0\.9"):
            ask(coverage=90)
    with pytest.raises(HyperparameterError, match="pass unsure"):
        fitted.predict("gone.png", min_proba=0.5)
    with pytest.raises(HyperparameterError, match="interval was given 95"):
        fitted.evaluate(pd.DataFrame(), interval=95)


def test_metrics_have_intervals_on_request(fitted: ImagePredictor, doubtful: pd.DataFrame) -> None:
    plain = fitted.evaluate(doubtful)
    scores = fitted.evaluate(doubtful, interval=0.95, detailed=True)
    assert list(plain) == ["top1"]
    assert list(scores) == [
        "top1",
        "top1_interval",
        "log_loss",
        "log_loss_interval",
        "ece",
        "ece_interval",
        "ece_by_chance",
    ]
    low, high = scores["top1_interval"]
    assert low < plain["top1"] == scores["top1"] < high
    assert 0 < scores["ece_by_chance"] < 1
    assert scores == fitted.evaluate(doubtful, interval=0.95, detailed=True)


def test_regression_has_intervals(make_colours: MakeColours, tmp_path: Path) -> None:
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


def test_thresholds_decide_the_label(make_colours: MakeColours, tmp_path: Path) -> None:
    train, tuning = make_colours(12), make_colours(20, seed=3)
    mixed = tuning.index[::4]
    tuning.loc[mixed, "label"] = tuning.loc[mixed, "label"].map({"blue": "red", "red": "blue"})
    predictor = ImagePredictor(eval_metric="f1", path=tmp_path / "run", verbosity=0)
    predictor.fit(train, tuning, hyperparameters=TINY)
    saved, summary = predictor._saved, predictor.fit_summary()
    assert list(summary["thresholds"]) == ["red"]
    proba = predictor.predict_proba(tuning, as_pandas=False)[:, 1]
    for threshold in (0.5, 0.02, 0.98):
        changed = replace(saved.postprocessing, thresholds=Thresholds((threshold,)))
        predictor.pipeline.saved = replace(saved, postprocessing=changed)
        given = predictor.predict(tuning)
        assert (given == "red").tolist() == (proba > threshold).tolist()
        scores = predictor.evaluate(tuning)
        assert scores["top1"] == (given == tuning["label"]).mean()
        is_red, right = given == "red", tuning["label"] == "red"
        assert scores["f1"] == pytest.approx(2 * (is_red & right).sum() / max(1, is_red.sum() + right.sum()))


def test_each_choice_has_its_own_calibration(make_colours: MakeColours, tmp_path: Path) -> None:
    space = {**TINY, "model": ag.Categorical("test_resnet", "test_efficientnet")}
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(
        make_colours(10), make_colours(12, seed=3), hyperparameters=space, objectives=["accuracy", "params"],
        num_trials=2, searcher="grid", executor="inline",
    )  # fmt: skip
    loaded = ImagePredictor.load(predictor.save(tmp_path / "saved"), verbosity=0)
    for choice in loaded._saved.choices:
        chosen = loaded.choose(max_params=choice.costs["num_params"])
        assert chosen.fit_summary()["temperature"] == chosen._saved.postprocessing.calibration.temperature
        assert len(chosen._saved.postprocessing.conformal.scores) == 24


def test_multilabel_problems_are_calibrated_but_have_no_sets(make_colours: MakeColours, tmp_path: Path) -> None:
    tags = make_colours(20).assign(label=[["a"], ["a", "b"], ["b"], []] * 10)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(tags, tags, hyperparameters={**TINY, "epochs": 1})
    assert {"temperature", "ece_before", "ece_after"} <= predictor.fit_summary().keys()
    assert predictor.fit_summary()["thresholds"].keys() == {"a", "b"}
    for ask in (predictor.predict_set, partial(predictor.predict, unsure="?")):
        with pytest.raises(HyperparameterError, match="multilabel"):
            ask(tags)


def test_threads_get_the_same_results_as_one(fitted: ImagePredictor, doubtful: pd.DataFrame) -> None:
    """Predictions, features and explanations at the same time, each of several batches."""
    images = pd.concat([doubtful, doubtful], ignore_index=True)
    tasks = [
        lambda: fitted.predict_proba(images, as_pandas=False),
        lambda: fitted.predict_feature(images, as_pandas=False),
        lambda: fitted.explain(images[:40]),
    ]
    expected = [task() for task in tasks]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda number: tasks[number % 3](), range(12)))
    for number, result in enumerate(found):
        np.testing.assert_array_equal(result, expected[number % 3])


def test_embeddings_are_computed_once_for_each_image(
    fitted: ImagePredictor, doubtful: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    images: list[Any] = [tmp_path / "missing.png", *doubtful["image"][:3], Image.open(doubtful["image"][3])]
    computed: list[int] = []
    forward = classifier_module.Classifier.outputs_and_features

    def counted(self: Any, x_BCHW: torch.Tensor, *rest: Any) -> Any:
        computed.append(len(x_BCHW))
        return forward(self, x_BCHW, *rest)

    monkeypatch.setattr(classifier_module.Classifier, "outputs_and_features", counted)
    loaded = ImagePredictor.load(fitted.path, verbosity=0)
    first = loaded.embed(images)
    assert first.shape == (5, first.shape[1])
    assert first.dtype == np.float32
    assert np.isnan(first).all(1).tolist() == [True, False, False, False, False]
    again = ImagePredictor.load(fitted.path, verbosity=0).embed([*images[::-1], doubtful["image"][4]])
    assert np.array_equal(again[:5], first[::-1], equal_nan=True)
    assert computed == [5, 2]  # the file that is missing is looked for again
    table = loaded.predict_feature(doubtful.iloc[:3])
    assert np.array_equal(np.stack(table["image_feature"]), first[1:4])
    assert table.index.equals(doubtful.index[:3])
    assert computed == [5, 2]
    monkeypatch.setenv("SACCADE_FEATURE_CACHE_GB", "0")
    np.testing.assert_allclose(loaded.embed(iter(images)), first, atol=1e-5)
    assert computed == [5, 2, 5]


def test_threads_may_share_a_predictor_that_has_not_predicted_yet(
    fitted: ImagePredictor, doubtful: pd.DataFrame
) -> None:
    fresh = ImagePredictor.load(fitted.path, verbosity=0)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: fresh.predict_proba(doubtful, as_pandas=False), range(4)))
    for result in found:
        np.testing.assert_array_equal(result, fitted.predict_proba(doubtful, as_pandas=False))


def test_one_image_gets_the_same_numbers_as_many(fitted: ImagePredictor, doubtful: pd.DataFrame) -> None:
    loaded = ImagePredictor.load(fitted.path, verbosity=0)
    one_by_one = [loaded.predict_proba(image, as_pandas=False)[0] for image in doubtful["image"][:5]]
    np.testing.assert_allclose(one_by_one, fitted.predict_proba(doubtful[:5], as_pandas=False), atol=1e-6)


def test_the_module_predicts_the_same_from_pixels(fitted: ImagePredictor, doubtful: pd.DataFrame) -> None:
    fitted.to("cpu")
    pixels = torch.from_numpy(np.stack([np.array(Image.open(path)) for path in doubtful["image"]]))
    module = fitted.pipeline.module(coverage=0.9)
    sets = fitted.predict_set(doubtful, coverage=0.9)
    for images in (pixels, pixels.permute(0, 3, 1, 2), pixels / 255):
        with torch.inference_mode():
            found = module(images)
        np.testing.assert_allclose(found.predictions, fitted.predict_proba(doubtful, as_pandas=False), atol=1e-5)
        assert found.given.int().argmax(1).tolist() == [
            fitted.classes.index(label) for label in fitted.predict(doubtful)
        ]
        assert found.set_mask.sum(1).tolist() == [len(labels) for labels in sets]


def test_rows_without_an_image_are_listed_and_others_predicted(
    fitted: ImagePredictor, doubtful: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    good = doubtful["image"][0]
    large = np.broadcast_to(np.float32(0), (178_000_000, 1))  # takes more memory than the limit
    wrong = [None, float("nan"), pd.NA, "", 3, {"path": good}, [good], large, "file:///gone.png"]
    loaded = ImagePredictor.load(fitted.path, verbosity=1)
    labels = loaded.predict([good, *wrong])
    assert labels[0] == fitted.predict(good)[0]
    assert labels[1:].isna().all()
    printed = capsys.readouterr()
    for number in range(1, 9):
        assert f"image {number}: " in printed.out + printed.err
    assert np.isnan(loaded.explain([good, None])[1]).all()
    frame = pd.DataFrame({"image": [good, None], "label": [labels[0], labels[0]]})
    assert loaded.evaluate(frame)["top1"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="requires fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_predicts_with_one_thread(fitted: ImagePredictor, doubtful: pd.DataFrame) -> None:
    """As gunicorn does with `preload_app`: OpenMP's threads do not survive a fork."""
    images = doubtful["image"].tolist()
    with cpu_threads(2):
        predictor = ImagePredictor.load(fitted.path, verbosity=0, device="cpu")
        expected = predictor.predict_proba(images, as_pandas=False)
        pid = os.fork()
        if pid == 0:
            signal.alarm(120)
            is_right = False
            try:
                found = predictor.predict_proba(images, as_pandas=False)
                is_right = abs(found - expected).max() < 1e-5 and torch.get_num_threads() == 1
            finally:
                os._exit(0 if is_right else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert torch.get_num_threads() == 2


def test_images_of_12_bits_are_scaled_by_the_range_of_the_training_images(tmp_path: Path) -> None:
    """The classes differ in brightness, which scaling each image by its own range would hide."""
    rng, rows = np.random.default_rng(0), []
    for number in range(24):
        path, label = tmp_path / f"{number}.png", ("dim", "bright")[number % 2]
        level = 1000 if label == "dim" else 2000
        Image.fromarray(rng.integers(level - 90, level + 90, (32, 32)).astype(np.uint16)).save(path)
        rows.append((str(path), label))
    frame = pd.DataFrame(rows, columns=["image", "label"])
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(frame, frame, hyperparameters={**TINY, "epochs": 6, "lr": 1e-2})
    loaded = ImagePredictor.load(predictor.save(tmp_path / "saved"), verbosity=0, device="cpu")
    low, high = loaded.pipeline.saved.pixel_range or (0.0, 0.0)
    assert 900 < low < 1000 < 2000 < high < 2100
    assert loaded.evaluate(frame)["top1"] == 1
    arrays = [np.asarray(Image.open(path)) for path in frame["image"]]
    assert loaded.predict([array.astype(np.float32) for array in arrays]).tolist() == frame["label"].tolist()
    pixels = torch.from_numpy(np.stack(arrays).astype(np.int32))[..., None].expand(-1, -1, -1, 3)
    with torch.inference_mode():
        found = loaded.pipeline.module()(pixels)
    np.testing.assert_allclose(found.predictions, loaded.predict_proba(frame, as_pandas=False), atol=2e-2)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5])
def test_an_unavailable_device_is_an_error(fitted: ImagePredictor, device: Any) -> None:
    with pytest.raises(HyperparameterError, match="device"):
        ImagePredictor.load(fitted.path, verbosity=0, device=device)
    with pytest.raises(HyperparameterError, match="device"):
        fitted.to(device)
    assert fitted.to("cpu").device == torch.device("cpu")


def test_warm_up_fixes_numerics_which_are_saved(
    fitted: ImagePredictor, doubtful: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Numerics(torch.device("cpu"), channels_last=False)
    monkeypatch.setattr(classifier_module, "choose_numerics", lambda *_: chosen)
    warm = ImagePredictor.load(fitted.path, verbosity=0, device="cpu").warm_up()
    record = {"dtype": "float32", "channels_last": False, "folds_batch_norm": True}
    assert warm.pipeline.saved.numerics == {"cpu": [record]}
    monkeypatch.setattr(classifier_module, "choose_numerics", lambda *_: pytest.fail("measured by a prediction"))
    loaded = ImagePredictor.load(warm.save(tmp_path / "warm"), verbosity=0, device="cpu")
    assert loaded.pipeline.saved.numerics == {"cpu": [record]}
    np.testing.assert_array_equal(
        loaded.predict_proba(doubtful, as_pandas=False), warm.predict_proba(doubtful, as_pandas=False)
    )
    assert not loaded.pipeline._loaded()[0].inference.channels_last


def test_numerics_that_trials_measured_are_those_of_predictions(
    fitted: ImagePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    monkeypatch.setattr(choice_module, "is_half_native", lambda _: True)
    member = replace(fitted.pipeline.saved.members[0], amp=None)
    assert known_numerics([member]) == {}
    side = member.blueprint.input.img_size
    workload = Workload("inference", member.blueprint.architecture or "", (BATCH_SIZE, 3, side, side))
    measured = Numerics(choose_device(), torch.bfloat16)
    among = inference_candidates(measured.device, member.amp)
    MEMORY.put(workload.key(among[::-1]), {"numerics": measured.to_json(), "part": 0.25})
    is_cpu = measured.device.type == "cpu"  # where predictions are those of exported files
    record = {"dtype": "float32" if is_cpu else "bfloat16", "channels_last": True}
    assert known_numerics([member]) == {measured.device.type: [record]}
    assert known_numerics([member, member]) == {measured.device.type: [record, record]}


@pytest.mark.parametrize("has_predicted", [False, True])
def test_a_predictor_can_be_pickled(fitted: ImagePredictor, doubtful: pd.DataFrame, has_predicted: bool) -> None:
    loaded = ImagePredictor.load(fitted.path, verbosity=0)
    if has_predicted:
        loaded.explain(doubtful[:2])
    again = pickle.loads(pickle.dumps(loaded))
    pd.testing.assert_frame_equal(again.predict_proba(doubtful), fitted.predict_proba(doubtful))
