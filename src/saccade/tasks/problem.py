"""All problem types; importing them here registers them for `Problem.of`."""

from saccade.tasks.base import Problem
from saccade.tasks.classification import Binary, Classification, Multiclass, SingleLabel
from saccade.tasks.multilabel import THRESHOLD, Multilabel
from saccade.tasks.regression import Regression

__all__ = ["THRESHOLD", "Binary", "Classification", "Multiclass", "Multilabel", "Problem", "Regression", "SingleLabel"]
