"""A searcher that mutates the best configuration so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from saccade.searcher import RandomSearcher


class MutationSearcher(RandomSearcher):
    """Replaces some values of the best configuration by random ones.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.
    rate
        Probability with which a value is replaced.

    """

    def __init__(self, space: Any, *, rate: float = 0.3, **options: Any) -> None:
        super().__init__(space, **options)
        self.rate = rate
        self._best: tuple[float, dict[str, Any] | None] = (-math.inf, None)

    def suggest(self) -> dict[str, Any]:
        """Return a mutation of the best configuration, or a random configuration if there is no new one."""
        start = self.next_start()
        if start is not None:
            return start
        if self._best[1] is not None:
            for _ in range(20):
                config = {
                    name: value if self.rng.random() < self.rate else self._best[1][name]
                    for name, value in self.space.sample(self.rng).items()
                }
                if self.is_new(config):
                    return config
        return super().suggest()

    def observe(self, config: Mapping[str, Any], epoch: int, score: float, cost: float) -> None:
        """Remember the best configuration of the space."""
        super().observe(config, epoch, score, cost)
        if score > self._best[0] and config in self.space:
            self._best = (score, dict(config))
