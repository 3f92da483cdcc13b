from __future__ import annotations

import copy
import gc
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import saccade as ag
from saccade import ImageClassifier, ImagePredictor, ImageRegressor
from saccade.data.sources.arrays import square_shape
from saccade.errors import DataError, HyperparameterError, ImageReadError, UnknownArgumentError, UnknownNameError
from saccade.executor import InlineExecutor
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher
from saccade.training.recipes.recipe import recipe_space

MakeColours = Callable[..., pd.DataFrame]

TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 64, "epochs": 1}


class Means(torch.nn.Sequential):
    """A network of the user's own."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, num_classes))


OWN = {"model": Means, "img_size": 32, "batch_size": 64, "epochs": 1}  # the checks fit estimators some 300 times

TABLES_OF_NO_PICTURES = {
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_overwrite_params",
    "check_fit2d_1sample",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_n_features_in",
    "check_readonly_memmap_input",
    "check_regressor_data_not_an_array",
    "check_regressors_int",
    "check_regressors_train",
}
"""Checks whose tables have 2, 5 or 10 columns. The others have 1, 3 or 4: pictures, if small ones."""


class _AnyTable:
    """Lays out rows of any length: black pixels fill them up to a square."""

    def _lay_out(self, rows: np.ndarray) -> np.ndarray:
        length = next(n for n in range(rows.shape[1], 200) if len(square_shape(n) or ()) == 2)
        padded = np.pad(rows, [(0, 0), (0, length - rows.shape[1])])
        return padded.reshape(len(rows), *square_shape(length) or ())


class _ClassifierOfAnyTable(_AnyTable, ImageClassifier): ...


class _RegressorOfAnyTable(_AnyTable, ImageRegressor): ...


@pytest.fixture
def classifier() -> ImageClassifier:
    return ImageClassifier(time_limit=None, hyperparameters={**TINY, "batch_size": 8, "epochs": 3, "lr": 3e-3})


@pytest.fixture
def quick() -> ImageClassifier:
    return ImageClassifier(time_limit=None, hyperparameters=TINY)


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders go that are made without a name; and nothing is written to where the tests run."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def pictures(num: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures that are dark or bright, and which they are."""
    is_bright = np.arange(num) % 2
    noise = np.random.default_rng(seed).integers(0, 90, (num, 8, 8), np.uint8)
    return noise + (is_bright * 160).astype(np.uint8)[:, None, None], np.array(["dark", "bright"])[is_bright]


@pytest.mark.slow
@parametrize_with_checks(
    [ImageClassifier(time_limit=None, hyperparameters=OWN), ImageRegressor(time_limit=None, hyperparameters=OWN)]
)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    if check.func.__name__ in TABLES_OF_NO_PICTURES:
        with pytest.raises(Exception, match="not a square image"):
            check(estimator)
        kind = _ClassifierOfAnyTable if isinstance(estimator, ImageClassifier) else _RegressorOfAnyTable
        estimator = kind(**estimator.get_params(deep=False))
    check(estimator)


def test_paths_in_any_container_are_fitted_and_predicted(
    classifier: ImageClassifier, make_colours: MakeColours
) -> None:
    train, test = make_colours(10), make_colours(4, seed=5)
    paths = list(test["image"])
    assert classifier.fit(train["image"], train["label"]) is classifier
    assert list(classifier.classes_) == ["blue", "red"]
    predicted = classifier.predict(paths)
    assert classifier.score(paths, test["label"]) == (predicted == test["label"]).mean() > 0.9
    proba = classifier.predict_proba(paths)
    assert proba.shape == (8, 2)
    assert np.allclose(proba.sum(1), 1, atol=1e-5)
    assert not hasattr(classifier, "n_features_in_")
    for same in (
        np.array(paths),
        np.array(paths, object)[:, None],
        test["image"],
        test[["image"]],
        test.rename(columns={"image": "file"})[["file"]],
        [Path(path) for path in paths],
        [Path(path).read_bytes() for path in paths],
        [Image.open(path) for path in paths],
        np.stack([np.array(Image.open(path)) for path in paths]),
    ):
        np.testing.assert_allclose(classifier.predict_proba(same), proba, atol=1e-6)


def test_bytes_floats_and_rows_of_the_same_pictures_are_the_same(quick: ImageClassifier) -> None:
    X, y = pictures()
    expected = clone(quick).fit(X, y).predict_proba(X)
    unit = X / 255
    for same in (unit, unit[..., None], unit.tolist(), unit.reshape(20, 64)):
        np.testing.assert_array_equal(clone(quick).fit(same, y).predict_proba(same), expected)
    fitted = clone(quick).fit(X, y)
    np.testing.assert_array_equal(fitted.predict_proba(X.astype(float)), expected)


def test_rows_of_numbers_keep_their_scale_and_feature_names(quick: ImageClassifier) -> None:
    X, y = pictures()
    table = pd.DataFrame(X.reshape(20, 64) / 10 - 3).add_prefix("pixel_")
    quick.fit(table, y)
    assert quick.n_features_in_ == 64
    assert list(quick.feature_names_in_) == list(table)
    assert quick.pixel_range_ == tuple(np.percentile(table.to_numpy(), (0.1, 99.9)))
    one_by_one = [quick.predict_proba(table.iloc[[row]])[0] for row in range(3)]
    np.testing.assert_allclose(one_by_one, quick.predict_proba(table)[:3], atol=1e-6)
    with pytest.raises(ValueError, match="feature names should match those that were passed during fit"):
        quick.predict(table.iloc[:, ::-1])
    quick.fit(X, y)
    assert not hasattr(quick, "n_features_in_")
    assert not hasattr(quick, "feature_names_in_")


def test_rows_of_other_shapes_are_errors(quick: ImageClassifier) -> None:
    X, y = pictures()
    rows = X[:, :, :6].reshape(20, 48)
    with pytest.raises(DataError, match="48 values, which is not image_shape="):
        clone(quick).set_params(image_shape=(7, 7)).fit(rows, y)
    assert set(quick.set_params(image_shape=(8, 6)).fit(rows, y).predict(rows)) <= {"dark", "bright"}


def test_the_regressor_predicts_numbers(make_colours: MakeColours) -> None:
    train = make_colours(10)
    ages = train["label"].map({"blue": 10, "red": 30})
    regressor = ImageRegressor(time_limit=None, hyperparameters={**TINY, "batch_size": 4, "epochs": 8, "lr": 3e-3})
    predicted = regressor.fit(train["image"], ages).predict(train["image"])
    assert predicted.dtype == np.float64
    assert regressor.score(train["image"], ages) > 0.5
    with pytest.raises(DataError, match="y must be numbers, one for each image; could not convert string"):
        regressor.fit(train["image"], train["label"])


@pytest.mark.parametrize("labels", [[3, 7], [False, True], [0.0, 2.0], ["a", "b"]])
def test_predicted_labels_have_the_form_of_the_given_ones(quick: ImageClassifier, labels: list[Any]) -> None:
    X, y = pictures(12)
    given = np.array(labels)[(y == "bright").astype(int)]
    quick.fit(X, given)
    assert quick.classes_.dtype == quick.predict(X).dtype == given.dtype
    assert list(quick.classes_) == labels


def test_cross_validation_search_and_pipelines(quick: ImageClassifier, make_colours: MakeColours) -> None:
    train = make_colours(8)
    assert cross_val_score(quick, list(train["image"]), train["label"], cv=2).shape == (2,)
    grid = {"hyperparameters__lr": [1e-9, 3e-3], "time_limit": [60]}
    search = GridSearchCV(quick, grid, cv=2).fit(train["image"], train["label"])
    best = search.best_estimator_
    lr = search.best_params_["hyperparameters__lr"]
    assert best.hyperparameters == {**TINY, "lr": lr}
    assert best.predictor_.fit_summary()["best_config"]["lr"] == lr
    assert quick.hyperparameters == TINY
    X, y = pictures()
    rows = X.reshape(20, 64)
    assert make_pipeline(MinMaxScaler(), clone(quick)).fit(rows, y).predict(rows).shape == (20,)
    mirrored = make_pipeline(FunctionTransformer(np.flip, kw_args={"axis": 2}), clone(quick))
    assert mirrored.fit(X, y).score(X, y) >= 0


def test_a_pickle_needs_nothing_that_was_on_disk(quick: ImageClassifier, temporary_folder: Path) -> None:
    X, y = pictures()
    expected = quick.fit(X, y).predict_proba(X)
    pickled, summary = pickle.dumps(quick), quick.predictor_.fit_summary()
    del quick.predictor_
    gc.collect()
    assert not list(temporary_folder.iterdir())
    restored = pickle.loads(pickled)
    np.testing.assert_array_equal(restored.predict_proba(X), expected)
    assert restored.predictor_.fit_summary() == summary
    assert pickle.loads(pickle.dumps(restored)).score(X, y) == restored.score(X, y)
    texts = [argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)]
    assert not [text for text in texts if text.startswith("torch")]


def test_an_unfitted_estimator_can_be_pickled_as_well(quick: ImageClassifier) -> None:
    assert pickle.loads(pickle.dumps(quick)).get_params() == quick.get_params()
    with pytest.raises(NotFittedError):
        quick.predict(["cat.jpg"])


def test_a_fit_leaves_only_the_given_folder(quick: ImageClassifier, tmp_path: Path, temporary_folder: Path) -> None:
    X, y = pictures()
    quick.fit(X, y)
    assert len(list(temporary_folder.iterdir())) == 1
    copied, pipeline = copy.copy(quick.predictor_), quick.predictor_.pipeline
    del quick.predictor_
    gc.collect()
    assert len(copied.predict(list(X))) == 20
    del copied
    assert len(pipeline.predict(list(X)).labels) == 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)  # in a forked process, which has a copy of the object
        del pipeline
        gc.collect()
    assert len(list(temporary_folder.iterdir())) == 1
    quick.set_params(path=tmp_path / "run").fit(X, y)
    assert (tmp_path / "run" / "events.jsonl").is_file()
    assert len(ImagePredictor.load(tmp_path / "run", verbosity=0).leaderboard()) == 1
    assert not (tmp_path / "saccade_runs").exists()


def test_a_network_of_the_users_own_is_pickled_with_the_estimator() -> None:
    X, y = pictures()
    classifier = ImageClassifier(time_limit=None, hyperparameters={"model": Means, "img_size": 32, "epochs": 1})
    expected = classifier.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(classifier)).predict_proba(X), expected)


def test_two_estimators_with_one_path_keep_their_predictors(quick: ImageClassifier, tmp_path: Path) -> None:
    X, y = pictures()
    first = clone(quick).set_params(path=str(tmp_path / "run")).fit(X, y)
    other = clone(first).set_params(fit_options={"overwrite": True})
    other.fit(X, np.where(y == "dark", "schwarz", "white"))
    assert set(first.predict(X)) <= {"dark", "bright"}
    assert list(first.predictor_.classes) == ["bright", "dark"]


def test_images_that_cannot_be_read_are_left_out_of_a_fit_and_refused_in_a_prediction(
    quick: ImageClassifier, make_colours: MakeColours, tmp_path: Path
) -> None:
    train = make_colours(8)
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    paths = [*train["image"], str(broken), str(broken)]
    quick.fit(paths, [*train["label"], "green", "red"])
    assert list(quick.classes_) == ["blue", "red"]
    assert quick.predict_proba(paths[:3]).shape == (3, 2)
    with pytest.raises(ImageReadError, match=r"broken\.png cannot be read: not an image.*; 1 more cannot be"):
        quick.predict(paths)
    with pytest.raises(ImageReadError, match=r"broken\.png: not an image"):
        quick.predict(paths[-1:])


def test_hyperparameters_are_arguments_of_their_own() -> None:
    space = ag.Real(1e-4, 1e-1, log=True)
    classifier = ImageClassifier(hyperparameters={"lr": space}, searcher="grid")
    assert classifier.get_params()["hyperparameters__lr"] is space
    assert "hyperparameters__lr" not in classifier.get_params(deep=False)
    copy = clone(classifier).set_params(hyperparameters__epochs=3, num_trials=4)
    assert copy.hyperparameters == {"lr": space, "epochs": 3}
    assert classifier.hyperparameters == {"lr": space}
    assert ImageRegressor().set_params(hyperparameters__lr=0.1).hyperparameters == {"lr": 0.1}
    with pytest.raises(ValueError, match="Invalid parameter 'time_limits'"):
        classifier.set_params(time_limits=3)
    assert repr(ImageRegressor(num_trials=4, time_limit=60)) == "ImageRegressor(num_trials=4, time_limit=60)"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"fit_options": {"shceduler": "fifo"}}, UnknownArgumentError),
        ({"searcher": "randon"}, UnknownNameError),
        ({"scheduler": "fifa"}, UnknownNameError),
        ({"executor": "remote"}, UnknownNameError),
        ({"callbacks": ["no_such"]}, UnknownNameError),
        ({"presets": "worst_quality"}, UnknownNameError),
        ({"eval_metric": "acuracy"}, UnknownNameError),
        ({"hyperparameters__lerning_rate": 0.1}, HyperparameterError),
        ({"holdout_frac": 2}, HyperparameterError),
        ({"time_limit": -1}, HyperparameterError),
        ({"num_trials": 0}, HyperparameterError),
        ({"random_state": "zero"}, HyperparameterError),
    ],
)
def test_arguments_are_checked_when_they_are_used(quick: ImageClassifier, wrong: dict[str, Any], error: type) -> None:
    X, y = pictures(6)
    with pytest.raises(error):
        quick.set_params(**wrong).fit(X, y)
    with pytest.raises(NotFittedError):
        quick.predict(X)


def test_the_seed_may_be_a_random_state(quick: ImageClassifier) -> None:
    X, y = pictures()
    probabilities = [
        clone(quick).set_params(random_state=np.random.RandomState(seed)).fit(X, y).predict_proba(X)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(probabilities[0], probabilities[1])
    assert (probabilities[0] != probabilities[2]).any()


def test_searchers_schedulers_executors_and_callbacks_may_be_instances(quick: ImageClassifier) -> None:
    X, y = pictures(12)
    space = {**TINY, "lr": ag.Categorical(1e-3, 1e-2)}
    searcher, kinds = GridSearcher(recipe_space(space)), []
    with InlineExecutor(None) as executor:
        classifier = ImageClassifier(
            None, space, searcher=searcher, scheduler=FIFOScheduler(), executor=executor, callbacks=[kinds.append]
        )
        copied = clone(classifier)
        assert copied.executor is executor
        copied.fit(X, y)
    assert [event.kind for event in kinds].count("trial_created") == 2
    assert searcher.suggest()["lr"] == 1e-3  # a fit leaves it as it was
    with pytest.raises(UnknownArgumentError, match=r"argument of ImageClassifier\(\) 'cbs'. Did you mean 'callbacks'"):
        ImageClassifier(cbs=[])


def test_a_user_defined_metric_is_kept(quick: ImageClassifier) -> None:
    X, y = pictures()
    quick.set_params(eval_metric=_share_of_bright).fit(X, y)
    frame = pd.DataFrame({"image": list(X), "label": y})
    assert "_share_of_bright" in quick.predictor_.evaluate(frame)
    assert "_share_of_bright" in pickle.loads(pickle.dumps(quick)).predictor_.evaluate(frame)


def _share_of_bright(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    return float(np.mean(y_true == y_pred))


def test_labels_are_required_for_each_image(quick: ImageClassifier) -> None:
    X, y = pictures(6)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick.fit(X, y[:5])
    with pytest.raises(ValueError, match="y should be a 1d array"):
        quick.fit(X, np.zeros((6, 2)))
    with pytest.raises(DataError, match="the labels hold 1 class"):
        quick.fit(X, ["one"] * 6)
