"""The arguments of a fit, checked before any work begins."""

from __future__ import annotations

import inspect
import math
import numbers
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from saccade.errors import HyperparameterError, UnknownArgumentError, UnknownNameError
from saccade.executor import EXECUTORS, Executor, plan_workers
from saccade.scheduler import make_scheduler
from saccade.scheduler.base import Scheduler
from saccade.searcher import SEARCHERS
from saccade.searcher.base import Searcher
from saccade.study.objectives import COSTS, check_objectives, cost_names
from saccade.study.trackers import Callback, check_callbacks

AUTO_TIME_LIMIT_S = 7200.0
"""What `time_limit="auto"` means."""

AUTO_MEMBERS = 5
"""The most networks of an ensemble when no number is asked for: each takes its time in every prediction."""


@dataclass(frozen=True)
class TuneSettings:
    """`hyperparameter_tune_kwargs` of a fit.

    Attributes
    ----------
    num_trials : int or None
        Trials at most; None leaves it to the time limit and the size of the space.
    searcher : str or Searcher
        Who proposes configurations: a name in `saccade.searcher.SEARCHERS`, or a searcher.
    scheduler : str or Scheduler
        Who decides what runs next: a name in `saccade.scheduler.SCHEDULERS`, or a scheduler.
    max_reward : float or None
        A score that ends the search.
    searcher_options, scheduler_options : dict
        Further arguments of the searcher and of the scheduler.
    starting_configs : list of dict
        Configurations to try first, in this order; what one of them leaves out has the default of its space.
    trial_time_limit : float or None
        Seconds of training that one trial may have.
    objectives : list of str
        The score, and besides it what is to be small: ``latency``, ``params``, ``bytes``. Empty is the score alone.
    """

    num_trials: int | None = None
    searcher: str | Searcher = "auto"
    scheduler: str | Scheduler = "auto"
    max_reward: float | None = None
    searcher_options: dict[str, Any] = field(default_factory=dict)
    scheduler_options: dict[str, Any] = field(default_factory=dict)
    starting_configs: list[dict[str, Any]] = field(default_factory=list)
    trial_time_limit: float | None = None
    objectives: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.num_trials is not None:
            _set(self, "num_trials", _whole("num_trials", self.num_trials))
        if self.max_reward is not None:
            if not _is_number(self.max_reward):
                raise HyperparameterError(f"max_reward was given {self.max_reward!r}; expected a number or None")
            _set(self, "max_reward", float(self.max_reward))
        _set(self, "trial_time_limit", _seconds("trial_time_limit", self.trial_time_limit))
        _set(self, "objectives", check_objectives(self.objectives or []))
        _set(self, "scheduler_options", _dictionary("scheduler_options", self.scheduler_options))
        make_scheduler(self.scheduler, **self.scheduler_options)
        is_known = isinstance(self.searcher, str) and self.searcher in SEARCHERS
        if not is_known and not isinstance(self.searcher, Searcher):
            raise UnknownNameError.of("searcher", self.searcher, SEARCHERS)
        _set(self, "searcher_options", _dictionary("searcher_options", self.searcher_options))
        _set(self, "starting_configs", _dictionaries("starting_configs", self.starting_configs))
        if self.starting_configs and "starting_configs" in self.searcher_options:
            raise HyperparameterError("starting_configs given twice: as a key of its own and in searcher_options")

    @property
    def trial_time_limit_s(self) -> float | None:
        """`trial_time_limit`, which is in seconds."""
        return self.trial_time_limit


REMOVED = {
    "soup": "soup= was removed: averaging the weights of several trials did not improve predictors in "
    "benchmarks.quality (log-loss .299 with and .301 without). Leave it out; ensemble= averages predictions"
}
"""Arguments of earlier versions, with the message for those who still pass them."""


@dataclass(frozen=True)
class FitSettings:
    """The keyword arguments of `ImagePredictor.fit`, under the same names.

    Attributes
    ----------
    ensemble : "auto", bool or int
        Whether several networks may be averaged, or the most that may be: see `max_members`.
    num_folds : int or None
        Into how many folds the images are divided after the search, on each of which the best recipe is judged once.
    """

    holdout_frac: float | None = None
    random_state: int | None = 0
    hyperparameter_tune_kwargs: Mapping[str, Any] | None = None
    nthreads_per_trial: int | None = None
    ngpus_per_trial: float | None = None
    weights: str | Path | None = None
    executor: str | Executor = "auto"
    refit_full: bool = False
    warm_start: bool = False
    resume: bool = False
    ensemble: bool | int | str = "auto"
    num_folds: int | None = None
    callbacks: Sequence[Callback] | None = None

    def __post_init__(self) -> None:
        if self.holdout_frac is not None:
            if not _is_number(self.holdout_frac) or not 0 < self.holdout_frac < 1:
                raise HyperparameterError(
                    f"holdout_frac was given {self.holdout_frac!r}; expected a number between 0 and 1, or None"
                )
            _set(self, "holdout_frac", float(self.holdout_frac))
        for name, least in (("random_state", 0), ("nthreads_per_trial", 1)):
            if (value := getattr(self, name)) is not None:
                _set(self, name, _whole(name, value, least))
        if self.ngpus_per_trial is not None:
            _set(self, "ngpus_per_trial", _num_gpus(self.ngpus_per_trial))
        if self.weights is not None and not isinstance(self.weights, str | os.PathLike):
            raise HyperparameterError(f"weights was given {self.weights!r}; expected a path or None")
        tuning = _dictionary("hyperparameter_tune_kwargs", self.hyperparameter_tune_kwargs)
        _set(self, "hyperparameter_tune_kwargs", tuning)
        _ = self.tuning  # checked now, before any work
        if not isinstance(self.executor, Executor) and self.executor not in EXECUTORS:
            raise UnknownNameError.of("executor", self.executor, EXECUTORS)
        _set(self, "callbacks", check_callbacks(self.callbacks))
        _set(self, "ensemble", _most_members(self.ensemble))
        if self.ensemble not in ("auto", False):
            self._check_ensemble()
        if self.num_folds is not None:
            _set(self, "num_folds", _whole("num_folds", self.num_folds, 2))
            self._check_folds()

    @classmethod
    def of(
        cls,
        arguments: Mapping[str, Any],
        tune_defaults: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> FitSettings:
        """Return the settings with these arguments; those of `TuneSettings` may stand beside the others.

        Parameters
        ----------
        arguments : mapping
            What the user gives.
        tune_defaults, defaults : mapping or None
            What a preset gives, of `hyperparameter_tune_kwargs` and of the others. It holds where the user says
            nothing, and nothing that contradicts it.

        Raises
        ------
        UnknownArgumentError
            For an argument that `fit` or `hyperparameter_tune_kwargs` does not have.
        UnknownNameError
            For a searcher, scheduler or executor that does not exist.
        HyperparameterError
            For a value of the wrong type or out of range.

        Examples
        --------
        >>> FitSettings.of({"hyperparameter_tune_kwargs": {"num_trials": 3}}).tuning.num_trials
        3
        """
        tune_names = inspect.signature(TuneSettings).parameters
        direct = {name: value for name, value in arguments.items() if name in tune_names}
        rest = {name: value for name, value in arguments.items() if name not in tune_names}
        check_names("argument of fit()", rest, cls, *tune_names)
        nested = _dictionary("hyperparameter_tune_kwargs", rest.pop("hyperparameter_tune_kwargs", None))
        if twice := sorted(direct.keys() & nested.keys()):
            raise HyperparameterError(f"{', '.join(twice)} given twice: to fit() and in hyperparameter_tune_kwargs")
        tune_kwargs = {**(tune_defaults or {}), **nested, **direct}
        besides = _besides(defaults or {}, rest, tune_kwargs)
        settings = cls(**{**besides, **rest}, hyperparameter_tune_kwargs=tune_kwargs)
        if settings.random_state is None:  # drawn here, so that the run tells what was drawn
            settings = replace(settings, random_state=secrets.randbelow(2**31))
        return settings

    def _check_ensemble(self) -> None:
        """Refuse options that leave a predictor with the best trial alone."""
        if self.refit_full:
            raise HyperparameterError(
                "refit_full=True trains the best trial alone on all images, so no validation images are left to "
                "select an ensemble. Leave out ensemble or refit_full"
            )
        if costs := [name for name in self.tuning.objectives if name in COSTS]:
            raise HyperparameterError(
                f"ensemble is not supported together with objectives={self.tuning.objectives}: these choose among "
                f"single networks by {' and '.join(costs)}"
            )

    def _check_folds(self) -> None:
        """See that nothing is asked for besides that would make another predictor than the folds' networks."""
        asked = f"num_folds={self.num_folds}"
        if self.refit_full:
            raise HyperparameterError(f"{asked} already lets all images teach; leave refit_full or num_folds away")
        if self.warm_start:
            raise HyperparameterError(
                f"{asked} cannot be had with warm_start=True: the network that training goes on from has learned from "
                "images that folds are to be judged by. Leave one of them away"
            )
        if cost_names(self.tuning.objectives):
            raise HyperparameterError(
                f"{asked} cannot be had with objectives={self.tuning.objectives}: these are for choosing among single "
                "networks"
            )
        if self.max_members == 1:
            raise HyperparameterError(
                f"{asked} trains {self.num_folds} networks whose predictions are averaged, and ensemble=False keeps "
                "one network. Leave out one of them; refit_full=True trains one network on all images"
            )
        if type(self.ensemble) is int and self.ensemble < (self.num_folds or 0):
            raise HyperparameterError(
                f"{asked} makes {self.num_folds} networks, and ensemble={self.ensemble} allows fewer; give "
                f"num_folds={self.ensemble}, or leave out ensemble"
            )

    @property
    def max_members(self) -> int:
        """The most networks whose predictions are averaged; 1 where the best one alone is wanted.

        Examples
        --------
        >>> FitSettings().max_members, FitSettings(ensemble=False).max_members, FitSettings(ensemble=3).max_members
        (5, 1, 3)
        >>> FitSettings(refit_full=True).max_members
        1
        """
        if self._is_single or self.ensemble is False:
            return 1
        return self.ensemble if type(self.ensemble) is int else AUTO_MEMBERS

    @property
    def _is_single(self) -> bool:
        return self.refit_full or bool(cost_names(self.tuning.objectives))

    @property
    def tuning(self) -> TuneSettings:
        """`hyperparameter_tune_kwargs`, checked; None counts as empty."""
        given = _dictionary("hyperparameter_tune_kwargs", self.hyperparameter_tune_kwargs)
        check_names("key of hyperparameter_tune_kwargs", given, TuneSettings)
        return TuneSettings(**given)


def _besides(defaults: Mapping[str, Any], given: Mapping[str, Any], tune_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the defaults can stand beside what is given."""
    objectives = tune_kwargs.get("objectives")  # not checked yet
    has_costs = isinstance(objectives, list | tuple) and any(name in COSTS for name in map(str, objectives))
    wants_other = given.get("refit_full") or given.get("num_folds") or has_costs
    return {
        name: value
        for name, value in defaults.items()
        if name != "ensemble" or not (wants_other if value is not False else given.get("num_folds"))
    }


def time_limit_s(time_limit: Any, auto_s: float | None = None) -> float | None:
    """Return a time limit in seconds; ``"auto"`` is `auto_s` or two hours, None is none.

    Raises
    ------
    HyperparameterError
        When it is no positive number.
    """
    if isinstance(time_limit, str) and time_limit == "auto":
        return AUTO_TIME_LIMIT_S if auto_s is None else auto_s
    return _seconds("time_limit", time_limit, "'auto' or None")


def check_names(kind: str, given: Mapping[str, Any], target: type, *more: str) -> None:
    """Refuse names that are no parameters of `target`, nor among `more`, with a suggestion."""
    known = [*inspect.signature(target).parameters, *more]
    for name in given:
        if name in REMOVED:
            raise UnknownArgumentError(REMOVED[name])
        if name not in known:
            raise UnknownArgumentError.of(kind, name, known)


def _is_number(value: Any) -> bool:
    """Tell whether the value is a number, Python's or NumPy's, that can be compared and made a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _whole(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise HyperparameterError(f"{name} was given {value!r}; expected a whole number, {least} or more")
    return int(value)


def _most_members(value: Any) -> bool | int | str:
    """Return `ensemble` in Python's own types; 1 is the same as False."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return _auto_or_bool("ensemble", value, ", or the most networks that may be averaged")
    num = _whole("ensemble", value)
    return False if num == 1 else num


def _auto_or_bool(name: str, value: Any, others: str = "") -> bool | str:
    if isinstance(value, bool) or (isinstance(value, str) and value == "auto"):
        return value
    raise HyperparameterError(f"{name} was given {value!r}; expected 'auto', True or False{others}")


def _seconds(name: str, value: Any, others: str = "or None") -> float | None:
    if value is None:
        return None
    if not _is_number(value) or not value > 0:
        raise HyperparameterError(f"{name} was given {value!r}; expected a positive number of seconds, {others}")
    return float(value) if math.isfinite(value) else None


def _num_gpus(value: Any) -> float:
    """Return a number of GPUs, or a part of one, in Python's own type."""
    if not _is_number(value):
        raise HyperparameterError(f"ngpus_per_trial was given {value!r}; expected 0, 0.5, 1, 2 or the like")
    num = int(value) if float(value).is_integer() else float(value)
    plan_workers(1, 0, ngpus_per_trial=num)  # which raises when there cannot be so many
    return num


def _dictionaries(name: str, value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not all(isinstance(part, Mapping) for part in value):
        raise HyperparameterError(f"{name} was given {value!r}; expected a list of dicts, such as [{{'lr': 0.01}}]")
    return [dict(part) for part in value]


def _dictionary(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise HyperparameterError(f"{name} was given {value!r}; expected a dict")
    return dict(value)


def _set(settings: object, name: str, value: Any) -> None:
    """Give a field of a frozen dataclass, while it is made, its value in Python's own type."""
    object.__setattr__(settings, name, value)
