"""What an epoch costs: what was learned elsewhere, corrected by what was measured here."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

_ALIKE = 9.0
"""How much more a measurement says about configurations of the same network than about others."""

_PROBE_PART = 0.5
"""What a probe of frozen features is taken to cost, in epochs: it goes forward once, and fits last layers."""


_PROBE_AGAIN_PART = 0.15
"""The same for a network that was probed before, whose features are kept."""


class EpochCosts:
    """Seconds of an epoch, for each configuration.

    Parameters
    ----------
    log_speed : float or None
        Natural logarithm of the factor between this machine and that of the predictions; None is not known.
    prior_weight : float
        How many configurations it counts as much as.
    probed_part : float
        The part of an epoch's images that a probe looks at.

    Examples
    --------
    >>> costs = EpochCosts(log_speed=0.0)
    >>> costs.add(np.log([2.0, 4.0]), ["small", "large"])
    >>> costs.observe(0, epoch=1, seconds=2.0)
    >>> costs.seconds([0, 1], np.array([[3.0], [3.0]])).ravel().round(1)
    array([ 4., 12.])
    """

    def __init__(self, log_speed: float | None = None, prior_weight: float = 1.0, probed_part: float = 1.0) -> None:
        self._prior = log_speed or 0.0
        self._probe_part, self._probe_again_part = _PROBE_PART * probed_part, _PROBE_AGAIN_PART * probed_part
        self._prior_weight = 1e-3 if log_speed is None else prior_weight
        self._predicted: list[float] = []
        self._groups: list[Hashable] = []
        self._measured: dict[int, tuple[int, float]] = {}  # configuration: epochs, seconds of one
        self._probes: dict[int, float] = {}
        self._residuals: dict[int, float] = {}
        self._sums: dict[Hashable, tuple[float, int]] = {}
        self._starts_with_probe: list[bool] = []
        self._has_probes = False
        self._probed: set[Hashable] = set()

    def add(
        self,
        log_epoch_s: Sequence[float] | np.ndarray,
        groups: Sequence[Hashable],
        starts_with_probe: Sequence[bool] | None = None,
    ) -> None:
        """Take up configurations, numbered on from those before; those of a group cost about the same an image."""
        self._starts_with_probe += starts_with_probe or [False] * len(groups)
        self._predicted += [float(value) for value in log_epoch_s]
        self._groups += list(groups)

    def observe(self, number: int, epoch: int, seconds: float) -> None:
        """Learn what a configuration has cost up to an epoch; epoch 0 is a probe of frozen features."""
        if epoch < 1:
            self._has_probes = True
            self._probes[number] = seconds
            if self._groups[number] in self._probed:
                return  # it was quick because features were kept, and says nothing of an epoch
            self._probed.add(self._groups[number])
            epoch_s = max(seconds, 1e-6) / self._probe_part
        else:
            epoch_s = max(seconds - self._probes.get(number, 0.0), 1e-6) / epoch
            self._measured[number] = (epoch, epoch_s)
        residual = math.log(epoch_s) - self._predicted[number]
        total, num = self._sums.get(self._groups[number], (0.0, 0))
        if number in self._residuals:
            total, num = total - self._residuals[number], num - 1
        self._sums[self._groups[number]] = (total + residual, num + 1)
        self._residuals[number] = residual

    def epoch_s(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the seconds of an epoch, shape (num_configs,)."""
        total = self._prior * self._prior_weight + sum(part for part, _ in self._sums.values())
        weight = self._prior_weight + sum(num for _, num in self._sums.values())
        known = []
        for number in numbers:
            if number in self._measured:
                known.append(self._measured[number][1])
                continue
            own_total, own_num = self._sums.get(self._groups[number], (0.0, 0))
            shift = (total + _ALIKE * own_total) / (weight + _ALIKE * own_num)
            known.append(math.exp(min(self._predicted[number] + shift, 50.0)))
        return np.array(known)

    def seconds(self, numbers: Sequence[int], until_epochs: np.ndarray) -> np.ndarray:
        """Return the seconds still to be spent to reach epochs.

        Parameters
        ----------
        numbers
            The configurations.
        until_epochs : ndarray of float, shape (num_configs, num_epochs)
            The epochs to reach.

        Returns
        -------
        ndarray of float64, shape (num_configs, num_epochs)
            Not positive for epochs that were trained already.
        """
        done = np.array([self._measured[number][0] if number in self._measured else 0 for number in numbers])
        fresh = [
            (self._has_probes or self._starts_with_probe[number])
            and number not in self._measured
            and number not in self._probes
            for number in numbers
        ]
        again = [self._groups[number] in self._probed for number in numbers]
        start = np.where(fresh, np.where(again, self._probe_again_part, self._probe_part), 0.0)
        left: np.ndarray = (until_epochs - done[:, None] + start[:, None]) * self.epoch_s(numbers)[:, None]
        return left
