"""Random search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saccade.errors import ExhaustedSearchSpaceError
from saccade.searcher.base import Searcher, exhausted
from saccade.space import Dict, canonical_key, grid
from saccade.space.base import as_generator

# Number of successive repeated draws after which the rest of a finite space is enumerated ...
_MAX_REPEATS = 100
# ... and after which an infinite one is considered exhausted.
_MAX_REPEATS_ENDLESS = 10_000
# Up to this size the rest of a finite space is shuffled; a larger one is enumerated in order.
_MAX_SHUFFLED = 100_000


class RandomSearcher(Searcher):
    """Draws configurations at random, never the same one twice.

    Covers more values than a grid if only some parameters matter (Bergstra and Bengio, Random search for
    hyper-parameter optimization, JMLR 13, 2012). No draw depends on results.

    Parameters
    ----------
    space, seed, starting_configs
        As in `Searcher`.
    first_is_default
        Suggest the defaults of the space first, after the starting configurations.

    Attributes
    ----------
    rng : numpy.random.Generator
        Source of all random numbers.

    Examples
    --------
    >>> from saccade.space import Categorical, Real
    >>> searcher = RandomSearcher({"model": Categorical("a", "b"), "lr": Real(0.1, 1), "epochs": 5})
    >>> searcher.suggest()
    {'model': 'a', 'lr': 0.1, 'epochs': 5}
    """

    def __init__(
        self,
        space: Dict | Mapping[Any, Any],
        *,
        seed: int = 0,
        starting_configs: Sequence[Mapping[Any, Any]] | None = None,
        first_is_default: bool = True,
    ) -> None:
        super().__init__(space, seed=seed, starting_configs=starting_configs)
        if first_is_default:
            self._starts = itertools.chain(self._starts, [self.space.default])
        self.rng = as_generator(seed)
        self._rest: Iterator[dict[str, Any]] | None = None

    def suggest(self) -> dict[str, Any]:
        """Return a new configuration; if draws are only repeated, one from the rest of a finite space."""
        start = self.next_start()
        return self._draw_new() if start is None else start

    def _draw_new(self) -> dict[str, Any]:
        if self._rest is None:
            endless = math.isinf(self.space.num_configurations)
            max_repeats = _MAX_REPEATS_ENDLESS if endless else _MAX_REPEATS
            # A searcher of a resumed run draws what it has drawn before, in the same order.
            for _ in range(max_repeats + len(self._seen)):
                config: dict[str, Any] = self.space.sample(self.rng)
                if self.is_new(config):
                    return config
            if endless:
                raise ExhaustedSearchSpaceError(
                    f"{max_repeats} draws gave no new configuration after {len(self._seen)} different ones. "
                    "Widen the search space, or ask for fewer trials."
                )
            self._rest = grid(self.space)
            if self.space.num_configurations <= _MAX_SHUFFLED:
                unseen = [config for config in self._rest if canonical_key(config) not in self._seen]
                self._rest = (unseen[index] for index in self.rng.permutation(len(unseen)))
        for config in self._rest:
            if self.is_new(config):
                return config
        raise exhausted(len(self._seen))

    def observe(self, config: Mapping[str, Any], epoch: int, score: float, cost: float) -> None:  # noqa: ARG002
        """Mark the configuration as seen."""
        if config in self.space:
            self.is_new(config)

    def on_end(self, config: Mapping[str, Any], *, has_failed: bool, is_complete: bool = False) -> None:  # noqa: ARG002
        """Mark the configuration as seen."""
        if config in self.space:
            self.is_new(config)
