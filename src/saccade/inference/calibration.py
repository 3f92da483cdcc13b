"""Calibrated probabilities: temperature scaling and class prior adjustment, fitted on held-out images.

Networks that were trained for long are overconfident, those trained with mixup or label smoothing are underconfident.
Temperature scaling corrects most of it: outputs are divided by one number before they become probabilities (Guo et al.,
"On Calibration of Modern Neural Networks", ICML 2017). The order of the classes, and so the accuracy, stays the same.

If the classes are imbalanced, a second number is fitted. Networks overfit the few images of a rare class, and assign
too much probability to frequent classes on new images. So probabilities are divided by a power of the class prior, the
class frequencies of the training images (the logit adjustment of Menon et al., "Long-tail learning via logit
adjustment", ICLR 2021, who use it to balance classes; here the power is fitted to held-out images).

Both are applied to probabilities, whether of one network or the average of several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from saccade.data.splitting import Groups, split_folds, stratified_order
from saccade.numerics.device import cpu_threads
from saccade.tasks.problem import Problem

NUM_BINS = 15  # bins of equal width of an expected calibration error, as in Guo et al.
NUM_FOLDS = 5  # folds of the held-out images for cross-fitting
PRIOR_STD = 0.5  # standard deviation of the normal prior of the logarithm of a temperature; its mean is 0

ADJUSTMENT, ADJUSTMENT_STD = 0.6, 0.25
"""Mean and standard deviation of the normal prior of `Calibration.logit_adjustment`."""

EQUAL_CLASSES = 0.01  # class frequencies that differ by less than this fraction of their mean count as equal

MAX_ELEMENTS = 2**19
"""Probabilities that a fit uses at most: with 1,000 classes more would take seconds, for two numbers."""

NUM_ERRORS = 2  # standard errors of a paired difference that count as a change
NUM_DRAWS = 50  # random draws of labels by which `error_by_chance` is computed

_MAX_LOG_TEMPERATURE = 3.0
_MAX_ADJUSTMENT = 1.5  # 1 balances the classes; held-out images of the same frequencies cannot require much more


@dataclass(frozen=True)
class Calibration:
    """Correction of probabilities, with its effect on held-out images."""

    temperature: float = 1.0  # divisor of the outputs; 1 changes nothing, larger values reduce confidence
    ece_before: float | None = None  # expected calibration error of the held-out images; None without such images
    ece_after: float | None = None  # the same of calibrated probabilities, cross-fitted
    num_images: int = 0  # held-out images that it was fitted on
    logit_adjustment: float = 0.0  # power of the class prior that divides probabilities; 1 balances the classes
    class_prior: tuple[float, ...] = ()  # class frequencies of the training images; empty if there is no adjustment

    @property
    def remaining_prior(self) -> np.ndarray | None:
        """The class prior that is left in calibrated probabilities; None if there is no adjustment."""
        if not self.class_prior:
            return None
        left: np.ndarray = np.array(self.class_prior) ** ((1 - self.logit_adjustment) / self.temperature)
        left /= left.sum()
        return left

    def calibrate(self, probabilities: torch.Tensor, problem: Problem) -> torch.Tensor:
        """Return calibrated probabilities, (num_images, num_classes), by way of float64; regression stays as it is."""
        if (self.temperature == 1 and not self.class_prior) or not problem.has_classes:
            return probabilities
        logits = problem.logits(probabilities)
        if self.class_prior:
            prior = torch.tensor(self.class_prior, dtype=torch.float64, device=probabilities.device)
            logits = logits - self.logit_adjustment * prior.log()
        return problem.probabilities(logits / self.temperature).to(probabilities.dtype)

    def apply(self, probabilities: np.ndarray, problem: Problem) -> np.ndarray:
        """Return what `calibrate` does, for arrays."""
        return self.calibrate(torch.from_numpy(probabilities), problem).numpy()

    def undo(self, calibrated: np.ndarray, problem: Problem) -> np.ndarray:
        """Return the probabilities from which `apply` made these, up to the rounding of their dtype, in float64."""
        if not problem.has_classes:
            return calibrated
        logits = problem.logits(torch.from_numpy(calibrated)) * self.temperature
        if self.class_prior:
            logits = logits + self.logit_adjustment * torch.tensor(self.class_prior, dtype=torch.float64).log()
        return problem.probabilities(logits).numpy()


@cpu_threads(1)  # short operations, between which threads would wait for each other on a busy machine
def fit_calibration(
    probabilities: np.ndarray,
    targets: np.ndarray,
    problem: Problem,
    class_prior: np.ndarray | None = None,
    groups: Groups = None,
) -> Calibration:
    """Return the calibration of maximum posterior probability, given held-out labels; regression is not calibrated.

    With few images the likelihood is flat, and if all of them are classified correctly its maximum is a temperature of
    0. So the logarithm of the temperature and the logit adjustment have normal priors, which dominate with ten images
    and do not matter with hundreds. `Calibration.ece_after` is cross-fitted in `NUM_FOLDS` folds, each of whole
    `groups`. No `class_prior`, equal class frequencies, or an accuracy that is worse by more than `NUM_ERRORS` standard
    errors give no logit adjustment: it can move all images to a rare class if outputs are almost constant.
    """
    rng = np.random.default_rng(0)
    if not problem.has_classes or len(targets) < 2:
        return Calibration()
    if (most := max(200, MAX_ELEMENTS // len(problem.classes))) < len(targets):
        rows = stratified_order(problem.strata(targets), rng)[:most]
        probabilities, targets = probabilities[rows], targets[rows]
        groups = None if groups is None else np.asarray(groups)[rows]
    if class_prior is not None and np.ptp(class_prior) < EQUAL_CLASSES * class_prior.mean():
        class_prior = None
    logits = problem.logits(torch.from_numpy(probabilities)).numpy()
    folds = split_folds(np.zeros(len(targets)), min(NUM_FOLDS, len(targets)), rng, groups)
    after = probabilities.copy()
    for fold in range(folds.max() + 1):
        is_in = folds == fold
        of_others = _most_probable(logits[~is_in], targets[~is_in], problem, class_prior)
        after[is_in] = of_others.apply(probabilities[is_in], problem)
    found = _most_probable(logits, targets, problem, class_prior)
    if found.class_prior and problem.has_one_class:
        change = (found.apply(probabilities, problem).argmax(1) == targets) - 1.0 * (probabilities.argmax(1) == targets)
        if change.sum() < -NUM_ERRORS * math.sqrt((change**2).sum()):
            return fit_calibration(probabilities, targets, problem, None, groups)
    return replace(
        found,
        ece_before=calibration_error(probabilities, targets, problem),
        ece_after=calibration_error(after, targets, problem),
        num_images=len(targets),
    )


def calibration_error(probabilities: np.ndarray, targets: np.ndarray, problem: Problem) -> float:
    """Return the expected calibration error (ECE): the mean difference of confidence and accuracy.

    Images are binned by the probability of their most probable class, in bins of equal width (Naeini et al., "Obtaining
    Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015; Guo et al. 2017). For multilabel problems it is
    the mean over the labels, each binned by its own probability (Kull et al., "Beyond temperature scaling", NeurIPS
    2019). With few images it is positive even for perfect probabilities: see `error_by_chance`.
    """
    return error_of_gaps(*calibration_gaps(probabilities, targets, problem))


def error_by_chance(probabilities: np.ndarray, problem: Problem) -> float:
    """Return the expected `calibration_error` if these probabilities were right: labels are drawn by them."""
    rng = np.random.default_rng(0)
    confidence = problem.confidences(probabilities)
    bins = bin_numbers(confidence)
    num_draws = max(5, NUM_DRAWS // len(confidence))  # an error is a mean over labels, which varies less
    drawn = (confidence - (rng.random(confidence.shape) < confidence) for _ in range(num_draws))
    return float(np.mean([error_of_gaps(bins, gaps) for gaps in drawn]))


def calibration_gaps(probabilities: np.ndarray, targets: np.ndarray, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin of each confidence, and confidence minus outcome; each of shape (k, num_images), k of labels."""
    confidence = problem.confidences(probabilities)
    return bin_numbers(confidence), confidence.astype(np.float64) - problem.outcomes(probabilities, targets)


def error_of_gaps(bins: np.ndarray, gaps: np.ndarray) -> float:
    """Return the calibration error of `calibration_gaps`, or of some of their columns."""
    of_labels = bins + NUM_BINS * np.arange(len(bins))[:, None]
    sums = np.bincount(of_labels.ravel(), gaps.ravel(), NUM_BINS * len(bins))
    return float(np.abs(sums).sum() / gaps.size)


def bin_numbers(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each probability, int64 from 0 to `NUM_BINS` - 1."""
    return np.asarray(np.clip(np.ceil(confidence * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1))


def _loss_and_gradients(
    logits: np.ndarray, targets: np.ndarray, problem: Problem, scale: float
) -> tuple[float, float, np.ndarray]:
    """Return the summed loss of outputs times `scale`, and its gradients by the scale and by a shift of each class."""
    outputs, soft = torch.from_numpy(scale * logits), problem.soft_targets(torch.from_numpy(targets)).double()
    gradient = problem.output_gradient(outputs, soft).numpy()
    loss = problem.output_losses(outputs, soft).sum().item()
    return loss, float((gradient * logits).sum()), scale * gradient.sum(0)


def _most_probable(
    logits: np.ndarray, targets: np.ndarray, problem: Problem, class_prior: np.ndarray | None
) -> Calibration:
    """Minimise the negative log posterior of the log-temperature and the logit adjustment by L-BFGS."""
    from scipy.optimize import minimize  # type: ignore[import-untyped]  # slow to import, and predictions do not use it

    log_prior = 0.0 if class_prior is None else np.log(class_prior)

    def cost(found: np.ndarray) -> tuple[float, np.ndarray]:
        log_temperature, power = found
        scale = math.exp(-log_temperature)
        loss, by_scale, by_class = _loss_and_gradients(logits - power * log_prior, targets, problem, scale)
        loss += log_temperature**2 / (2 * PRIOR_STD**2) + (power - start[1]) ** 2 / (2 * ADJUSTMENT_STD**2)
        by_log_temperature = log_temperature / PRIOR_STD**2 - scale * by_scale
        by_power = (power - start[1]) / ADJUSTMENT_STD**2 - np.sum(by_class * log_prior)
        return loss, np.array([by_log_temperature, by_power])

    start = np.array([0.0, 0.0 if class_prior is None else ADJUSTMENT])
    bounds = [(-_MAX_LOG_TEMPERATURE, _MAX_LOG_TEMPERATURE), (0.0, 0.0 if class_prior is None else _MAX_ADJUSTMENT)]
    log_temperature, power = minimize(cost, start, method="L-BFGS-B", jac=True, bounds=bounds).x.tolist()
    if class_prior is None:
        return Calibration(math.exp(log_temperature))
    return Calibration(math.exp(log_temperature), logit_adjustment=power, class_prior=tuple(class_prior.tolist()))
