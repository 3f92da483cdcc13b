"""Schedulers decide which training job runs next, for how long, and what a trial does after a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saccade.errors import UnknownNameError
from saccade.scheduler.base import Scheduler, StudyState
from saccade.scheduler.fifo import FIFOScheduler

if TYPE_CHECKING:
    from saccade.scheduler.local_sequential import LocalSequentialScheduler

__all__ = ["FIFOScheduler", "LocalSequentialScheduler", "Scheduler", "StudyState", "make_scheduler"]

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


def __getattr__(name: str) -> Any:
    if name == "LocalSequentialScheduler":  # it runs a study, and studies need this package first
        from saccade.scheduler.local_sequential import LocalSequentialScheduler

        return LocalSequentialScheduler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
