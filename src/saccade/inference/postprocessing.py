"""From the mean prediction of a predictor's networks to labels: calibration, thresholds, conformal sets, abstention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from saccade.checks import fraction
from saccade.data.splitting import Groups
from saccade.errors import DataError, HyperparameterError
from saccade.inference.calibration import NUM_FOLDS, Calibration, fit_calibration
from saccade.inference.thresholds import Thresholds, fit_thresholds
from saccade.tasks.base import type_adapter
from saccade.tasks.metrics import Metric
from saccade.tasks.problem import Problem

MAX_SCORES = 4000  # conformal scores that are kept; more would hardly reduce the variance of the coverage
COVERAGE = 0.9  # default coverage of the sets by which an `AbstentionRule` decides


@dataclass(frozen=True)
class Conformal:
    """Split conformal prediction: sets that contain the right label with a given probability.

    A set contains all labels whose probability is at least a threshold, a quantile of the probabilities that held-out
    images have for their right labels. So it contains the right label with the coverage that was asked for, whatever
    the network, if new images come from the distribution of the held-out ones (Vovk et al., "Algorithmic Learning in a
    Random World", 2005). Of all sets with this guarantee, those by one threshold are the smallest on average (Sadinle,
    Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels", JASA 2019). Adaptive sets
    (Romano et al., NeurIPS 2020; Angelopoulos et al., ICLR 2021) were larger in our measurements.

    """

    # The conformity score of each held-out image, in float32, descending: the probability of its label; for regression
    # the negative distance between label and prediction, in the labels' unit.
    scores: tuple[float, ...] = ()

    @classmethod
    def fit(cls, predictions: np.ndarray, targets: np.ndarray, problem: Problem) -> Conformal:
        """Return the scores of held-out images (at most `MAX_SCORES` of them), given calibrated predictions."""
        scores = problem.conformity(predictions, targets)
        if len(scores) > MAX_SCORES:
            scores = np.random.default_rng(0).choice(scores, MAX_SCORES, replace=False)
        return cls(tuple(np.sort(scores.astype(np.float32))[::-1].tolist()))

    def check(self, problem: Problem, coverage: float) -> None:
        """Raise an error if sets of this coverage are not available: as `threshold`, and for multilabel problems."""
        if problem.has_classes:
            problem.require_one_class("a set of labels")
        self.threshold(coverage)

    def threshold(self, coverage: float) -> float:
        """Return the calibrated probability from which on a label is in a set of this coverage.

        Raises a HyperparameterError if the coverage is invalid, and a DataError if there are fewer than ``coverage / (1
        - coverage)`` held-out images.
        """
        fraction("coverage", coverage)
        num = len(self.scores)
        rank = math.ceil((num + 1) * coverage - 1e-9)  # 10 * .9 is rounded up in floating point
        if rank > num:
            least = math.ceil(coverage / (1 - coverage) - 1e-9)
            most = f", which suffice up to {math.floor(1000 * num / (num + 1)) / 1000:g}" if num else ""
            raise DataError(
                f"coverage {coverage:g} requires at least {least} validation images; this predictor has {num}{most}. "
                "Fit with more of them (tuning_data, holdout_frac), or pass a smaller coverage"
            )
        return self.scores[rank - 1]

    def label_sets(self, probabilities: torch.Tensor, given: torch.Tensor, coverage: float) -> torch.Tensor:
        """Return which labels are in each image's set, bool of shape (num_images, num_classes).

        The label that is `given` is always in its set, so that no set is empty. That can only raise the coverage.
        """
        return torch.logical_or(probabilities.float() >= self.threshold(coverage), given)

    def to_json(self) -> str:
        """Return the scores as one line, without loss."""
        return " ".join(map(str, np.array(self.scores, np.float32)))

    @classmethod
    def from_json(cls, text: str) -> Conformal:
        """Return what `to_json` wrote."""
        return cls(tuple(np.array(text.split(), np.float32).tolist()))


@dataclass(frozen=True)
class AbstentionRule:
    """When a label is too uncertain to be given, and which value replaces it."""

    value: Any  # the replacement
    coverage: float | None = COVERAGE  # abstain if the conformal set of this coverage has more than one label
    min_proba: float | None = None  # abstain if the label's probability is lower

    @classmethod
    def of(
        cls, value: Any, coverage: float | None, min_proba: float | None, problem: Problem, conformal: Conformal
    ) -> AbstentionRule | None:
        """Return the rule that the arguments of `ImagePredictor.predict` define; None without a value.

        Raises a HyperparameterError if an argument is invalid, or the problem has not one label per image; a DataError
        if there are too few held-out images for the coverage.
        """
        if value is None:
            if coverage is not None or min_proba is not None:
                name = "min_proba" if coverage is None else "coverage"
                raise HyperparameterError(
                    f"{name} defines when a label is unsure; pass unsure=… too, the value to return for such images"
                )
            return None
        problem.require_one_class("unsure=…")
        if min_proba is not None:
            fraction("min_proba", min_proba, with_ends=True)
        if coverage is None and min_proba is None:
            coverage = COVERAGE
        if coverage is not None:
            conformal.check(problem, coverage)
        return cls(value, coverage, min_proba)

    def applies(self, probabilities: torch.Tensor, given: torch.Tensor, conformal: Conformal) -> torch.Tensor:
        """Return whether to abstain, bool of shape (num_images,); the arguments are as in `Conformal.label_sets`."""
        abstains = torch.zeros(len(probabilities), dtype=torch.bool, device=probabilities.device)
        if self.min_proba is not None:
            abstains |= (probabilities * given).sum(1) < self.min_proba
        if self.coverage is not None:
            abstains |= conformal.label_sets(probabilities, given, self.coverage).sum(1) > 1
        return abstains


@dataclass(frozen=True)
class Postprocessing:
    """All steps from the mean prediction of the networks to a label, fitted on held-out images."""

    calibration: Calibration = field(default_factory=Calibration)
    thresholds: Thresholds = field(default_factory=Thresholds)  # if the metric needs them: see `fit_thresholds`
    conformal: Conformal = field(default_factory=Conformal)

    @classmethod
    def fit(
        cls,
        predictions: np.ndarray,
        targets: np.ndarray,
        problem: Problem,
        metric: Metric,
        class_prior: np.ndarray | None = None,
        groups: Groups = None,
    ) -> tuple[Postprocessing, np.ndarray]:
        """Fit all steps to held-out images; return them, and the adjusted predictions of these images.

        `predictions` are means of the networks, uncalibrated; `targets` are as from `Problem.encode`, of which the
        first ones are used if there are more of them. Thresholds maximise `metric`; predictions are adjusted by
        thresholds of other images: see `saccade.inference.thresholds.fit_thresholds`. `class_prior` are the class
        frequencies of the training images, of shape (num_classes,); None adjusts nothing. Images with equal `groups`
        are cross-fitted together.
        """
        targets, groups = targets[: len(predictions)], None if groups is None else groups[: len(predictions)]
        if not len(predictions) or not np.isfinite(predictions).all():
            return cls(), predictions
        calibration = fit_calibration(predictions, targets, problem, class_prior, groups)
        calibrated = calibration.apply(predictions, problem)
        if (remaining := calibration.remaining_prior) is not None:
            class_prior = remaining
        thresholds, adjusted = fit_thresholds(calibrated, targets, problem, metric, class_prior, groups)
        return cls(calibration, thresholds, Conformal.fit(calibrated, targets, problem)), adjusted

    def summary(self, problem: Problem, is_refit: bool = False) -> dict[str, Any]:
        """Return the entries of `ImagePredictor.fit_summary` about it.

        For classification these are ``temperature``, ``logit_adjustment``, ``ece_before``, ``ece_after`` and
        ``calibrated_on``; if thresholds were searched, ``thresholds`` by label and ``valid_figure_at_thresholds``; if
        classes are balanced, ``divided_by_share`` by label instead of ``thresholds``.
        """
        if not problem.has_classes:
            return {}
        calibration, thresholds = self.calibration, self.thresholds
        summary: dict[str, Any] = {
            "temperature": calibration.temperature,
            "logit_adjustment": calibration.logit_adjustment,
            "ece_before": calibration.ece_before,
            "ece_after": calibration.ece_after,
            "calibrated_on": _images(calibration.num_images, is_refit),
        }
        if thresholds.class_prior:
            summary["divided_by_share"] = dict(zip(map(str, problem.classes), thresholds.class_prior, strict=True))
            summary["valid_figure_at_thresholds"] = thresholds.metric_after
        elif thresholds.metric_after is not None:
            labels = problem.threshold_classes
            values = thresholds.values or [0.5] * len(labels)
            summary["thresholds"] = {str(label): value for label, value in zip(labels, values, strict=True)}
            summary["valid_figure_at_thresholds"] = thresholds.metric_after
        return summary

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "calibration": asdict(self.calibration),
            "thresholds": asdict(self.thresholds),
            "conformal": self.conformal.to_json(),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Postprocessing:
        """Return what `to_json` wrote; raise a ValueError or TypeError if it is damaged."""
        calibration = type_adapter(Calibration).validate_python(record["calibration"])
        thresholds = type_adapter(Thresholds).validate_python(record["thresholds"])
        conformal = Conformal.from_json(record["conformal"])
        positive = [calibration.temperature, *calibration.class_prior, *thresholds.class_prior, *thresholds.values]
        numbers = np.array([*positive, calibration.logit_adjustment, *conformal.scores])
        if not (np.isfinite(numbers).all() and min(positive) > 0 and max(thresholds.values, default=0) < 1):
            raise ValueError("numbers of calibration, thresholds or scores are out of range")
        return cls(calibration, thresholds, conformal)

    def check(self, problem: Problem) -> None:
        """Raise a ValueError if there are more or fewer numbers than classes."""
        num, num_thresholds = len(problem.classes), len(problem.threshold_classes)
        lengths = len(self.calibration.class_prior), len(self.thresholds.class_prior), len(self.thresholds.values)
        for found, expected in zip(lengths, (num, num, num_thresholds), strict=True):
            if found not in (0, expected):
                raise ValueError(f"{found} numbers of calibration or thresholds for {num} classes")


def weighted_mean(predictions: Sequence[np.ndarray], weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the mean of several networks' predictions, by weights that sum to 1, in float64, as their dtype."""
    return mean_of_members([torch.from_numpy(rows) for rows in predictions], [float(w) for w in weights]).numpy()


def mean_of_members(predictions: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return what `weighted_mean` does, for tensors."""
    if len(predictions) == 1:
        return predictions[0]
    # Weights are tensors, since exporters round Python's numbers to float32.
    terms = [
        torch.tensor(weight, dtype=torch.float64, device=rows.device) * rows.double()
        for rows, weight in zip(predictions, weights, strict=True)
        if weight
    ]
    return torch.stack(terms).sum(0).to(predictions[0].dtype)


def _images(num: int, is_refit: bool) -> str:
    if not num:
        return "no images: there were too few, or the outputs for them were not saved"
    of_search = " of the search, before the refit" if is_refit else ""
    return f"{num} validation images{of_search}; ece_after is cross-fitted in {min(NUM_FOLDS, num)} folds"
