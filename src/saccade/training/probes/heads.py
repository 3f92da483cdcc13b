"""Fit linear classifier layers to frozen features; all penalties and folds are fitted at once, as more columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from saccade.data.splitting import Groups, split_folds
from saccade.tasks.problem import Problem

PENALTIES = (1.0, 5.0, 25.0, 125.0)  # squared coefficients' weights relative to the summed losses, for unit mean square
DEFAULT_PENALTY = 20.0  # used without time or data for cross-validation

NUM_FOLDS = 3
MAX_STEPS = 200
LEAST_STEPS = 30  # steps that are taken even after the deadline; after fewer a head is neither accurate nor confident
TOLERANCE = 3e-3  # a fit has converged when a step changes the outputs by less than this, relative to their size
CHOOSING_TOLERANCE = 1e-2  # the same in cross-validation
MANY_OUTPUTS = 100  # number of outputs above which steps that are safe for any outputs are too short
EASING = 0.9  # factor on the assumed curvature after each step
ROUNDING = 1e-5  # relative error of a sum of losses in float32, with a margin
MAX_COLUMNS = 500  # most columns of all heads together; with many outputs, fewer penalties are tried


@dataclass(frozen=True)
class Head:
    """A fitted linear layer, float32."""

    weight: np.ndarray  # (num_outputs, num_features)
    bias: np.ndarray  # (num_outputs,)
    penalty: float  # the chosen one
    held_out: np.ndarray | None = None  # out-of-fold outputs, (num_images, num_outputs); None without folds


class HeadFitter:
    """Fits a linear head, with the penalty chosen by cross-validation: logistic, or least squares for regression.

    The heads of all penalties and folds are columns of one problem. After a rotation of the features into their
    principal axes, Böhning's bound on the curvature of the logistic loss ("Multinomial logistic regression algorithm",
    Annals of the Institute of Statistical Mathematics 44, 1992) is diagonal and the same for every fold. So a step
    costs two matrix products and cannot overshoot; Nesterov's momentum with restarts (O'Donoghue and Candès, "Adaptive
    restart for accelerated gradient schemes", 2015) accelerates it. With many outputs the bound is far too large, so
    smaller curvatures are tried with backtracking (Scheinberg, Goldfarb and Bai, "Fast first-order methods for
    composite convex optimization with backtracking", Foundations of Computational Mathematics 14, 2014).

    A multilabel problem is one logistic regression per label. Image `weights` have the shape (num_images,) or, for
    multilabel problems, (num_images, num_labels). If `seconds_left` falls to 0, there is no cross-validation, and no
    step beyond `LEAST_STEPS`. Images with equal `groups` are in one fold. One fold is no cross-validation: it uses
    `DEFAULT_PENALTY`, or the only one given.
    """

    def __init__(
        self,
        features: np.ndarray,
        targets: np.ndarray,
        problem: Problem,
        groups: Groups = None,
        soft: np.ndarray | None = None,  # targets of the loss in place of `targets`, as in `Split`
    ) -> None:
        self._given_targets, self._groups, self.problem = targets, groups, problem
        used = torch.as_tensor(targets if soft is None else soft)
        self.targets = problem.soft_targets(used)  # (num_images, num_outputs)
        self.num_outputs = self.targets.shape[1]
        x = torch.tensor(features, dtype=torch.float32)
        self._mean = x.mean(0)
        x = x - self._mean
        self._scale = float(x.square().mean().sqrt()) or 1.0
        x = x / self._scale
        # Principal axes from the smaller of the two Gram matrices, which have the same eigenvalues.
        is_wide = len(x) < x.shape[1]
        values, vectors = torch.linalg.eigh((x @ x.T if is_wide else x.T @ x).double())
        kept = values > 1e-6 * values[-1].clamp(min=1e-12)
        axes = vectors[:, kept].float()
        if is_wide:
            axes = (x.T @ axes) / values[kept].sqrt().float()
        self._axes = axes  # (num_features, rank)
        self.z = torch.cat([torch.ones(len(x), 1), x @ axes], 1)  # images in these coordinates, after a column of ones
        # Bound on the second derivative in each direction, (1 + rank,). Columns are orthogonal, so it is diagonal; the
        # factor covers rounding.
        self._bound = 1.01 * problem.curvature_bound * self.z.square().sum(0)

    def fit(
        self,
        weights: np.ndarray | None = None,
        seconds_left: Callable[[], float] = lambda: 1.0,
        *,
        penalties: Sequence[float] = PENALTIES,
        num_folds: int = NUM_FOLDS,
        seed: int = 0,
    ) -> Head:
        """Fit a head; the principal axes are those of earlier fits with other weights."""
        self.weights, self.curvature = torch.ones(len(self.z), 1), self._bound
        if weights is not None:  # (num_images, num_outputs) or (num_images, 1)
            self.weights = torch.tensor(weights, dtype=torch.float32).reshape(len(self.z), -1)
            self.curvature = self._bound * float(self.weights.max())
        most = max(1, MAX_COLUMNS // self.num_outputs)
        num_folds = min(num_folds, most, len(self.z))
        penalty, held_out = penalties[0] if len(penalties) == 1 else DEFAULT_PENALTY, None
        if num_folds >= 2 and seconds_left() > 0:
            tried, most_tried = list(penalties), max(1, most // num_folds)
            if len(tried) > most_tried:  # evenly spaced ones
                tried = [tried[round(place)] for place in np.linspace(0, len(tried) - 1, most_tried + 2)[1:-1]]
            strata = self.problem.strata(self._given_targets)
            fold = torch.as_tensor(split_folds(strata, num_folds, np.random.default_rng(seed), self._groups))
            num_folds = int(fold.max()) + 1
            # One head per penalty and fold; `seen` masks the images of the other folds, which it is fitted to.
            seen = torch.stack([(fold != number).float() for number in range(num_folds)])  # (num_folds, num_images)
            heads = torch.tensor(tried, dtype=torch.float32).repeat_interleave(num_folds)
            found = self._solve(heads, seen.repeat(len(tried), 1), CHOOSING_TOLERANCE, seconds_left)
            # For each image, the output of the head that was not fitted to its fold.
            by_penalty = self.outputs_of(found).view(len(tried), num_folds, len(fold), self.num_outputs)
            out_of_fold = by_penalty[:, fold, torch.arange(len(fold))]  # (num_penalties, num_images, num_outputs)
            best = int(torch.argmin(self.losses(out_of_fold).mean((1, 2))))
            penalty, held_out = tried[best], out_of_fold[best].numpy()
        # A head for all images, rotated back to the original features.
        (solution,) = self._solve(torch.tensor([penalty]), torch.ones(1, len(self.z)), TOLERANCE, seconds_left)
        weight = (self._axes @ solution[1:]).T / self._scale
        bias = solution[0] - weight @ self._mean
        return Head(weight.numpy(), bias.numpy(), penalty, held_out)

    def losses(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return weighted losses of shape (num_heads, num_images, k); k is 1 except for multilabel problems."""
        return self.weights * self.problem.output_losses(outputs, self.targets)

    def outputs_of(self, found: torch.Tensor) -> torch.Tensor:
        """Return outputs of shape (num_heads, num_images, num_outputs)."""
        num_heads, _, num_outputs = found.shape
        flat = self.z @ found.permute(1, 0, 2).reshape(self.z.shape[1], -1)
        return flat.view(-1, num_heads, num_outputs).permute(1, 0, 2)

    def _solve(
        self, penalties: torch.Tensor, seen: torch.Tensor, tolerance: float, seconds_left: Callable[[], float]
    ) -> torch.Tensor:
        """Return coefficients, (num_heads, 1 + rank, num_outputs), of heads fitted to the images in `seen`."""
        descent = _Descent(self, penalties, seen)
        for number in range(1, MAX_STEPS + 1):
            if descent.step() <= tolerance or (number >= LEAST_STEPS and seconds_left() <= 0):
                break
        return descent.found

    def slope(self, outputs: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the loss, of shape (num_heads, 1 + rank, num_outputs)."""
        errors = self.problem.output_gradient(outputs, self.targets) * self.weights * seen[..., None]
        num_heads, num_images, num_outputs = errors.shape
        flat = self.z.T @ errors.permute(1, 0, 2).reshape(num_images, -1)
        return flat.view(-1, num_heads, num_outputs).permute(1, 0, 2)


class _Descent:
    """Nesterov's accelerated proximal gradient descent of many heads at once.

    Böhning's bound on the curvature holds for any outputs, but is ten times too large for a hundred classes of small
    probability, and steps would be ten times too short. So with many outputs each head assumes a fraction of it: less
    after each step, and more after a step that was too long, which is not taken. `seen`, of shape (num_heads,
    num_images), is 1 if a head is fitted to an image, else 0.
    """

    def __init__(self, rows: HeadFitter, penalties: torch.Tensor, seen: torch.Tensor) -> None:
        num_heads, num_columns = len(penalties), rows.z.shape[1]
        self._rows, self._seen = rows, seen
        self._penalty = (penalties[:, None] * torch.cat([torch.zeros(1), torch.ones(num_columns - 1)]))[..., None]
        self._is_easing = rows.num_outputs > MANY_OUTPUTS
        self._part = torch.full((num_heads, 1, 1), 2 / rows.num_outputs if self._is_easing else 1.0)
        self.found = torch.zeros(num_heads, num_columns, rows.num_outputs)
        self._outputs = torch.zeros(num_heads, len(rows.z), rows.num_outputs)
        self._ahead, self._outputs_ahead, self._momentum = self.found, self._outputs, torch.ones(num_heads, 1, 1)

    def step(self) -> float:
        """Take a step; return the largest change of a head's outputs relative to their size."""
        rows = self._rows
        curvature = self._part * rows.curvature[:, None]
        slope = rows.slope(self._outputs_ahead, self._seen)
        # Proximal gradient step: minimise the quadratic model of the loss plus the penalty, which is exact.
        new = (curvature * self._ahead - slope) / (curvature + self._penalty)
        outputs = rows.outputs_of(new)
        is_taken = is_measurable = torch.ones_like(self._momentum, dtype=torch.bool)
        if self._is_easing:
            # A step that leaves the loss above its quadratic model was too long, and is not taken.
            step = new - self._ahead
            both = self._outputs_ahead, outputs
            before, after = ((rows.losses(each) * self._seen[..., None]).sum((1, 2)) for each in both)
            predicted = (slope * step + 0.5 * curvature * step.square()).sum((1, 2))
            is_taken = (after <= before + predicted + ROUNDING * before)[:, None, None]
            is_measurable = (predicted.abs() > ROUNDING * before)[:, None, None]
        moved = new - self.found
        # Momentum that points uphill is dropped, for each head by itself.
        uphill = ((slope + self._penalty * self._ahead) * moved).sum((1, 2), keepdim=True) > 0
        faster = torch.where(uphill, 1.0, (1 + (1 + 4 * self._momentum.square()).sqrt()) / 2)
        pull = torch.where(uphill, 0.0, (self._momentum - 1) / faster)
        self._ahead = torch.where(is_taken, new + pull * moved, self.found)
        self._outputs_ahead = torch.where(is_taken, outputs + pull * (outputs - self._outputs), self._outputs)
        self.found = torch.where(is_taken, new, self.found)
        self._outputs = torch.where(is_taken, outputs, self._outputs)
        self._momentum = torch.where(is_taken, faster, 1.0)
        if self._is_easing:
            # Near the optimum rounding hides whether a step was too long; steps that grew then would never converge.
            eased = torch.where(is_measurable, self._part * EASING, self._part)
            self._part = torch.where(is_taken, eased, self._part * 2).clamp(max=1.0)
        size = (rows.curvature[:, None] * new.square()).sum((1, 2))
        change = (rows.curvature[:, None] * moved.square()).sum((1, 2)) / size.clamp(min=1e-12)
        return float(torch.where(is_taken.flatten(), change, torch.inf).max().sqrt())


# Linear probes with generalised cross entropy, a loss that is robust to wrong labels. The gradient of cross entropy is
# largest for images whose labels have a small predicted probability, among them wrong labels. Generalised cross entropy
# multiplies the gradient by p ** q, p being the probability of the label: q = 0 is cross entropy, q = 1 the mean
# absolute error, which is robust but slow to optimise (Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training
# Deep Neural Networks with Noisy Labels", NeurIPS 2018).
AUTO_Q = 0.7  # the q of Zhang and Sabuncu, used if labels are found to be wrong
NUM_ROUNDS = 2  # reweighted fits after the first; the weights come from the out-of-fold predictions of the fit before
IMPOSSIBLE = 0.02  # out-of-fold probability below which a label may be wrong
NUM_ERRORS = 2.0  # standard errors by which the robust fit must be more accurate


def belief_weights(
    held_out: np.ndarray, targets: np.ndarray, problem: Problem, q: float, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return image weights, of mean 1 times `weights`, with which cross entropy has the gradient of the robust loss."""
    probabilities = problem.activate(torch.as_tensor(held_out)).numpy()
    # Probability of each label, to the power of q, scaled to a mean of 1.
    believed = problem.loss_terms(probabilities, targets)
    doubted = (believed[:, 0] if problem.has_one_class else believed) ** q
    doubted = doubted / doubted.mean()
    return np.asarray(doubted if weights is None else (doubted.T * weights.T).T, np.float32)


def fit_robust_heads(
    features: np.ndarray,
    targets: np.ndarray,
    problem: Problem,
    q: float | None,
    weights: np.ndarray | None = None,
    seconds_left: Callable[[], float] = lambda: 1.0,
    seed: int = 0,
    groups: Groups = None,
    soft: np.ndarray | None = None,
) -> tuple[Head, float]:
    """Fit a linear head by `HeadFitter`, and again with images weighted by the probability of their labels.

    Returns the head and its q, as in `Problem.loss`; 0, or no folds, is a single fit. None is `AUTO_Q` if labels
    `look_wrong` and the robust head has a better out-of-fold accuracy by `NUM_ERRORS` standard errors, else 0. Labels
    that are wrong at random lower the accuracy of all heads alike, so it still ranks them (Ghosh et al., "Making risk
    minimization tolerant to label noise", Neurocomputing 2015).
    """
    fitter = HeadFitter(features, targets, problem, groups, soft)
    first = fitter.fit(weights, seconds_left, seed=seed)
    is_automatic = q is None
    if q is None:
        q = AUTO_Q if look_wrong(first.held_out, targets, problem) else 0.0
    head = first
    for _ in range(NUM_ROUNDS if q else 0):
        if head.held_out is None or seconds_left() <= 0:
            break
        believed = belief_weights(head.held_out, targets, problem, q, weights)
        head = fitter.fit(believed, seconds_left, penalties=(head.penalty,), seed=seed)
    if head is first:
        return first, 0.0
    if is_automatic:  # a paired test of out-of-fold accuracies over the images
        if head.held_out is None or first.held_out is None:
            return first, 0.0
        gain = (head.held_out.argmax(1) == targets).astype(np.float64) - (first.held_out.argmax(1) == targets)
        if not gain.mean() > NUM_ERRORS * gain.std() / np.sqrt(len(gain)):
            return first, 0.0
    return head, q


def look_wrong(held_out: np.ndarray | None, targets: np.ndarray, problem: Problem) -> bool:
    """Return whether labels of small out-of-fold probability are more frequent than predicted (single labels only)."""
    if held_out is None or not problem.has_one_class:
        return False
    probabilities = problem.activate(torch.as_tensor(held_out)).numpy()
    given = probabilities[np.arange(len(targets)), targets] < IMPOSSIBLE
    expected = np.where(probabilities < IMPOSSIBLE, probabilities, 0).sum(1)
    return bool(given.mean() > expected.mean())
