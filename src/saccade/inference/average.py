"""Average of the predictions of several networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def weighted_mean(predictions: Sequence[np.ndarray], weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the mean of several models' predictions, each counting as its weight says; weights sum to 1.

    Returns
    -------
    ndarray
        Of the shape and dtype of the first model's predictions.

    Examples
    --------
    >>> weighted_mean([np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])], [0.75, 0.25]).tolist()
    [[0.75, 0.25]]
    """
    if len(predictions) == 1:
        return predictions[0]
    mean = np.zeros(predictions[0].shape, np.float64)
    for rows, weight in zip(predictions, weights, strict=True):
        if weight:
            mean += weight * rows
    return mean.astype(predictions[0].dtype)
