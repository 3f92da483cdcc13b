"""What a fitted predictor says of images: labels, probabilities, features, figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from saccade.data.examples import Examples, read_examples, read_labelled_examples
from saccade.errors import DataError, NotFittedError
from saccade.inference.abstention import Doubt
from saccade.inference.classifier import Classifier
from saccade.inference.evaluation import check_interval, evaluation
from saccade.inference.features import features_of
from saccade.inference.prediction import Compute, compute_in_batches, decoded, decoded_sets, labels_by_name
from saccade.inference.saved import SavedPredictor
from saccade.selection.summary import leaderboard
from saccade.tasks.metrics import EvalMetric, make_metric


class FittedPredictor:
    """The part of `saccade.predictor.predictor.ImagePredictor` that predicts with what was fitted, and tells of it.

    Parameters
    ----------
    eval_metric, verbosity
        As in `saccade.predictor.predictor.ImagePredictor`.
    """

    def __init__(self, eval_metric: EvalMetric, verbosity: int) -> None:
        self.eval_metric, self.verbosity = eval_metric, verbosity
        self._saved: SavedPredictor | None = None
        self._classifiers: list[Classifier] | None = None

    @property
    def classes(self) -> list[Any]:
        """The labels that can be predicted, in the order of the columns of `predict_proba`."""
        return list(self._fitted().problem.classes)

    @property
    def class_names(self) -> list[str]:
        """The names of `classes`: those of the folders, where labels are numbers; else the labels as text."""
        return self._fitted().names_of_classes

    def predict(
        self,
        data: Any,
        as_pandas: bool = True,
        *,
        unsure: Any = None,
        coverage: float | None = None,
        min_proba: float | None = None,
    ) -> pd.Series | pd.DataFrame | np.ndarray:
        """Return the likeliest label of each image, or its number for regression.

        Parameters
        ----------
        data : path, bytes, picture, list of these, DataFrame or ImageDataset
            One image or many.
        as_pandas : bool
            False returns an array.
        unsure : label or None
            What to return in the place of a label that is not sure: ``"ask a person"``. None is always sure. For one
            label an image only.
        coverage : float or None
            An image is unsure when its `predict_set` of this coverage holds more than one label. None is .9, unless
            `min_proba` is given.
        min_proba : float or None
            An image is unsure when no label has so high a probability. These are calibrated, so of the labels that are
            given, at least that share should be right.

        Returns
        -------
        Series, shape (num_images,); or DataFrame, shape (num_images, num_labels), where labels are several columns
            Labels as they were given to `fit`, with the index of `data`. Images that cannot be read have None, and a
            warning names them.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ImageReadError
            When not a single image can be read.
        HyperparameterError, DataError
            When there can be no such doubt; as in `predict_set`.
        """
        saved = self._fitted()
        doubt = Doubt.of(unsure, coverage, min_proba, saved.problem, saved.trust.conformal)
        examples = read_examples(data, saved.label)
        probabilities, errors = self._predictions(examples)
        return decoded(saved, probabilities, errors, examples.index if as_pandas else None, doubt)

    def predict_set(self, data: Any, coverage: float = 0.9, as_pandas: bool = True) -> pd.Series | np.ndarray:
        """Return the labels that each image may have, so that the right one is among them as often as asked.

        The promise holds for images like those of the fit, whatever the network: see `saccade.inference.conformal`.
        After `refit_full` it holds about, since sets are then by what the network of the search did.

        Parameters
        ----------
        data, as_pandas
            As in `predict`.
        coverage : float
            How often the right label is to be in the set, between 0 and 1.

        Returns
        -------
        Series of lists, shape (num_images,)
            Labels, the likeliest first, and at least that one; for regression the lower and upper end of an interval,
            as a tuple. None for images that cannot be read.

        Raises
        ------
        HyperparameterError
            When the coverage is none, or the problem is multilabel.
        DataError
            When there were too few validation images for so high a coverage.

        Examples
        --------
        >>> predictor.predict_set("pet.jpg", coverage=0.95)                 # doctest: +SKIP
        0    [cat, dog]
        Name: label, dtype: object
        """
        saved = self._fitted()
        saved.trust.conformal.check(saved.problem, coverage)
        examples = read_examples(data, saved.label)
        predictions, errors = self._predictions(examples)
        return decoded_sets(saved, predictions, coverage, errors, examples.index if as_pandas else None)

    def predict_proba(self, data: Any, as_pandas: bool = True) -> pd.DataFrame | pd.Series | np.ndarray:
        """Return the probability of each class for each image; for regression, what `predict` returns.

        Parameters
        ----------
        data, as_pandas
            As in `predict`.

        Returns
        -------
        DataFrame, shape (num_images, num_classes)
            One column per class, named by its label; rows of images that cannot be read are NaN. They are calibrated:
            see `saccade.inference.calibration`.
        """
        saved = self._fitted()
        if not saved.problem.has_classes:
            return self.predict(data, as_pandas)
        examples = read_examples(data, saved.label)
        probabilities, errors = self._predictions(examples)
        probabilities[list(errors)] = np.nan
        if not as_pandas:
            return probabilities
        table: pd.DataFrame = pd.DataFrame(probabilities, examples.index, columns=list(saved.problem.classes))
        return table

    def predict_feature(self, data: Any, as_pandas: bool = True) -> pd.DataFrame | np.ndarray:
        """Return what the network makes of each image just before it decides; of an ensemble, its first network.

        Parameters
        ----------
        data, as_pandas
            As in `predict`.

        Returns
        -------
        DataFrame, shape (num_images, 1)
            A column ``image_feature`` of float32 vectors; those of images that cannot be read are NaN. With
            ``as_pandas=False`` an array of shape (num_images, num_features).
        """
        examples = read_examples(data, self._fitted().label)
        features, errors = self._in_batches(examples, features_of)
        features[list(errors)] = np.nan
        if not as_pandas:
            return features
        table: pd.DataFrame = pd.DataFrame({"image_feature": list(features)}, index=examples.index)
        return table

    def evaluate(self, data: pd.DataFrame, *, interval: float | None = None, detailed: bool = False) -> dict[str, Any]:
        """Return figures on labelled images; those that cannot be read are left out, and a warning names them.

        Parameters
        ----------
        data : ImageDataset or DataFrame
            Images with labels.
        interval : float or None
            The confidence of an interval for each figure, such as .95; None is without. Intervals are those of a
            bootstrap: how far the figure varies when images are drawn from these with replacement, 1,000 times.
        detailed : bool
            Whether to tell ``log_loss``, ``ece`` (the expected calibration error) and ``ece_by_chance`` (what that
            would be on so many images if probabilities were right) as well; for regression ``mae``.

        Returns
        -------
        dict
            ``top1``; ``top5`` where there are more than five classes; for multilabel problems ``f1_micro`` and
            ``subset_accuracy``; for regression ``rmse``. With an `eval_metric`, that as well (but a function of one's
            own is not saved with a predictor). With `interval`, also the lower and upper end of each, by the name
            ``top1_interval``; NaN where the figure is not defined in any sample.

        Examples
        --------
        >>> predictor.evaluate(test, interval=0.95)                         # doctest: +SKIP
        {'top1': 0.94, 'top1_interval': (0.91, 0.96)}
        """
        check_interval(interval)
        saved = self._fitted()
        examples = read_labelled_examples(data, saved.label)
        assert examples.labels is not None
        labels = labels_by_name(examples, saved)
        predictions, errors = self._predictions(examples)
        readable = np.setdiff1d(np.arange(len(examples)), list(errors))
        targets, predictions = saved.problem.encode(labels.iloc[readable]), predictions[readable]
        metric = None if self.eval_metric is None else make_metric(self.eval_metric, saved.problem)
        decided = saved.trust.thresholds.decided(predictions)
        return evaluation(targets, predictions, decided, saved.problem, metric, detailed=detailed, interval=interval)

    def fit_summary(self) -> dict[str, Any]:
        """Return the figures of the best trial and the history of the search.

        Returns
        -------
        dict
            ``train_acc``, ``valid_acc``, ``total_time`` (seconds), ``best_config``, ``fit_history`` and more; the
            accuracies are those of the best epoch of the best trial, whose weights this predictor has. ``ensemble``
            lists the members (``trial``, ``model``, ``weight``) where there are several networks; then
            ``valid_score`` and the accuracies are the ensemble's, and ``best_trial`` is its first member.
            ``valid_score_how`` says how they were found, and ``cross_fitted_scores`` how ensembles and single networks
            compare on images by which they were not chosen. ``temperature`` and ``logit_adjustment`` say how
            probabilities are calibrated; accuracies are those of before.
        """
        return dict(self._fitted().summary)

    def leaderboard(self) -> pd.DataFrame:
        """Return a table of all trials, the best first, failed ones last and with their reasons."""
        return leaderboard(self._fitted().trials)

    def _fitted(self) -> SavedPredictor:
        if self._saved is None:
            raise NotFittedError("this predictor has not been fitted; call fit(…) first, or ImagePredictor.load(path)")
        return self._saved

    def _predictions(self, examples: Examples) -> tuple[np.ndarray, dict[int, str]]:
        """Return predictions of shape (num_images, num_outputs), and the reasons of images that cannot be read."""
        if not len(examples):
            return np.zeros((0, self._fitted().problem.num_outputs), np.float32), {}
        each, errors = self._of_members(examples, Classifier.predict, len(self._fitted().members))
        return self._fitted().predictions(each), errors

    def _in_batches(self, examples: Examples, compute: Compute) -> tuple[np.ndarray, dict[int, str]]:
        """Return what `compute(classifier, batches)` makes of the images, and the reasons of those it cannot read.

        Of an ensemble that is what its first member makes of them, which has the highest score.
        """
        each, errors = self._of_members(examples, compute, 1)
        return each[0], errors

    def _of_members(
        self, examples: Examples, compute: Compute, num_members: int
    ) -> tuple[list[np.ndarray], dict[int, str]]:
        """Do the same for so many members."""
        if not len(examples):
            raise DataError("there are no images")
        if self._classifiers is None:
            self._classifiers = self._fitted().classifiers()
        return compute_in_batches(self._classifiers[:num_members], examples, compute, self.verbosity)
