"""Expected scores of linear probes, and of trainings that start from them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

PROBE_SD = 0.12  # standard deviation of a probe's score relative to that of a training, as it has no learning rate
PERSISTENCE_EPOCHS = 50.0  # epochs of training over which the effect of the probe falls to 1/e
PROBE_VALUE = 3.0  # factor on the expected improvement of a probe: its score also shows which network is worth training

# Part of a probe's unexpected score that is expected of the network's trainings; the forecaster adds about as much.
SURPRISE_PART = 0.8

PROBE_QUANTILE = 0.25  # a probe is expected to score like this quantile of the network's configurations
DROP_PART = 0.5  # part of its final gain by which a training first drops below the probe, at a high learning rate


class Probes:
    """Expected scores of linear probes, and the networks that were probed; each network is probed once.

    A linear probe of a pretrained network scores about like a fine-tuning with poor hyperparameters. A training that
    starts from the probe first drops below it, and gains most when the learning rate falls at the end of its schedule.
    `epochs`, ascending, are those of learning curves. `screened` are scores of probes on few images, by network.
    """

    def __init__(self, epochs: Sequence[float], screened: Mapping[Hashable, float] | None = None) -> None:
        self._screened = screened or {}
        self._epochs = np.asarray(epochs)
        persistence = np.exp(-np.array([0.0, *epochs]) / PERSISTENCE_EPOCHS)
        # Factors on the standard deviations of forecasts for trainings from a probe, at epoch 0 and at `epochs`.
        self.sd_factors = 1 - (1 - PROBE_SD) * persistence
        self._shift = SURPRISE_PART * np.where(np.arange(len(persistence)) > 0, persistence, 0.0)
        self._expected: dict[Hashable, float] = {}
        self._surprise: dict[Hashable, float] = {}
        self.begun: set[Hashable] = set()  # networks whose probe was started

    def expected_curves(
        self, networks: Sequence[Hashable], curves: np.ndarray, num_epochs: Sequence[int]
    ) -> np.ndarray:
        """Return learning curves from a probe, its score first, by `curves` (num_configs, num_epochs) without it."""
        best = curves.max(axis=1)
        expected = {
            network: float(np.quantile(best[[each == network for each in networks]], PROBE_QUANTILE))
            for network in dict.fromkeys(networks)
            if network not in self._expected
        }
        # Short probes show the differences between networks, but their scores are lower than those of whole ones.
        screened = [network for network in expected if network in self._screened]
        if screened:
            offset = float(np.mean([expected[network] - self._screened[network] for network in screened]))
            expected |= {network: self._screened[network] + offset for network in screened}
        self._expected |= expected
        probes = np.array([[self._expected[network]] for network in networks])
        done = np.minimum(self._epochs / np.asarray(num_epochs)[:, None], 1.0)
        gain = best[:, None] - probes
        # A gain starts at -DROP_PART of it and grows linearly to all of it; a loss is there from the first epoch on.
        trained = probes + np.where(gain > 0, (1 + DROP_PART) * done - DROP_PART, 1.0) * gain
        surprise = np.array([self._surprise.get(network, 0.0) for network in networks])
        return np.concatenate([probes, trained], axis=1) + surprise[:, None] * self._shift

    def observe(self, network: Hashable, score: float) -> np.ndarray:
        """Use a probe's score; return the change of the expected curves of its network, shape (1 + num_epochs,)."""
        surprise = score - self._expected.get(network, score)
        change: np.ndarray = (surprise - self._surprise.get(network, 0.0)) * self._shift
        self._surprise[network] = surprise
        return change
