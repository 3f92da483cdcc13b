"""Sets of labels that hold the right one as often as was asked: split conformal prediction.

Images that the network did not learn from tell how probable it finds right labels. A new image's set holds all labels
that it finds at least as probable as a certain one of those; which one, is counted so that the set holds the right
label with the coverage asked, whatever the network and whatever the images, as long as new images come from where the
held-out ones did (Vovk et al., "Algorithmic Learning in a Random World", 2005). Sets of this kind, by one threshold
for all images, are the smallest in the mean (Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers with
Bounded Error Levels", JASA 2019). Adaptive ones (Romano et al., NeurIPS 2020; Angelopoulos et al., ICLR 2021) were
larger on everything that was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from saccade.errors import DataError, HyperparameterError
from saccade.tasks.problem import Problem

MAX_SCORES = 4000
"""Scores that are kept; the coverage of more would hardly vary less."""


@dataclass(frozen=True)
class Conformal:
    """What held-out images tell of right labels.

    Attributes
    ----------
    scores : tuple of float
        How well each held-out image's label conforms to its prediction, the best first, in 32 bits: the label's
        probability; for regression the distance between label and prediction, negative, in the labels' unit.
    """

    scores: tuple[float, ...] = ()

    @classmethod
    def of(cls, predictions: np.ndarray, targets: np.ndarray, problem: Problem, seed: int = 0) -> Conformal:
        """Return the scores of held-out images; of a sample of `MAX_SCORES`, where there are more.

        Parameters
        ----------
        predictions : ndarray, shape (num_images, num_outputs)
            As those of new images will be: calibrated, if they will be.
        targets : ndarray, shape (num_images,)
            As `Problem.encode` returned them.
        problem : Problem
            What both mean; multilabel problems have no scores.
        seed : int
            Of the sample.
        """
        scores = problem.conformity(predictions, targets)
        if len(scores) > MAX_SCORES:
            scores = np.random.default_rng(seed).choice(scores, MAX_SCORES, replace=False)
        return cls(tuple(np.sort(scores.astype(np.float32))[::-1].tolist()))

    def check(self, problem: Problem, coverage: float) -> None:
        """See that sets of this coverage can be had; raises as `threshold`, and for multilabel problems."""
        if problem.has_classes:
            problem.require_one_class("a set of labels")
        self.threshold(coverage)

    def threshold(self, coverage: float) -> float:
        """Return the score that a label must have to be in a set.

        Parameters
        ----------
        coverage : float
            How often sets are to hold the right label, between 0 and 1.

        Raises
        ------
        HyperparameterError
            When the coverage is none.
        DataError
            When there are fewer than ``coverage / (1 - coverage)`` held-out images: nothing can be promised then.

        Examples
        --------
        >>> Conformal((0.9, 0.8, 0.7, 0.2)).threshold(0.8)           # the 4th of 4: ceil(5 * .8)
        0.2
        """
        check_share("coverage", coverage)
        num = len(self.scores)
        rank = math.ceil((num + 1) * coverage - 1e-9)  # 10 * .9 may come out a bit more than 9
        if rank > num:
            least = math.ceil(coverage / (1 - coverage) - 1e-9)
            most = f"; up to {math.floor(1000 * num / (num + 1)) / 1000:g} can be had" if num else ""
            raise DataError(
                f"a coverage of {coverage:g} needs {least} validation images at least, and this predictor knows {num}"
                f"{most}. Fit with more of them (tuning_data, holdout_frac), or ask for less"
            )
        return self.scores[rank - 1]

    def label_sets(self, probabilities: np.ndarray, coverage: float) -> list[list[int]]:
        """Return the numbers of the classes in each image's set, the likeliest first.

        The likeliest class is always in it, since an empty set would help nobody; that can only raise the coverage.

        Parameters
        ----------
        probabilities : ndarray, shape (num_images, num_classes)
            Of new images.
        coverage : float
            As in `threshold`.

        Examples
        --------
        >>> conformal = Conformal((0.9, 0.8, 0.7, 0.2))
        >>> conformal.label_sets(np.array([[0.05, 0.7, 0.25], [0.9, 0.09, 0.01]]), coverage=0.8)
        [[1, 2], [0]]
        """
        threshold = self.threshold(coverage)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        sizes = (probabilities.astype(np.float32) >= np.float32(threshold)).sum(1)
        return [row[: max(1, size)].tolist() for row, size in zip(order, sizes, strict=True)]

    def intervals(self, numbers: np.ndarray, coverage: float) -> list[tuple[float, float]]:
        """Return the interval around each predicted number that holds the right one with the coverage asked.

        Parameters
        ----------
        numbers : ndarray, shape (num_images, 1)
            Predictions of new images.
        coverage : float
            As in `threshold`.
        """
        reach = -self.threshold(coverage)
        return [(float(number - reach), float(number + reach)) for number in numbers[:, 0]]

    def to_json(self) -> str:
        """Return what `from_json` reads: one line, exact."""
        return " ".join(map(str, np.array(self.scores, np.float32)))

    @classmethod
    def from_json(cls, text: str) -> Conformal:
        """Return what `to_json` wrote."""
        return cls(tuple(np.array(text.split(), np.float32).tolist()))


def check_share(name: str, value: Any, *, with_ends: bool = False) -> None:
    """See that an argument is a number between 0 and 1.

    Parameters
    ----------
    name, value
        Of the argument.
    with_ends : bool
        Whether 0 and 1 will do.

    Raises
    ------
    HyperparameterError
        When it is none; of a percentage the message says what to give.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if is_number and (0 < value < 1 or (with_ends and value in (0, 1))):
        return
    hint = f"; for {value} % give {value / 100:g}" if is_number and 1 < value < 100 else ""
    raise HyperparameterError(f"{name} was given {value!r}; expected a number between 0 and 1{hint}")
