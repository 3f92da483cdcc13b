"""`ImageClassifier` and `ImageRegressor`: `ImagePredictor` with the interface of scikit-learn.

They work in `Pipeline`, `GridSearchCV`, `cross_val_score`, `clone` and pickling.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from saccade.data.decoding import read_image
from saccade.data.examples import ImageLike
from saccade.data.sources.arrays import as_uint8, image_list, pixel_range_of, rows_as_images
from saccade.errors import DataError, ImageReadError
from saccade.predictor import ImagePredictor
from saccade.searcher.base import Searcher
from saccade.tasks.metrics import EvalMetric

_NESTED = "hyperparameters__"


class _ImageEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base class of both estimators: arguments, images, and the fitted predictor."""

    def __init__(
        self,
        time_limit: float | str | None = "auto",
        hyperparameters: Mapping[str, Any] | None = None,
        presets: str | Sequence[str] | None = None,
        num_trials: int | None = None,
        searcher: str | Searcher | None = None,
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
        """Return a state with the bytes of the predictor's files in place of the predictor."""
        state: dict[str, Any] = dict(super().__getstate__())
        if predictor := state.pop("predictor_", None):
            state["predictor_files"] = {file.name: file.read_bytes() for file in Path(predictor.save()).iterdir()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        files = state.pop("predictor_files", None)
        super().__setstate__(state)
        if files is not None:
            folder = _new_folder()
            for name, content in files.items():
                (folder / name).write_bytes(content)
            self.predictor_ = self._load(folder)

    def _load(self, folder: Path) -> ImagePredictor:
        """Return the predictor in a temporary folder, which is removed together with the predictor."""
        predictor = ImagePredictor.load(folder, self.verbosity)
        predictor.eval_metric = self.eval_metric  # files cannot hold a function of the user
        weakref.finalize(predictor, shutil.rmtree, folder, ignore_errors=True)
        return predictor

    def _fit(self, X: Any, labels: np.ndarray, problem_type: str) -> None:
        images = self._images(X, reset=True)
        check_consistent_length(images, labels)
        if len(images) < 2:
            raise DataError("X has 1 sample; expected 2 or more, one for training and one for validation")
        pixel_range = pixel_range_of(images)
        column = _column([as_uint8(image, pixel_range) for image in images])
        with self._run_folder() as run:
            predictor = ImagePredictor("label", problem_type, self.eval_metric, run, self.verbosity)
            predictor.fit(pd.DataFrame({"image": column, "label": labels}), **self._fit_arguments())
            folder = _new_folder()
            predictor.save(folder)  # a copy: the next fit may replace the run
        self.predictor_ = self._load(folder)
        self.pixel_range_ = pixel_range

    def _run_folder(self) -> AbstractContextManager[str | Path]:
        if self.path is not None:
            return nullcontext(self.path)
        return tempfile.TemporaryDirectory(prefix="saccade_run_", ignore_cleanup_errors=True)

    def _fit_arguments(self) -> dict[str, Any]:
        seed = self.random_state
        if isinstance(seed, np.random.RandomState):
            seed = int(seed.randint(2**31 - 1))
        given = {"presets": self.presets, "num_trials": self.num_trials, "searcher": self.searcher}
        return {
            "time_limit": self.time_limit,
            "hyperparameters": self.hyperparameters,
            "holdout_frac": self.holdout_frac,
            "weights": self.weights,
            "random_state": seed,
            **{name: value for name, value in given.items() if value is not None},
            **(self.fit_options or {}),
        }

    def _prepared_images(self, X: Any) -> list[ImageLike]:
        """Return images in the form that `ImagePredictor` takes."""
        check_is_fitted(self, "predictor_")
        return [as_uint8(image, self.pixel_range_) for image in self._images(X, reset=False)]

    def _images(self, X: Any, reset: bool) -> list[ImageLike]:
        """Return paths, bytes, Pillow images, or arrays of any scale."""
        images = image_list(X)
        if images is None:
            return list(self._lay_out(validate_data(self, X, reset=reset)))
        if reset:  # there are no columns; an earlier fit may have had some
            for name in {"n_features_in_", "feature_names_in_"} & vars(self).keys():
                delattr(self, name)
        return images

    def _lay_out(self, rows: np.ndarray) -> np.ndarray:
        return rows_as_images(rows, self.image_shape)


class ImageClassifier(ClassifierMixin, _ImageEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Find the best image classifier within a time limit; a scikit-learn estimator.

    Parameters
    ----------
    time_limit : float, "auto" or None
        Seconds of one fit; cross-validation runs many fits. "auto" is 7200, or the preset's; None is no limit.
    hyperparameters : mapping or None
        As in `ImagePredictor.fit`. In `set_params` and `GridSearchCV`, ``hyperparameters__lr`` is a single one.
    presets : str, list of str or None
        As in `ImagePredictor.fit`.
    num_trials : int or None
        Maximum number of trials of one fit. None: the preset, the time limit and the size of the space decide.
    searcher : str, Searcher or None
        Search algorithm; None is the preset's, or ``auto``.
    holdout_frac : float or None
        Fraction of the images that validates trials; None is a tenth, or less of very many.
    eval_metric : str, callable or None
        Metric used for model selection; `score` is the accuracy, as in all classifiers of scikit-learn.
    weights : path or None
        A file of pretrained weights, or a folder of such files.
    image_shape : tuple of int or None
        The shape, (height, width) or (height, width, channels), of images given as rows of a table; None is square.
    random_state : int, RandomState or None
        Seed of the split, the search and the training; None draws one.
    path : str, Path or None
        The run folder, which each fit replaces; None is a temporary one. Keep None if fits run in parallel.
    verbosity : int
        As in `ImagePredictor`.
    fit_options : mapping or None
        Other options of `ImagePredictor.fit`: ``scheduler``, ``executor``, ``ngpus_per_trial`` and so on.

    Attributes
    ----------
    classes_ : ndarray, shape (num_classes,)
        The labels, sorted; the order of the columns of `predict_proba`.
    predictor_ : ImagePredictor
        The fitted predictor, with its `leaderboard` and `fit_summary`. It owns a temporary folder; `save` keeps it.
    pixel_range_ : tuple of float or None
        The values of black and white; None if the images were not arrays.
    n_features_in_ : int
        Numbers in a row; only if images were rows of a table.

    Notes
    -----
    Images, ``X``, are any of these:

    - a list, array, Series or one-column DataFrame of paths, bytes of files, Pillow images or arrays;
    - an array of shape (n, height, width) or (n, height, width, channels), of 1, 3 or 4 channels;
    - a table of numbers, each row of which is a flattened image, as in `sklearn.datasets.load_digits`.

    Values of type uint8 and bool are not scaled. Others are scaled by the range in `fit`: [0, 1] if all were in it,
    [0, 255] if all were uint8, else from the smallest to the largest.

    A pickle contains the predictor's files (safetensors and JSON) and can be loaded on any machine. Load only pickles
    that you trust; folders by `predictor_.save` are safe.

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
        tags.classifier_tags.poor_score = True  # on generated tables, which are not images
        return tags

    def fit(self, X: Any, y: Any) -> ImageClassifier:
        """Search networks and hyperparameters, and keep the best.

        Parameters
        ----------
        X : array-like
            Images: see the notes of the class.
        y : array-like, shape (num_images,)
            One label an image: text, numbers or truth values.

        Returns
        -------
        ImageClassifier
            This estimator.

        Raises
        ------
        DataError, HyperparameterError, UnknownNameError
            If an argument is invalid; nothing has been trained then.
        """
        labels = _labels(self, y)
        check_classification_targets(labels)
        distinct = np.unique(labels)
        self._fit(X, labels, "binary" if len(distinct) == 2 else "multiclass")
        # All images of a class may have been unreadable.
        known = set(self.predictor_.classes)
        self.classes_ = distinct[[label in known for label in distinct.tolist()]]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each image, as an array of shape (num_images,).

        Raises
        ------
        ImageReadError
            If an image cannot be read.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        probabilities = self.predict_proba(X)
        labels: np.ndarray = self.classes_[probabilities.argmax(1)]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes, float32 of shape (num_images, num_classes); else as `predict`."""
        images = self._prepared_images(X)
        probabilities = np.asarray(self.predictor_.predict_proba(images, as_pandas=False))
        _refuse_unreadable(images, np.isnan(probabilities[:, 0]))
        return probabilities


class ImageRegressor(RegressorMixin, _ImageEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Find the best network within a time limit that predicts a number from an image; a scikit-learn estimator.

    Parameters, attributes (but for ``classes_``) and the forms of images are
    those of `ImageClassifier`; `score` is R², and `eval_metric` is ``rmse`` by itself.

    Examples
    --------
    >>> regressor = ImageRegressor(time_limit=60).set_params(hyperparameters__lr=1e-3)
    >>> regressor.get_params()["hyperparameters"]
    {'lr': 0.001}
    >>> regressor.fit(paths, ages).score(other_paths, other_ages)       # doctest: +SKIP
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # on generated tables, which are not images
        return tags

    def fit(self, X: Any, y: Any) -> ImageRegressor:
        """Search networks and hyperparameters, and keep the best; `y` is one number an image, else as the classifier.

        Returns
        -------
        ImageRegressor
            This estimator.
        """
        labels = _labels(self, y)
        try:
            numbers = labels.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"y must be one number per image; {error}") from None
        self._fit(X, numbers, "regression")
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the number of each image, as an array of shape (num_images,); raises as the classifier's does."""
        images = self._prepared_images(X)
        numbers = self.predictor_.predict(images, as_pandas=False)
        _refuse_unreadable(images, np.asarray(pd.isna(numbers)))
        return np.asarray(numbers, np.float64)


def _labels(estimator: object, y: Any) -> np.ndarray:
    if y is None:
        name = type(estimator).__name__
        raise DataError(f"This {name} estimator requires y to be passed, but the target y is None.")
    labels: np.ndarray = column_or_1d(y, warn=True)
    assert_all_finite(labels, input_name="y")
    return labels


def _column(images: Sequence[ImageLike]) -> np.ndarray:
    """Return images as an array of objects, which NumPy would not make of arrays by itself."""
    column = np.empty(len(images), object)
    for index, image in enumerate(images):
        column[index] = image
    return column


def _refuse_unreadable(images: Sequence[ImageLike], is_unreadable: np.ndarray) -> None:
    """Raise for images that got no prediction: scikit-learn's metrics want one for each."""
    indices = np.flatnonzero(is_unreadable)
    if not len(indices):
        return
    first = images[indices[0]]
    name = str(first) if isinstance(first, str | Path) else f"X[{indices[0]}]"
    more = f"; nor can {len(indices) - 1} more" if len(indices) > 1 else ""
    raise ImageReadError(f"{name} cannot be read: {_reason(first)}{more}; leave out what cannot be read")


def _reason(image: ImageLike) -> str:
    try:
        read_image(image)
    except ImageReadError as error:
        return str(error)
    return "not when it was predicted, though it can be now"


def _new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="saccade_predictor_"))
