"""Schedulers decide which training job runs next and for how long; the study drives them.

`make_scheduler` makes one by name; `Scheduler` is the class to inherit from for another.
"""

from __future__ import annotations

import inspect
from typing import Any

from saccade.errors import HyperparameterError, UnknownNameError, near_names
from saccade.scheduler.asha import ASHAScheduler
from saccade.scheduler.auto import AutoScheduler
from saccade.scheduler.base import Scheduler, StudyState
from saccade.scheduler.fifo import FIFOScheduler
from saccade.scheduler.hyperband import HyperbandScheduler
from saccade.scheduler.local_sequential import LocalSequentialScheduler
from saccade.scheduler.median import MedianScheduler
from saccade.scheduler.study import Study

__all__ = [
    "SCHEDULERS",
    "ASHAScheduler",
    "AutoScheduler",
    "FIFOScheduler",
    "HyperbandScheduler",
    "LocalSequentialScheduler",
    "MedianScheduler",
    "Scheduler",
    "Study",
    "StudyState",
    "make_scheduler",
]

# `local` is what the API that Saccade revives called training one trial after the other.
SCHEDULERS: dict[str, type[Scheduler]] = {
    "fifo": FIFOScheduler,
    "local": FIFOScheduler,
    "asha": ASHAScheduler,
    "auto": AutoScheduler,
    "hyperband": HyperbandScheduler,
    "median": MedianScheduler,
}


def make_scheduler(name: str | Scheduler, **options: Any) -> Scheduler:
    """Return the scheduler of that name.

    Parameters
    ----------
    name
        A key of `SCHEDULERS`; or a scheduler, which is returned as it is.
    **options
        Arguments of that scheduler.

    Raises
    ------
    UnknownNameError
        If there is no scheduler of that name.
    HyperparameterError
        If the scheduler has no such option, or if a ready scheduler comes with options.

    Examples
    --------
    >>> make_scheduler("asha", max_epochs=9, reduction_factor=2).ladders[0].epochs
    [1, 2, 4, 8, 9]
    """
    if isinstance(name, Scheduler):
        if options:
            raise HyperparameterError(
                f"The options {sorted(options)} came with a {type(name).__name__} that is made already. "
                "Give them where it is made, or name the scheduler."
            )
        return name
    if not isinstance(name, str) or name not in SCHEDULERS:
        raise UnknownNameError.of("scheduler", name, SCHEDULERS)
    scheduler = SCHEDULERS[name]
    known = list(inspect.signature(scheduler).parameters)
    for option in options:
        if option not in known:
            near = near_names(option, known)
            advice = f"Did you mean {near[0]!r}? " if near else ""
            theirs = f"Its options: {', '.join(known)}." if known else "It has none."
            raise HyperparameterError(f"The scheduler {name!r} has no option {option!r}. {advice}{theirs}")
    return scheduler(**options)
