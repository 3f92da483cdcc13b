"""Fit linear classifier layers to frozen features; all penalties and folds are fitted at once, as more columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from saccade.data.splitting import Groups, split_folds
from saccade.tasks.problem import Problem

PENALTIES = (1.0, 5.0, 25.0, 125.0)
"""Weights of the squared coefficients relative to the sum of the losses, for features with a mean square of 1."""

DEFAULT_PENALTY = 20.0
"""Used without time or data for cross-validation."""

NUM_FOLDS = 3
MAX_STEPS = 200
LEAST_STEPS = 30
"""Steps that are taken even after the deadline; after fewer a head is neither accurate nor confident."""

TOLERANCE = 3e-3
"""A fit has converged when a step changes the outputs by less than this, relative to their size."""

CHOOSING_TOLERANCE = 1e-2
"""The same in cross-validation."""

MANY_OUTPUTS = 100
"""Number of outputs above which steps that are safe for any outputs are too short."""

EASING = 0.9
"""Factor on the assumed curvature after each step."""

ROUNDING = 1e-5
"""Relative error of a sum of losses in float32, with a margin."""

MAX_COLUMNS = 500
"""Most columns of all heads together; with many outputs, fewer penalties are tried."""


@dataclass(frozen=True)
class Head:
    """A fitted linear layer, float32."""

    weight: np.ndarray  # (num_outputs, num_features)
    bias: np.ndarray  # (num_outputs,)
    penalty: float  # the chosen one
    held_out: np.ndarray | None = None  # out-of-fold outputs, (num_images, num_outputs); None without folds


def fit_heads(
    features: np.ndarray,
    targets: np.ndarray,
    problem: Problem,
    weights: np.ndarray | None = None,
    seconds_left: Callable[[], float] = lambda: 1.0,
    *,
    penalties: Sequence[float] = PENALTIES,
    num_folds: int = NUM_FOLDS,
    seed: int = 0,
    groups: Groups = None,
) -> Head:
    """Fit a linear head, with the penalty chosen by cross-validation: logistic, or least squares for regression.

    The heads of all penalties and folds are columns of one problem. After a rotation of the features into their
    principal axes, Böhning's bound on the curvature of the logistic loss [1]_ is diagonal and the same for every fold.
    So a step costs two matrix products and cannot overshoot; Nesterov's momentum with restarts [2]_ accelerates it.
    With many outputs the bound is far too large, so smaller curvatures are tried with backtracking [3]_.

    A multilabel problem is one logistic regression per label. Image `weights` have the shape (num_images,) or, for
    multilabel problems, (num_images, num_labels). If `seconds_left` falls to 0, there is no cross-validation, and no
    step beyond `LEAST_STEPS`. Images with equal `groups` are in one fold. One fold is no cross-validation: it uses
    `DEFAULT_PENALTY`, or the only one given.

    References
    ----------
    .. [1] D. Böhning, "Multinomial logistic regression algorithm", Annals of the Institute of Statistical Mathematics
       44, 1992.
    .. [2] B. O'Donoghue and E. Candès, "Adaptive restart for accelerated gradient schemes", 2015.
    .. [3] K. Scheinberg, D. Goldfarb and X. Bai, "Fast first-order methods for composite convex optimization with
       backtracking", Foundations of Computational Mathematics 14, 2014.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> targets = np.arange(60) % 3
    >>> head = fit_heads(rng.normal(size=(60, 8)) + 2 * np.eye(8)[targets], targets, Problem.of(list("abc") * 20))
    >>> head.weight.shape
    (3, 8)
    """
    fitter = HeadFitter(features, targets, problem, groups)
    return fitter.fit(weights, seconds_left, penalties=penalties, num_folds=num_folds, seed=seed)


class HeadFitter:
    """Fits heads as `fit_heads` with several image weights; the principal axes are computed once."""

    def __init__(self, features: np.ndarray, targets: np.ndarray, problem: Problem, groups: Groups = None) -> None:
        self._targets, self._groups = targets, groups
        self._rows = _Rows.of(features, targets, problem)

    def fit(
        self,
        weights: np.ndarray | None = None,
        seconds_left: Callable[[], float] = lambda: 1.0,
        *,
        penalties: Sequence[float] = PENALTIES,
        num_folds: int = NUM_FOLDS,
        seed: int = 0,
    ) -> Head:
        """As `fit_heads`."""
        rows = self._rows.weighted(weights)
        most = max(1, MAX_COLUMNS // rows.num_outputs)
        num_folds = min(num_folds, most, len(self._targets))
        if num_folds < 2 or seconds_left() <= 0:
            return rows.fitted(penalties[0] if len(penalties) == 1 else DEFAULT_PENALTY, None, seconds_left)
        tried = _thinned(penalties, max(1, most // num_folds))
        strata = rows.problem.strata(self._targets)
        fold = split_folds(strata, num_folds, np.random.default_rng(seed), self._groups)
        held_out = rows.held_out(tried, fold, seconds_left)
        best = int(torch.argmin(rows.losses(held_out)))
        return rows.fitted(tried[best], held_out[best], seconds_left)


@dataclass(frozen=True)
class _Rows:
    """Images in the coordinates of their features' principal axes."""

    axes: torch.Tensor  # (num_features, rank)
    mean: torch.Tensor  # (num_features,)
    scale: float
    z: torch.Tensor  # (num_images, 1 + rank), the first column of ones
    curvature: torch.Tensor  # (1 + rank,), bound on the second derivative in each direction
    targets: torch.Tensor  # (num_images, num_outputs)
    problem: Problem
    weights: torch.Tensor  # (num_images, num_outputs) or (num_images, 1)

    @classmethod
    def of(cls, features: np.ndarray, targets: np.ndarray, problem: Problem) -> _Rows:
        x = torch.tensor(features, dtype=torch.float32)
        mean = x.mean(0)
        x = x - mean
        scale = float(x.square().mean().sqrt()) or 1.0
        x = x / scale
        # Principal axes from the smaller of the two Gram matrices, which have the same eigenvalues.
        if len(x) < x.shape[1]:
            values, vectors = torch.linalg.eigh((x @ x.T).double())
            kept = values > 1e-6 * values[-1].clamp(min=1e-12)
            axes = (x.T @ vectors[:, kept].float()) / values[kept].sqrt().float()
        else:
            values, vectors = torch.linalg.eigh((x.T @ x).double())
            kept = values > 1e-6 * values[-1].clamp(min=1e-12)
            axes = vectors[:, kept].float()
        z = torch.cat([torch.ones(len(x), 1), x @ axes], 1)
        # Columns are orthogonal, so the bound is diagonal; the factor covers rounding.
        curvature = 1.01 * problem.curvature_bound * z.square().sum(0)
        return cls(
            axes,
            mean,
            scale,
            z,
            curvature,
            problem.soft_targets(torch.as_tensor(targets)),
            problem,
            torch.ones(len(x), 1),
        )

    def weighted(self, weights: np.ndarray | None) -> _Rows:
        """Return the same images with weights."""
        if weights is None:
            return self
        by_image = torch.tensor(weights, dtype=torch.float32)
        by_image = by_image[:, None] if by_image.ndim == 1 else by_image
        return replace(self, weights=by_image, curvature=self.curvature * float(by_image.max()))

    @property
    def num_outputs(self) -> int:
        return self.targets.shape[1]

    def held_out(self, penalties: Sequence[float], fold: np.ndarray, seconds_left: Callable[[], float]) -> torch.Tensor:
        """Return out-of-fold outputs of shape (num_penalties, num_images, num_outputs)."""
        # One head per penalty and fold; `seen` masks the images of the other folds, which it is fitted to.
        num_folds = int(fold.max()) + 1
        of_fold = torch.as_tensor(fold)
        seen = torch.stack([(of_fold != number).float() for number in range(num_folds)])  # (num_folds, num_images)
        heads = torch.tensor(penalties, dtype=torch.float32).repeat_interleave(num_folds)
        found = self._solve(heads, seen.repeat(len(penalties), 1), CHOOSING_TOLERANCE, seconds_left)
        outputs = self.outputs_of(found)
        # For each image, the output of the head that was not fitted to its fold.
        by_penalty = outputs.view(len(penalties), num_folds, len(fold), self.num_outputs)
        return by_penalty[:, of_fold, torch.arange(len(fold))]

    def fitted(self, penalty: float, held_out: torch.Tensor | None, seconds_left: Callable[[], float]) -> Head:
        """Fit a head to all images, and rotate it back to the original features."""
        (found,) = self._solve(torch.tensor([penalty]), torch.ones(1, len(self.z)), TOLERANCE, seconds_left)
        weight = (self.axes @ found[1:]).T / self.scale
        bias = found[0] - weight @ self.mean
        out = None if held_out is None else held_out.numpy()
        return Head(weight.numpy(), bias.numpy(), penalty, out)

    def losses(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of outputs of shape (num_heads, num_images, num_outputs)."""
        return self._by_output(outputs).mean((1, 2))

    def summed_losses(self, outputs: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Return the sum of the losses over the images in `seen` of each head; its derivative is `slope`."""
        return (self._by_output(outputs) * seen[..., None]).sum((1, 2))

    def _by_output(self, outputs: torch.Tensor) -> torch.Tensor:
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

    def __init__(self, rows: _Rows, penalties: torch.Tensor, seen: torch.Tensor) -> None:
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
            before, after = (rows.summed_losses(each, self._seen) for each in (self._outputs_ahead, outputs))
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


def _thinned(penalties: Sequence[float], most: int) -> list[float]:
    """Return at most `most` penalties, evenly spaced."""
    if len(penalties) <= most:
        return list(penalties)
    places = np.linspace(0, len(penalties) - 1, most + 2)[1:-1]
    return [penalties[round(place)] for place in places]
