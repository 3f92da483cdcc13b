"""Probes: what the frozen features of a network are worth, which is known before it is trained at all."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

SURENESS = 0.12
"""How much less probes differ from what is expected of them than fine-tuned networks: they have no learning rate."""

FORGOTTEN_AFTER_EPOCHS = 50.0
"""Over how many epochs a training forgets that it began with a probe."""

INSIGHT = 3.0
"""How many times as much a probe is worth as its own score: it also tells which network is worth training."""

_SHIFT = 0.8
"""How much of a probe's surprise is expected of the network's trainings; the forecaster adds about as much again."""

_GOOD = 0.25
"""The share of a network's configurations that the expected probe is better than."""

_DETOUR = 0.5
"""By what part of its final gain a training falls below the probe at first, while the learning rate is high."""


class Probes:
    """What to expect of probes, and which were begun; a network is probed once, whatever its hyperparameters.

    Frozen features of a pretrained network, with the best last layer for them, are about as good as the network would
    be after a fine-tuning with poor hyperparameters. A training that begins there with good ones falls below that at
    first, and wins most when the learning rate comes down at its end.

    Examples
    --------
    >>> probes = Probes([1, 3, 6])
    >>> probes.expect(["net"] * 5, np.array([[0.5], [0.5], [0.5], [0.5], [0.7]]) * [0.8, 0.9, 1.0], [6] * 5)[-1]
    array([0.5 , 0.45, 0.55, 0.7 ])
    >>> probes.learn("net", 0.6).round(3)
    array([0.   , 0.078, 0.075, 0.071])

    Parameters
    ----------
    epochs : sequence of float
        The epochs of learning curves, ascending.
    """

    def __init__(self, epochs: Sequence[float]) -> None:
        self._epochs = tuple(epochs)
        self._persistence = np.exp(-np.array([0.0, *epochs]) / FORGOTTEN_AFTER_EPOCHS)
        self._expected: dict[Hashable, float] = {}
        self._surprise: dict[Hashable, float] = {}
        self._begun: set[Hashable] = set()

    def expect(self, networks: Sequence[Hashable], curves: np.ndarray, num_epochs: Sequence[int]) -> np.ndarray:
        """Return learning curves for trainings that go on from a probe, the probe's score in front.

        Parameters
        ----------
        networks
            Which network each curve is of.
        curves : ndarray of float64, shape (num_configs, num_epochs)
            Expected scores from a fresh last layer, at the epochs.
        num_epochs
            Of each whole training.

        Returns
        -------
        ndarray of float64, shape (num_configs, 1 + num_epochs)
        """
        best = curves.max(axis=1)
        for network in dict.fromkeys(networks):
            of_network = best[[each == network for each in networks]]
            self._expected.setdefault(network, float(np.quantile(of_network, _GOOD)))
        probes = np.array([[self._expected[network]] for network in networks])
        done = np.minimum(np.asarray(self._epochs) / np.asarray(num_epochs)[:, None], 1.0)
        gain = best[:, None] - probes
        trained = probes + np.where(gain > 0, (1 + _DETOUR) * done - _DETOUR, 1.0) * gain
        expected = np.concatenate([probes, trained], axis=1)
        known = np.array([self._surprise.get(network, 0.0) for network in networks])
        shifted: np.ndarray = expected + known[:, None] * self._shift
        return shifted

    @property
    def sureness(self) -> np.ndarray:
        """By what factor forecasts deviate less because training began with a probe: at epoch 0, and at the epochs."""
        factors: np.ndarray = 1 - (1 - SURENESS) * self._persistence
        return factors

    def learn(self, network: Hashable, score: float) -> np.ndarray:
        """Learn a probe's score, and return what is expected more of each training of that network, than before."""
        surprise = score - self._expected.get(network, score)
        more: np.ndarray = (surprise - self._surprise.get(network, 0.0)) * self._shift
        self._surprise[network] = surprise
        return more

    @property
    def _shift(self) -> np.ndarray:
        return _SHIFT * np.where(np.arange(len(self._persistence)) > 0, self._persistence, 0.0)

    def begin(self, network: Hashable) -> None:
        """Take note that a network's probe is known, or will be."""
        self._begun.add(network)

    def is_begun(self, network: Hashable) -> bool:
        """Tell whether another probe of the network would teach nothing."""
        return network in self._begun
