"""The learned portfolio: predictions of learning curves and costs, learned from recorded fine-tuning runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from saccade.autosearch.features import FEATURES, DatasetDescription, Description, NetworkDescription, features

SHIPPED = Path(__file__).with_name("portfolio.json")  # the portfolio that comes with the package
EPOCHS = (1, 2, 3, 5, 9, 15, 25, 50)  # at which scores are predicted; others are interpolated in log(epoch)


class Trees:
    """A sum of small regression trees, evaluated with NumPy alone (Friedman, "Greedy function approximation", 2001).

    The nodes of all trees are in flat arrays, each tree in pre-order, so that a left child follows its parent. `roots`
    are the indices of the trees' roots. `feature` is the column that a node compares, -1 for a leaf; `value` is its
    threshold, with ``x <= value`` on the left, or the value of a leaf; `right` is the offset of the right child.
    A prediction is `baseline` plus `scale` times the sum of the leaves.
    """

    def __init__(self, baseline: float, roots: Any, feature: Any, value: Any, right: Any, scale: float = 1.0) -> None:
        self.baseline, self.scale = baseline, scale
        self.roots = np.asarray(roots, dtype=np.int32)
        self.feature = np.asarray(feature, dtype=np.int32)
        self.value = np.asarray(value, dtype=float)
        self.right = np.asarray(right, dtype=np.int32)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return a prediction for each row of features (without NaN), float64 of shape (num_rows,)."""
        at = np.broadcast_to(self.roots, (len(rows), len(self.roots))).copy()
        lines = np.arange(len(rows))[:, None]
        while True:
            feature = self.feature[at]
            inner = feature >= 0
            if not inner.any():
                return np.asarray(self.baseline + self.scale * self.value[at].sum(axis=1))
            goes_left = rows[lines, feature] <= self.value[at]
            at += np.where(inner, np.where(goes_left, 1, self.right[at]), 0).astype(np.int32)


@dataclass(frozen=True)
class Portfolio:
    """Predict the scores of a configuration after each epoch, and the seconds of an epoch.

    ``python -m benchmarks.learn_portfolio`` learns it from the curves of Pineda Arango, Ferreira, Kadra, Hutter
    and Grabocka, "Quick-Tune: quickly learning which pretrained model to finetune and how" (ICLR 2024). Configurations
    are described by numbers (see `saccade.autosearch.features`), so that networks need no recordings.
    """

    # The mean of these is the best score up to an epoch; 0 is the worst configuration of a data set, 1 the best. Their
    # columns are `FEATURES`, the logarithm to base 2 of the epoch, and that to base 10 of the steps up to it.
    score: list[Trees]
    cost: Trees  # natural logarithm of an epoch's seconds per training image, on the machine of the recordings
    # Intercept and slope of ImageNet accuracy over log10 of millions of parameters, where none is published.
    top1_of_params: tuple[float, float]
    kernel_mean: np.ndarray  # (num_features,): with the scale, it standardises features for distances
    kernel_scale: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)  # recordings, script and versions that it was learned with

    @staticmethod
    @cache
    def load(path: Path = SHIPPED) -> Portfolio:
        """Read a portfolio; each file is read once."""
        return Portfolio.from_json(json.loads(path.read_text(encoding="utf-8")))

    def rows(self, descriptions: Sequence[Description], data: DatasetDescription) -> np.ndarray:
        """Return the features of configurations, shape (num_configs, num_features)."""
        rows = [features(item, data, self.top1(item.network)) for item in descriptions]
        return np.stack(rows) if rows else np.empty((0, len(FEATURES)))

    def top1(self, network: NetworkDescription) -> float:
        """Return the network's ImageNet accuracy, 0 to 1: the published one, or one predicted from its size."""
        if network.top1 is not None:
            return network.top1
        intercept, slope = self.top1_of_params
        return min(max(intercept + slope * math.log10(max(network.num_params, 1e3) / 1e6), 0.4), 0.9)

    def predict_scores(self, descriptions: Sequence[Description], data: DatasetDescription) -> np.ndarray:
        """Return the expected best scores up to `EPOCHS`, (num_configs, num_epochs); 0 is the worst, 1 the best."""
        rows = self.rows(descriptions, data)
        columns = []
        for epoch in EPOCHS:
            whole = with_epoch(rows, epoch)
            columns.append(np.mean([trees.predict(whole) for trees in self.score], axis=0))
        return np.maximum.accumulate(np.clip(np.column_stack(columns), 0.01, 1.2), axis=1)

    def predict_log_epoch_s(self, descriptions: Sequence[Description], data: DatasetDescription) -> np.ndarray:
        """Return the natural logarithm of the seconds of an epoch on the machine of the recordings."""
        return self.cost.predict(self.rows(descriptions, data)) + math.log(max(data.num_images, 1))

    def embed(self, descriptions: Sequence[Description], data: DatasetDescription) -> np.ndarray:
        """Return standardised features, shape (num_configs, num_features), whose distances measure similarity."""
        return np.asarray((self.rows(descriptions, data) - self.kernel_mean) / self.kernel_scale)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Portfolio:
        """Return the portfolio that ``python -m benchmarks.learn_portfolio`` wrote."""
        if tuple(record["features"]) != FEATURES:
            raise ValueError("The portfolio was learned with other features. Learn it again with this version")
        return cls(
            score=[Trees(**trees) for trees in record["score"]],
            cost=Trees(**record["cost"]),
            top1_of_params=tuple(record["top1_of_params"]),
            kernel_mean=np.array(record["kernel_mean"]),
            kernel_scale=np.array(record["kernel_scale"]),
            provenance=dict(record["provenance"]),
        )


def with_epoch(rows: np.ndarray, epoch: float) -> np.ndarray:
    """Return rows of features, whose last is log10 of an epoch's steps, with log2(epoch) and log10 of all steps."""
    return np.column_stack([rows, np.full(len(rows), math.log2(epoch)), rows[:, -1] + math.log10(epoch)])
