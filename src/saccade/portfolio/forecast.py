"""Forecasts of learning curves: what was expected of each configuration, corrected by what the search has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

EARLIEST = 0.5
"""The epoch that a report of epoch 0, a probe of frozen features, counts as."""


@dataclass(frozen=True)
class KernelSettings:
    """Standard deviations and lengths of the forecaster's kernel; scores are between 0 and 1.

    Attributes
    ----------
    scale_sd : float
        By how much all scores of the data set may be higher or lower than expected, in proportion.
    offset_sd : float
        The same as an equal amount for all.
    like_sd, like_length : float
        How far like configurations differ from what is expected, together; and what is alike.
    own_sd : float
        How far a configuration differs from what is expected, by itself.
    epoch_length : float
        Over which ratio of epochs (its natural logarithm) such differences persist.
    noise_sd : float
        Of a score that was seen.
    """

    scale_sd: float = 0.08
    offset_sd: float = 0.08
    like_sd: float = 0.18
    like_length: float = 2.5
    own_sd: float = 0.22
    epoch_length: float = 1.5
    noise_sd: float = 0.02


@dataclass(frozen=True)
class Forecast:
    """Scores to come.

    Attributes
    ----------
    mean, sd : ndarray of float64, shape (num_configs, num_epochs)
        Of the best score up to each epoch.
    """

    mean: np.ndarray
    sd: np.ndarray


class Forecaster:
    """A Gaussian process over what scores differ by from what was expected of them.

    Differences persist along a learning curve, as in freeze-thaw optimisation [1]_; they are shared by configurations
    that are alike; and in part by all, since no two data sets are equally hard. Cost grows with the cube of
    `max_observations`, not with the length of the search: beyond that number only the best and the latest are used.

    Parameters
    ----------
    epochs : sequence of float
        Where forecasts are made, ascending.
    settings : KernelSettings or None
        The kernel.
    max_observations : int
        How many observations are used at most.

    References
    ----------
    .. [1] K. Swersky, J. Snoek and R. P. Adams, "Freeze-thaw Bayesian optimization", arXiv:1406.3896, 2014.

    Examples
    --------
    >>> forecaster = Forecaster([1, 3, 9])
    >>> one, other = forecaster.add([[0.0], [9.0]], expected=[[0.3, 0.5, 0.6], [0.3, 0.5, 0.6]])
    >>> forecaster.observe(one, epoch=1, score=0.5)
    >>> mean = forecaster.forecast([one, other]).mean
    >>> bool(mean[0, 2] > mean[1, 2] > 0.6)
    True
    """

    def __init__(
        self,
        epochs: list[float] | tuple[float, ...],
        settings: KernelSettings | None = None,
        max_observations: int = 128,
    ) -> None:
        self.epochs = np.asarray(epochs, dtype=float)
        self.settings = settings or KernelSettings()
        self.max_observations = max_observations
        self._points: list[np.ndarray] = []
        self._expected: list[np.ndarray] = []
        self._observed: list[tuple[int, float, float]] = []  # configuration, epoch, score

    def add(self, points: np.ndarray | list[list[float]], expected: np.ndarray | list[list[float]]) -> list[int]:
        """Take up configurations, and return their numbers.

        Parameters
        ----------
        points : array of float, shape (num_configs, num_dimensions)
            Their distances tell how alike they are.
        expected : array of float, shape (num_configs, num_epochs)
            The scores expected of them at `epochs`.
        """
        first = len(self._points)
        self._points += list(np.asarray(points, dtype=float))
        self._expected += list(np.asarray(expected, dtype=float))
        return list(range(first, len(self._points)))

    def expect_more(self, number: int, more: np.ndarray) -> None:
        """Add to the scores that are expected of a configuration, shape (num_epochs,)."""
        self._expected[number] = self._expected[number] + more

    def observe(self, number: int, epoch: float, score: float) -> None:
        """Learn the best score of a configuration up to an epoch."""
        self._observed.append((number, max(epoch, EARLIEST), score))

    def forecast(self, numbers: list[int], imagined: list[tuple[int, float, float]] | tuple[()] = ()) -> Forecast:
        """Return the forecasts for some configurations.

        Parameters
        ----------
        numbers
            The configurations.
        imagined
            Further observations, which are only assumed: configuration, epoch, score.
        """
        cfg = self.settings
        expected_NE = np.stack([self._expected[number] for number in numbers])
        own_sds = (cfg.scale_sd * expected_NE) ** 2 + cfg.offset_sd**2 + cfg.like_sd**2 + cfg.own_sd**2
        observed = self._used() + list(imagined)
        if not observed:
            return Forecast(expected_NE, np.sqrt(own_sds))
        who = np.array([number for number, _, _ in observed])
        when = np.log([max(epoch, EARLIEST) for _, epoch, _ in observed])
        scores = np.array([score for _, _, score in observed])
        expected_O = np.array([self._expected_at(number, epoch) for number, epoch, _ in observed])

        points_O = np.stack([self._points[number] for number in who])
        like_OO = self._like(points_O, points_O)
        same_OO = who[:, None] == who[None]
        near_OO = np.exp(-np.abs(when[:, None] - when[None]) / cfg.epoch_length)
        common = cfg.scale_sd**2 * np.outer(expected_O, expected_O) + cfg.offset_sd**2
        kernel_OO = common + near_OO * (like_OO + cfg.own_sd**2 * same_OO)
        kernel_OO[np.diag_indices(len(who))] += cfg.noise_sd**2
        factor = np.linalg.cholesky(kernel_OO)
        inverse = np.linalg.inv(factor)

        points_N = np.stack([self._points[number] for number in numbers])
        shared_NO = self._like(points_N, points_O) + cfg.own_sd**2 * (np.array(numbers)[:, None] == who[None])
        near_EO = np.exp(-np.abs(np.log(self.epochs)[:, None] - when[None]) / cfg.epoch_length)
        kernel_NEO = (cfg.scale_sd**2 * expected_NE)[..., None] * expected_O + cfg.offset_sd**2
        kernel_NEO += shared_NO[:, None, :] * near_EO[None]
        whitened = kernel_NEO.reshape(-1, len(who)) @ inverse.T
        mean = expected_NE + (whitened @ (inverse @ (scores - expected_O))).reshape(expected_NE.shape)
        variance = own_sds - np.einsum("ij,ij->i", whitened, whitened).reshape(expected_NE.shape)
        return Forecast(mean, np.sqrt(np.maximum(variance, 1e-6)))

    def _like(self, these: np.ndarray, those: np.ndarray) -> np.ndarray:
        """Return the covariance of what like configurations have in common."""
        squares = (these**2).sum(axis=1)[:, None] + (those**2).sum(axis=1)[None] - 2 * these @ those.T
        like: np.ndarray = self.settings.like_sd**2 * np.exp(-0.5 * squares / self.settings.like_length**2)
        return like

    def _expected_at(self, number: int, epoch: float) -> float:
        return float(np.interp(math.log(max(epoch, EARLIEST)), np.log(self.epochs), self._expected[number]))

    def _used(self) -> list[tuple[int, float, float]]:
        """Return the observations to use: all, or the latest and the best."""
        if len(self._observed) <= self.max_observations:
            return self._observed
        half = self.max_observations // 2
        latest = self._observed[-half:]
        best = sorted(self._observed[:-half], key=lambda seen: -seen[2])[: self.max_observations - half]
        return best + latest
