"""Tune any Python function that reports epochs, with the study that tunes networks."""

from __future__ import annotations

from saccade.errors import missing_attributes
from saccade.study.function import FunctionReporter
from saccade.tuning.result import TrialResult, TuneResult
from saccade.tuning.tuner import TuningInterrupted, tune

__all__ = ["FunctionReporter", "TrialResult", "TuneResult", "TuningInterrupted", "tune"]

__getattr__ = missing_attributes(__name__, __all__)
