"""What the next step of each configuration is worth, under the time that remains."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.autosearch.costs import EpochCosts
from saccade.autosearch.forecast import Forecaster
from saccade.autosearch.probe_scores import INSIGHT, Probes
from saccade.autosearch.utility import expected_improvement

HORIZONS = (1, 2, 3, 4, 5, 7, 9, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200)
"""Epochs at which learning curves are forecast, and at which a trial may be left for another."""

WAITING_SHARE = 0.05
"""How much of the remaining time is added to the cost of each step, so that cheap steps do not count beyond measure."""

PROBING_SHARE = 0.8
"""Every network is probed before one is trained, where that takes no more than this of the remaining time."""

PROBE_SHARE = 0.5
"""The same for the next probe by itself, where there are too many networks.

The mean of several probes is worth more than a training that is cut short.
"""

GOODNESS = 4.0
"""The power of a probe's expected score that is set against its cost, while networks are probed one after the other."""

MEMBER_LAG = 0.05
"""By how much less than the best score a network may reach, and still make a mean of networks better."""

AGAIN = 0.3
"""What another training of a network is worth beside the first one of another: a mean of two that differ gains more."""

SHORTENING = 0.5
"""The power of the part of its epochs that a training is left with, by which its gain over the probe is less."""

COMMITMENT = 4.0
"""What the rest of a training from a probe is worth beside others: what was gained so far shows at its end only."""

LAST_COMMITMENT = 25.0
"""The same where there is time for a few whole trainings only: one that is left will not be gone on with."""

FEW_TRAININGS = 4.0
"""How many whole trainings are few."""


@dataclass(slots=True, eq=False)
class Item:
    """A configuration that waits, runs, is paused or has ended."""

    key: Hashable
    config: dict[str, Any]
    number: int  # in the forecaster, and in the costs
    num_epochs: int
    network: Hashable
    has_probe: bool
    epoch: int = 0
    best: float = -math.inf
    trained: float = -math.inf  # the best since training began from the probe
    is_begun: bool = False
    is_running: bool = False
    has_ended: bool = False
    target: float = 1.0
    promise: float = 0.0


@dataclass(frozen=True)
class Steps:
    """Weighs steps against each other: their expected improvement over the best score, by what they cost.

    Attributes
    ----------
    forecaster, costs, probes
        What is expected of configurations, in scores and in seconds.
    best : float
        The best score so far, from 0 to 1.
    trained : collection
        The networks that were trained beyond their probes.
    seconds_left : float
        Time left for training.
    is_for_mean : bool
        Whether the mean of several networks may be the result. Then what a training adds to its own network's probe
        counts, and not only what it adds to the best score: else the network with the best probe is trained first,
        though it be the slowest, and the others not at all.
    """

    forecaster: Forecaster
    costs: EpochCosts
    probes: Probes
    best: float
    trained: Collection[Hashable]
    seconds_left: float
    is_for_mean: bool = False

    def most_promising(self, items: list[Item], imagined: Mapping[int, tuple[float, float]]) -> tuple[Item, int] | None:
        """Return the most promising item and how far to train it; None when none would report in time.

        Parameters
        ----------
        items : list of Item
            That may be begun, or gone on with.
        imagined : mapping
            What running trials are assumed to reach, as `Forecaster.forecast` takes it.
        """
        if not items:
            return None
        numbers = [item.number for item in items]
        forecast = self.forecaster.forecast(numbers, imagined)
        horizons = np.array([0, *HORIZONS], dtype=float)
        done = np.array([-1 if self._may_probe(item) else item.epoch for item in items])[:, None]
        whole = np.array([item.num_epochs for item in items])[:, None]
        ends = self._ends(items)[:, None]
        before = np.concatenate([[-1.0], horizons[:-1]])[None]
        reach = np.minimum(horizons[None], ends)
        seconds = self.costs.seconds(numbers, reach)
        # The last horizon of a configuration is the first that is not before its end.
        possible = (reach > done) & (before < ends) & (seconds <= self.seconds_left)
        if not possible.any():
            return None
        # A training that the deadline shortens ends as a whole one does, with its learning rate brought down.
        final = np.minimum((horizons[None] < whole).sum(axis=1), len(horizons) - 1)[:, None]
        is_short = (horizons >= ends) & (ends < whole)
        at = np.where(is_short, final, np.arange(len(horizons)))
        mean, sd = np.take_along_axis(forecast.mean, at, 1), np.take_along_axis(forecast.sd, at, 1)
        probe = forecast.mean[:, :1]
        mean = np.where(is_short, probe + (mean - probe) * (ends / whole) ** SHORTENING, mean)
        have_probes = np.array([item.has_probe for item in items])[:, None]
        sd = np.where(have_probes, self.probes.sureness * sd, sd)
        gain = expected_improvement(mean, sd, self._to_beat(items, probe)) * np.where(horizons == 0, INSIGHT, 1.0)
        whole_s = self.costs.epoch_s(numbers) * whole[:, 0]
        gain = gain * np.array([self._weight(*each) for each in zip(items, whole_s, strict=True)])[:, None]
        cost = np.where(possible, seconds, 0.0) / self.seconds_left  # of time without end, any part is nothing
        worth = np.where(possible, gain / (cost + WAITING_SHARE), -1.0)
        if self._is_time_to_probe(items, seconds[:, 0], possible[:, 0]):
            worth[:, 1:] = -1.0
            # A mean of several is worth more than any of them: the cheap ones first, so that there are many good ones.
            worth[:, 0] = np.where(
                possible[:, 0], forecast.mean[:, 0].clip(0.0) ** GOODNESS / (seconds[:, 0] + 1e-9), -1.0
            )
        for item, best in zip(items, worth.max(axis=1), strict=True):
            item.promise = float(best)
        row, column = (int(index) for index in np.unravel_index(int(np.argmax(worth)), worth.shape))
        if column == 0:  # the probe is the same for all configurations of the network: what is to follow decides
            network = items[row].network
            alike = [index for index, item in enumerate(items) if possible[index, 0] and item.network == network]
            row = alike[int(np.argmax((gain / (seconds + 1e-9))[alike, 1:].max(axis=1)))]
        return items[row], int(reach[row, column])

    def _to_beat(self, items: list[Item], probe: np.ndarray) -> np.ndarray:
        """Return the scores above which those of items are worth something, of shape (num_items, 1)."""
        if not self.is_for_mean:
            return np.full_like(probe, self.best)
        of_member = np.clip(probe, self.best - MEMBER_LAG, self.best)
        is_first = [item.has_probe and (item.epoch > 0 or item.network not in self.trained) for item in items]
        return np.where(np.array(is_first)[:, None], of_member, self.best)

    def _ends(self, items: list[Item]) -> np.ndarray:
        """Return the last epoch of each item: that of its recipe, or for real trainings the last that is in time."""
        whole = np.array([item.num_epochs for item in items])
        if not any(item.has_probe for item in items) or math.isinf(self.seconds_left):
            return whole
        numbers, done = [item.number for item in items], np.array([item.epoch for item in items])
        start_s = self.costs.seconds(numbers, done[:, None].astype(float))[:, 0]
        possible = done + (self.seconds_left - start_s) // self.costs.epoch_s(numbers)
        in_time = np.clip(possible, done + 1, whole).astype(int)
        return np.where([item.has_probe for item in items], in_time, whole)

    def _is_time_to_probe(self, items: list[Item], seconds: np.ndarray, possible: np.ndarray) -> bool:
        """Tell whether the networks that were not probed yet can be, and most of the time be left for training."""
        probes: dict[Hashable, float] = {}
        for item, probe_s, is_possible in zip(items, seconds, possible, strict=True):
            if is_possible:
                probes[item.network] = min(float(probe_s), probes.get(item.network, math.inf))
        if not probes:
            return False
        is_one_cheap = min(probes.values()) <= PROBE_SHARE * self.seconds_left
        return is_one_cheap or sum(probes.values()) <= PROBING_SHARE * self.seconds_left

    def _weight(self, item: Item, whole_s: float) -> float:
        """Return by how much more, or less, a gain counts than by itself."""
        if not item.has_probe:
            return 1.0
        if item.epoch > 0:
            return LAST_COMMITMENT if self.seconds_left < FEW_TRAININGS * whole_s else COMMITMENT
        return AGAIN if item.network in self.trained else 1.0

    def _may_probe(self, item: Item) -> bool:
        return item.has_probe and not item.is_begun and not self.probes.is_begun(item.network)
