"""Probabilities that mean what they say: temperature scaling, fitted on images that taught nothing.

A network that says .9 should be right nine times in ten. Networks that were trained long say too much, those that were
trained with mixup or label smoothing too little, and in both cases one number puts most of it right: outputs are
divided by a temperature before they become probabilities (Guo et al., "On Calibration of Modern Neural Networks",
ICML 2017). The order of the classes stays as it is, so accuracy does as well.

Where classes are of unequal size there is a second number. What a network knows of a rare class are a few images, which
it has learned by heart, and of new ones it is less sure: frequent classes get more than their due. So probabilities are
divided by a power of the classes' shares of the training images (the logit adjustment of Menon et al., "Long-tail
learning via logit adjustment", ICLR 2021). They use it so that classes count alike; here it is as large as held-out
images, of the same shares as in training, find it right.

All of this works on probabilities, whatever they come from: one network, or the mean of several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from saccade.tasks.problem import Problem

NUM_BINS = 15
"""Bins of equal width of an expected calibration error, as in Guo et al."""

NUM_FOLDS = 5
"""Parts of the held-out images, each judged by what was fitted on the others."""

PRIOR_STD = 0.5
"""What is known of the logarithm of a temperature beforehand: about 0, give or take this."""

ADJUSTMENT = 0.6
"""What is known of the power of shares beforehand: about what suited images of the same shares best, .4 to .9."""

ADJUSTMENT_STD = 0.25
"""How sure that is."""

EQUAL_SHARES = 0.01
"""Shares of classes that differ by less than this part of them count as equal."""

MAX_ELEMENTS = 2**19
"""Probabilities that are looked at. Two numbers need no more, and with 1,000 classes more would take seconds."""

NUM_DRAWS = 50
"""Times that labels are drawn to tell what is chance."""

_BOUND = 3.0  # of the logarithm of a temperature, either way
_MOST_ADJUSTED = 1.5  # more than making classes count alike is not what held-out images of the same shares can ask for


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
    logit_adjustment : float
        The power of the classes' shares by which probabilities are divided; 0 changes nothing, and 1 makes classes
        count alike.
    shares : tuple of float
        The part of the training images that each class has; empty where these do not count.
    """

    temperature: float = 1.0
    ece_before: float | None = None
    ece_after: float | None = None
    num_images: int = 0
    logit_adjustment: float = 0.0
    shares: tuple[float, ...] = ()

    @property
    def shares_left(self) -> np.ndarray | None:
        """How much more the frequent classes still get when all is applied; None where shares do not count."""
        if not self.shares:
            return None
        left: np.ndarray = np.array(self.shares) ** ((1 - self.logit_adjustment) / self.temperature)
        left /= left.sum()
        return left

    def apply(self, probabilities: np.ndarray, problem: Problem) -> np.ndarray:
        """Return calibrated probabilities.

        Parameters
        ----------
        probabilities : ndarray, shape (num_images, num_classes)
            As `Problem.activate` returned them.
        problem : Problem
            For regression, all stays as it is.

        Returns
        -------
        ndarray, shape (num_images, num_classes)
            In the dtype of `probabilities`; the likeliest class is the same, but for classes of unequal size.

        Examples
        --------
        >>> problem = Problem.of(["cat", "dog"])
        >>> Calibration(temperature=2.0).apply(np.array([[0.9, 0.1]]), problem).round(3)
        array([[0.75, 0.25]])
        """
        if (self.temperature == 1 and not self.shares) or not problem.has_classes:
            return probabilities
        logits = problem.logits(probabilities)
        if self.shares:
            logits -= self.logit_adjustment * np.log(self.shares)
        logits /= self.temperature
        return problem.probabilities(logits).astype(probabilities.dtype)


def fit_calibration(
    probabilities: np.ndarray,
    targets: np.ndarray,
    problem: Problem,
    seed: int = 0,
    shares: np.ndarray | None = None,
) -> Calibration:
    """Find the temperature, and the power of shares, under which held-out labels are likeliest.

    With few images likelihood says little, and where all of them are right it even asks for a temperature of 0. So the
    logarithm of the temperature has a normal prior around 0, of standard deviation `PRIOR_STD`: it decides with ten
    images and is forgotten with hundreds. That of the power is around `ADJUSTMENT`. The calibration error "after" is
    cross-fitted: each image is judged with what fits the folds that it is not in.

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
    shares : ndarray or None
        As `saccade.training.imbalance.class_priors` returned them; None adjusts nothing, nor do equal ones.

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
    if not problem.has_classes or len(targets) < 2:
        return Calibration()
    if (most := max(200, MAX_ELEMENTS // len(problem.classes))) < len(targets):
        rows = rng.permutation(len(targets))[:most]
        probabilities, targets = probabilities[rows], targets[rows]
    if shares is not None and np.ptp(shares) < EQUAL_SHARES * shares.mean():
        shares = None
    logits = problem.logits(probabilities)
    folds = fold_numbers(len(targets), rng)
    after = probabilities.copy()
    for fold in range(folds.max() + 1):
        is_in = folds == fold
        of_others = _likeliest(logits[~is_in], targets[~is_in], problem, shares)
        after[is_in] = of_others.apply(probabilities[is_in], problem)
    return replace(
        _likeliest(logits, targets, problem, shares),
        ece_before=calibration_error(probabilities, targets, problem),
        ece_after=calibration_error(after, targets, problem),
        num_images=len(targets),
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
    pairs = zip(problem.confidences(probabilities), problem.outcomes(probabilities, targets), strict=True)
    return float(np.mean([_binned_error(p, is_right, num_bins) for p, is_right in pairs]))


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
    columns = problem.confidences(probabilities)
    errors = [_binned_error(p, rng.random(len(p)) < p, num_bins) for _ in range(NUM_DRAWS) for p in columns]
    return float(np.mean(errors))


def fold_numbers(num_images: int, rng: np.random.Generator) -> np.ndarray:
    """Return a fold for each image, 0 to `NUM_FOLDS` - 1, at random and of equal size but for one image."""
    return rng.permutation(num_images) % min(NUM_FOLDS, num_images)


def _binned_error(certainty: np.ndarray, is_right: np.ndarray, num_bins: int) -> float:
    bins = np.clip(np.ceil(certainty * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, certainty.astype(np.float64) - is_right, num_bins)
    return float(np.abs(gaps).sum() / len(certainty))


def _loss_and_slopes(
    logits: np.ndarray, targets: np.ndarray, problem: Problem, scale: float
) -> tuple[float, float, np.ndarray]:
    """Return the sum of the negative logarithms of what labels are given by outputs times `scale`.

    And how it changes with the scale, and with each class's outputs.
    """
    outputs, soft = torch.from_numpy(scale * logits), problem.soft_targets(torch.from_numpy(targets)).double()
    slopes = problem.output_gradient(outputs, soft).numpy()
    loss = problem.output_losses(outputs, soft).sum().item()
    return loss, float((slopes * logits).sum()), scale * slopes.sum(0)


def _likeliest(logits: np.ndarray, targets: np.ndarray, problem: Problem, shares: np.ndarray | None) -> Calibration:
    # It takes a while to import, which predictions need not spend.
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    logs = 0.0 if shares is None else np.log(shares)

    def cost(found: np.ndarray) -> tuple[float, np.ndarray]:
        log_temperature, power = found
        scale = math.exp(-log_temperature)
        loss, by_scale, by_class = _loss_and_slopes(logits - power * logs, targets, problem, scale)
        loss += log_temperature**2 / (2 * PRIOR_STD**2) + (power - start[1]) ** 2 / (2 * ADJUSTMENT_STD**2)
        slopes = log_temperature / PRIOR_STD**2 - scale * by_scale, (power - start[1]) / ADJUSTMENT_STD**2
        return loss, np.array([slopes[0], slopes[1] - np.sum(by_class * logs)])

    start = np.array([0.0, 0.0 if shares is None else ADJUSTMENT])
    bounds = [(-_BOUND, _BOUND), (0.0, 0.0 if shares is None else _MOST_ADJUSTED)]
    log_temperature, power = minimize(cost, start, method="L-BFGS-B", jac=True, bounds=bounds).x.tolist()
    if shares is None:
        return Calibration(math.exp(log_temperature))
    return Calibration(math.exp(log_temperature), logit_adjustment=power, shares=tuple(shares.tolist()))
