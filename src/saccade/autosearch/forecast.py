"""Forecasts of learning curves: expected curves, corrected by observed scores with a Gaussian process."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

EARLIEST = 0.5  # the epoch that epoch 0, a linear probe, counts as


@dataclass(frozen=True)
class KernelSettings:
    """Standard deviations (sd) and lengths of the forecaster's kernel, for scores between 0 and 1.

    The defaults maximise the marginal likelihood of recorded curves (``python -m benchmarks.fit_forecaster``), for each
    data set with a portfolio learned from the others.
    """

    scale_sd: float = 0.2  # of a factor on all expected scores of the data set
    offset_sd: float = 0.03  # of a constant added to all of them
    similar_sd: float = 0.15  # of deviations that similar configurations share
    similar_length: float = 1.8  # of their squared-exponential kernel
    own_sd: float = 0.175  # of deviations of single configurations
    epoch_length: float = 5.4  # over which deviations persist, in the natural logarithm of the epoch
    noise_sd: float = 0.006  # of an observed score
    rough_sd: float = 0.16  # added after the first epoch from a new classifier layer, which depends on the warm-up


# For trainings that start from a linear probe; the recordings have none, so these are not fitted.
AFTER_PROBES = KernelSettings(
    scale_sd=0.08, offset_sd=0.08, similar_sd=0.18, similar_length=2.5, own_sd=0.22, epoch_length=1.5, noise_sd=0.02
)


@dataclass(frozen=True)
class Forecast:
    """Forecasts of the best score up to each epoch, shape (num_configs, num_epochs)."""

    mean: np.ndarray
    sd: np.ndarray


class Forecaster:
    """A Gaussian process over the deviations of scores from their expectations.

    Deviations persist along a learning curve, as in freeze-thaw optimisation (Swersky, Snoek and Adams, "Freeze-thaw
    Bayesian optimization", arXiv:1406.3896, 2014). Similar configurations share them, and in part all configurations
    do, since data sets differ in difficulty.

    Only the latest score of a configuration is used. Deviations persist like a Markov process, so earlier scores add
    little. The cost is cubic in `max_observations`; with more configurations only the best and the latest are used.
    `epochs`, ascending, are those of forecasts.
    """

    def __init__(self, epochs: list[float] | tuple[float, ...], max_observations: int = 128) -> None:
        self.epochs = np.asarray(epochs, dtype=float)
        self.settings = KernelSettings()
        self.max_observations = max_observations
        self._points: list[np.ndarray] = []
        self._expected: list[np.ndarray] = []
        self._observed: dict[int, tuple[float, float]] = {}  # epoch and score by configuration, the latest last
        self._rough: set[int] = set()  # configurations with the score of a first epoch

    def add(self, points: np.ndarray | list[list[float]], expected: np.ndarray | list[list[float]]) -> list[int]:
        """Add configurations (similar ones have close points) with expected scores at `epochs`; return numbers."""
        first = len(self._points)
        self._points += list(np.asarray(points, dtype=float))
        self._expected += list(np.asarray(expected, dtype=float))
        return list(range(first, len(self._points)))

    def shift_expected(self, number: int, change: np.ndarray) -> None:
        """Add to the expected scores of a configuration, shape (num_epochs,)."""
        self._expected[number] = self._expected[number] + change

    def observe(self, number: int, epoch: float, score: float, *, is_rough: bool = False) -> None:
        """Use a configuration's best score up to an epoch; see `KernelSettings.rough_sd` for `is_rough`."""
        self._observed.pop(number, None)
        self._observed[number] = (max(epoch, EARLIEST), score)
        (self._rough.add if is_rough else self._rough.discard)(number)

    def forecast(self, numbers: list[int], imagined: Mapping[int, tuple[float, float]] | None = None) -> Forecast:
        """Return the forecasts for some configurations; imagined epochs and scores replace observed ones."""
        cfg = self.settings
        expected_NE = np.stack([self._expected[number] for number in numbers])
        prior_NE = (cfg.scale_sd * expected_NE) ** 2 + cfg.offset_sd**2 + cfg.similar_sd**2 + cfg.own_sd**2
        observed = self._used() | dict(imagined or {})
        if not observed:
            return Forecast(expected_NE, np.sqrt(prior_NE))
        who_O = np.array(list(observed))
        epochs_O = np.array([max(epoch, EARLIEST) for epoch, _ in observed.values()])
        when_O = np.log(epochs_O)
        curves = zip(when_O, (self._expected[number] for number in who_O), strict=True)
        expected_O = np.array([np.interp(when, np.log(self.epochs), curve) for when, curve in curves])
        deviation_O = np.array([score for _, score in observed.values()]) - expected_O
        is_rough_O = np.isin(who_O, list(self._rough)) & (epochs_O <= 1)

        # Covariance of the observations O; deviations persist along the logarithm of the epoch.
        points_O = np.stack([self._points[number] for number in who_O])
        own_OO = cfg.own_sd**2 * (who_O[:, None] == who_O[None])
        near_OO = np.exp(-np.abs(when_O[:, None] - when_O[None]) / cfg.epoch_length)
        kernel_OO = cfg.scale_sd**2 * np.outer(expected_O, expected_O) + cfg.offset_sd**2
        kernel_OO += near_OO * (self._similar(points_O, points_O) + own_OO)
        kernel_OO[np.diag_indices(len(who_O))] += cfg.noise_sd**2 + cfg.rough_sd**2 * is_rough_O
        inverse_OO = np.linalg.inv(np.linalg.cholesky(kernel_OO))

        # Covariance of the forecasts at configurations N and epochs E with the observations, and the posterior.
        points_N = np.stack([self._points[number] for number in numbers])
        shared_NO = self._similar(points_N, points_O) + cfg.own_sd**2 * (np.array(numbers)[:, None] == who_O[None])
        near_EO = np.exp(-np.abs(np.log(self.epochs)[:, None] - when_O[None]) / cfg.epoch_length)
        kernel_NEO = (cfg.scale_sd**2 * expected_NE)[..., None] * expected_O + cfg.offset_sd**2
        kernel_NEO += shared_NO[:, None, :] * near_EO[None]
        whitened = kernel_NEO.reshape(-1, len(who_O)) @ inverse_OO.T
        mean_NE = expected_NE + (whitened @ (inverse_OO @ deviation_O)).reshape(expected_NE.shape)
        variance_NE = prior_NE - np.einsum("ij,ij->i", whitened, whitened).reshape(expected_NE.shape)
        return Forecast(mean_NE, np.sqrt(np.maximum(variance_NE, 1e-6)))

    def _similar(self, these: np.ndarray, those: np.ndarray) -> np.ndarray:
        """Return the covariance of the deviations that similar configurations share."""
        squares = (these**2).sum(axis=1)[:, None] + (those**2).sum(axis=1)[None] - 2 * these @ those.T
        cfg = self.settings
        return np.asarray(cfg.similar_sd**2 * np.exp(-0.5 * squares / cfg.similar_length**2))

    def _used(self) -> dict[int, tuple[float, float]]:
        """Return the observations to use: all, or the best and the latest."""
        if len(self._observed) <= self.max_observations:
            return dict(self._observed)
        half = self.max_observations // 2
        latest = list(itertools.islice(reversed(self._observed), half))
        known = set(latest)
        others = (number for number in self._observed if number not in known)
        best = heapq.nlargest(self.max_observations - half, others, key=lambda number: self._observed[number][1])
        return {number: self._observed[number] for number in (*best, *reversed(latest))}
