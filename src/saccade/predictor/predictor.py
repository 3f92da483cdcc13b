"""`ImagePredictor`: from labelled images to predictions."""

from __future__ import annotations

import contextlib
import glob
import html
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from saccade.autosearch.machine_speed import gmacs_per_second
from saccade.checks import fraction, real_number
from saccade.data.dataset import ImageDataset
from saccade.data.decoding import local_path_of
from saccade.data.examples import (
    Examples,
    ImageLike,
    check_label_column,
    labelled_table,
    read_examples,
    read_labelled_examples,
)
from saccade.data.groups import with_groups, with_times
from saccade.deadline import Deadline, call_start_s
from saccade.errors import (
    DataError,
    HyperparameterError,
    NotFittedError,
    SavedPredictorError,
    SuggestingClass,
    count_of,
    explained_file_errors,
    suggests_names,
)
from saccade.fit.fitting import run_fit
from saccade.fit.options import FitOptions, document_options, places_of_arguments
from saccade.fit.presets import find_preset
from saccade.fit.resuming import EarlierRun, locked_run
from saccade.fit.run_folder import SOURCE, FitRequest, has_predictor, how_to_finish, is_finished, is_run
from saccade.fit.searching import is_gpu_wanted
from saccade.fit.torchrun import fits_once
from saccade.global_state import preserved_global_state, runs_in
from saccade.inference.description import choose
from saccade.inference.evaluation import TABLES, evaluation
from saccade.inference.feature_bank import FALSE_ALARM_RATE, FeatureBank
from saccade.inference.pipeline import InferencePipeline, Predictions
from saccade.inference.postprocessing import AbstentionRule
from saccade.inference.saved import DESCRIPTION, SavedPredictor
from saccade.insight.embeddings import (
    EmbeddedImages,
    complete_features,
    copy_embeddings,
    embedded_training_images,
    nearest_images,
)
from saccade.insight.figures import Reason, reasons_figure
from saccade.insight.label_issues import check_has_classes, label_issues
from saccade.insight.near_duplicates import near_duplicates
from saccade.insight.reasons import check_numbers, find_reasons
from saccade.insight.saliency import SaliencyMapper, check_form, check_method, in_form, target_numbers
from saccade.models.catalogue import list_models
from saccade.models.ranking import models_table
from saccade.numerics.device import choose_device
from saccade.remote.urls import is_url, place_of
from saccade.report.model_card import ModelCard, make_card
from saccade.report.record import RunRecord
from saccade.report.report import AutomaticReport, Report
from saccade.searcher.base import Searcher
from saccade.selection.more_classes import add_classes
from saccade.selection.summary import leaderboard
from saccade.study.objectives import speed_limits
from saccade.study.url_folder import fetched, send_changes, urls_in_errors, with_urls, working_folder
from saccade.tasks.metrics import EvalMetric, make_metric
from saccade.training.recipes.default_space import default_space
from saccade.training.recipes.recipe import canonical, recipe_space

if TYPE_CHECKING:
    from saccade.data.gallery import Gallery


_WITHOUT_CLUSTER: dict[str, Any] = {"address": None, "max_workers": None}
"""Options of a run on a cluster that another executor does not have."""


@suggests_names(places_of_arguments)
@runs_in(preserved_global_state, urls_in_errors, explained_file_errors)
class ImagePredictor(metaclass=SuggestingClass):
    """Finds the best image classifier within a time limit, and predicts with it.

    Threads may share a fitted predictor. A pickle of it refers to its folder; to move a predictor, use `save`.

    Parameters
    ----------
    label : str or list of str
        The label column's name. Several names are columns of 0 and 1, one for each label that an image may have: a
        multilabel problem, for which `predict` returns a DataFrame of these columns.
    problem_type : {"binary", "multiclass", "multilabel", "regression"} or None
        None infers it from the labels: see `saccade.tasks.labels.infer_problem_type`.
    eval_metric : str, callable or None
        The metric used for model selection: scikit-learn's by name, a function ``f(y_true, y_pred)``, or a scorer; see
        `saccade.tasks.metrics.make_metric`. None is ``accuracy``; ``f1_micro`` for multilabel problems, ``rmse`` for
        regression.
    path : str, Path or None
        The run folder, or its URL, such as ``s3://bucket/run``; None makes a new one in ``saccade_runs``. A run at a
        URL works in a local copy in the cache, and sends its changes every few seconds.
    verbosity : int
        0 is silent; 1 shows warnings and the result; 2 shows trials; 3 shows every epoch.
    sample_weight : str or None
        The name of a column of the training data with the weight of each image in the loss, 0 or more. Metrics on the
        validation images are not weighted.

    Examples
    --------
    >>> train, _, test = ImageDataset.from_folders("pets.zip")          # doctest: +SKIP
    >>> predictor = ImagePredictor().fit(train, time_limit=600)         # doctest: +SKIP
    >>> predictor.evaluate(test)                                        # doctest: +SKIP
    {'top1': 0.94}
    """

    Dataset = ImageDataset

    def __init__(
        self,
        label: str | Sequence[str] = "label",
        problem_type: str | None = None,
        eval_metric: EvalMetric = None,
        path: str | Path | None = None,
        verbosity: int = 2,
        sample_weight: str | None = None,
    ) -> None:
        self.label = label
        self.problem_type = problem_type
        self.eval_metric = eval_metric
        self.verbosity = verbosity
        self.sample_weight = sample_weight
        self._given_path = path
        # The working directory may change later.
        self._fit_path = None if path is None else place_of(path)
        self._path = self._fit_path
        self._pipeline: InferencePipeline | None = None

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002  scikit-learn's signature
        """Return the arguments that this predictor was made with, as scikit-learn's estimators do."""
        return {
            "label": self.label,
            "problem_type": self.problem_type,
            "eval_metric": self.eval_metric,
            "path": self._given_path,
            "verbosity": self.verbosity,
            "sample_weight": self.sample_weight,
        }

    def clone(self) -> ImagePredictor:
        """Return a predictor made with the same arguments, not fitted."""
        return type(self)(**self.get_params())

    def __repr__(self) -> str:
        described = "; ".join(f"{name}: {text}" for name, text in self._description().items())
        return f"<{type(self).__name__} {described}>"

    def _repr_html_(self) -> str:
        described = self._description().items()
        rows = [f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in described]
        table = f"<table>{''.join(rows)}</table>"
        if self._pipeline is None:
            return table
        board = self.leaderboard()
        num = 10
        best = board.head(num).dropna(axis="columns", how="all").to_html(index=False, border=0, na_rep="")
        title = f"{count_of(len(board), 'trial')}" + (f", the best {num}" if len(board) > num else "")
        return f"{table}<details><summary>{title}</summary>{best}</details>"

    def _description(self) -> dict[str, str]:
        if self._pipeline is None:
            return {"state": "not fitted", "label": str(self.label)}
        saved, names = self._saved, self.class_names
        some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        networks = dict.fromkeys(each.blueprint.name for each in saved.members)
        return {
            "state": "fitted",
            "classes": f"{len(names)} ({some})" if names else f"none ({saved.problem.type})",
            "result": saved.result,
            "networks": ", ".join(networks),
            "path": self.path,
        }

    @property
    def path(self) -> str:
        """The run folder, as an absolute path or a URL; of a loaded predictor, the folder it was loaded from."""
        return "" if self._path is None else with_urls(str(self._path))

    @staticmethod
    def list_models(
        pattern: str | None = None,
        *,
        license: str | Sequence[str] | None = None,  # noqa: A002
        detailed: bool = False,
    ) -> list[str] | pd.DataFrame:
        """Return the names of all networks, or of those that match.

        Parameters
        ----------
        pattern : str or None
            Such as ``"*mobilenet*"``.
        license : str or list of str or None
            Only networks whose pretrained weights have this licence: timm's name for it, as in ``"apache-2.0"``, or
            ``"free"`` for those that allow any use.
        detailed : bool
            Whether to return a DataFrame: the columns ``model``, ``weights`` (where they are: ``"folder"``, ``"hub
            cache"``, ``"package"``, ``"hub"`` or ``"none"``), ``licenses``, ``img_size`` and ``top1`` (published
            accuracy on ImageNet-1k).

        Examples
        --------
        >>> ImagePredictor.list_models("tf_efficientnet_lite0", detailed=True)[["weights", "licenses"]].values.tolist()
        [['package', 'apache-2.0']]
        """
        names = list_models(pattern, license=license)
        return models_table(names) if detailed else names

    @document_options
    @fits_once(lambda predictor, path: predictor._read(path))
    def fit(
        self,
        train_data: pd.DataFrame | str | Path,
        tuning_data: pd.DataFrame | str | Path | None = None,
        time_limit: float | str | None = "auto",
        presets: str | Sequence[str] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> ImagePredictor:
        """Search networks and hyperparameters, keep the best, and return this predictor.

        Parameters
        ----------
        train_data : ImageDataset, DataFrame, str or Path
            A column of images (paths or bytes) and one of labels. Or the path of a folder of classes, of an archive of
            such folders, or of a CSV file, whose paths are relative to its folder.
        tuning_data : ImageDataset, DataFrame, str, Path or None
            Validation images; None holds out a fraction of `train_data`.
        **kwargs
            The other options of `saccade.fit.options.FitOptions`. `hyperparameter_tune_kwargs` may hold the options of
            the search in a dict of their own.

        Raises
        ------
        DataError, HyperparameterError, UnknownNameError
            If an argument is invalid; nothing has been trained then.
        WeightsNotFoundError
            If pretrained weights are not available.
        SearchFailedError
            If every trial failed; the message has the reasons.
        """
        start_s = call_start_s()
        if kwargs.get("resume") and self._fit_path is None:
            raise HyperparameterError("resume=True requires the run folder: pass ImagePredictor(path=…), or --out")
        with (
            working_folder(self._fit_path) as folder,
            locked_run(folder) if kwargs.get("resume") else contextlib.nullcontext() as earlier,
        ):
            named = {"time_limit": time_limit, "presets": presets, "hyperparameters": hyperparameters}
            return self._fit(train_data, tuning_data, {**named, **kwargs}, start_s, folder, earlier)

    def _fit(
        self,
        train_data: pd.DataFrame | str | Path,
        tuning_data: pd.DataFrame | str | Path | None,
        kwargs: dict[str, Any],
        start_s: float,
        folder: Path | None,
        earlier: EarlierRun | None,
    ) -> ImagePredictor:
        if earlier is not None and kwargs.get("random_state", 0) is None:
            kwargs["random_state"] = earlier.arguments["random_state"]  # drawn when the run began
        settings = FitOptions.of(kwargs)
        preset = find_preset(kwargs["presets"], None if settings.time_limit == "auto" else settings.time_limit)
        settings = settings.with_defaults(preset.options)
        limit_s = settings.limit_s
        start = self._saved if settings.warm_start else None
        hyperparameters = canonical(settings.hyperparameters)
        is_own_search = isinstance(settings.searcher, Searcher)
        if isinstance(settings.searcher, Searcher) and not hyperparameters:
            hyperparameters = canonical({str(name): value for name, value in settings.searcher.space.data.items()})
        if start and hyperparameters.get("model", started := start.config["model"]) != started:
            raise HyperparameterError(
                f"warm_start=True continues with the network {started!r}; remove model={hyperparameters['model']!r}"
            )
        label = _checked_label(self.label)
        source = _source_of(train_data) if tuning_data is None or not isinstance(train_data, str | Path) else None
        train_data, tuning_data = labelled_table(train_data, label), labelled_table(tuning_data, label)
        check_label_column(train_data, label)
        train = read_labelled_examples(train_data, label, self.sample_weight, "train_data")
        train = with_groups(train, settings.groups, train_data, "train_data", is_complete=True)
        tuning = None
        if tuning_data is not None:
            tuning = read_labelled_examples(tuning_data, label, what="tuning_data")
            tuning = with_groups(tuning, settings.groups, tuning_data, "tuning_data", is_complete=False)
            if settings.time is not None:
                raise HyperparameterError("time=… divides train_data, but tuning_data is given too. Remove one of them")
        train = with_times(train, settings.time, train_data, "train_data")
        is_named = bool(start) or "model" in {**canonical(preset.hyperparameters), **hyperparameters}
        request = FitRequest(
            path=folder,
            label=label,
            problem_type=self.problem_type,
            eval_metric=self.eval_metric,
            verbosity=self.verbosity,
            train=train,
            tuning=tuning,
            unlabeled=_unlabeled_examples(settings.unlabeled),
            space=recipe_space(
                hyperparameters  # a ready searcher suggests these and no others
                if is_own_search
                else {
                    **_default_hyperparameters(train, settings, limit_s, is_named, hyperparameters.keys()),
                    **(start.config if start else {}),
                    **canonical(preset.hyperparameters),
                    **hyperparameters,
                }
            ),
            time_limit_s=limit_s,
            settings=settings,
            start=start,
            problem=start.problem if start else None,
            is_model_named=bool(start) or is_own_search or "model" in hyperparameters,
            given=frozenset(hyperparameters),
            trains_once=settings.trains_once,
            source=source,
        )
        return self._run(request, start_s, earlier)

    @classmethod
    @fits_once(lambda cls, path: cls.load(path))
    def resume(
        cls,
        path: str | Path,
        time_limit: float | str | None = "auto",
        verbosity: int | None = None,
        *,
        finish: bool = False,
        executor: str | None = None,
        address: str | None = None,
    ) -> ImagePredictor:
        """Resume an interrupted run from its folder alone, and return its predictor.

        The run folder has the paths of the images, and their labels. A run with images in memory or with custom objects
        cannot be resumed in this way; use ``fit(…, resume=True)`` with the same arguments. If the run cannot be
        resumed, a DataError or HyperparameterError has the reason, and what to do.

        Parameters
        ----------
        path : str or Path
            The run folder, or its URL.
        time_limit : float, "auto" or None
            Seconds for the whole run, including earlier sessions; "auto" is the limit with which it began.
        verbosity : int or None
            As in `ImagePredictor`; None keeps the value of the run.
        finish : bool
            Whether to train nothing more, and make the predictor of the trials that the run has.
        executor, address : str or None
            Where trials run from now on, as in `fit`, such as on another Ray cluster; None keeps the values of the run.
        """
        start_s, place = call_start_s(), place_of(path)
        with working_folder(place) as folder:
            if not is_run(folder):
                raise DataError(
                    how_to_finish(folder) or f"{folder} is not a run folder. Pass the folder of an interrupted run"
                )
            if is_finished(folder):
                return cls.load(folder) if verbosity is None else cls.load(folder, verbosity)
            given = {"executor": executor, "address": address}
            given = {name: value for name, value in given.items() if value is not None}
            if executor not in (None, "ray"):
                given = _WITHOUT_CLUSTER | given
            limit = FitOptions.of({"time_limit": time_limit, **given}).time_limit
            with locked_run(folder) as earlier:
                if earlier is None:
                    raise DataError(f"The run in {folder} was interrupted before it started. Start it again")
                with earlier.named():
                    request = earlier.request(limit, verbosity)
                    request = replace(request, settings=request.settings.model_copy(update=given))
                    predictor = cls(request.label, request.problem_type, request.eval_metric, place, request.verbosity)
                    return predictor._run(request, start_s, earlier, finish=finish)

    def _read(self, path: str) -> ImagePredictor:
        """Become the predictor in a run folder."""
        folder = fetched(path)
        self._pipeline, self._path = InferencePipeline(SavedPredictor.read(folder)), folder
        return self

    def _run(
        self, request: FitRequest, start_s: float, earlier: EarlierRun | None, *, finish: bool = False
    ) -> ImagePredictor:
        used_s = time.monotonic() - start_s + (earlier.used_s if earlier else 0.0)
        deadline = Deadline(None if finish else request.time_limit_s, used_s=used_s)
        if finish:  # no workers are needed
            request = replace(
                request, settings=request.settings.model_copy(update=_WITHOUT_CLUSTER | {"executor": "inline"})
            )
        self._pipeline = InferencePipeline(run_fit(request, deadline, earlier, report=AutomaticReport(), finish=finish))
        self._path = self._pipeline.saved.folder.parent
        return self

    @property
    def classes(self) -> list[Any]:
        """The labels that can be predicted, in the order of the columns of `predict_proba`."""
        return list(self._saved.problem.classes)

    @property
    def class_names(self) -> list[str]:
        """The names of `classes` as text; for class numbers those of the training data."""
        return self._saved.names_of_classes

    @property
    def device(self) -> torch.device:
        """Where predictions are computed; `to` and `load` set it."""
        return self.pipeline.device

    def to(self, device: str | torch.device | None) -> ImagePredictor:
        """Compute predictions on another device from now on, and return this predictor.

        Raises a HyperparameterError for a device that is invalid or not available.

        Parameters
        ----------
        device : str, torch.device or None
            ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``; None is the best device available.
        """
        self.pipeline.to(device)
        return self

    def warm_up(self) -> ImagePredictor:
        """Load the networks now, measure their fastest numerics on this machine, fix them, and return this predictor.

        `save` writes the numerics (precision, memory format, batch norm folding) with the predictor, for this kind of
        device. Without it, predictions are computed in float32 on a CPU and in 16 bits on a GPU, in the memory format
        that trials of the fit have measured, if any.

        Examples
        --------
        >>> predictor.warm_up().save()                                      # doctest: +SKIP
        """
        self.pipeline.warm_up()
        return self

    def predict(
        self,
        data: Any,
        as_pandas: bool = True,
        *,
        unsure: Any = None,
        coverage: float | None = None,
        min_proba: float | None = None,
        unknown: Any = None,
        false_alarm_rate: float | None = None,
    ) -> pd.Series | pd.DataFrame | np.ndarray:
        """Return the label of each image, or its number for regression.

        Raises a NotFittedError before `fit`, an ImageReadError if no image can be read, a HyperparameterError or
        DataError for an invalid `unsure`, `coverage` or `min_proba`, too few validation images for `false_alarm_rate`,
        or no stored features for `unknown`.

        Parameters
        ----------
        data : image, several images, folder, archive, glob pattern, DataFrame or ImageDataset
            See `saccade.data.examples.read_examples`. The index of the result has the paths of a folder's images.
        as_pandas : bool
            False returns an array.
        unsure : label or None
            The value to return instead of an uncertain label, such as ``"ask a person"``. None returns all labels. Only
            for problems with one label per image.
        coverage : float or None
            An image is unsure if its `predict_set` of this coverage contains more than one label. None is .9, unless
            `min_proba` is given.
        min_proba : float or None
            An image is unsure if the calibrated probability of its label is lower.
        unknown : label or None
            The value to return for images that are unlike the training images, such as ``"something else"``: those
            whose `novelty` is above a threshold. None returns all labels. Only for problems with one label per image.
        false_alarm_rate : float or None
            The part of known images that get the label `unknown`, as on the validation images; None is .05.

        Returns
        -------
        Series, shape (num_images,); or DataFrame, shape (num_images, num_labels), if labels are several columns
            Labels as they were given to `fit`, with the index of `data`. A missing value (``isna()``; None in an array)
            for unreadable images, which a warning lists.
        """
        saved = self._saved
        if unknown is not None:
            saved.problem.require_one_class("unknown=…")
            false_alarm_rate = FALSE_ALARM_RATE if false_alarm_rate is None else false_alarm_rate
            self._bank().threshold(false_alarm_rate)  # raises an error before images are read
        elif false_alarm_rate is not None:
            raise HyperparameterError(
                "false_alarm_rate defines when an image is unknown; pass unknown=… too, the value to return for "
                "such images"
            )
        rule = AbstentionRule.of(unsure, coverage, min_proba, saved.problem, saved.postprocessing.conformal)
        examples = read_examples(data, saved.label)
        found = self._predict(examples, abstention=rule, false_alarm_rate=false_alarm_rate)
        labels = found.labels
        if rule is not None or unknown is not None:
            labels = labels.astype(object)
            replaced = [(found.abstained, None if rule is None else rule.value), (found.unknown, unknown)]
            for row, value in ((row, value) for rows, value in replaced for row in np.flatnonzero(rows)):
                labels[row] = value
        if as_pandas and labels.ndim == 2:
            columns: pd.DataFrame = pd.DataFrame(labels, examples.index, columns=self.classes)
            return columns
        return self._series(labels, examples.index) if as_pandas else labels

    def novelty(self, data: Any, as_pandas: bool = True) -> pd.Series | np.ndarray:
        """Return how unlike the training images each image is.

        The score is one minus the cosine to the fifth nearest of up to 4,000 training images, in the features of the
        first network; a fit stores these with the predictor. Raises a DataError if no features are stored: the
        predictor is of an earlier version, or its network has no linear classifier layer.

        Parameters
        ----------
        data, as_pandas
            As in `predict`.

        Returns
        -------
        Series of float32, shape (num_images,)
            From 0 to 2; NaN for images that cannot be read.

        Examples
        --------
        >>> predictor.novelty(["shoe.jpg", "cloud.jpg"])                    # doctest: +SKIP
        0    0.21
        1    0.58
        Name: novelty, dtype: float32
        """
        examples = read_examples(data, self._saved.label)
        self._bank()
        scores = self.pipeline.novelty(examples.images, self.verbosity)
        return pd.Series(scores, examples.index, name="novelty") if as_pandas else scores

    def predict_set(self, data: Any, coverage: float = 0.9, as_pandas: bool = True) -> pd.Series | np.ndarray:
        """Return a set of labels for each image, which contains the right one with a given probability.

        The coverage holds for images from the distribution of the validation images, whatever the network: see
        `saccade.inference.postprocessing.Conformal`. After `refit_full` it holds approximately, as the sets are those
        of the network of the search. Raises a HyperparameterError for an invalid coverage or a multilabel problem, and
        a DataError if there were too few validation images for the coverage.

        Parameters
        ----------
        data, as_pandas
            As in `predict`.
        coverage : float
            Probability that a set contains the right label, between 0 and 1.

        Returns
        -------
        Series of lists, shape (num_images,)
            Labels, the most probable first, and always the one that `predict` returns; for regression the lower and
            upper end of an interval, as a tuple. None for unreadable images.

        Examples
        --------
        >>> predictor.predict_set("pet.jpg", coverage=0.95)                 # doctest: +SKIP
        0    [cat, dog]
        Name: label, dtype: object
        """
        saved = self._saved
        saved.postprocessing.conformal.check(saved.problem, coverage)  # before the images are looked up
        examples = read_examples(data, saved.label)
        sets = self._predict(examples, coverage=coverage).sets
        return self._series(sets, examples.index) if as_pandas else sets

    def predict_proba(self, data: Any, as_pandas: bool = True) -> pd.DataFrame | pd.Series | np.ndarray:
        """Return the probability of each class for each image; for regression, what `predict` returns.

        Probabilities are calibrated (`saccade.inference.calibration`). `predict` decides by them and by the thresholds
        that suit the `eval_metric`, so that its label need not be the most probable one. The arguments are as in
        `predict`.

        Returns
        -------
        DataFrame, shape (num_images, num_classes)
            One column for each class, named by its label; NaN for unreadable images.
        """
        saved = self._saved
        if not saved.problem.has_classes:
            return self.predict(data, as_pandas)
        examples = read_examples(data, saved.label)
        probabilities = self._predict(examples).predictions
        if not as_pandas:
            return probabilities
        table: pd.DataFrame = pd.DataFrame(probabilities, examples.index, columns=self.classes)
        return table

    def embed(self, data: Any) -> np.ndarray:
        """Return a feature vector of each image: the input of the network's classifier layer.

        Of an ensemble it is that of the first network. Vectors are cached on disk, so that a second call with the same
        images takes little time; ``SACCADE_FEATURE_CACHE_GB`` limits the size of the cache, and 0 disables it. Raises a
        HyperparameterError if the network has no single classifier layer.

        Parameters
        ----------
        data
            As in `predict`.

        Returns
        -------
        ndarray, float32, shape (num_images, num_features)
            NaN for unreadable images.

        Examples
        --------
        >>> vectors = predictor.embed(["a.jpg", "b.jpg"])    # doctest: +SKIP
        >>> vectors.shape                                    # doctest: +SKIP
        (2, 1280)
        """
        return self._features(read_examples(data, self._saved.label).images)

    def predict_feature(self, data: Any, as_pandas: bool = True) -> pd.DataFrame | np.ndarray:
        """Return the vectors of `embed` as a table, under AutoGluon's name.

        The arguments are as in `predict`.

        Returns
        -------
        DataFrame, shape (num_images, 1)
            A column ``image_feature`` of float32 vectors, NaN for unreadable images. With ``as_pandas=False``
            an array of shape (num_images, num_features).
        """
        examples = read_examples(data, self._saved.label)
        features = self.embed(examples.images)
        if not as_pandas:
            return features
        table: pd.DataFrame = pd.DataFrame({"image_feature": list(features)}, index=examples.index)
        return table

    def evaluate(
        self,
        data: pd.DataFrame | str | Path,
        metrics: str | Sequence[str | Callable[..., float]] | None = None,
        *,
        interval: float | None = None,
        detailed: bool = False,
    ) -> dict[str, Any]:
        """Return metrics on labelled images. Unreadable images are skipped, and a warning lists them.

        Raises an UnknownNameError for a metric that does not exist or does not suit the problem, and a DataError for
        one that is not defined on these images.

        Parameters
        ----------
        data : ImageDataset, DataFrame, str or Path
            Images with labels; a path as in `fit`.
        metrics : list of str or callable, str, or None
            The metrics to return instead of the usual ones: as `eval_metric`, and as tables ``"confusion_matrix"`` and
            ``"classification_report"`` (precision, recall and F1 score of each class).
        interval : float or None
            Confidence of an interval for each metric, such as .95; None computes none. Intervals are those of a
            bootstrap with 1,000 resamples of the images.
        detailed : bool
            Whether to return ``log_loss``, ``ece`` (the expected calibration error) and ``ece_by_chance`` (the one of
            perfect probabilities on so many images), or ``mae`` for regression, as well.

        Returns
        -------
        dict
            ``top1``; ``top5`` for more than five classes; for multilabel problems ``f1_micro`` and ``subset_accuracy``;
            for regression ``rmse``. With an `eval_metric`, that as well (a function is not saved with a predictor).
            With `interval`, also its lower and upper end, named ``top1_interval``; NaN if the metric is not defined in
            any resample. Tables are DataFrames, with class names.

        Examples
        --------
        >>> predictor.evaluate(test, metrics=["f1_macro", "confusion_matrix"])  # doctest: +SKIP
        >>> predictor.evaluate(test, interval=0.95)                         # doctest: +SKIP
        {'top1': 0.94, 'top1_interval': (0.91, 0.96)}
        """
        if interval is not None:
            fraction("interval", interval)
        saved = self._saved
        asked = [metrics] if isinstance(metrics, str) or callable(metrics) else metrics
        tables = [each for each in asked or () if isinstance(each, str) and each in TABLES]
        chosen = None if asked is None else [make_metric(each, saved.problem) for each in asked if each not in TABLES]
        examples = saved.match_classes(read_labelled_examples(data, saved.label))
        assert examples.labels is not None
        found = self._predict(examples)
        rows = np.setdiff1d(np.arange(len(examples)), list(found.errors))
        predictions, adjusted = found.predictions[rows], found.adjusted[rows]
        targets = saved.problem.encode(examples.labels.iloc[rows])
        scores = evaluation(
            targets,
            predictions,
            adjusted,
            saved.problem,
            None if self.eval_metric is None else make_metric(self.eval_metric, saved.problem),
            metrics=chosen,
            detailed=detailed,
            interval=interval,
        )
        return scores | {name: TABLES[name](targets, adjusted, saved.problem, self.class_names) for name in tables}

    def fit_summary(self) -> dict[str, Any]:
        """Return the scores of this predictor and the history of the search.

        Returns
        -------
        dict
            About this predictor: ``result`` (one line of text), ``images_per_s`` (its throughput on this machine in
            batches of 32, as the fit measured it, decoding excluded; None if unknown), ``valid_acc`` and
            ``valid_score`` on the validation images, ``valid_score_how`` (how they were measured), ``train_acc`` of its
            first network, and ``ensemble``, a dict with ``trial``, ``model`` and ``weight`` for each member (empty for
            a single network). ``cross_fitted_scores`` compares ensembles and single networks by cross-fitting;
            ``why_not_best_trial`` says why the best trial is not the predictor if its score is higher. ``temperature``
            and ``logit_adjustment`` are those of the calibration. ``left_out`` has ``num_unreadable`` images, how often
            each of the ``reasons`` occurs, and the ``classes`` without a readable training image. About the search:
            ``best_trial``, ``best_config`` and ``best_epoch`` of the first row of the leaderboard, ``total_time``
            (seconds), ``fit_history`` (with its score as ``best_reward``) and more.
        """
        return {**self._saved.summary, "result": self._saved.result}

    def leaderboard(self) -> pd.DataFrame:
        """Return a table of all trials, the best first, failed ones last and with their reasons."""
        return leaderboard(self._saved.trials, self._saved.trial_weights)

    def explain(
        self, data: Any, method: str = "auto", target: Any = None, form: str = "network"
    ) -> np.ndarray | list[np.ndarray | None] | list[Image.Image | None]:
        """Return saliency maps: which places of each image increase the score of a label.

        Of an ensemble, the first member is explained, which has the highest score. Raises an UnknownNameError for
        another method, target or form, and a HyperparameterError for a method that does not suit the network.

        Parameters
        ----------
        data
            As in `predict`.
        method : {"auto", "grad_cam", "hires_cam", "smooth_grad"}
            See `saccade.insight.saliency`; "auto" suits every network.
        target : label, sequence of labels or None
            The label to explain: one for all images, or one for each. None is the label that `predict` returns, and for
            multilabel problems the most probable one.
        form : {"network", "image", "overlay"}
            "network" returns maps of the network's input, the central crop of the image; "image" maps of the whole
            image, 0 outside of the crop; "overlay" pictures of these over the images.

        Returns
        -------
        ndarray of float32, shape (num_images, height, width)
            From 0 to 1 in each image; NaN for unreadable ones. For the other forms a list with an array of
            shape (height, width), or a Pillow image, for each image; None for unreadable ones.

        Examples
        --------
        >>> predictor.explain("cat.jpg", form="overlay")[0].save("why.png")    # doctest: +SKIP
        """
        pipeline, saved = self.pipeline, self._saved
        check_method(method)
        check_form(form)
        examples = read_examples(data, saved.label)
        targets = target_numbers(target, saved.problem, saved.names_of_classes, len(examples))
        if targets is None:
            targets = pipeline.predict(examples.images).main_class
        (maps,), errors = pipeline.run(examples.images, SaliencyMapper(targets, method), 1, self.verbosity)
        return in_form(form, maps, examples, errors, saved.blueprint.input)

    def nearest(self, data: Any, k: int = 5, among: Any = None) -> pd.DataFrame:
        """Return the training images that are most similar to each image, by the network's features.

        Raises a DataError if the training images are not found; then pass `among`.

        Parameters
        ----------
        data
            As in `predict`.
        k : int
            Number of training images for each image.
        among : ImageDataset, DataFrame, list or None
            Images to search instead. None is the training images, which are looked up in the run folder at the first
            call; their features are then saved with the predictor if they take no more than 64 MB.

        Returns
        -------
        DataFrame
            ``query`` (from the index of `data`), ``rank`` from 1, ``image``, ``label`` and ``similarity``, the cosine
            of the features. Unreadable images have no rows.
        """
        return nearest_images(self._embedded(data), self._training_images(among), k)

    def why(self, data: Any, k: int = 4, num_images: int = 12, among: Any = None) -> Gallery:
        """Draw why images get their labels: the places that the network looks at, and the most similar training images.

        There is a row for each image: the image with its predicted label (in red, and with the true label, if it is
        wrong); its saliency overlay; and the most similar training images, whose label is marked by ≠ if it is not the
        predicted one. Raises a HyperparameterError for an invalid `k` or `num_images`, and a DataError if the training
        images are not found.

        Parameters
        ----------
        data
            As in `predict`. Of more than `num_images` images, the most interesting are drawn: first the mistakes, if
            labels are known, those with the highest confidence first, then the images with the lowest confidence. For
            regression these are the largest errors, and without labels the first images.
        k : int
            Number of training images for each image, at most 50.
        num_images : int
            Maximum number of images, at most 200.
        among
            As in `nearest`.

        Returns
        -------
        Gallery
            A `matplotlib.figure.Figure`; ``savefig`` writes it, and notebooks show it.

        Examples
        --------
        >>> predictor.why(test).savefig("why.png")                          # doctest: +SKIP
        """
        return reasons_figure(self.reasons(data, k, num_images, among))

    def reasons(self, data: Any, k: int = 4, num_images: int = 12, among: Any = None) -> list[Reason]:
        """Return what `why` draws: for each image the label, an overlay, and the most similar training images.

        The arguments and errors are those of `why`. Unreadable images have no `predicted`.

        Examples
        --------
        >>> predictor.reasons("cat.jpg")[0].neighbours[0].label             # doctest: +SKIP
        'cat'
        """
        pipeline = self.pipeline
        check_numbers(k, num_images)
        examples, train = read_examples(data, self._saved.label), self._training_images(among)
        return find_reasons(pipeline, examples, train, k, num_images, self._embedded_examples, self.verbosity)

    def near_duplicates(self, data: Any, among: Any = None, threshold: float | None = None) -> pd.DataFrame:
        """Return pairs of images that show the same picture: resized, encoded anew, cropped, mirrored or brightened.

        Parameters
        ----------
        data
            As in `predict`.
        among
            Images in which copies are searched; None is `data` itself.
        threshold : float or None
            See `saccade.insight.near_duplicates.near_duplicates`.

        Returns
        -------
        DataFrame
            A row for each pair: ``index``, ``image``, ``other_index``, ``other_image``, ``similarity``,
            ``pixel_similarity``, ``is_mirrored``, and ``label`` and ``other_label`` if they are known.
        """
        return near_duplicates(self._embedded(data), None if among is None else self._embedded(among), threshold)

    def find_leaks(self, test: Any, among: Any = None, threshold: float | None = None) -> pd.DataFrame:
        """Return the test images that are, or nearly are, training images, so that metrics on them are too good.

        The table and `threshold` are those of `near_duplicates`; the other image of each pair is the training image.
        `among` are the training images; None looks them up as `nearest` does.
        """
        train = self._training_images(among)
        return near_duplicates(self._embedded(test), train, threshold)

    def label_issues(self, data: Any = None) -> pd.DataFrame:
        """Return the images whose label is probably wrong, the least probable labels first.

        They are found by logistic regressions on the network's features, cross-validated over the images; see
        `saccade.insight.label_issues`. The features are not cross-validated: a network that was fine-tuned on these
        images may have memorised wrong labels, so that fewer are found. Raises a DataError for multilabel problems and
        regression, and if the training images are not found.

        Parameters
        ----------
        data : ImageDataset, DataFrame or None
            Labelled images; None is the training images, looked up as `nearest` does.

        Returns
        -------
        DataFrame
            With the index of `data`: ``image``, ``label``, ``suggested_label``, ``self_confidence`` and ``rank``.
        """
        saved = self._saved
        check_has_classes(saved.problem)
        if data is None:
            images = self._training_images(None)
        else:
            images = self._embedded_examples(read_labelled_examples(data, saved.label))
        labels = saved.match_classes(images.examples).labels
        assert labels is not None
        return label_issues(images, labels, saved.problem)

    def choose(
        self,
        *,
        min_images_per_s: float | None = None,
        max_latency_ms: float | None = None,
        max_params: float | None = None,
        max_bytes: float | None = None,
        min_score: float | None = None,
        net: Any = None,
    ) -> ImagePredictor:
        """Return the best predictor of the search within some limits of its costs.

        A cost can be limited if it was an objective: ``fit(…, objectives=["accuracy", "latency"])``. Raises a
        HyperparameterError if there is no such predictor, with a list of the choices, or if a limited cost was no
        objective.

        Parameters
        ----------
        min_images_per_s : float or None
            Throughput in images per second, as measured by the search, decoding excluded.
        max_latency_ms : float or None
            Milliseconds for a single image, measured in the same way.
        max_params, max_bytes : float or None
            Parameters of the network, and bytes of its weights.
        min_score : float or None
            The minimum score on the validation images. With it, the cheapest such predictor is returned, in the order
            of the objectives, instead of the best one.
        net : torch.nn.Module, callable or None
            As in `load`, for a network of your own after a predictor was loaded.

        Returns
        -------
        ImagePredictor
            Another one; this one stays as it is. Its weights are in the folder of this one; `save` copies them.

        Examples
        --------
        >>> predictor.fit(train, objectives=["accuracy", "latency"])    # doctest: +SKIP
        >>> quick = predictor.choose(max_latency_ms=5)                  # doctest: +SKIP
        """
        saved = self._saved
        if min_images_per_s is not None:
            real_number("min_images_per_s", min_images_per_s, "a positive number", above=0)
        sizes = {"num_params": max_params, "num_bytes": max_bytes}
        limits = speed_limits(min_images_per_s, max_latency_ms)
        limits |= {name: limit for name, limit in sizes.items() if limit is not None}
        found = saved.chosen(choose(saved.choices, limits, min_score))
        if found.blueprint.architecture is None and found.net is None:
            found = found.with_network(net)
        predictor = type(self)(saved.label, saved.problem.type, self.eval_metric, verbosity=self.verbosity)
        predictor._pipeline, predictor._path = InferencePipeline(found, self.device), self._path
        return predictor

    def add_classes(
        self, train_new: pd.DataFrame, old: pd.DataFrame | None = None, path: str | Path | None = None
    ) -> ImagePredictor:
        """Return a predictor that knows the classes of further images as well, in seconds.

        The backbone of the first network stays. Its classifier layer is fitted anew, to the features that the fit
        stored with this predictor and to those of the new images, a tenth of which validate. So earlier images are not
        needed. Calibration, class priors and prediction sets are fitted to the kept validation images and the new ones.
        `fit_summary` has the accuracy on the kept validation images, before and after, as ``earlier_classes_acc``.
        Raises a DataError if there are no stored features and `old` lacks a class, or no image of a new class can be
        read, and a HyperparameterError for multilabel problems, regression, and networks without a linear classifier
        layer.

        Parameters
        ----------
        train_new : ImageDataset or DataFrame
            Labelled images of new classes, and of known ones, which are matched by name.
        old : ImageDataset, DataFrame or None
            Labelled images of all known classes, for predictors without stored features; otherwise more such images.
        path : str, Path or None
            The folder of the new predictor, which must not exist or be empty. None is one beside this predictor's, such
            as ``predictor-1``.

        Returns
        -------
        ImagePredictor
            Another one, of a single network; this one stays as it is.

        Examples
        --------
        >>> more = predictor.add_classes(ImageDataset.from_folder("new"))   # doctest: +SKIP
        >>> more.fit_summary()["earlier_classes_acc"]                       # doctest: +SKIP
        {'before': 0.92, 'after': 0.91}
        """
        saved = self._saved
        saved.problem.require_one_class("add_classes")
        new = [read_labelled_examples(train_new, str(saved.label), what="train_new")]
        if old is not None:
            new.append(read_labelled_examples(old, str(saved.label), what="old"))
        complete_features(self.pipeline, self.verbosity)
        numbered = (saved.folder.with_name(f"{saved.folder.name}-{number}") for number in itertools.count(1))
        place = next(each for each in numbered if not each.exists()) if path is None else place_of(path)
        with working_folder(place) as folder:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise DataError(f"path={str(path)!r} exists and is not empty. Pass a new folder")
            made = add_classes(saved, self.pipeline.stored_features(), new, self._features, folder)
        send_changes(folder)
        predictor = type(self)(saved.label, made.problem.type, self.eval_metric, verbosity=self.verbosity)
        predictor._pipeline, predictor._path = InferencePipeline(made, self.device), folder
        if self.verbosity > 0:
            sys.stderr.write(f"result: {made.result}\n")
        return predictor

    def save(self, path: str | Path | None = None) -> str:
        """Write the predictor to a folder of its own, and return it: safetensors and JSON, movable, for any machine.

        This object does not change: its files are still those of the run, or of the folder that it was loaded from.

        Parameters
        ----------
        path : str, Path or None
            The folder or its URL, which must not contain anything else; None keeps the one in the run folder.
        """
        saved = self._saved
        place = saved.folder if path is None else place_of(path)
        with working_folder(place, marks=[DESCRIPTION]) as folder:
            saved.copy_to(folder)
            copy_embeddings(saved.folder, folder)
        send_changes(folder)
        return with_urls(str(place))

    def export(
        self,
        to: str = "onnx",
        path: str | Path | None = None,
        *,
        coverage: float | None = None,
        overwrite: bool = False,
        check: bool = True,
        **options: Any,
    ) -> str:
        """Write the predictor as a file that runs without Saccade, and return its path.

        Resizing, cropping, normalisation, all networks, their average, calibration and decisions are in the file. It is
        compared with `predict_proba` in its own runtime, on images of several sizes, before it is moved into place; it
        computes in float32, and so does the predictor in this comparison. Beside an ONNX file a ``predict.py``, a
        ``README.md`` and a web page ``index.html`` are written, unless the user has files of these names there.

        Parameters
        ----------
        to : str
            The format, one of `saccade.export.EXPORT_FORMATS`.
        path : str, Path or None
            The file, or the folder in which it is ``model.onnx``; None is the folder ``export`` in the run folder.
        coverage : float or None
            Coverage of the conformal sets in the file. None is .9 if there are enough validation images, else there are
            no sets.
        overwrite : bool
            Whether an existing file is replaced.
        check : bool
            Whether the file is compared with the predictor. False writes files that this machine cannot run.
        **options
            Options of the format. For ``"onnx"``: `web`, the folder ``dist`` of the npm package onnxruntime-web, of
            which the page beside the file gets a copy; `precision` of the networks, ``"fp16"`` or ``"int8"``, whose
            size, throughput and accuracy on the validation images are printed beside those in float32, and are in the
            file's metadata; and `max_accuracy_drop` (.01), by which accuracy may fall. For ``"openvino"``,
            ``"litert"`` and ``"coreml"``, whose files take images of one size: `image_size`, height and width in
            pixels. For ``"timm"``: the `member` of an ensemble, from 0, as timm's format has one network; its
            preprocessing and class names are in ``config.json``, but not the calibration and thresholds.

        Raises
        ------
        UnknownNameError
            For another format.
        DataError
            If the file exists, or there are too few validation images for the `coverage`.
        HyperparameterError
            If a package is missing, or an option or argument is invalid.
        SaccadeError
            If a network cannot be exported, the file differs from the predictor by more than 1e-4, or cannot be
            compared on this machine; or if accuracy falls in fewer bits.

        Examples
        --------
        >>> predictor.export("onnx", "pets.onnx")                           # doctest: +SKIP
        '/home/me/pets.onnx'
        """
        from saccade.export.exporting import export

        return str(
            export(
                self.pipeline,
                to,
                path,
                coverage=coverage,
                overwrite=overwrite,
                check=check,
                verbosity=self.verbosity,
                options=options,
            )
        )

    def report(self) -> Report:
        """Return the report of the run: how the search went, what came out, and where the predictor is wrong.

        A predictor that was saved elsewhere has fewer parts, as the run folder has more files; so has one of an earlier
        version. `saccade.report.report.Report` has the tables as `frames`, and draws them.

        Returns
        -------
        Report
            ``report.save(path)`` writes one HTML file, and notebooks show it; ``report.frames["leaderboard"]`` is a
            DataFrame, and ``report.plot(name)`` a matplotlib figure.

        Examples
        --------
        >>> predictor.report().save("report.html")                          # doctest: +SKIP
        PosixPath('/home/me/report.html')
        """
        return Report(RunRecord.of(self.pipeline))

    def model_card(
        self,
        name: str | None = None,
        *,
        dataset: str | None = None,
        license: str | None = None,  # noqa: A002
    ) -> ModelCard:
        """Return a model card: what was trained, metrics with intervals, a calibration plot, licences, and limits.

        Metrics and numbers of each class are those of the validation images, whose predictions the fit stores with the
        predictor; predictors of earlier versions, and of `choose`, have none.

        Parameters
        ----------
        name : str or None
            The title; a name such as ``"user/shoes"`` is a repository of the Hugging Face hub.
        dataset : str or None
            The data set's name on the hub, such as ``"beans"``.
        license : str or None
            The licence of this predictor, by the hub's name, such as ``"apache-2.0"``. None is that of the pretrained
            weights if it is known, and the same for all networks.

        Returns
        -------
        ModelCard
            ``print(card)`` prints Markdown, with the hub's metadata; ``card.save(folder)`` writes ``README.md`` and
            ``calibration.png``.

        Examples
        --------
        >>> predictor.model_card().save("predictor")                        # doctest: +SKIP
        PosixPath('predictor/README.md')
        """
        return make_card(self._saved, name, dataset=dataset, license=license)

    @classmethod
    def load(
        cls, path: str | Path, verbosity: int = 2, net: Any = None, device: str | torch.device | None = None
    ) -> ImagePredictor:
        """Load a predictor from a folder made by `save`, or from a whole run folder.

        No code from the folder is run. Raises a SavedPredictorError if there is no predictor, it is damaged, or its
        network is not the one in `net`, and a HyperparameterError for a device that is invalid or not available.

        Parameters
        ----------
        path : str or Path
            The folder, or its URL, such as ``s3://bucket/run``; files are copied to the cache if they have changed.
        verbosity : int
            As in `ImagePredictor`.
        net : torch.nn.Module, callable or None
            The network, if it is one of your own: the module, or the function or class that makes it of the number of
            classes. Its weights come from the folder.
        device : str, torch.device or None
            Where predictions are computed, as in `to`.
        """
        folder = fetched(path)
        if not has_predictor(folder) and (advice := how_to_finish(folder)):
            raise SavedPredictorError(advice)
        pipeline = InferencePipeline(SavedPredictor.read(folder).with_network(net), device)
        if net is not None:
            pipeline.module()  # raises an error now if it is another network
        saved = pipeline.saved
        predictor = cls(saved.label, saved.problem.type, saved.eval_metric, verbosity=verbosity)
        predictor._pipeline, predictor._path = pipeline, folder
        return predictor

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        dataset: str | None = None,
        license: str | None = None,  # noqa: A002
    ) -> str:
        """Write the predictor and its model card to a repository of the Hugging Face hub, in one commit.

        The repository is made if it does not exist. Files of an earlier predictor in it are replaced; a README that was
        edited is kept, and a warning says so. If the push fails, none of its files are visible. `HF_ENDPOINT` is the
        address of another hub. The paths of images are not pushed; features of training images are, which `novelty` and
        `add_classes` need.

        Parameters
        ----------
        repo : str
            The name, such as ``"user/shoes"``.
        private : bool or None
            Whether a new repository is private; None is the default of the account.
        token : str or None
            A token that may write; None is ``HF_TOKEN``, or that of ``hf auth login``.
        revision : str or None
            The branch, which is made if it does not exist; None is the main branch.
        commit_message : str or None
            None is the result of the fit in one line.
        dataset, license
            As in `model_card`.

        Returns
        -------
        str
            The address of the repository.

        Raises
        ------
        HubError
            If the hub refuses, cannot be reached or makes no progress.

        Examples
        --------
        >>> predictor.push_to_hub("user/shoes", private=True)               # doctest: +SKIP
        'https://huggingface.co/user/shoes'
        """
        from saccade.export.hub import push  # few programs use it

        return push(
            self._saved,
            repo,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            dataset=dataset,
            license=license,
        )

    @classmethod
    def from_hub(
        cls,
        repo: str,
        revision: str | None = None,
        token: str | None = None,
        *,
        verbosity: int = 2,
        net: Any = None,
        device: str | torch.device | None = None,
    ) -> ImagePredictor:
        """Load a predictor that `push_to_hub` wrote to the Hugging Face hub, with all checks of `load`.

        Only the files of a saved predictor are downloaded, into the hub's cache, and each is compared with the hub's
        digest; no code is loaded. Without a connection, a predictor that was downloaded before is used.

        Parameters
        ----------
        repo : str
            The name, such as ``"user/shoes"``.
        revision : str or None
            A branch, tag or commit; None is the main branch.
        token : str or None
            For private and gated repositories; None is ``HF_TOKEN``, or that of ``hf auth login``.
        verbosity, net, device
            As in `load`.

        Raises
        ------
        HubError
            If the hub refuses, cannot be reached or sends damaged files.
        SavedPredictorError
            If the repository has no predictor, or one that cannot be loaded.

        Examples
        --------
        >>> ImagePredictor.from_hub("user/shoes").predict("shoe.jpg")       # doctest: +SKIP
        """
        from saccade.export.hub import fetch  # few programs use it

        return cls.load(fetch(repo, revision, token), verbosity, net, device)

    @property
    def pipeline(self) -> InferencePipeline:
        """The inference pipeline of the fitted predictor, by which all predictions are computed."""
        if self._pipeline is None:
            raise NotFittedError("this predictor has not been fitted; call fit(…) first, or ImagePredictor.load(path)")
        return self._pipeline

    @property
    def _saved(self) -> SavedPredictor:
        return self.pipeline.saved

    def _predict(self, examples: Examples, **options: Any) -> Predictions:
        return self.pipeline.predict(examples.images, verbosity=self.verbosity, **options)

    def _bank(self) -> FeatureBank:
        complete_features(self.pipeline, self.verbosity)
        return self.pipeline.bank

    def _series(self, values: np.ndarray, index: pd.Index) -> pd.Series:
        series: pd.Series = pd.Series(values, index, name=str(self._saved.label))
        return series

    def _embedded(self, data: Any) -> EmbeddedImages:
        return self._embedded_examples(read_examples(data, self._saved.label))

    def _embedded_examples(self, examples: Examples) -> EmbeddedImages:
        return EmbeddedImages.of(examples, self._features)

    def _training_images(self, among: Any) -> EmbeddedImages:
        """Return `among`, or the training images of the fit, with their features."""
        return embedded_training_images(self._saved, self._features) if among is None else self._embedded(among)

    def _features(self, images: list[ImageLike]) -> np.ndarray:
        return self.pipeline.features(images, self.verbosity)[0]


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()


def _source_of(data: Any) -> str | None:
    """Return the path or URL of a data set; of a table, the one that the command line read it from."""
    if isinstance(data, str | Path):
        return str(data) if is_url(data) else str(_absolute(data))
    return getattr(data, "attrs", {}).get(SOURCE)


def _checked_label(label: object) -> str | list[str]:
    names = [label] if isinstance(label, str) else list(label) if isinstance(label, Iterable) else [None]
    if not all(isinstance(name, str) for name in names):
        raise HyperparameterError(
            f"label was given {label!r}; expected the name of a column as text, or a list of names. Rename the column: "
            "data.rename(columns={…: 'label'})"
        )
    return label if isinstance(label, str) else [str(name) for name in names]


def _unlabeled_examples(data: str | list[Any] | None) -> Examples | None:
    if data is None:
        return None
    if isinstance(data, str) and not (is_url(data) or glob.has_magic(data) or local_path_of(data).exists()):
        raise DataError(f"unlabeled={data!r} does not exist; pass a folder, an archive, a list of images or a table")
    examples = read_examples(data)
    if not len(examples):
        raise DataError("unlabeled has no images; check the list or table, or leave it out")
    return examples


def _default_hyperparameters(
    train: Examples,
    settings: FitOptions,
    limit_s: float | None,
    is_named: bool,
    given: AbstractSet[str],
) -> dict[str, Any]:
    """Return what is used where the user says nothing: a space to search, or if networks are named, one recipe."""
    is_gpu = is_gpu_wanted(settings)
    if is_named:
        return {"epochs": 15 if is_gpu else 5, "seed": settings.random_state}
    weights = Path(settings.weights).expanduser() if settings.weights else None
    space = default_space(
        train.images,
        weights=weights,
        is_gpu=is_gpu,
        time_limit_s=limit_s,
        gmacs_per_s=lambda: gmacs_per_second(choose_device("cpu" if settings.ngpus_per_trial == 0 else None).type),
    )
    if given & {"in_chans", "train_transform"}:  # colours that augmentation does not know
        space.pop("auto_augment", None)
    return {**space, "seed": settings.random_state}
