"""Searchers without a model: random search and grid search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from saccade.errors import ExhaustedSearchSpaceError, HyperparameterError
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

    def on_begin(self, config: Mapping[str, Any]) -> None:
        """Mark the configuration as seen."""
        if config in self.space:
            self.is_new(config)

    def observe(self, config: Mapping[str, Any], epoch: int, score: float, cost: float) -> None:  # noqa: ARG002
        """Mark the configuration as seen."""
        RandomSearcher.on_begin(self, config)

    def on_end(self, config: Mapping[str, Any], *, has_failed: bool, is_complete: bool = False) -> None:  # noqa: ARG002
        """Mark the configuration as seen."""
        RandomSearcher.on_begin(self, config)


class GridSearcher(Searcher):
    """Suggests the points of an evenly spaced grid, always in the same order.

    All combinations, in the order of the parameters in the space, the last one varying fastest. Each branch of a
    `Categorical` of spaces has a grid of its own. Points are made on demand, so a large grid costs nothing. An invalid
    number of points raises a HyperparameterError, another name an UnknownNameError.

    Parameters
    ----------
    space, seed, starting_configs
        As in `Searcher`; nothing here is random. The starting configurations need not be points of the grid.
    num_points
        Number of points of each `Real` and `Int`, at least 1. They include both bounds (a single point is the
        default); with ``log`` they are spaced log-evenly; an `Int` with fewer values has all of them.
    num_points_by_name
        The same for single parameters by name; see `saccade.space.parameters` for names in nested spaces.

    Examples
    --------
    >>> from saccade.space import Categorical, Real
    >>> searcher = GridSearcher(
    ...     {"lr": Real(0.01, 1, log=True), "opt": Categorical("sgd", "lion")}, num_points=3
    ... )
    >>> [tuple(searcher.suggest().values()) for _ in range(3)]
    [(0.01, 'sgd'), (0.01, 'lion'), (0.1, 'sgd')]
    """

    def __init__(
        self,
        space: Dict | Mapping[Any, Any],
        *,
        seed: int = 0,
        starting_configs: Sequence[Mapping[Any, Any]] | None = None,
        num_points: int = 4,
        num_points_by_name: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(space, seed=seed, starting_configs=starting_configs)
        if num_points_by_name is not None and not isinstance(num_points_by_name, Mapping):
            raise HyperparameterError(
                f"num_points_by_name is {num_points_by_name!r}; it must be a dict such as {{'lr': 3}}."
            )
        self._num_points = num_points, num_points_by_name
        self._grid = grid(self.space, *self._num_points)
        self._on_grid: set[Hashable] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Return a state that can be copied: the grid, a generator, starts anew and skips what was suggested."""
        return {name: value for name, value in vars(self).items() if name != "_grid"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._grid = grid(self.space, *self._num_points)

    def suggest(self) -> dict[str, Any]:
        """Return the next configuration of the grid that is new."""
        start = self.next_start()
        if start is not None:
            return start
        for config in self._grid:
            # A set, because two branches of a Categorical may share a configuration.
            self._on_grid.add(canonical_key(config))
            if self.is_new(config):
                return dict(config)
        raise exhausted(len(self._on_grid), "grid")

    def observe(self, config: Mapping[str, Any], epoch: int, score: float, cost: float) -> None:  # noqa: ARG002
        """Mark the configuration as seen."""
        self.is_new(config)
