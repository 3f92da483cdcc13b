"""Schedulers decide which training job runs next and for how long; the study drives them."""

from __future__ import annotations

from saccade.errors import UnknownNameError
from saccade.scheduler.base import Scheduler, StudyState
from saccade.scheduler.fifo import FIFOScheduler
from saccade.scheduler.local_sequential import LocalSequentialScheduler
from saccade.scheduler.study import Study

__all__ = ["FIFOScheduler", "LocalSequentialScheduler", "Scheduler", "Study", "StudyState", "make_scheduler"]

# `local` is what the API that Saccade revives called training one trial after the other.
_SCHEDULERS: dict[str, type[Scheduler]] = {"fifo": FIFOScheduler, "local": FIFOScheduler}


def make_scheduler(name: str | Scheduler) -> Scheduler:
    """Return the scheduler of that name; a scheduler itself passes through.

    Raises
    ------
    UnknownNameError
        When there is no scheduler of that name.
    """
    if isinstance(name, Scheduler):
        return name
    if not isinstance(name, str) or name not in _SCHEDULERS:
        raise UnknownNameError.of("scheduler", name, _SCHEDULERS)
    return _SCHEDULERS[name]()
