"""Fit the kernel of the search's forecaster to recorded learning curves.

    python -m benchmarks.fit_forecaster --curves DIR [--portfolios DIR] [--configs 30]

The standard deviations and lengths of `saccade.autosearch.forecast.KernelSettings` maximise the likelihood of the
recorded curves of the configurations that the portfolio ranks highest; each data set has a portfolio learned from the
others. They are fitted to all data sets, and to either half; those of one half are evaluated on the other. The printed
loss is the mean negative log-likelihood of a score, in nats: less is better.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from benchmarks.curves import Curves, CurvesDataset
from benchmarks.search_regret import portfolios
from saccade.autosearch.forecast import KernelSettings
from saccade.autosearch.portfolio import EPOCHS, Portfolio

NAMES = [field.name for field in fields(KernelSettings)]
SEEN_EPOCHS = (1, 2, 4, 9, 25, 50)


@dataclass(frozen=True)
class Scores:
    """Scores of a data set: their differences from the expected ones, and the inputs of the kernel."""

    surprise: np.ndarray
    expected: np.ndarray
    when: np.ndarray
    number: np.ndarray
    squares: np.ndarray


def scores_of(curves: Curves, dataset: CurvesDataset, portfolio: Portfolio, num_configs: int) -> Scores:
    """Return the best scores up to some epochs of the configurations that the portfolio ranks highest."""
    keys = list(dataset.curves)
    described = [curves.describe(key) for key in keys]
    expected = portfolio.predict_scores(described, dataset.data)
    points = portfolio.embed(described, dataset.data)
    seen = [
        (number, epoch, dataset.curves[keys[number]].scores[:epoch].max())
        for number in np.argsort(-expected[:, -1])[:num_configs]
        for epoch in SEEN_EPOCHS
        if epoch <= len(dataset.curves[keys[number]].scores)
    ]
    number_O = np.array([number for number, _, _ in seen])
    when_O = np.log([epoch for _, epoch, _ in seen])
    expected_O = np.array(
        [np.interp(when, np.log(EPOCHS), expected[number]) for number, when in zip(number_O, when_O, strict=True)]
    )
    points_O = points[number_O]
    squares_O = (points_O**2).sum(axis=1)
    return Scores(
        np.array([score for _, _, score in seen]) - expected_O,
        expected_O,
        when_O,
        number_O,
        squares_O[:, None] + squares_O[None] - 2 * points_O @ points_O.T,
    )


def loss(logs: np.ndarray, parts: Sequence[Scores]) -> float:
    """Return the mean negative log-likelihood of the scores, given the logarithms of the settings."""
    cfg = KernelSettings(**dict(zip(NAMES, np.exp(np.clip(logs, -9, 5)), strict=True)))
    total = 0.0
    for part in parts:
        near_OO = np.exp(-np.abs(part.when[:, None] - part.when[None]) / cfg.epoch_length)
        like_OO = cfg.similar_sd**2 * np.exp(-0.5 * part.squares / cfg.similar_length**2)
        own_OO = cfg.own_sd**2 * (part.number[:, None] == part.number[None])
        kernel_OO = cfg.scale_sd**2 * np.outer(part.expected, part.expected) + cfg.offset_sd**2
        kernel_OO += near_OO * (like_OO + own_OO)
        kernel_OO[np.diag_indices(len(part.when))] += cfg.noise_sd**2 + cfg.rough_sd**2 * (part.when == 0)
        try:
            root_OO = np.linalg.cholesky(kernel_OO)
        except np.linalg.LinAlgError:
            return 1e6  # no covariance: the optimizer turns back
        whitened_O = np.linalg.solve(root_OO, part.surprise)
        total += float(0.5 * whitened_O @ whitened_O + np.log(np.diag(root_OO)).sum())
        total += 0.5 * len(part.when) * float(np.log(2 * np.pi))
    return total / sum(len(part.when) for part in parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, required=True, help="folder with curves.json and its tables")
    parser.add_argument("--portfolios", type=Path, help="folder to save and load learned portfolios")
    parser.add_argument("--configs", type=int, default=30, help="configurations of each data set")
    options = parser.parse_args(arguments)
    curves = Curves.read(options.curves)
    found = portfolios(curves, curves, options.portfolios)
    parts = [scores_of(curves, dataset, found[dataset.name], options.configs) for dataset in curves.datasets]
    one, other = parts[::2], parts[1::2]
    start = np.log([getattr(KernelSettings(), name) for name in NAMES])
    print(f"{sum(len(part.when) for part in parts)} scores; as they are: {loss(start, parts):.4f}")
    for name, fitted_to, rest in (("one half", one, other), ("other half", other, one), ("all", parts, parts)):
        fitted = minimize(loss, start, args=(fitted_to,), method="L-BFGS-B", options={"maxiter": 60}).x
        print(f"fitted to {name}: {loss(fitted, fitted_to):.4f}; evaluated on the rest: {loss(fitted, rest):.4f}")
        print("  " + ", ".join(f"{key}={value:.3g}" for key, value in zip(NAMES, np.exp(fitted), strict=True)))


if __name__ == "__main__":
    main()
