"""Probabilities that mean what they say: temperature scaling, fitted on images that taught nothing.

A network that says .9 should be right nine times in ten. Networks that were trained long say too much, those that were
trained with mixup or label smoothing too little, and in both cases one number puts most of it right: outputs are
divided by a temperature before they become probabilities (Guo et al., "On Calibration of Modern Neural Networks",
ICML 2017). The order of the classes stays as it is, so accuracy does as well.

All of this works on probabilities, whatever they come from: one network, or the mean of several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from saccade.training.problem import Problem

NUM_BINS = 15
"""Bins of equal width of an expected calibration error, as in Guo et al."""

NUM_FOLDS = 5
"""Parts of the held-out images, each judged by what was fitted on the others."""

PRIOR_STD = 0.5
"""What is known of the logarithm of a temperature beforehand: about 0, give or take this."""

MAX_ELEMENTS = 2**19
"""Probabilities that are looked at. One number needs no more, and with 1,000 classes more would take seconds."""

NUM_DRAWS = 50
"""Times that labels are drawn to tell what is chance."""

_BOUND = 3.0  # of the logarithm of a temperature, either way


@dataclass(frozen=True)
class Calibration:
    """How probabilities are to be corrected, and what that is worth.

    Attributes
    ----------
    temperature : float
        What outputs are divided by; 1 changes nothing, more makes less certain.
    ece_before, ece_after : float or None
        Expected calibration error of the held-out images, as the network gave it and with a temperature that was fitted
        on the other folds; None where there were no such images.
    num_images : int
        How many images that was found on.
    """

    temperature: float = 1.0
    ece_before: float | None = None
    ece_after: float | None = None
    num_images: int = 0

    def apply(self, probabilities: np.ndarray, problem: Problem) -> np.ndarray:
        """Return calibrated probabilities.

        Parameters
        ----------
        probabilities : ndarray, shape (num_images, num_classes)
            As `Problem.activate` returned them.
        problem : Problem
            For regression, and with a temperature of 1, all stays as it is.

        Returns
        -------
        ndarray, shape (num_images, num_classes)
            In the dtype of `probabilities`; the likeliest class is the same.

        Examples
        --------
        >>> problem = Problem.of(["cat", "dog"])
        >>> Calibration(temperature=2.0).apply(np.array([[0.9, 0.1]]), problem).round(3)
        array([[0.75, 0.25]])
        """
        if self.temperature == 1 or not problem.is_classification:
            return probabilities
        logits = _logits(probabilities, problem) / self.temperature
        calibrated = np.exp(-np.logaddexp(0, -logits)) if problem.type == "multilabel" else _softmax(logits)
        return calibrated.astype(probabilities.dtype)


def fit_calibration(probabilities: np.ndarray, targets: np.ndarray, problem: Problem, seed: int = 0) -> Calibration:
    """Find the temperature under which held-out labels are likeliest.

    With few images likelihood says little, and where all of them are right it even asks for a temperature of 0. So the
    logarithm of the temperature has a normal prior around 0, of standard deviation `PRIOR_STD`: it decides with ten
    images and is forgotten with hundreds. The calibration error "after" is cross-fitted: each image is judged with the
    temperature that fits the folds that it is not in.

    Parameters
    ----------
    probabilities : ndarray, shape (num_images, num_classes)
        Of images that the network did not learn from.
    targets : ndarray, shape (num_images,) or (num_images, num_classes)
        Their labels, as `Problem.encode` returned them.
    problem : Problem
        What both mean; for regression there is nothing to calibrate.
    seed : int
        Of the folds.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> targets = np.tile([0, 0, 0, 1], 500)                     # cats in three of four images
    >>> boastful = np.tile([0.99, 0.01], (2000, 1))
    >>> calibration = fit_calibration(boastful, targets, problem)
    >>> calibration.apply(boastful[:1], problem).round(2).tolist()
    [[0.75, 0.25]]
    """
    rng = np.random.default_rng(seed)
    if not problem.is_classification or len(targets) < 2:
        return Calibration()
    if (most := max(200, MAX_ELEMENTS // len(problem.classes))) < len(targets):
        rows = rng.permutation(len(targets))[:most]
        probabilities, targets = probabilities[rows], targets[rows]
    logits = _logits(probabilities, problem)
    folds = fold_numbers(len(targets), rng)
    after = probabilities.copy()
    for fold in range(folds.max() + 1):
        is_in = folds == fold
        of_others = Calibration(_likeliest(logits[~is_in], targets[~is_in], problem))
        after[is_in] = of_others.apply(probabilities[is_in], problem)
    return Calibration(
        _likeliest(logits, targets, problem),
        calibration_error(probabilities, targets, problem),
        calibration_error(after, targets, problem),
        len(targets),
    )


def calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, problem: Problem, num_bins: int = NUM_BINS
) -> float:
    """Return the expected calibration error: how far certainty is from how often it is right, in the mean.

    Images are put into bins of equal width by the probability of their likeliest class (Naeini et al., "Obtaining Well
    Calibrated Probabilities Using Bayesian Binning", AAAI 2015; Guo et al. 2017). For multilabel problems it is the
    mean over the labels, each with bins of its own probability (Kull et al., "Beyond temperature scaling", NeurIPS
    2019). Of few images it is larger than 0 also where all is well: see `error_by_chance`.

    Parameters
    ----------
    probabilities, targets, problem
        As in `fit_calibration`.
    num_bins : int
        How many bins.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> round(calibration_error(np.array([[0.8, 0.2]] * 2), np.array([0, 1]), problem), 3)  # .8 certain, .5 right
    0.3
    """
    if problem.type == "multilabel":
        errors = [_binned_error(p, y, num_bins) for p, y in zip(probabilities.T, targets.T > 0, strict=True)]
        return float(np.mean(errors))
    return _binned_error(probabilities.max(1), probabilities.argmax(1) == targets, num_bins)


def error_by_chance(probabilities: np.ndarray, problem: Problem, num_bins: int = NUM_BINS, seed: int = 0) -> float:
    """Return what `calibration_error` would be, in the mean, if labels came as often as these probabilities say.

    It falls as images become more; an error of this size says nothing against a predictor.

    Parameters
    ----------
    probabilities, problem, num_bins
        As in `calibration_error`.
    seed : int
        Of the labels, which are drawn `NUM_DRAWS` times.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> [round(error_by_chance(np.array([[0.8, 0.2]] * num), problem), 2) for num in (10, 100, 10_000)]
    [0.11, 0.04, 0.0]
    """
    rng = np.random.default_rng(seed)
    columns = probabilities.T if problem.type == "multilabel" else probabilities.max(1)[None]
    errors = [_binned_error(p, rng.random(len(p)) < p, num_bins) for _ in range(NUM_DRAWS) for p in columns]
    return float(np.mean(errors))


def fold_numbers(num_images: int, rng: np.random.Generator) -> np.ndarray:
    """Return a fold for each image, 0 to `NUM_FOLDS` - 1, at random and of equal size but for one image."""
    return rng.permutation(num_images) % min(NUM_FOLDS, num_images)


def _binned_error(certainty: np.ndarray, is_right: np.ndarray, num_bins: int) -> float:
    bins = np.clip(np.ceil(certainty * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, certainty.astype(np.float64) - is_right, num_bins)
    return float(np.abs(gaps).sum() / len(certainty))


def _logits(probabilities: np.ndarray, problem: Problem) -> np.ndarray:
    """Return outputs that mean these probabilities, in 64 bits and finite where 32 bits were rounded to 0 or 1."""
    tiny = float(np.finfo(np.float32).tiny)
    p = probabilities.astype(np.float64)
    logs: np.ndarray = np.log(np.maximum(p, tiny))
    if problem.type == "multilabel":
        logits: np.ndarray = logs - np.log(np.maximum(1 - p, np.finfo(np.float32).eps / 4))
        return logits
    shifted: np.ndarray = logs - logs.max(1, keepdims=True)
    return shifted


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: np.ndarray = weights / weights.sum(1, keepdims=True)
    return probabilities


def _loss(logits: np.ndarray, targets: np.ndarray, problem: Problem, scale: float) -> float:
    """Return the sum of the negative logarithms of what is given to the labels by outputs times `scale`."""
    if problem.type == "multilabel":
        return float(np.logaddexp(0.0, np.where(targets > 0, -scale, scale) * logits).sum())
    right = logits[np.arange(len(targets)), targets]
    return float(np.log(np.exp(scale * logits).sum(1)).sum() - scale * right.sum())  # the largest of a row is 0


def _likeliest(logits: np.ndarray, targets: np.ndarray, problem: Problem) -> float:
    # It takes a while to import, which predictions need not spend.
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

    def cost(log_temperature: float) -> float:
        prior = log_temperature**2 / (2 * PRIOR_STD**2)
        return _loss(logits, targets, problem, math.exp(-log_temperature)) + prior

    found = minimize_scalar(cost, bounds=(-_BOUND, _BOUND), method="bounded", options={"xatol": 1e-3})
    return math.exp(float(found.x))
