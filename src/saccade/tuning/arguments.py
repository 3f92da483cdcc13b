"""The arguments of `tune`, checked before any work begins."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, Literal

from saccade.checks import real_number, whole_number
from saccade.errors import HyperparameterError, UnknownNameError
from saccade.executor import EXECUTORS, Executor, WorkerSlot, local_slots, make_executor, num_usable_cpus
from saccade.scheduler import SCHEDULERS, make_scheduler
from saccade.scheduler.base import Scheduler
from saccade.searcher import GridSearcher
from saccade.searcher.base import Searcher

Mode = Literal["max", "min"]
MODES = ("max", "min")
RESERVED = ("epoch", "checkpoint")
"""Keywords of a report that are not metrics."""


def check_metric(metric: Any, mode: Any) -> None:
    """Raise a HyperparameterError or UnknownNameError for an invalid metric or mode."""
    if not isinstance(metric, str) or not metric or metric in RESERVED:
        raise HyperparameterError(
            f"metric was given {metric!r}; expected the keyword by which train_fn reports its score, such as "
            "'accuracy' for report(epoch=…, accuracy=…)"
        )
    if mode not in MODES:
        raise UnknownNameError.of("mode", mode, MODES)


def whole(name: str, value: Any) -> int | None:
    """Return a whole number of at least 1, or None; raise a HyperparameterError for other values."""
    return None if value is None else whole_number(name, value)


def seconds(name: str, value: Any) -> float | None:
    """Return a number of seconds above 0, or None; raise a HyperparameterError for other values."""
    return None if value is None else real_number(name, value, "a number of seconds above 0, or None", above=0)


def score(name: str, value: Any) -> float | None:
    """Return a finite number, or None; raise a HyperparameterError for other values."""
    if value is None:
        return None
    return real_number(name, value, "a finite number, or None", above=-math.inf, below=math.inf)


def scheduler_of(scheduler: str | Scheduler, max_epochs: int | None, options: Mapping[str, Any] | None) -> Scheduler:
    """Return the scheduler by its name, with `max_epochs` if it has that option, or the given instance."""
    given = dict(options or {})
    kind = SCHEDULERS.get(scheduler) if isinstance(scheduler, str) else None
    if kind is not None and max_epochs is not None and "max_epochs" in inspect.signature(kind).parameters:
        given.setdefault("max_epochs", max_epochs)
    return make_scheduler(scheduler, **given)


def check_ends(searcher: Searcher, num_trials: int | None, time_limit_s: float | None) -> None:
    """Raise a HyperparameterError if nothing would end the search."""
    is_finite = searcher.space.num_configurations < math.inf or isinstance(searcher, GridSearcher)
    if num_trials is None and time_limit_s is None and not is_finite:
        raise HyperparameterError(
            "the search would never end: there is neither time_limit nor num_trials, and the space has infinitely many "
            "configurations. Pass time_limit=… (seconds) or num_trials=…"
        )


def executor_of(executor: str | Executor, num_workers: Any, num_trials: int | None) -> Executor:
    """Return the executor that calls the function; the caller sets its trainable.

    ``"auto"`` with one worker is this process, also with a time limit: changes that the function makes to the caller's
    variables are visible, it need not be pickled, and it can be debugged. More than one worker together with
    ``"inline"`` or with an instance is a HyperparameterError.
    """
    executor = EXECUTORS.canonical(executor) if isinstance(executor, str) else executor
    num_workers = whole("num_workers", num_workers) or 1
    if num_workers > 1 and not isinstance(executor, str):
        raise HyperparameterError(
            f"num_workers is {num_workers}, but executor is an instance with its own workers. Leave one of them out."
        )
    if num_workers > 1 and executor == "inline":
        raise HyperparameterError(
            f"num_workers is {num_workers}, but executor='inline' calls train_fn in this process, which is one worker. "
            "Leave one of them out."
        )
    num = min(num_workers, num_trials or num_workers)
    if executor == "auto":
        executor = "process" if num > 1 else "inline"
    return make_executor(executor, workers=slots(num), num_trials=num_trials)


def slots(num_workers: int) -> list[WorkerSlot]:
    """Divide this machine among workers; if there are more workers than cores, each has one thread."""
    if num_workers > num_usable_cpus():
        return [WorkerSlot(num_threads=1)] * num_workers
    return local_slots(0, num_workers=num_workers)
