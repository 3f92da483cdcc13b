"""When a predictor abstains: images whose label is not sure go to somebody who knows better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.errors import HyperparameterError
from saccade.inference.conformal import Conformal, check_share
from saccade.tasks.problem import Problem

COVERAGE = 0.9
"""Of the sets that decide, where nothing else is asked for."""


@dataclass(frozen=True)
class Doubt:
    """When a label is not sure, and what stands in its place then.

    Attributes
    ----------
    value
        What stands in its place.
    coverage : float or None
        A label is unsure when the conformal set of this coverage holds others as well.
    min_proba : float or None
        A label is unsure when no label has so high a probability.
    """

    value: Any
    coverage: float | None = COVERAGE
    min_proba: float | None = None

    @classmethod
    def of(
        cls, value: Any, coverage: float | None, min_proba: float | None, problem: Problem, conformal: Conformal
    ) -> Doubt | None:
        """Return what the arguments of `ImagePredictor.predict` ask for; None when there is never a doubt.

        Raises
        ------
        HyperparameterError
            When they contradict each other, are no shares, or do not suit the problem.
        DataError
            When there were too few held-out images for the coverage.
        """
        if value is None:
            if coverage is not None or min_proba is not None:
                name = "min_proba" if coverage is None else "coverage"
                raise HyperparameterError(
                    f"{name} says when a label is unsure, and unsure=… what to return then; give both"
                )
            return None
        problem.require_one_class("unsure=…")
        if min_proba is not None:
            check_share("min_proba", min_proba, with_ends=True)
        if coverage is None and min_proba is None:
            coverage = COVERAGE
        if coverage is not None:
            conformal.check(problem, coverage)
        return cls(value, coverage, min_proba)

    def is_unsure(self, probabilities: np.ndarray, conformal: Conformal) -> np.ndarray:
        """Tell of each image, of shape (num_images, num_classes), whether it is unsure.

        Examples
        --------
        >>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> Doubt("?", None, min_proba=0.8).is_unsure(probabilities, Conformal())
        array([False,  True])
        """
        unsure = np.zeros(len(probabilities), bool)
        if self.min_proba is not None:
            unsure |= probabilities.max(1) < self.min_proba
        if self.coverage is not None:
            sets = conformal.label_sets(probabilities, self.coverage)
            unsure |= np.array([len(labels) > 1 for labels in sets], bool)
        return unsure

    def mark(self, labels: np.ndarray, probabilities: np.ndarray, conformal: Conformal) -> np.ndarray:
        """Return labels as objects, with the value in the place of those that are unsure."""
        marked = labels.astype(object)
        for number in np.flatnonzero(self.is_unsure(probabilities, conformal)):
            marked[number] = self.value
        return marked
