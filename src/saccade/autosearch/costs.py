"""Seconds of an epoch for each configuration: predicted, and corrected by measurements."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Sequence

import numpy as np

_SAME_NETWORK_WEIGHT = 9.0  # additional weight of a measurement for configurations of the same network
_PROBE_PART = 0.5  # cost of a linear probe in epochs: one forward pass, and the fit of the classifier layer
_PROBE_AGAIN_PART = 0.15  # the same for a network that was probed before, whose features are cached


class EpochCosts:
    """Seconds of an epoch for each configuration.

    `log_speed` is the natural logarithm of the duration of an epoch on this machine, relative to the predictions; None
    is unknown. `prior_weight` is its weight in measured configurations. A probe uses `probed_part` of an epoch's
    images. An earlier fit cached the features of the networks in `cached`.
    """

    def __init__(
        self,
        log_speed: float | None = None,
        prior_weight: float = 1.0,
        probed_part: float = 1.0,
        cached: Collection[Hashable] = (),
    ) -> None:
        self._prior = log_speed or 0.0
        self._prior_weight = 1e-3 if log_speed is None else prior_weight
        self._is_measured = log_speed is not None
        self._probe_part, self._probe_again_part = _PROBE_PART * probed_part, _PROBE_AGAIN_PART * probed_part
        # By number of the configuration:
        self._predicted: list[float] = []
        self._networks: list[Hashable] = []
        self._starts_with_probe: list[bool] = []
        self._measured: dict[int, tuple[int, float]] = {}  # epochs, and seconds of one
        self._probe_s: dict[int, float] = {}
        self._residuals: dict[int, float] = {}  # log of measured over predicted seconds
        self._sums: dict[Hashable, tuple[float, int]] = {}  # sum and number of residuals by network
        self._probed = set(cached)
        self._probe_gain = 1.0

    def add(
        self,
        log_epoch_s: Sequence[float] | np.ndarray,
        networks: Sequence[Hashable],
        starts_with_probe: Sequence[bool] | None = None,
    ) -> None:
        """Add configurations with their predictions; they are numbered in this order, from 0."""
        self._starts_with_probe += starts_with_probe or [False] * len(networks)
        self._predicted += [float(value) for value in log_epoch_s]
        self._networks += list(networks)

    def set_log_speed(self, log_speed: float) -> None:
        """Use the speed that a worker has measured, unless there was one before."""
        if not self._is_measured:
            self._prior, self._prior_weight, self._is_measured = log_speed, 1.0, True

    def observe(self, number: int, epoch: int, seconds: float) -> None:
        """Use the seconds of a configuration up to an epoch; epoch 0 is a linear probe."""
        network = self._networks[number]
        if epoch < 1:
            self._probe_s[number] = seconds
            if network in self._probed:
                return  # its features were cached, so its time shows nothing about an epoch
            self._probed.add(network)
            epoch_s = max(seconds, 1e-6) / self._probe_part
        else:
            epoch_s = max(seconds - self._probe_s.get(number, 0.0), 1e-6) / epoch
            self._measured[number] = (epoch, epoch_s)
        residual = math.log(epoch_s) - self._predicted[number]
        total, num = self._sums.get(network, (0.0, 0))
        if number in self._residuals:
            total, num = total - self._residuals[number], num - 1
        self._sums[network] = (total + residual, num + 1)
        self._residuals[number] = residual

    def observe_gain(self, number: int, gain: float) -> None:
        """Correct a configuration's probe, whose features were computed `gain` times as fast as by training."""
        self._probe_gain = gain
        if number in self._residuals and number not in self._measured:
            total, num = self._sums[self._networks[number]]
            self._sums[self._networks[number]] = total + math.log(gain), num
            self._residuals[number] += math.log(gain)

    def epoch_s(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the seconds of an epoch, shape (num_configs,)."""
        total = self._prior * self._prior_weight + sum(part for part, _ in self._sums.values())
        weight = self._prior_weight + sum(num for _, num in self._sums.values())
        seconds = []
        for number in numbers:
            if number in self._measured:
                seconds.append(self._measured[number][1])
                continue
            own_total, own_num = self._sums.get(self._networks[number], (0.0, 0))
            shift = (total + _SAME_NETWORK_WEIGHT * own_total) / (weight + _SAME_NETWORK_WEIGHT * own_num)
            seconds.append(math.exp(min(self._predicted[number] + shift, 50.0)))
        return np.array(seconds)

    def seconds(self, numbers: Sequence[int], until_epochs: np.ndarray) -> np.ndarray:
        """Return the seconds left to reach epochs, (num_configs, num_epochs); not positive for complete epochs."""
        done, probe = [], []
        for number in numbers:
            done.append(self._measured.get(number, (0, 0.0))[0])
            is_new = number not in self._measured and number not in self._probe_s
            if is_new and (self._probe_s or self._starts_with_probe[number]):
                is_cached = self._networks[number] in self._probed
                probe.append(self._probe_again_part if is_cached else self._probe_part / self._probe_gain)
            else:
                probe.append(0.0)
        epochs = until_epochs - np.array(done)[:, None] + np.array(probe)[:, None]
        return np.asarray(epochs * self.epoch_s(numbers)[:, None])
