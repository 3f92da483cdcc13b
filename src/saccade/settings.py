"""The arguments of a fit, checked before any work begins."""

from __future__ import annotations

import inspect
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from saccade.errors import HyperparameterError, UnknownArgumentError, UnknownNameError
from saccade.scheduler import Scheduler, make_scheduler
from saccade.searcher import SEARCHERS, Searcher

AUTO_TIME_LIMIT_S = 7200.0
"""What `time_limit="auto"` means."""

ExecutorName = Literal["auto", "inline", "process"]


@dataclass(frozen=True)
class TuneSettings:
    """`hyperparameter_tune_kwargs` of a fit.

    Attributes
    ----------
    num_trials : int or None
        Trials at most; None leaves it to the time limit and the size of the space.
    searcher : str or Searcher
        Who proposes configurations.
    scheduler : str or Scheduler
        Who decides what runs next.
    max_reward : float or None
        A score that ends the search.
    searcher_options : dict
        Further arguments of the searcher.
    """

    num_trials: int | None = None
    searcher: str | Searcher = "random"
    scheduler: str | Scheduler = "fifo"
    max_reward: float | None = None
    searcher_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_trials is not None:
            _check_whole("num_trials", self.num_trials)
        make_scheduler(self.scheduler)
        if isinstance(self.searcher, str) and self.searcher not in SEARCHERS:
            raise UnknownNameError.of("searcher", self.searcher, SEARCHERS)


@dataclass(frozen=True)
class FitSettings:
    """The keyword arguments of `ImagePredictor.fit`, under the same names."""

    holdout_frac: float = 0.1
    random_state: int | None = 0
    hyperparameter_tune_kwargs: Mapping[str, Any] | None = None
    nthreads_per_trial: int | None = None
    ngpus_per_trial: int | None = None
    weights: str | Path | None = None
    executor: ExecutorName = "auto"

    def __post_init__(self) -> None:
        if not _is_number(self.holdout_frac) or not 0 < self.holdout_frac < 1:
            raise HyperparameterError(
                f"holdout_frac was given {self.holdout_frac!r}; expected a number between 0 and 1"
            )
        if self.random_state is not None:
            _check_whole("random_state", self.random_state, least=0)
        if self.nthreads_per_trial is not None:
            _check_whole("nthreads_per_trial", self.nthreads_per_trial)
        if self.ngpus_per_trial is not None:
            _check_whole("ngpus_per_trial", self.ngpus_per_trial, least=0)
        _ = self.tuning  # checked now, before any work
        if self.executor not in get_args(ExecutorName):
            raise UnknownNameError.of("executor", self.executor, get_args(ExecutorName))

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> FitSettings:
        """Return the settings with these arguments.

        Raises
        ------
        UnknownArgumentError
            For an argument that `fit` does not have.
        HyperparameterError
            For a value out of range.
        """
        check_names("argument of fit()", arguments, cls)
        settings = cls(**arguments)
        if settings.random_state is None:  # drawn here, so that the run tells what was drawn
            settings = replace(settings, random_state=secrets.randbelow(2**31))
        return settings

    @property
    def tuning(self) -> TuneSettings:
        """`hyperparameter_tune_kwargs`, checked; None counts as empty."""
        given = dict(self.hyperparameter_tune_kwargs or {})
        check_names("key of hyperparameter_tune_kwargs", given, TuneSettings)
        return TuneSettings(**given)


def time_limit_s(time_limit: Any) -> float | None:
    """Return a time limit in seconds; ``"auto"`` is two hours, None is none.

    Raises
    ------
    HyperparameterError
        When it is no positive number.
    """
    if time_limit is None:
        return None
    if isinstance(time_limit, str) and time_limit == "auto":
        return AUTO_TIME_LIMIT_S
    if not _is_number(time_limit) or not time_limit > 0:
        raise HyperparameterError(
            f"time_limit was given {time_limit!r}; expected a positive number of seconds, 'auto' or None"
        )
    return float(time_limit) if math.isfinite(time_limit) else None


def check_names(kind: str, given: Mapping[str, Any], target: type) -> None:
    """Refuse names that are no parameters of `target`, with a suggestion."""
    known = [name for name in inspect.signature(target).parameters]
    for name in given:
        if name not in known:
            raise UnknownArgumentError.of(kind, name, known)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _check_whole(name: str, value: Any, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise HyperparameterError(f"{name} was given {value!r}; expected a whole number, {least} or more")
