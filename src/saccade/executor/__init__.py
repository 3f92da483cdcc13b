"""Executors run jobs on workers, in this process or in others, and pass on what happens there."""

from __future__ import annotations

from saccade.executor.base import Executor, Handler, OneWorkerExecutor, run_job
from saccade.executor.inline import InlineExecutor
from saccade.executor.process import ProcessExecutor

__all__ = ["Executor", "Handler", "InlineExecutor", "OneWorkerExecutor", "ProcessExecutor", "run_job"]
