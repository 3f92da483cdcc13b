"""The value of the next step of each configuration, in relation to its cost and the remaining time."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.autosearch.probes import PROBE_VALUE

if TYPE_CHECKING:
    from saccade.autosearch.search import AutoSearch

# Epochs at which learning curves are forecast, and at which a trial may pause for another.
HORIZONS = (1, 2, 3, 4, 5, 7, 9, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200)

MAX_IMAGINED = 64  # running trials whose scores are imagined: the latest, since the others have scores or soon will

FIXED_COST = 0.05  # part of the remaining time added to the cost of each step, so that cheap ones do not always win
ALL_PROBES_PART = 0.8  # all networks are probed first if that takes at most this part of the remaining time

# With too many networks for that, the next one is probed if that takes at most this part of the remaining time.
# The mean of several probes is better than one training that is cut short.
NEXT_PROBE_PART = 0.5

PROBE_SCORE_POWER = 4.0  # probes are ordered by expected score to this power, per second
MEMBER_LAG = 0.05  # a network whose score is below the best by at most this may still improve an ensemble
AGAIN = 0.3  # factor on the gain of a further training of a network: a mean of two different networks gains more
SHORTENING_POWER = 0.5  # of the part of its epochs that a shortened training has: its gain over the probe
COMMITMENT = 4.0  # factor on the gain of continuing after a probe: the gain shows at the end of the schedule
LAST_COMMITMENT = 25.0  # the same if the remaining time is short: a paused training would not be continued
FEW_TRAININGS = 4.0  # the remaining time is short if it allows fewer whole trainings than this


@dataclass(slots=True, eq=False)
class Item:
    """A configuration: in the pool, running, paused or ended."""

    key: Hashable
    config: dict[str, Any]
    number: int  # in the forecaster and in the costs
    num_epochs: int
    network: Hashable
    has_probe: bool
    epoch: int = 0
    best: float = -math.inf
    trained: float = -math.inf  # the best score after the probe
    is_begun: bool = False
    target: int = 1  # the epoch to train to
    expected_gain: float = 0.0  # per cost, when it was last considered
    unconsidered_s: float = 0.0  # training since it was last considered while running


def expected_improvement(mean: np.ndarray, sd: np.ndarray, best: float | np.ndarray) -> np.ndarray:
    """Return by how much a normally distributed score exceeds the best one, on average: expected improvement."""
    z = (mean - best) / sd
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    # The normal distribution function to 1e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17):
    # the import of SciPy takes longer than a step of a search.
    t = 1 / (1 + 0.2316419 * np.abs(z))
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    tail = density * series
    return np.asarray(np.maximum(sd * (z * np.where(z >= 0, 1 - tail, tail) + density), 0.0))


def _forecast_of_running(search: AutoSearch) -> dict[int, tuple[float, float]]:
    """Return target and score of running trials as if they had reached it, by number, so that proposals differ."""
    running = [item for item in search.running.values() if item.epoch < item.target][-MAX_IMAGINED:]
    if not running:
        return {}
    curves = search.forecaster.forecast([item.number for item in running]).mean
    scores = (
        float(np.interp(each.target, search.forecaster.epochs, curve))
        for each, curve in zip(running, curves, strict=True)
    )
    return {item.number: (item.target, score) for item, score in zip(running, scores, strict=True)}


def best_step(search: AutoSearch, items: list[Item]) -> tuple[Item, int] | None:
    """Return the item with the largest expected gain per cost, and the epoch to train it to; None if none is in time.

    The expected gain of each considered item is stored in it. Scores are between 0 and 1. If the result may be an
    ensemble, the gain of a training is measured from its own network's probe. Otherwise the network with the best probe
    is trained first, however slow it is, and the others not at all.
    """
    if not items:
        return None
    loads = [search.loads.get(item.network, 0.0) for item in items]
    # Without a network within the limits, the nearest.
    items = [item for item, load in zip(items, loads, strict=True) if load <= max(1.0, min(loads))]
    forecaster, costs, probes = search.forecaster, search.costs, search.probes
    best, trained, seconds_left = search.best, search.trained, search.seconds_left
    imagined = _forecast_of_running(search)
    numbers = [item.number for item in items]
    have_probes = np.array([item.has_probe for item in items])
    may_probe = np.array([item.has_probe and not item.is_begun and item.network not in probes.begun for item in items])
    forecast = forecaster.forecast(numbers, imagined)

    # Where each step can lead: column 0 is the probe, the others are the horizons, the last of them the item's end.
    horizons = np.array([0, *HORIZONS], dtype=float)
    done = np.where(may_probe, -1, [item.epoch for item in items])[:, None]
    whole = np.array([item.num_epochs for item in items])[:, None]
    ends = whole
    if have_probes.any() and not math.isinf(seconds_left):  # after a probe, the last epoch in time
        so_far = np.array([item.epoch for item in items])[:, None]
        start_s = costs.seconds(numbers, so_far.astype(float))
        in_time = so_far + (seconds_left - start_s) // costs.epoch_s(numbers)[:, None]
        in_time = np.clip(in_time, so_far + 1, whole).astype(int)
        ends = np.where(have_probes[:, None], in_time, whole)
    before = np.concatenate([[-1.0], horizons[:-1]])[None]
    reach = np.minimum(horizons[None], ends)
    seconds = costs.seconds(numbers, reach)
    possible = (reach > done) & (before < ends) & (seconds <= seconds_left)
    if not possible.any():
        return None

    # Expected scores. A training that the deadline shortens still ends its schedule, so its score is that of a whole
    # one, with a smaller gain over the probe.
    final = np.minimum((horizons[None] < whole).sum(axis=1), len(horizons) - 1)[:, None]
    is_short = (horizons >= ends) & (ends < whole)
    at = np.where(is_short, final, np.arange(len(horizons)))
    mean, sd = np.take_along_axis(forecast.mean, at, 1), np.take_along_axis(forecast.sd, at, 1)
    probe = forecast.mean[:, :1]
    mean = np.where(is_short, probe + (mean - probe) * (ends / whole) ** SHORTENING_POWER, mean)
    sd = np.where(have_probes[:, None], probes.sd_factors * sd, sd)

    # Gains over the score to exceed, with factors for commitment and for networks that were trained before.
    to_exceed = np.full_like(probe, best)
    if search.is_for_mean:
        is_first = [item.has_probe and (item.epoch > 0 or item.network not in trained) for item in items]
        to_exceed = np.where(np.array(is_first)[:, None], np.clip(probe, best - MEMBER_LAG, best), best)
    gain = expected_improvement(mean, sd, to_exceed) * np.where(horizons == 0, PROBE_VALUE, 1.0)
    whole_s = costs.epoch_s(numbers) * whole[:, 0]
    committed = np.where(seconds_left < FEW_TRAININGS * whole_s, LAST_COMMITMENT, COMMITMENT)
    again = np.where([item.network in trained for item in items], AGAIN, 1.0)
    factor = np.where(np.array([item.epoch for item in items]) > 0, committed, again)
    gain = gain * np.where(have_probes, factor, 1.0)[:, None]

    # Without a time limit every cost is 0 in relation to the remaining time.
    cost = np.where(possible, seconds, 0.0) / seconds_left
    worth = np.where(possible, gain / (cost + FIXED_COST), -1.0)

    # Probes first, if networks can be probed and enough time be left for training: cheap ones before others, for a mean
    # of many good networks.
    probe_s: dict[Hashable, float] = {}
    for item, of_item_s, is_possible in zip(items, seconds[:, 0], possible[:, 0], strict=True):
        if is_possible:
            probe_s[item.network] = min(float(of_item_s), probe_s.get(item.network, math.inf))
    if probe_s and (
        min(probe_s.values()) <= NEXT_PROBE_PART * seconds_left
        or sum(probe_s.values()) <= ALL_PROBES_PART * seconds_left
    ):
        per_second = forecast.mean[:, 0].clip(0.0) ** PROBE_SCORE_POWER / (seconds[:, 0] + 1e-9)
        worth[:, 0] = np.where(possible[:, 0], per_second, -1.0)
        worth[:, 1:] = -1.0

    for item, largest in zip(items, worth.max(axis=1), strict=True):
        item.expected_gain = float(largest)
    row, column = (int(index) for index in np.unravel_index(int(np.argmax(worth)), worth.shape))
    if column == 0:
        # All configurations of the network have the same probe. The one with the best training after it is chosen.
        network = items[row].network
        alike = [index for index, item in enumerate(items) if possible[index, 0] and item.network == network]
        row = alike[int(np.argmax((gain / (seconds + 1e-9))[alike, 1:].max(axis=1)))]
    return items[row], int(reach[row, column])
