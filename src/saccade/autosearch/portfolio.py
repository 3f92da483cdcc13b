"""The learned portfolio: what recorded fine-tuning runs tell of configurations that nobody has tried yet."""

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
from saccade.autosearch.trees import Trees

SHIPPED = Path(__file__).with_name("portfolio.json")
"""The portfolio that comes with the package."""

EPOCHS = (1, 2, 3, 5, 9, 15, 25, 50)
"""Epochs at which scores are predicted; between them they are interpolated in the logarithm."""


@dataclass(frozen=True)
class Portfolio:
    """Predicts how good a configuration will be after each epoch, and what an epoch of it will cost.

    It was learned by ``python -m benchmarks.learn_portfolio`` from recorded learning curves [1]_, and knows
    configurations by what describes them (see `saccade.autosearch.features`), so that it has a word on networks that it
    has never seen.

    Parameters
    ----------
    score : list of Trees
        Their mean is the best score up to an epoch, where 0 is the worst configuration of a data set and 1 the best.
        The columns are `FEATURES`, the logarithm to base 2 of the epoch, and that to base 10 of the steps up to it.
    cost : Trees
        The natural logarithm of the seconds of an epoch for each training image, on the machine of the recordings.
    top1_of_params : tuple of float
        Intercept and slope of the usual ImageNet accuracy over the logarithm to base 10 of a million parameters, for
        networks whose own is not known.
    kernel_mean, kernel_scale : ndarray of float64, shape (num_features,)
        What to subtract from features, and to divide them by, before distances between configurations are taken.
    provenance : dict
        What it was learned from, with which script and versions.

    References
    ----------
    .. [1] S. Pineda Arango, F. Ferreira, A. Kadra, F. Hutter and J. Grabocka, "Quick-Tune: quickly learning which
       pretrained model to finetune and how", ICLR 2024.

    Examples
    --------
    >>> portfolio = Portfolio.load()
    >>> sound = Description(NetworkDescription(21.8e6, top1=0.79), {"lr": 1e-3})
    >>> wild = Description(NetworkDescription(21.8e6, top1=0.79), {"lr": 1.0})
    >>> data = DatasetDescription(num_images=2000, num_classes=10)
    >>> scores = portfolio.predict_scores([sound, wild], data)
    >>> scores.shape == (2, len(EPOCHS)) and bool(scores[0, -1] > scores[1, -1])
    True
    """

    score: list[Trees]
    cost: Trees
    top1_of_params: tuple[float, float]
    kernel_mean: np.ndarray
    kernel_scale: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    @cache
    def load(path: Path = SHIPPED) -> Portfolio:
        """Read a portfolio; each file once."""
        return Portfolio.from_json(json.loads(path.read_text(encoding="utf-8")))

    def rows(self, descriptions: Sequence[Description], data: DatasetDescription) -> np.ndarray:
        """Return the features of configurations, shape (num_configs, num_features)."""
        rows = [features(item, data, self.top1(item.network)) for item in descriptions]
        return np.stack(rows) if rows else np.empty((0, len(FEATURES)))

    def top1(self, network: NetworkDescription) -> float:
        """Return the network's ImageNet accuracy, 0 to 1: the published one, or what is usual for its size."""
        if network.top1 is not None:
            return network.top1
        intercept, slope = self.top1_of_params
        return min(max(intercept + slope * math.log10(max(network.num_params, 1e3) / 1e6), 0.4), 0.9)

    def predict_scores(self, descriptions: Sequence[Description], data: DatasetDescription) -> np.ndarray:
        """Return the scores to be expected.

        Parameters
        ----------
        descriptions
            The configurations.
        data
            The training images.

        Returns
        -------
        ndarray of float64, shape (num_configs, num_epochs)
            The best score up to each of `EPOCHS`; 1 is the best that any configuration would reach, 0 the worst.
        """
        rows = self.rows(descriptions, data)
        columns = []
        for epoch in EPOCHS:
            whole = with_epoch(rows, epoch)
            columns.append(np.mean([trees.predict(whole) for trees in self.score], axis=0))
        scores: np.ndarray = np.maximum.accumulate(np.clip(np.column_stack(columns), 0.01, 1.2), axis=1)
        return scores

    def predict_log_epoch_s(self, descriptions: Sequence[Description], data: DatasetDescription) -> np.ndarray:
        """Return the natural logarithm of the seconds of an epoch, as if on the machine of the recordings.

        Returns
        -------
        ndarray of float64, shape (num_configs,)
            To be shifted by what this machine differs.
        """
        shift = math.log(max(data.num_images, 1))
        log_s: np.ndarray = self.cost.predict(self.rows(descriptions, data)) + shift
        return log_s

    def embed(self, descriptions: Sequence[Description], data: DatasetDescription) -> np.ndarray:
        """Return points whose distances tell how alike configurations are, shape (num_configs, num_features)."""
        points: np.ndarray = (self.rows(descriptions, data) - self.kernel_mean) / self.kernel_scale
        return points

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Portfolio:
        """Return the portfolio that `to_json` wrote.

        Raises
        ------
        ValueError
            When it was learned for other features than this version has.
        """
        if tuple(record["features"]) != FEATURES:
            raise ValueError("the portfolio was learned for other features; learn it anew with this version")
        return cls(
            score=[Trees.from_json(trees) for trees in record["score"]],
            cost=Trees.from_json(record["cost"]),
            top1_of_params=tuple(record["top1_of_params"]),
            kernel_mean=np.array(record["kernel_mean"]),
            kernel_scale=np.array(record["kernel_scale"]),
            provenance=dict(record["provenance"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return {
            "provenance": self.provenance,
            "features": list(FEATURES),
            "top1_of_params": list(self.top1_of_params),
            "kernel_mean": [float(f"{value:.6g}") for value in self.kernel_mean],
            "kernel_scale": [float(f"{value:.6g}") for value in self.kernel_scale],
            "cost": self.cost.to_json(),
            "score": [trees.to_json() for trees in self.score],
        }


def with_epoch(rows: np.ndarray, epoch: float) -> np.ndarray:
    """Return rows of features with the two columns that tell the epoch.

    Parameters
    ----------
    rows : ndarray of float64, shape (num_rows, num_features)
        The last feature is the logarithm of the steps of an epoch.
    epoch : float
        At least 1.

    Returns
    -------
    ndarray of float64, shape (num_rows, num_features + 2)
        The rows.
    """
    return np.column_stack([rows, np.full(len(rows), math.log2(epoch)), rows[:, -1] + math.log10(epoch)])
