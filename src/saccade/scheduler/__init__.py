"""Schedulers decide which training job runs next and for how long; the study drives them.

`make_scheduler` makes one by name; `Scheduler` is the base class.
"""

from __future__ import annotations

from typing import Any

from saccade.errors import missing_attributes
from saccade.scheduler.asha import ASHAScheduler, AutoScheduler, HyperbandScheduler
from saccade.scheduler.base import Scheduler, StudyState
from saccade.scheduler.fifo import FIFOScheduler, MedianScheduler
from saccade.study.registry import Registry

__all__ = [
    "SCHEDULERS",
    "ASHAScheduler",
    "AutoScheduler",
    "FIFOScheduler",
    "HyperbandScheduler",
    "MedianScheduler",
    "Scheduler",
    "StudyState",
    "make_scheduler",
]

SCHEDULERS: Registry[Scheduler] = Registry(
    "scheduler",
    Scheduler,  # type: ignore[type-abstract]
    {
        "fifo": FIFOScheduler,
        "local": FIFOScheduler,  # AutoGluon's name
        "asha": ASHAScheduler,
        "auto": AutoScheduler,
        "hyperband": HyperbandScheduler,
        "median": MedianScheduler,
    },
)


# Names from modules that import this one.
_LAZY = {"LocalSequentialScheduler": "saccade.core.scheduler.seq_scheduler"}
__getattr__ = missing_attributes(__name__, __all__, _LAZY)


def make_scheduler(name: str | Scheduler, **options: Any) -> Scheduler:
    """Return a scheduler: that of a name in `SCHEDULERS`, with these arguments, or the given one.

    Raises an UnknownNameError for other names, and a HyperparameterError for an option that the scheduler does not
    have, or options together with an instance.

    Examples
    --------
    >>> make_scheduler("asha", max_epochs=9, reduction_factor=2).brackets[0].epochs
    [1, 2, 4, 8, 9]
    """
    return SCHEDULERS.make(name, options)
