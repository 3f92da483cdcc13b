"""Executors run jobs on workers, in this process or in others, and pass on their events.

===========  ============================================================================
``inline``   `InlineExecutor`: the calling thread
``process``  `ProcessExecutor`: worker processes; a crash costs one trial
``ray``      `RayExecutor`: workers on the nodes of a Ray cluster
``auto``     `auto_executor`: ``inline`` for single trials and short searches, else ``process``
===========  ============================================================================
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from saccade.executor.base import Executor, Handler, InlineExecutor, run_job
from saccade.executor.process import ProcessExecutor
from saccade.executor.ray_executor import RayExecutor
from saccade.executor.slots import WorkerSlot, local_slots, num_usable_cpus, plan_workers
from saccade.study.registry import Registry

__all__ = [
    "EXECUTORS",
    "Executor",
    "Handler",
    "InlineExecutor",
    "ProcessExecutor",
    "RayExecutor",
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
    {"auto": auto_executor, "inline": InlineExecutor, "process": ProcessExecutor, "ray": RayExecutor},
)


def make_executor(
    given: str | Executor = "auto",
    preload: Sequence[str] = (),
    workers: Callable[[], Sequence[WorkerSlot]] = lambda: (WorkerSlot(),),
    *,
    address: str | None = None,
    max_workers: int | None = None,
    **others: Any,
) -> Executor:
    """Return the executor of that name; set its trainable before the first job.

    Raises an UnknownNameError for other names, and a HyperparameterError for options that the executor does not have.

    Parameters
    ----------
    given
        A key of `EXECUTORS`; or an executor, which is returned as it is. ``"auto"`` with an `address` is ``"ray"``.
    preload, workers, others
        Arguments that are passed to the constructor if it has such a parameter: `num_trials` and `time_limit_s` as for
        `auto_executor`, `num_cpus` and `num_gpus` as for `RayExecutor`. `workers` returns the slots of this machine.
    address, max_workers
        Options that the user has given, as for `RayExecutor`; None if not.
    """
    options = {name: value for name, value in (("address", address), ("max_workers", max_workers)) if value is not None}
    if not isinstance(given, str):
        return EXECUTORS.make(given, options)
    given = EXECUTORS.canonical(given)
    if given == "auto" and address is not None:
        given = "ray"
    known = inspect.signature(EXECUTORS[given]).parameters
    arguments = {name: value for name, value in {"preload": preload, **others}.items() if name in known}
    if "workers" in known:
        arguments["workers"] = workers()
    return EXECUTORS.make(given, options, arguments)


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
