"""The vocabulary that searchers, schedulers, executors and trainables share: trial, job, decision, trainable."""

from __future__ import annotations

from saccade.trial.base import Decision, Job, Reporter, Status, Trainable, Trial
from saccade.trial.function import CHECKPOINTS, Checkpoint, FunctionReporter, FunctionTrainable, MissingScoreError

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "Decision",
    "FunctionReporter",
    "FunctionTrainable",
    "Job",
    "MissingScoreError",
    "Reporter",
    "Status",
    "Trainable",
    "Trial",
]
