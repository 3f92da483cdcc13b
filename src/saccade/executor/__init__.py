"""Executors run jobs on workers, in this process or in others, and pass on their events.

===========  ============================================================================
``inline``   `InlineExecutor`: the calling thread
``process``  `ProcessExecutor`: worker processes; a crash costs one trial
``auto``     `auto_executor`: ``inline`` for single trials and short searches, else ``process``
===========  ============================================================================
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator, Sequence

from saccade.executor.base import Executor, Handler, InlineExecutor, run_job
from saccade.executor.process import ProcessExecutor
from saccade.executor.slots import WorkerSlot, local_slots, num_usable_cpus, plan_workers
from saccade.study.registry import Registry

__all__ = [
    "EXECUTORS",
    "Executor",
    "Handler",
    "InlineExecutor",
    "ProcessExecutor",
    "WorkerSlot",
    "auto_executor",
    "local_slots",
    "make_executor",
    "num_usable_cpus",
    "plan_workers",
    "run_job",
    "use_executor",
]

INLINE_BELOW_S = 90.0
"""Shorter searches run inline: a worker takes about 4 s to import torch (`benchmarks.workers`), 5 % of 80 s."""


def auto_executor(
    preload: Sequence[str] = (),
    workers: Sequence[WorkerSlot] = (WorkerSlot(),),
    num_trials: int | None = None,
    time_limit_s: float | None = None,
) -> Executor:
    """Return worker processes, or an `InlineExecutor` where a worker process is not worth its start.

    That is the case for one worker with a single trial or with a time limit below `INLINE_BELOW_S`. Otherwise a crash
    of one trial should not end the others. `preload` and `workers` are those of `ProcessExecutor`; `num_trials` and
    `time_limit_s` are upper bounds, None without a limit.

    Examples
    --------
    >>> auto_executor(num_trials=1).num_workers
    1
    """
    is_short = num_trials == 1 or (math.inf if time_limit_s is None else time_limit_s) < INLINE_BELOW_S
    return InlineExecutor() if len(workers) == 1 and is_short else ProcessExecutor(preload=preload, workers=workers)


EXECUTORS: Registry[Executor] = Registry(
    "executor",
    Executor,  # type: ignore[type-abstract]
    {"auto": auto_executor, "inline": InlineExecutor, "process": ProcessExecutor},
)


def make_executor(
    given: str | Executor = "auto",
    preload: Sequence[str] = (),
    workers: Sequence[WorkerSlot] = (WorkerSlot(),),
    *,
    num_trials: int | None = None,
    time_limit_s: float | None = None,
) -> Executor:
    """Return the executor of that name; set its trainable before the first job.

    Raises an UnknownNameError for other names.

    Parameters
    ----------
    given
        A key of `EXECUTORS`; or an executor, which is returned as it is.
    preload, workers, num_trials, time_limit_s
        As for `auto_executor`. Each is passed to the executor if its constructor has such a parameter.
    """
    if not isinstance(given, str):
        return EXECUTORS.make(given)
    options = {"preload": preload, "workers": workers, "num_trials": num_trials, "time_limit_s": time_limit_s}
    known = inspect.signature(EXECUTORS[given]).parameters
    return EXECUTORS.make(given, arguments={name: value for name, value in options.items() if name in known})


@contextlib.contextmanager
def use_executor(given: str | Executor, made: Executor) -> Iterator[Executor]:
    """Close an executor that was made by name. A given instance keeps its workers, but not the trainable."""
    if isinstance(given, str):
        with made:
            yield made
        return
    try:
        yield made
    finally:
        made.trainable = None  # it may hold a data set
