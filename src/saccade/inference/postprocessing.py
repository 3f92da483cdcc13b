"""What a predictor knows of its own certainty, from images that it did not learn from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from saccade.inference.calibration import NUM_FOLDS, Calibration, fit_calibration
from saccade.inference.conformal import Conformal
from saccade.inference.thresholds import Thresholds, fit_thresholds
from saccade.tasks.metrics import Metric
from saccade.tasks.problem import Problem


@dataclass(frozen=True)
class Trust:
    """All that is between what a network says and what a user is told.

    Attributes
    ----------
    calibration : Calibration
        Makes probabilities mean what they say.
    thresholds : Thresholds
        From which of these on a label is given, where the metric wants another one than .5.
    conformal : Conformal
        Which labels a set must hold for a coverage.
    """

    calibration: Calibration = field(default_factory=Calibration)
    thresholds: Thresholds = field(default_factory=Thresholds)
    conformal: Conformal = field(default_factory=Conformal)

    @classmethod
    def of(
        cls,
        predictions: np.ndarray,
        targets: np.ndarray,
        problem: Problem,
        metric: Metric,
        shares: np.ndarray | None = None,
    ) -> Trust:
        """Learn from held-out images.

        Parameters
        ----------
        predictions : ndarray, shape (num_images, num_outputs)
            As the predictor makes them of new images, before any calibration: probabilities, or numbers.
        targets : ndarray, shape (num_images,) or (num_images, num_classes)
            As `Problem.encode` returned them. If there are more of them than predictions, the first ones count.
        problem : Problem
            What both mean.
        metric : Metric
            That the user cares for.
        shares : ndarray or None
            As `saccade.training.imbalance.class_priors` returned them.
        """
        targets = targets[: len(predictions)]
        if not len(predictions) or not np.isfinite(predictions).all():
            return cls()
        calibration = fit_calibration(predictions, targets, problem, shares=shares)
        calibrated = calibration.apply(predictions, problem)
        if (left := calibration.shares_left) is not None:
            shares = left
        return cls(
            calibration,
            fit_thresholds(calibrated, targets, problem, metric, shares=shares),
            Conformal.of(calibrated, targets, problem),
        )

    def summary(self, problem: Problem, is_refit: bool = False) -> dict[str, Any]:
        """Return what `ImagePredictor.fit_summary` tells of it.

        Returns
        -------
        dict
            For classes ``temperature``, ``logit_adjustment``, ``ece_before``, ``ece_after`` and ``calibrated_on``;
            where thresholds were looked for, ``thresholds`` (by label) and ``valid_figure_at_thresholds``; where
            classes are to count alike, ``divided_by_share`` (by label) in the place of the former.
        """
        if not problem.has_classes:
            return {}
        calibration, thresholds = self.calibration, self.thresholds
        told: dict[str, Any] = {
            "temperature": calibration.temperature,
            "logit_adjustment": calibration.logit_adjustment,
            "ece_before": calibration.ece_before,
            "ece_after": calibration.ece_after,
            "calibrated_on": _images(calibration.num_images, is_refit),
        }
        if thresholds.shares:
            told["divided_by_share"] = dict(zip(map(str, problem.classes), thresholds.shares, strict=True))
            told["valid_figure_at_thresholds"] = thresholds.figure_after
        elif thresholds.figure_after is not None:
            labels = problem.threshold_classes
            values = thresholds.values or [0.5] * len(labels)
            told["thresholds"] = {str(label): value for label, value in zip(labels, values, strict=True)}
            told["valid_figure_at_thresholds"] = thresholds.figure_after
        return told

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "calibration": asdict(self.calibration),
            "thresholds": asdict(self.thresholds),
            "conformal": self.conformal.to_json(),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Trust:
        """Return what `to_json` wrote; of a predictor from before there was such a thing, that nothing is known."""
        if not record:
            return cls()
        calibration, thresholds = record["calibration"], record["thresholds"]
        return cls(
            Calibration(**{**calibration, "shares": tuple(calibration.get("shares", ()))}),
            Thresholds(
                **{
                    **thresholds,
                    "values": tuple(thresholds["values"]),
                    "shares": tuple(thresholds.get("shares", ())),
                }
            ),
            Conformal.from_json(record["conformal"]),
        )


def _images(num: int, is_refit: bool) -> str:
    if not num:
        return "no images: there were too few, or what the network said of them was not kept"
    of_whom = " of the search, before the refit" if is_refit else ""
    return f"{num} validation images{of_whom}; ece_after is cross-fitted in {min(NUM_FOLDS, num)} folds"
