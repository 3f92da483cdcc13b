"""`ImageClassifier` and `ImageRegressor`: scikit-learn estimators around `ImagePredictor`.

They work with `Pipeline`, `GridSearchCV`, `cross_val_score`, `clone` and pickle.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from saccade.data.examples import ImageLike
from saccade.data.pixel_range import PixelRange
from saccade.data.sources.arrays import check_finite, image_list, rows_as_images
from saccade.errors import DataError, ImageReadError, suggests_names
from saccade.executor import Executor
from saccade.inference.pipeline import Predictions
from saccade.models.network import CustomObject
from saccade.predictor import ImagePredictor
from saccade.scheduler.base import Scheduler
from saccade.searcher.base import Searcher
from saccade.study.trackers import Callback
from saccade.tasks.metrics import EvalMetric

_NESTED = "hyperparameters__"


class _TemporaryFolder:
    """A folder that is removed together with this object, by the process that made it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="saccade_predictor_"))
        weakref.finalize(self, _remove, self.path, os.getpid())

    def __deepcopy__(self, memo: dict[int, Any]) -> _TemporaryFolder:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a pickled predictor refers to the folder, and does not keep it


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a forked process
        shutil.rmtree(folder, ignore_errors=True)


@suggests_names()
class _ImageEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Arguments, images, and storage of the fitted predictor, for both estimators."""

    def __init__(
        self,
        time_limit: float | str | None = "auto",
        hyperparameters: Mapping[str, Any] | None = None,
        presets: str | Sequence[str] | None = None,
        num_trials: int | None = None,
        searcher: str | Searcher | None = None,
        scheduler: str | Scheduler | None = None,
        executor: str | Executor | None = None,
        callbacks: Sequence[Callback] | None = None,
        holdout_frac: float | None = None,
        eval_metric: EvalMetric = None,
        weights: str | Path | None = None,
        image_shape: tuple[int, ...] | None = None,
        random_state: int | np.random.RandomState | None = 0,
        path: str | Path | None = None,
        verbosity: int = 0,
        fit_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.time_limit = time_limit
        self.hyperparameters = hyperparameters
        self.presets = presets
        self.num_trials = num_trials
        self.searcher = searcher
        self.scheduler = scheduler
        self.executor = executor
        self.callbacks = callbacks
        self.holdout_frac = holdout_frac
        self.eval_metric = eval_metric
        self.weights = weights
        self.image_shape = image_shape
        self.random_state = random_state
        self.path = path
        self.verbosity = verbosity
        self.fit_options = fit_options

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments; when `deep`, also each hyperparameter, as ``hyperparameters__lr`` and so on."""
        params: dict[str, Any] = super().get_params(deep)
        if deep and isinstance(self.hyperparameters, Mapping):
            params.update({f"{_NESTED}{name}": value for name, value in self.hyperparameters.items()})
        return params

    def set_params(self, **params: Any) -> _ImageEstimator:
        """Set arguments, and return this estimator; ``hyperparameters__lr=1e-3`` sets one hyperparameter."""
        nested = {name: params.pop(name) for name in list(params) if name.startswith(_NESTED)}
        super().set_params(**params)
        if nested:
            values = {name.removeprefix(_NESTED): value for name, value in nested.items()}
            self.hyperparameters = {**(self.hyperparameters or {}), **values}
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return a state that refers to no folder: it contains the bytes of the predictor's files."""
        state: dict[str, Any] = dict(super().__getstate__())
        if predictor := state.pop("predictor_", None):
            folder = Path(predictor.save())
            files = [path for path in folder.rglob("*") if path.is_file()]
            state["predictor_files"] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
            state["predictor_net"] = predictor.pipeline.saved.net  # the user's own network, if there is one
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        files, former_range = state.pop("predictor_files", None), state.pop("pixel_range_", None)
        net = state.pop("predictor_net", None)
        super().__setstate__(state)
        if files is not None:
            folder = _TemporaryFolder()
            for name, content in files.items():
                (folder.path / name).parent.mkdir(exist_ok=True)
                (folder.path / name).write_bytes(content)
            self.predictor_ = self._load(folder, net)
            pipeline = self.predictor_.pipeline
            if former_range is not None:  # of an estimator before the predictor had it
                pipeline.saved = replace(pipeline.saved, pixel_range=former_range)

    def _load(self, folder: _TemporaryFolder, net: CustomObject | None) -> ImagePredictor:
        """Return the predictor in a folder, which is removed when nothing refers to the predictor any more."""
        predictor = ImagePredictor.load(folder.path, self.verbosity, net=net and net.value)
        predictor.eval_metric = self.eval_metric  # a function is not saved
        predictor.pipeline.saved = replace(predictor.pipeline.saved, keeps=folder)
        return predictor

    def _fit(self, X: Any, labels: np.ndarray, problem_type: str) -> None:
        images = self._images(X, reset=True)
        check_consistent_length(images, labels)
        if len(images) < 2:
            raise DataError("X has 1 sample; expected at least 2, for training and validation")
        seed = self.random_state
        given = {
            "presets": self.presets,
            "num_trials": self.num_trials,
            "searcher": copy.deepcopy(self.searcher),  # a fit does not change the arguments
            "scheduler": copy.deepcopy(self.scheduler),
            "executor": self.executor,
            "callbacks": self.callbacks,
        }
        options = {
            "time_limit": self.time_limit,
            "hyperparameters": self.hyperparameters,
            "holdout_frac": self.holdout_frac,
            "weights": self.weights,
            "random_state": int(seed.randint(2**31 - 1)) if isinstance(seed, np.random.RandomState) else seed,
            **{name: value for name, value in given.items() if value is not None},
            **({"report": False} if self.path is None else {}),
            **(self.fit_options or {}),
        }
        run_folder: AbstractContextManager[str | Path] = (
            tempfile.TemporaryDirectory(prefix="saccade_run_", ignore_cleanup_errors=True)
            if self.path is None
            else nullcontext(self.path)
        )
        with run_folder as run:
            predictor = ImagePredictor("label", problem_type, self.eval_metric, run, self.verbosity)
            data: pd.DataFrame = pd.DataFrame({"image": pd.Series(images, dtype=object), "label": labels})
            predictor.fit(data, **options)
            folder = _TemporaryFolder()
            predictor.save(folder.path)  # a copy: the next fit may replace the run
        self.predictor_ = self._load(folder, predictor.pipeline.saved.net)

    @property
    def pixel_range_(self) -> PixelRange | None:
        """The numbers of black and white; None if the images had 8 bits."""
        return self.predictor_.pipeline.saved.pixel_range

    def _predictions(self, X: Any) -> Predictions:
        """Predict images; an unreadable one is an error, as scikit-learn's metrics require all predictions."""
        check_is_fitted(self, "predictor_")
        images = self._images(X, reset=False)
        found = self.predictor_.pipeline.predict(images, verbosity=self.verbosity)
        if found.errors:
            first, reason = min(found.errors.items())
            name = str(image) if isinstance(image := images[first], str | Path) else f"X[{first}]"
            more = f"; {len(found.errors) - 1} more cannot be read either" if len(found.errors) > 1 else ""
            raise ImageReadError(f"{name} cannot be read: {reason}{more}; leave out unreadable images")
        return found

    def _images(self, X: Any, reset: bool) -> list[ImageLike]:
        """Return paths, bytes, pictures, or arrays of numbers of any scale."""
        images = image_list(X)
        if images is None:
            return list(self._lay_out(validate_data(self, X, reset=reset)))
        if reset:  # an earlier fit may have had columns
            for name in {"n_features_in_", "feature_names_in_"} & vars(self).keys():
                delattr(self, name)
        check_finite(images)
        return images

    def _lay_out(self, rows: np.ndarray) -> np.ndarray:
        return rows_as_images(rows, self.image_shape)


class ImageClassifier(ClassifierMixin, _ImageEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A scikit-learn classifier that finds the best image classifier within a time limit.

    Parameters
    ----------
    time_limit : float, "auto" or None
        Seconds of one fit; cross-validation makes many fits. "auto" is 7200, or the preset's; None means no limit.
    hyperparameters, presets, num_trials, searcher, scheduler, executor, callbacks, holdout_frac
        As in `ImagePredictor.fit`. In `set_params` and `GridSearchCV`, ``hyperparameters__lr`` is a single
        hyperparameter. Each fit uses a copy of a searcher or scheduler. Clones share callbacks, and the workers of an
        executor.
    eval_metric : str, callable or None
        The metric used for model selection; `score` is the accuracy, as in all scikit-learn classifiers.
    weights : path or None
        A file of pretrained weights, or a folder of such files.
    image_shape : tuple of int or None
        The shape, (height, width) or (height, width, channels), of images that are rows of a table. None means
        that they are square.
    random_state : int, RandomState or None
        Seed of the split, the search and the training; None draws one.
    path : str, Path or None
        The run folder, which each fit replaces; None is a temporary one. Use None if fits run in parallel.
    verbosity : int
        As in `ImagePredictor`.
    fit_options : mapping or None
        Further arguments of `ImagePredictor.fit`: ``ensemble``, ``num_folds``, ``ngpus_per_trial`` and others.

    Attributes
    ----------
    classes_ : ndarray, shape (num_classes,)
        The labels, sorted; the order of the columns of `predict_proba`.
    predictor_ : ImagePredictor
        The fitted predictor, with its `leaderboard` and `fit_summary`. It owns a temporary folder; `save` keeps it.
    pixel_range_ : tuple of float or None
        The numbers of black and white; None if the images had 8 bits.
    n_features_in_ : int
        Numbers in a row; only if the images were rows of a table.

    Notes
    -----
    Images, ``X``, are any of these:

    - a list, array, Series or one-column DataFrame of paths, bytes of files, Pillow images or arrays;
    - an array of shape (n, height, width) or (n, height, width, channels), of 1, 3 or 4 channels;
    - a table of numbers, each row of which is a flattened image, as in `sklearn.datasets.load_digits`.

    Numbers of type uint8 and bool are used unchanged. Others are scaled by the range of the images in `fit`: see
    `saccade.data.pixel_range`.

    A pickle contains the predictor's files, which are safetensors and JSON, and can be loaded on any machine; it is as
    large as the weights. As with all pickles, load only what you trust. Loading what `predictor_.save` wrote is safe.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> classifier = ImageClassifier(time_limit=60, hyperparameters={"model": "resnet18"})
    >>> classifier
    ImageClassifier(hyperparameters={'model': 'resnet18'}, time_limit=60)
    >>> cross_val_score(classifier, paths, labels)                      # doctest: +SKIP
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # on generated tables, which are not pictures
        return tags

    def fit(self, X: Any, y: Any) -> ImageClassifier:
        """Search networks and hyperparameters, and keep the best.

        Parameters
        ----------
        X : array-like
            Images: see the notes of the class.
        y : array-like, shape (num_images,)
            One label per image: text, numbers or booleans.

        Returns
        -------
        ImageClassifier
            This estimator.

        Raises
        ------
        DataError, HyperparameterError, UnknownNameError
            If an argument is invalid; nothing was trained then.
        """
        labels = _labels(self, y)
        check_classification_targets(labels)
        distinct = np.unique(labels)
        self._fit(X, labels, "binary" if len(distinct) == 2 else "multiclass")
        # A class is missing if all of its images are unreadable.
        known = set(self.predictor_.classes)
        self.classes_ = distinct[[label in known for label in distinct.tolist()]]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the label of each image, as an array of shape (num_images,).

        Raises
        ------
        ImageReadError
            If an image is unreadable.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        classes = self._predictions(X).main_class
        return np.asarray(self.classes_[classes])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return calibrated probabilities, float32 of shape (num_images, num_classes); raises as `predict`."""
        return self._predictions(X).predictions


class ImageRegressor(RegressorMixin, _ImageEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A scikit-learn regressor that finds the best network to predict numbers from images within a time limit.

    Parameters, attributes (except ``classes_``) and the forms of images are those of `ImageClassifier`; `score` is R²,
    and the default `eval_metric` is ``rmse``.

    Examples
    --------
    >>> regressor = ImageRegressor(time_limit=60).set_params(hyperparameters__lr=1e-3)
    >>> regressor.get_params()["hyperparameters"]
    {'lr': 0.001}
    >>> regressor.fit(paths, ages).score(other_paths, other_ages)       # doctest: +SKIP
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # on generated tables, which are not pictures
        return tags

    def fit(self, X: Any, y: Any) -> ImageRegressor:
        """Search networks and hyperparameters, and keep the best; `y` is one number an image, as `ImageClassifier.fit`.

        Returns
        -------
        ImageRegressor
            This estimator.
        """
        labels = _labels(self, y)
        try:
            numbers = labels.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"y must be numbers, one for each image; {error}") from None
        self._fit(X, numbers, "regression")
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the number of each image, float64 of shape (num_images,); raises as `ImageClassifier.predict`."""
        return np.asarray(self._predictions(X).predictions[:, 0], np.float64)


def _labels(estimator: object, y: Any) -> np.ndarray:
    if y is None:
        name = type(estimator).__name__
        raise DataError(f"This {name} estimator requires y to be passed, but the target y is None.")
    labels: np.ndarray = column_or_1d(y, warn=True)
    assert_all_finite(labels, input_name="y")
    return labels
