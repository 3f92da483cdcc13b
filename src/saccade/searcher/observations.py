"""The observations of a searcher, and how scores of different epochs are compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from saccade.space import canonical_key
from saccade.space.base import copied


@dataclass(slots=True)
class Observation:
    """The observations of one configuration."""

    number: int  # its place in the order of first observation, from 0
    config: dict[str, Any]  # the configuration
    scores: dict[int, float] = field(default_factory=dict)  # its score at each epoch; larger is better
    # the last epoch with a score: inf if it is complete, -inf if it failed or has no score
    last_epoch: float = -math.inf
    is_running: bool = False  # whether it was suggested and has not ended
    has_failed: bool = False  # whether its trial failed

    def merit(self, epoch: float) -> tuple[float, float]:
        """Return the sort key of configurations at an epoch; larger is better."""
        reached = min(self.last_epoch, epoch)
        if reached == -math.inf:
            return reached, reached
        score = self.scores.get(reached)  # type: ignore[call-overload]
        if score is None:
            # Complete before that epoch; or reports in between are missing, then the first one is used.
            at = max((seen for seen in self.scores if seen <= reached), default=min(self.scores))
            score = self.scores[at]
        return reached, -math.inf if math.isnan(score) else score


class Standing(NamedTuple):
    """The ranking of the configurations at one moment."""

    epoch: float  # the epoch whose scores count; see `Observations.epoch`
    ranked: list[Observation]  # the ranked ones, the best first, and the earliest first among equals
    pending: list[Observation]  # the running ones without a rank, the earliest first


class Observations:
    """All observations, ranked so that scores of different epochs are never compared.

    The scores at the highest epoch that at least `num_needed` configurations have reached count, as in BOHB (Falkner et
    al., ICML 2018), or the last one of a complete configuration. Those that ended before, which BOHB leaves out, rank
    below by their last epoch and then by their score there; failed ones rank last. Running ones that have not reached
    that epoch have no rank yet.
    """

    def __init__(self, num_needed: int) -> None:
        self.num_needed = num_needed
        self._by_key: dict[Hashable, Observation] = {}
        self._items: list[Observation] = []  # by number
        self._running: dict[int, Observation] = {}
        self._num_reached: Counter[float] = Counter()  # number of configurations by last epoch

    def __len__(self) -> int:
        return len(self._by_key)

    def begin(self, config: Mapping[str, Any]) -> Observation:
        """Note that a configuration was suggested."""
        observation = self._of(config)
        observation.is_running = True
        self._running[observation.number] = observation
        return observation

    def observe(self, config: Mapping[str, Any], epoch: int, score: float) -> None:
        """Note a score."""
        observation = self._of(config)
        observation.scores[epoch] = score
        if not observation.has_failed:
            self._reach(observation, max(observation.last_epoch, epoch))

    def end(self, config: Mapping[str, Any], *, has_failed: bool, is_complete: bool) -> None:
        """Note that a configuration is no longer running."""
        observation = self._of(config)
        observation.is_running, observation.has_failed = False, has_failed
        self._running.pop(observation.number, None)
        if has_failed:
            self._reach(observation, -math.inf)
        elif is_complete and observation.scores:
            self._reach(observation, math.inf)

    @property
    def epoch(self) -> float:
        """The epoch whose scores count: inf if the last ones do, -inf while there is none."""
        # With fewer than needed, it is the epoch that all of them reached.
        num_left = min(self.num_needed, sum(self._num_reached.values()))
        for epoch in sorted(self._num_reached, reverse=True):
            num_left -= self._num_reached[epoch]
            if num_left <= 0:
                return epoch
        return -math.inf

    def standing(self) -> Standing:
        """Return the current ranking."""
        epoch = self.epoch

        def has_rank(item: Observation) -> bool:
            return item.has_failed or (bool(item.scores) and (not item.is_running or item.last_epoch >= epoch))

        # Sorting is stable, so the earliest is first among equals.
        ranked = sorted(filter(has_rank, self._items), key=lambda item: item.merit(epoch), reverse=True)
        pending = [item for _, item in sorted(self._running.items()) if not has_rank(item)]
        return Standing(epoch, ranked, pending)

    def _reach(self, item: Observation, epoch: float) -> None:
        """Note the last epoch of a configuration's scores."""
        for last, change in ((item.last_epoch, -1), (epoch, 1)):
            if last > -math.inf:
                self._num_reached[last] += change
        if item.last_epoch > -math.inf and not self._num_reached[item.last_epoch]:
            del self._num_reached[item.last_epoch]
        item.last_epoch = epoch

    def _of(self, config: Mapping[str, Any]) -> Observation:
        """Return the observation of a configuration."""
        key = canonical_key(dict(config))
        if key not in self._by_key:
            self._by_key[key] = Observation(len(self._by_key), copied(dict(config)))
            self._items.append(self._by_key[key])
        return self._by_key[key]
