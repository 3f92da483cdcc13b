"""The calibration plot of a model card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saccade.tasks.problem import Problem

PLOTTED = "#00796b"
"""Colour of points and bars."""

NUM_BINS = 10  # of predicted probabilities


def calibration_figure(targets: np.ndarray, predictions: np.ndarray, problem: Problem, label: str = "") -> Figure:
    """Draw a reliability diagram: how often predictions of each probability are right; a scatter plot for regression.

    Parameters
    ----------
    targets : ndarray
        As from `Problem.encode`.
    predictions : ndarray, shape (num_images, num_outputs)
        Calibrated probabilities, or numbers.
    problem : Problem
        The problem of both.
    label : str
        The name of the numbers of a regression.
    """
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(5.6, 5.6), dpi=100, facecolor="#ffffff", layout="constrained")
    if not problem.has_classes:
        axes = figure.add_subplot()
        true, predicted = problem.true_labels(targets), predictions[:, 0]
        diagonal = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
        axes.plot(diagonal, diagonal, color="#999999", linewidth=1, linestyle="--", label="prediction = label")
        axes.scatter(true, predicted, s=14, color=PLOTTED, alpha=0.6, linewidths=0)
        axes.set_xlabel(f"true {label or 'value'}", parse_math=False)
        axes.set_ylabel(f"predicted {label or 'value'}", parse_math=False)
        axes.legend(loc="upper left", frameon=False)
        return figure
    from scipy.stats import binomtest  # type: ignore[import-untyped]  # slow to import

    confidence = problem.confidences(predictions).ravel()
    is_right = problem.outcomes(predictions, targets).ravel()
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    has_labels = not problem.has_one_class
    axes, counts_axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="perfect calibration")
    rows = [np.flatnonzero(bins == each) for each in np.unique(bins)]
    means = [confidence[each].mean() for each in rows]
    parts = np.array([is_right[each].mean() for each in rows])
    ends = np.array([binomtest(int(is_right[each].sum()), len(each)).proportion_ci(0.95, "wilson") for each in rows])
    errors = np.maximum(0, [parts - ends[:, 0], ends[:, 1] - parts])
    axes.errorbar(means, parts, errors, fmt="o", color=PLOTTED, capsize=3, label="images, 95 % interval")
    axes.set_ylabel("part of images that have the label" if has_labels else "accuracy")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(loc="upper left", frameon=False)
    counts_axes.hist(confidence, np.linspace(0, 1, NUM_BINS + 1), color=PLOTTED, alpha=0.6)
    counts_axes.set_ylabel("labels" if has_labels else "images")
    counts_axes.set_xlabel("predicted probability")
    return figure
