"""Grid search."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from saccade.errors import HyperparameterError
from saccade.searcher.base import Searcher, exhausted
from saccade.space import Dict, canonical_key, grid


class GridSearcher(Searcher):
    """Suggests the points of an evenly spaced grid, always in the same order.

    All combinations, in the order of the parameters in the space, the last one varying fastest. Each branch of a
    `Categorical` of spaces has a grid of its own. Points are made on demand, so a large grid costs nothing.

    Parameters
    ----------
    space, seed, starting_configs
        As in `Searcher`; nothing here is random. The starting configurations need not be points of the grid.
    num_points
        Number of points of each `Real` and `Int`, at least 1. They include both bounds (a single point is the
        default); with ``log`` they are spaced log-evenly; an `Int` with fewer values has all of them.
    num_points_by_name
        The same for single parameters by name; see `saccade.space.parameters` for names in nested spaces.

    Raises
    ------
    UnknownNameError
        If the space has no `Real` or `Int` of a name.
    HyperparameterError
        If a number of points is not a whole number of at least 1.

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
