"""Executors run jobs on workers, in this process or in others, and pass on what happens there."""

from __future__ import annotations

from saccade.executor.base import Executor, Handler, OneWorkerExecutor, run_job
from saccade.executor.choice import (
    AutoExecutor,
    ExecutorName,
    WorkerCosts,
    choose_executor,
    make_executor,
    measure_costs,
)
from saccade.executor.cores import num_usable_cpus
from saccade.executor.inline import InlineExecutor
from saccade.executor.process import ProcessExecutor
from saccade.executor.slots import WorkerSlot, local_slots, plan_workers

__all__ = [
    "AutoExecutor",
    "Executor",
    "ExecutorName",
    "Handler",
    "InlineExecutor",
    "OneWorkerExecutor",
    "ProcessExecutor",
    "WorkerCosts",
    "WorkerSlot",
    "choose_executor",
    "local_slots",
    "make_executor",
    "measure_costs",
    "num_usable_cpus",
    "plan_workers",
    "run_job",
]
