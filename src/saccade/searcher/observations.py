"""What a searcher knows of each configuration, and how scores of different epochs are compared."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from saccade.space import canonical_key
from saccade.space.constants import copied


@dataclass(slots=True)
class Observation:
    """What is known of one configuration.

    Attributes
    ----------
    number : int
        Its place in the order in which the searcher heard of them, from 0.
    config : dict
        The configuration.
    scores : dict of int to float
        Its score at each epoch; larger is better.
    last_epoch : float
        Up to which epoch its score is known: inf if it is complete, -inf if it failed or has no score.
    is_running : bool
        Whether it was suggested and has not ended.
    has_failed : bool
        Whether its trial failed.
    """

    number: int
    config: dict[str, Any]
    scores: dict[int, float] = field(default_factory=dict)
    last_epoch: float = -math.inf
    is_running: bool = False
    has_failed: bool = False

    def merit(self, epoch: float) -> tuple[float, float]:
        """Return what configurations are ordered by at an epoch; larger is better."""
        reached = min(self.last_epoch, epoch)
        if reached == -math.inf:
            return reached, reached
        score = self.scores.get(reached)  # type: ignore[call-overload]
        if score is None:
            # Complete before that epoch; or the reports between are missing, and the first one has to do.
            at = max((seen for seen in self.scores if seen <= reached), default=min(self.scores))
            score = self.scores[at]
        return reached, -math.inf if math.isnan(score) else score


class Standing(NamedTuple):
    """How the configurations stand at one moment.

    Attributes
    ----------
    epoch : float
        The epoch whose scores count; see `Observations.epoch`.
    ranked : list of Observation
        Those that have a place, the best first, and the earliest first among equals.
    pending : list of Observation
        The running ones that have no place yet, the earliest first.
    """

    epoch: float
    ranked: list[Observation]
    pending: list[Observation]


class Observations:
    """All that was observed, ordered so that scores of different epochs are never compared.

    The scores that count are those at the highest epoch that at least `num_needed` configurations have reached, as in
    BOHB [1]_; a complete configuration counts there with its last score. BOHB leaves out what ended before that epoch.
    Here it stands below all that reached it (the higher the epoch it got to the better, and there by its score): a
    scheduler ended it because it was the worse, and a model should know which configurations those were.
    Failed configurations stand last. One that is running and has not reached that epoch has no place yet.

    Parameters
    ----------
    num_needed
        How many configurations must have reached an epoch for it to count.

    References
    ----------
    .. [1] S. Falkner, A. Klein and F. Hutter, "BOHB: robust and efficient hyperparameter optimization at scale",
       ICML 2018.

    Examples
    --------
    >>> observations = Observations(num_needed=2)
    >>> for name, scores in {"a": [0.3, 0.4], "b": [0.3, 0.5], "c": [0.9]}.items():
    ...     for epoch, score in enumerate(scores, start=1):
    ...         observations.observe({"name": name}, epoch, score)
    >>> [observation.config["name"] for observation in observations.standing().ranked]
    ['b', 'a', 'c']
    """

    def __init__(self, num_needed: int) -> None:
        self.num_needed = num_needed
        self._by_key: dict[Hashable, Observation] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def begin(self, config: Mapping[str, Any]) -> Observation:
        """Take note that a configuration was suggested."""
        observation = self._of(config)
        observation.is_running = True
        return observation

    def observe(self, config: Mapping[str, Any], epoch: int, score: float) -> None:
        """Take note of a score."""
        observation = self._of(config)
        observation.scores[epoch] = score
        if not observation.has_failed:
            observation.last_epoch = max(observation.last_epoch, epoch)

    def end(self, config: Mapping[str, Any], *, has_failed: bool, is_complete: bool) -> None:
        """Take note that a configuration is not running any more."""
        observation = self._of(config)
        observation.is_running, observation.has_failed = False, has_failed
        if has_failed:
            observation.last_epoch = -math.inf
        elif is_complete and observation.scores:
            observation.last_epoch = math.inf

    @property
    def epoch(self) -> float:
        """The epoch whose scores count: inf if the last ones do, -inf while there is none."""
        reached = [item.last_epoch for item in self._by_key.values() if item.last_epoch > -math.inf]
        if not reached:
            return -math.inf
        # While there are fewer than are needed, the epoch that all of them reached.
        return heapq.nlargest(min(self.num_needed, len(reached)), reached)[-1]

    def standing(self) -> Standing:
        """Return which configurations have a place, and in which order."""
        epoch = self.epoch
        ranked, pending = [], []
        for item in self._by_key.values():
            if item.has_failed or (item.scores and (not item.is_running or item.last_epoch >= epoch)):
                ranked.append(item)
            elif item.is_running:
                pending.append(item)
        ranked.sort(key=lambda item: item.merit(epoch), reverse=True)
        return Standing(epoch, ranked, pending)

    def _of(self, config: Mapping[str, Any]) -> Observation:
        key = canonical_key(dict(config))
        if key not in self._by_key:
            self._by_key[key] = Observation(len(self._by_key), copied(dict(config)))
        return self._by_key[key]
