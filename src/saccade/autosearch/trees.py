"""Boosted regression trees that were learned elsewhere: read from JSON, evaluated with NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class Trees:
    """The sum of many small regression trees.

    All nodes of all trees stand in flat arrays, each tree in pre-order, so that a left child follows its parent.

    Parameters
    ----------
    baseline : float
        What the sum starts from.
    roots : sequence of int, shape (num_trees,)
        Where each tree begins.
    feature : sequence of int, shape (num_nodes,)
        The column that a node looks at; -1 for a leaf.
    value : sequence of float, shape (num_nodes,)
        A node's threshold: the left child has ``x <= value``; a leaf's value.
    right : sequence of int, shape (num_nodes,)
        How many nodes further the right child stands; 0 for a leaf.
    scale : float
        Factor on the sum of the leaves.

    References
    ----------
    .. [1] J. H. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29, 2001.

    Examples
    --------
    >>> stump = Trees(1.0, roots=[0], feature=[0, -1, -1], value=[0.5, -2.0, 2.0], right=[2, 0, 0])
    >>> stump.predict(np.array([[0.0], [1.0]]))
    array([-1.,  3.])
    """

    def __init__(self, baseline: float, roots: Any, feature: Any, value: Any, right: Any, scale: float = 1.0) -> None:
        self.baseline, self.scale = baseline, scale
        self.roots = np.asarray(roots, dtype=np.int32)
        self.feature = np.asarray(feature, dtype=np.int32)
        self.value = np.asarray(value, dtype=float)
        self.right = np.asarray(right, dtype=np.int32)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return the prediction for each row.

        Parameters
        ----------
        rows : ndarray of float, shape (num_rows, num_features)
            Without NaN.

        Returns
        -------
        ndarray of float64, shape (num_rows,)
            The sums.
        """
        at = np.broadcast_to(self.roots, (len(rows), len(self.roots))).copy()
        lines = np.arange(len(rows))[:, None]
        while True:
            feature = self.feature[at]
            inner = feature >= 0
            if not inner.any():
                sums: np.ndarray = self.baseline + self.scale * self.value[at].sum(axis=1)
                return sums
            goes_left = rows[lines, feature] <= self.value[at]
            at += np.where(inner, np.where(goes_left, 1, self.right[at]), 0).astype(np.int32)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Trees:
        """Return the trees that `to_json` wrote."""
        return cls(**record)

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return {
            "baseline": float(self.baseline),
            "scale": float(self.scale),
            "roots": self.roots.tolist(),
            "feature": self.feature.tolist(),
            "value": [float(f"{value:.4g}") for value in self.value],
            "right": self.right.tolist(),
        }
