"""Adapt searchers to recorded tables: they propose recorded configurations only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from saccade.searcher.base import Searcher, exhausted
from saccade.space import Categorical, Dict


def table_space(configs: pd.DataFrame) -> Dict:
    """Return the space that a table of configurations was drawn from: each column's own values."""
    columns = {
        name: sorted({_plain(value) for value in column}, key=lambda value: (isinstance(value, str), value))
        for name, column in configs.items()
    }
    return Dict({name: Categorical(*values) for name, values in columns.items() if len(values) > 1})


class PoolSearcher(Searcher):
    """Proposes the recorded configuration that is nearest to what another searcher proposes.

    Parameters
    ----------
    inner
        The other searcher, on `table_space`.
    configs
        The recorded configurations; what is proposed is the index, as ``{"config_id": …}``.
    """

    def __init__(self, inner: Searcher, configs: pd.DataFrame) -> None:
        super().__init__({"config_id": Categorical(*configs.index)}, seed=inner.seed)
        self.inner = inner
        self._configs = {key: {name: _plain(row[name]) for name in inner.space} for key, row in configs.iterrows()}
        self._left = dict.fromkeys(self._configs)
        self._encoded = {key: encode(self.inner.space, config) for key, config in self._configs.items()}

    def suggest(self) -> dict[str, Any]:
        """Return the nearest configuration that is left."""
        if not self._left:
            raise exhausted(len(self._configs))
        wish = encode(self.inner.space, self.inner.suggest())
        key = min(self._left, key=lambda key: float(np.abs(self._encoded[key] - wish).sum()))
        del self._left[key]
        return {"config_id": key}

    def on_begin(self, config: Mapping[str, Any]) -> None:
        """Pass it to the other searcher."""
        self.inner.on_begin(self._configs[config["config_id"]])

    def observe(self, config: Mapping[str, Any], epoch: int, score: float, cost: float) -> None:
        """Pass it to the other searcher."""
        self.inner.observe(self._configs[config["config_id"]], epoch, score, cost)

    def on_end(self, config: Mapping[str, Any], *, has_failed: bool, is_complete: bool = False) -> None:
        """Pass it to the other searcher."""
        self.inner.on_end(self._configs[config["config_id"]], has_failed=has_failed, is_complete=is_complete)


def encode(space: Dict, config: Mapping[str, Any]) -> np.ndarray:
    """Return a point: the rank of a number among the column's values, 0 to 1; a coordinate for each word."""
    point: list[float] = []
    for name, choices in space.data.items():
        values = list(choices.data)
        if any(isinstance(value, str) for value in values):
            point += [0.5 * (config[name] == value) for value in values]
        else:
            point.append(values.index(config[name]) / (len(values) - 1))
    return np.array(point)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
