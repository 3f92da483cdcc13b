"""`ImagePredictor`: from labelled images to predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pandas as pd

from saccade.data.dataset import ImageDataset
from saccade.data.examples import Examples, read_labelled_examples
from saccade.deadline import Deadline
from saccade.errors import HyperparameterError
from saccade.fit.fitting import run_fit
from saccade.fit.options import FitOptions, document_options
from saccade.fit.presets import find_preset, small_networks
from saccade.fit.resuming import EarlierRun, read_request
from saccade.fit.run_folder import FitRequest
from saccade.fit.searching import is_gpu_wanted
from saccade.inference.saved import SavedPredictor
from saccade.insight.training_images import copy_embeddings
from saccade.models.catalogue import list_models
from saccade.predictor.choosing import choose
from saccade.predictor.insightful import InsightfulPredictor
from saccade.space import Categorical
from saccade.tasks.metrics import EvalMetric
from saccade.training.recipes.default_space import default_space
from saccade.training.recipes.recipe import canonical, recipe_space


class ImagePredictor(InsightfulPredictor):
    """Finds the best image classifier that a time limit can buy, and is that classifier.

    Parameters
    ----------
    label : str or list of str
        The label column's name. Several names are columns of 0 and 1, one for each label that an image may have: a
        multilabel problem, for which `predict` returns a DataFrame of these columns.
    problem_type : {"binary", "multiclass", "multilabel", "regression"} or None
        None: seen from the labels; see `saccade.tasks.labels.infer_problem_type`.
    eval_metric : str, callable or None
        The figure on the validation images that chooses: scikit-learn's by name, a function ``f(y_true, y_pred)``, or a
        scorer; see `saccade.tasks.metrics.make_metric`. None is ``accuracy``; ``f1_micro`` for multilabel problems,
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
        super().__init__(eval_metric, verbosity)
        self.label = label
        self.problem_type = problem_type
        self.sample_weight = sample_weight
        self._given_path = path
        self._path = None if path is None else Path(path)

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

    @staticmethod
    def list_models(pattern: str | None = None) -> list[str]:
        """Return the names of all networks, or of those that match a pattern such as ``"*mobilenet*"``."""
        return list_models(pattern)

    @document_options
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
            Validation images; None holds out a fraction of `train_data`.
        **kwargs
            The other options of `saccade.fit.options.FitOptions`. `hyperparameter_tune_kwargs` may hold the options of
            the search in a dict of their own.

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
        earlier = self._earlier_run() if kwargs.get("resume") else None
        if earlier is not None and kwargs.get("random_state", 0) is None:
            kwargs["random_state"] = earlier.arguments["random_state"]  # drawn when the run began
        named = {"time_limit": time_limit, "presets": presets, "hyperparameters": hyperparameters}
        settings = FitOptions.of({**named, **kwargs})
        preset = find_preset(presets, None if settings.time_limit == "auto" else settings.time_limit)
        settings = settings.with_defaults(preset.options)
        limit_s = settings.limit_s
        deadline = Deadline(limit_s, used_s=earlier.used_s if earlier else 0.0)
        start = self._fitted() if settings.warm_start else None
        hyperparameters = canonical(settings.hyperparameters)
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
                    **_default_hyperparameters(
                        train, settings, limit_s, is_named, hyperparameters.keys(), preset.has_small_networks
                    ),
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
        limit = FitOptions.of({"time_limit": time_limit}).time_limit
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


def _default_hyperparameters(
    train: Examples,
    settings: FitOptions,
    limit_s: float | None,
    is_named: bool,
    given: AbstractSet[str],
    has_small_networks: bool = False,
) -> dict[str, Any]:
    """Return what is used where the user says nothing: a space to search, or if networks are named, one recipe."""
    is_gpu = is_gpu_wanted(settings)
    if is_named:
        return {"epochs": 15 if is_gpu else 5, "seed": settings.random_state}
    weights = Path(settings.weights).expanduser() if settings.weights else None
    space = default_space(train.images, weights=weights, is_gpu=is_gpu, time_limit_s=limit_s)
    if has_small_networks:
        space["model"] = Categorical(*small_networks(weights))
    if given & {"in_chans", "train_transform"}:  # colours that augmentation does not know
        space.pop("auto_augment", None)
    return {**space, "seed": settings.random_state}
