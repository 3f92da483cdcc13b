"""`ImagePredictor`: from labelled images to predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from saccade.choosing import choose
from saccade.data.dataset import ImageDataset
from saccade.data.examples import Examples, ImageLike, read_examples, read_labelled_examples
from saccade.deadline import Deadline
from saccade.errors import DataError, HyperparameterError, NotFittedError
from saccade.fitting import run_fit
from saccade.insight.embeddings import EmbeddedImages
from saccade.insight.label_issues import check_has_classes, label_issues
from saccade.insight.near_duplicates import near_duplicates
from saccade.insight.neighbours import nearest_images
from saccade.insight.overlays import check_form, in_form
from saccade.insight.saliency import check_method, saliency_maps, target_numbers
from saccade.insight.training_images import copy_embeddings, embedded_training_images
from saccade.models.catalogue import list_models
from saccade.prediction import Compute, compute_in_batches, decoded, decoded_sets, labels_by_name
from saccade.presets import find_preset
from saccade.report.summary import leaderboard
from saccade.resuming import EarlierRun, read_request
from saccade.run_folder import FitRequest
from saccade.saved import SavedPredictor
from saccade.searching import is_gpu_wanted
from saccade.settings import FitSettings, time_limit_s
from saccade.training.classifier import Classifier
from saccade.training.default_space import default_space
from saccade.training.doubt import Doubt
from saccade.training.evaluation import check_interval, evaluation
from saccade.training.features import features_of
from saccade.training.metrics import EvalMetric, make_metric
from saccade.training.recipe import canonical, recipe_space


class ImagePredictor:
    """Finds the best image classifier that a time limit can buy, and is that classifier.

    Parameters
    ----------
    label : str or list of str
        The label column's name. Several names are columns of 0 and 1, one for each label that an image may have: a
        multilabel problem, for which `predict` returns a DataFrame of these columns.
    problem_type : {"binary", "multiclass", "multilabel", "regression"} or None
        None: seen from the labels; see `saccade.training.labels.infer_problem_type`.
    eval_metric : str, callable or None
        The figure on the validation images that chooses: scikit-learn's by name, a function ``f(y_true, y_pred)``, or a
        scorer; see `saccade.training.metrics.make_metric`. None is ``accuracy``; ``f1_micro`` for multilabel problems,
        ``rmse`` for regression.
    path : str, Path or None
        The run folder; None makes a new one in ``saccade_runs``.
    verbosity : int
        0 is silent; 1 shows warnings and the result; 2 shows trials; 3 shows every epoch.
    sample_weight : str or None
        The name of a column of the training data that says how much each image counts in the loss: numbers, 0 or more.
        The figures on the validation images are not weighted.

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
        self._path = None if path is None else Path(path)
        self._saved: SavedPredictor | None = None
        self._classifiers: list[Classifier] | None = None

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

    @property
    def path(self) -> str:
        """The run folder; for a predictor that was loaded, the folder it was loaded from."""
        return "" if self._path is None else str(self._path)

    @property
    def classes(self) -> list[Any]:
        """The labels that can be predicted, in the order of the columns of `predict_proba`."""
        return list(self._fitted().problem.classes)

    @property
    def class_names(self) -> list[str]:
        """The names of `classes`: those of the folders, where labels are numbers; else the labels as text."""
        return self._fitted().names_of_classes

    @staticmethod
    def list_models(pattern: str | None = None) -> list[str]:
        """Return the names of all networks, or of those that match a pattern such as ``"*mobilenet*"``."""
        return list_models(pattern)

    def fit(
        self,
        train_data: pd.DataFrame,
        tuning_data: pd.DataFrame | None = None,
        time_limit: float | str | None = "auto",
        presets: str | Sequence[str] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> ImagePredictor:
        """Search networks and hyperparameters, and keep the best.

        Parameters
        ----------
        train_data : ImageDataset or DataFrame
            A column of images (paths or bytes) and one of labels.
        tuning_data : ImageDataset or DataFrame or None
            Images that judge the trials; None holds out a part of `train_data`.
        time_limit : float, "auto" or None
            Seconds for everything, from this call to its return; "auto" is 7200, None is no limit. However short, it
            leaves a predictor that can be used.
        presets : str, list of str or None
            ``best_quality``, ``high_quality``, ``medium_quality`` and others of `saccade.presets`; what is given
            besides wins over them.
        hyperparameters : mapping or None
            Values, or spaces of values, by name; see `saccade.training.recipe.Recipe` for all of them.
        holdout_frac : float, default 0.1
            Part of `train_data` to hold out, between 0 and 1; stratified.
        random_state : int or None, default 0
            Seed of the split, the search and the training; None draws one.
        hyperparameter_tune_kwargs : mapping or None
            ``num_trials`` (None leaves it to the time limit and the size of the space), ``searcher`` (``auto``,
            ``random``, ``grid``, ``qmc``, ``tpe``, ``gp``, ``cmaes``, or a `Searcher`), ``scheduler`` (``auto``,
            ``fifo``, ``asha``, ``hyperband``, ``median``, or a `Scheduler`), ``searcher_options`` and
            ``scheduler_options``, ``starting_configs`` (configurations to try first), ``trial_time_limit`` (seconds of
            training that one trial may have), ``max_reward`` (a score that ends the search), ``objectives`` (the score,
            and what else counts: ``["accuracy", "latency"]``; also ``params`` and ``bytes``). These may also stand
            beside the other arguments.
        weights : path or None
            A file of pretrained weights, or a folder of such files.
        nthreads_per_trial : int or None
            CPU threads of a trial; without GPUs as many trials train at once as there are cores for. None trains one
            at a time, on all cores.
        ngpus_per_trial : float or None
            GPUs of a trial: 0 trains on the CPU, 0.5 lets two trials share a GPU. None is one where there are any; as
            many trials train at once as that leaves room for.
        refit_full : bool, default False
            After the search, train the best recipe once more on training and validation images together, under the time
            limit. `fit_summary` keeps the figures of the search, since no image is left to judge the result.
        ensemble : "auto", bool or int, default "auto"
            The most networks whose predictions are averaged, where that is better: see `saccade.training.ensemble`. By
            itself, and with True, up to 5; False, or 1, keeps one network, which predicts faster. With `refit_full`, or
            costs among the `objectives`, there is one network.
        soup : "auto" or bool, default "auto"
            Whether the weights of trials of one network are averaged, where that is better: see
            `saccade.training.soup`. That costs no time in prediction. By itself it is tried with networks that began
            from the same pretrained weights; True tries it with all.
        warm_start : bool, default False
            Go on from this predictor's network and best hyperparameters instead of starting afresh; the classes must be
            the same.
        resume : bool, default False
            Go on with the run in the folder `path` where it was interrupted; all arguments are those of that run, but
            for `time_limit` (of the whole run: the time of earlier sessions counts), `verbosity`, and where trials run.
            A run that is finished is taken as it is; where there is none yet, one begins.
        executor : {"auto", "inline", "process"}
            Where trials run: in this process, or in one of their own that may crash. By itself, a search takes the
            second unless its start would cost too much of the time, and a lone trial the first.

        Returns
        -------
        ImagePredictor
            This predictor.

        Raises
        ------
        DataError, HyperparameterError, UnknownNameError
            When an argument is wrong; nothing has been trained then.
        WeightsNotFoundError
            When pretrained weights cannot be had.
        SearchFailedError
            When every trial failed; the message says why.
        """
        preset = find_preset(presets)
        limit_s = time_limit_s(time_limit, auto_s=preset.time_limit_s)
        earlier = self._earlier_run() if kwargs.get("resume") else None
        deadline = Deadline(limit_s, used_s=earlier.used_s if earlier else 0.0)
        if earlier is not None and kwargs.get("random_state", 0) is None:
            kwargs["random_state"] = earlier.arguments["random_state"]  # what was drawn then
        settings = FitSettings.of(kwargs, preset.tune_kwargs)
        if hyperparameters is not None and not isinstance(hyperparameters, Mapping):
            raise HyperparameterError(
                f"hyperparameters was given {hyperparameters!r}; expected a dict: {{'model': 'resnet18', 'lr': 1e-3}}"
            )
        start = self._fitted() if settings.warm_start else None
        hyperparameters = canonical(hyperparameters or {})
        if start and hyperparameters.get("model", started := start.summary["best_config"]["model"]) != started:
            raise HyperparameterError(
                f"warm_start=True goes on with the network {started!r}; leave model={hyperparameters['model']!r} away"
            )
        label = self.label if isinstance(self.label, str) else list(self.label)
        train = read_labelled_examples(train_data, label, self.sample_weight)
        is_named = bool(start) or "model" in {**canonical(preset.hyperparameters), **hyperparameters}
        request = FitRequest(
            path=None if self._given_path is None else Path(self._given_path),
            label=label,
            problem_type=self.problem_type,
            eval_metric=self.eval_metric,
            verbosity=self.verbosity,
            train=train,
            tuning=None if tuning_data is None else read_labelled_examples(tuning_data, label),
            space=recipe_space(
                {
                    **_default_hyperparameters(train, settings, limit_s, is_named, hyperparameters.keys()),
                    **(start.summary["best_config"] if start else {}),
                    **canonical(preset.hyperparameters),
                    **hyperparameters,
                }
            ),
            time_limit_s=limit_s,
            settings=settings,
            start=start,
            is_model_named=bool(start) or "model" in hyperparameters,
            given=frozenset(hyperparameters),
        )
        return self._fit(request, deadline, earlier)

    @classmethod
    def resume(
        cls, path: str | Path, time_limit: float | str | None = "auto", verbosity: int | None = None
    ) -> ImagePredictor:
        """Go on with an interrupted run, with nothing but its folder.

        Images and labels are found again by the paths that the run folder has. A run of images in memory, or with
        objects of a program's own, cannot go on in this way; ``fit(…, resume=True)`` with the same arguments can.

        Parameters
        ----------
        path : str or Path
            The run folder.
        time_limit : float, "auto" or None
            Seconds for the whole run, those of earlier sessions included; "auto" is what was asked when it began.
        verbosity : int or None
            As in `ImagePredictor`; None is what it was.

        Returns
        -------
        ImagePredictor
            The predictor of the finished run.

        Raises
        ------
        DataError, HyperparameterError
            When the run cannot go on; the message says why, and what to do.
        """
        earlier = EarlierRun.find(Path(path))
        if earlier is not None and earlier.is_finished:
            return cls.load(path, *([] if verbosity is None else [verbosity]))
        limit = time_limit if isinstance(time_limit, str) and time_limit == "auto" else time_limit_s(time_limit)
        request = read_request(Path(path), limit, verbosity)
        deadline = Deadline(request.time_limit_s, used_s=earlier.used_s if earlier else 0.0)
        predictor = cls(request.label, request.problem_type, request.eval_metric, path, request.verbosity)
        return predictor._fit(request, deadline, earlier)

    def _earlier_run(self) -> EarlierRun | None:
        if self._given_path is None:
            raise HyperparameterError("resume=True needs the folder of the run: ImagePredictor(path=…), or --out")
        return EarlierRun.find(Path(self._given_path))

    def _fit(self, request: FitRequest, deadline: Deadline, earlier: EarlierRun | None) -> ImagePredictor:
        self._saved, self._classifiers = run_fit(request, deadline, earlier), None
        self._path = self._saved.folder.parent
        return self

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

        The promise holds for images like those of the fit, whatever the network: see `saccade.training.conformal`.
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
            see `saccade.training.calibration`.
        """
        saved = self._fitted()
        if not saved.problem.is_classification:
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
            Whether to tell ``log_loss`` and ``ece`` (the expected calibration error) as well; for regression ``mae``.

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

    def explain(
        self, data: Any, method: str = "auto", target: Any = None, form: str = "network"
    ) -> np.ndarray | list[np.ndarray | None] | list[Image.Image | None]:
        """Return saliency maps: which places of each image speak for its label.

        Of an ensemble, the first member is explained, which has the highest score.

        Parameters
        ----------
        data
            As in `predict`.
        method : {"auto", "grad_cam", "hires_cam", "smooth_grad"}
            See `saccade.insight.saliency`; "auto" suits every network.
        target : label, sequence of labels or None
            The label that is to be explained: one for all images, or one for each. None is the likeliest one.
        form : {"network", "image", "overlay"}
            "network" gives the maps of what the network saw, its central crop of the image; "image" those of the whole
            image, 0 where the network did not look; "overlay" pictures of these over the images.

        Returns
        -------
        ndarray of float32, shape (num_images, height, width)
            From 0 to 1 in each image; NaN for those that cannot be read. For the other forms a list with an array of
            shape (height, width), or a Pillow image, for each image; None for those that cannot be read.

        Raises
        ------
        UnknownNameError
            When there is no such method, target or form.
        HyperparameterError
            When the method does not suit the network.

        Examples
        --------
        >>> predictor.explain("cat.jpg", form="overlay")[0].save("why.png")    # doctest: +SKIP
        """
        saved = self._fitted()
        check_method(method)
        check_form(form)
        examples = read_examples(data, saved.label)
        targets = target_numbers(target, saved.problem, saved.names_of_classes, len(examples))
        if targets is None and len(saved.members) > 1:
            targets = self._predictions(examples)[0].argmax(1)  # what all members say, and not the one that is asked
        maps, errors = self._in_batches(examples, partial(saliency_maps, targets=targets, method=method))
        return in_form(form, maps, examples, errors, saved.blueprint.input)

    def nearest(self, data: Any, k: int = 5, among: Any = None) -> pd.DataFrame:
        """Return the training images that are most like each image, as the network sees them.

        Parameters
        ----------
        data
            As in `predict`.
        k : int
            How many for each.
        among : ImageDataset, DataFrame, list or None
            Images to search instead. None is the training images, which are looked up in the run folder at the first
            call; what the network makes of them is then kept with the predictor, if it takes no more than 64 MB.

        Returns
        -------
        DataFrame
            ``query`` (from the index of `data`), ``rank`` from 1, ``image``, ``label`` and ``similarity``, the cosine
            of the features. Images that cannot be read have no rows.

        Raises
        ------
        DataError
            When `among` is needed: see `saccade.insight.training_images`.
        """
        queries = self._embedded(data)
        return nearest_images(queries, self._training_images() if among is None else self._embedded(among), k)

    def near_duplicates(self, data: Any, among: Any = None, threshold: float | None = None) -> pd.DataFrame:
        """Return pairs of images that show the same picture: resized, encoded anew, cropped, mirrored or brightened.

        Parameters
        ----------
        data
            As in `predict`.
        among
            Images to look for copies in; None is `data` itself.
        threshold : float or None
            See `saccade.insight.near_duplicates.near_duplicates`.

        Returns
        -------
        DataFrame
            A row for each pair: ``index``, ``image``, ``other_index``, ``other_image``, ``similarity``,
            ``pixel_similarity``, ``is_mirrored``, and ``label`` and ``other_label`` where they are known.
        """
        return near_duplicates(self._embedded(data), None if among is None else self._embedded(among), threshold)

    def find_leaks(self, test: Any, among: Any = None, threshold: float | None = None) -> pd.DataFrame:
        """Return the test images that are training images, or nearly so: what makes figures on them too good.

        Parameters
        ----------
        test
            As in `predict`.
        among
            The training images; None looks them up as `nearest` does.
        threshold : float or None
            As in `near_duplicates`.

        Returns
        -------
        DataFrame
            As `near_duplicates` returns it; the other image of each pair is the training image.
        """
        train = self._training_images() if among is None else self._embedded(among)
        return near_duplicates(self._embedded(test), train, threshold)

    def label_issues(self, data: Any = None) -> pd.DataFrame:
        """Return the images whose label is doubtful, the most doubtful first.

        Logistic regressions on the features of the network judge images that they have not learned from; see
        `saccade.insight.label_issues`.

        Parameters
        ----------
        data : ImageDataset, DataFrame or None
            Labelled images; None is the training images, looked up as `nearest` does.

        Returns
        -------
        DataFrame
            With the index of `data`: ``image``, ``label``, ``suggested_label``, ``self_confidence`` and ``rank``.

        Raises
        ------
        DataError
            For multilabel problems and regression; or when the training images cannot be found.
        """
        saved = self._fitted()
        check_has_classes(saved.problem)
        images = self._training_images() if data is None else self._embedded(data, is_labelled=True)
        return label_issues(images, labels_by_name(images.examples, saved), saved.problem)

    def fit_summary(self) -> dict[str, Any]:
        """Return the figures of the best trial and the history of the search.

        Returns
        -------
        dict
            ``train_acc``, ``valid_acc``, ``total_time`` (seconds), ``best_config``, ``fit_history`` and more; the
            accuracies are those of the best epoch of the best trial, whose weights this predictor has. ``ensemble``
            lists the members (``trial``, ``model``, ``weight``, ``soup``) where there are several networks; then
            ``valid_score`` and the accuracies are the ensemble's, and ``best_trial`` is its first member.
            ``valid_score_how`` says how they were found, and ``cross_fitted_scores`` how ensembles and single networks
            compare on images by which they were not chosen.
        """
        return dict(self._fitted().summary)

    def leaderboard(self) -> pd.DataFrame:
        """Return a table of all trials, the best first, failed ones last and with their reasons."""
        return leaderboard(self._fitted().trials)

    def choose(
        self,
        *,
        max_latency_ms: float | None = None,
        max_params: float | None = None,
        max_bytes: float | None = None,
        min_score: float | None = None,
        net: Any = None,
    ) -> ImagePredictor:
        """Return the best predictor of the search that costs no more than it may.

        The search must have been asked for what is limited here: ``fit(…, objectives=["accuracy", "latency"])``.

        Parameters
        ----------
        max_latency_ms : float or None
            Milliseconds for an image, as they were measured on the machine of the search.
        max_params, max_bytes : float or None
            Parameters of the network, and bytes of its weights.
        min_score : float or None
            The least score on the validation images. With it the cheapest such predictor is returned, in the order of
            the objectives, instead of the best one.
        net : torch.nn.Module, callable or None
            As in `load`, for a network of your own after a predictor was loaded.

        Returns
        -------
        ImagePredictor
            Another one; this one stays as it is. `save` gives it a folder of its own.

        Raises
        ------
        HyperparameterError
            When there is no such predictor; the message tells what there is. Or when the search was not asked for that.

        Examples
        --------
        >>> predictor.fit(train, objectives=["accuracy", "latency"])    # doctest: +SKIP
        >>> quick = predictor.choose(max_latency_ms=5)                  # doctest: +SKIP
        """
        saved = self._fitted()
        most = {"latency_ms": max_latency_ms, "num_params": max_params, "num_bytes": max_bytes}
        found = saved.chosen(choose(saved.choices, most, min_score))
        if found.blueprint.architecture is None and found.net is None:
            found = found.with_network(net)
        predictor = type(self)(saved.label, saved.problem.type, self.eval_metric, verbosity=self.verbosity)
        predictor._saved, predictor._path = found, self._path
        return predictor

    def save(self, path: str | Path | None = None) -> str:
        """Write the predictor to a folder of its own: safetensors and JSON, movable, loadable without a GPU.

        Parameters
        ----------
        path : str, Path or None
            The folder, which must not hold anything else; None keeps the one in the run folder.

        Returns
        -------
        str
            The folder.
        """
        saved = self._fitted()
        folder = saved.folder if path is None else Path(path)
        self._saved = saved.copy_to(folder)
        copy_embeddings(saved.folder, folder)
        return str(folder)

    @classmethod
    def load(cls, path: str | Path, verbosity: int = 2, net: Any = None) -> ImagePredictor:
        """Load a predictor from a folder made by `save`, or from a whole run folder.

        No code from the folder is run.

        Parameters
        ----------
        path : str or Path
            The folder.
        verbosity : int
            As in `ImagePredictor`.
        net : torch.nn.Module, callable or None
            The network, where it was one of your own: the module, or the function or class that makes it of the number
            of classes. Its weights come from the folder.

        Raises
        ------
        SavedPredictorError
            When there is no predictor there, it is damaged, or its network is not the one in `net`.
        """
        saved = SavedPredictor.read(path).with_network(net)
        predictor = cls(saved.label, saved.problem.type, saved.eval_metric, verbosity=verbosity)
        predictor._saved, predictor._path = saved, Path(path)
        predictor._classifiers = None if net is None else saved.classifiers()  # a wrong network is told now
        return predictor

    def _fitted(self) -> SavedPredictor:
        if self._saved is None:
            raise NotFittedError("this predictor has not been fitted; call fit(…) first, or ImagePredictor.load(path)")
        return self._saved

    def _embedded(self, data: Any, *, is_labelled: bool = False) -> EmbeddedImages:
        """Return images with what the network makes of them."""
        label = self._fitted().label
        examples = read_labelled_examples(data, label) if is_labelled else read_examples(data, label)
        return EmbeddedImages.of(examples, self._features)

    def _training_images(self) -> EmbeddedImages:
        return embedded_training_images(self._fitted(), self._features)

    def _features(self, images: list[ImageLike]) -> np.ndarray:
        return np.asarray(self.predict_feature(images, as_pandas=False))

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
        rows: list[np.ndarray] = []
        errors: dict[int, str] = {}
        for classifier in self._classifiers[:num_members]:
            # What cannot be read is told once.
            of_one, errors = compute_in_batches(classifier, examples, compute, 0 if rows else self.verbosity)
            rows.append(of_one)
        return rows, errors


def _default_hyperparameters(
    train: Examples, settings: FitSettings, limit_s: float | None, is_named: bool, given: AbstractSet[str]
) -> dict[str, Any]:
    """Return what is used where the user says nothing: a space to search, or if networks are named, one recipe."""
    is_gpu = is_gpu_wanted(settings)
    if is_named:
        return {"epochs": 15 if is_gpu else 5, "seed": settings.random_state}
    weights = Path(settings.weights).expanduser() if settings.weights else None
    space = default_space(train.images, weights=weights, is_gpu=is_gpu, time_limit_s=limit_s)
    if given & {"in_chans", "train_transform"}:  # colours that augmentation does not know
        space.pop("auto_augment", None)
    return {**space, "seed": settings.random_state}
