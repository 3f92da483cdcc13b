"""Learn the portfolio of the package from recorded fine-tuning runs.

    python -m benchmarks.learn_portfolio --curves DIR [--out src/saccade/autosearch/portfolio.json]

`benchmarks.search_regret` also calls `learn`, without the data sets on which the portfolio is evaluated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.curves import Curve, Curves, CurvesDataset, network_of
from saccade._version import __version__
from saccade.autosearch.features import FAMILIES, FEATURES
from saccade.autosearch.portfolio import EPOCHS, SHIPPED, Portfolio, Trees, with_epoch

# How much a feature counts, in standard deviations, when configurations are compared; the others have 0.15.
_WEIGHTS = {
    "log_params": 1.0, "log_input": 0.6, "top1": 0.8, "pretraining": 0.4, "is_convolutional": 0.3,
    "is_transformer": 0.5, "log_lr": 1.0, "log_batch": 0.6, "log_lr_comparable": 1.0, "log_lr_effective": 1.0,
    "is_adaptive": 0.8, "is_plain_sgd": 0.6, "frozen_part": 0.8, "head_only": 0.6, "layer_decay": 0.4,
    "warmup_epochs": 0.3, **{f"family_{name}": 0.35 for name in FAMILIES},
    **dict.fromkeys(("log_images", "log_classes", "log_images_per_class", "log_steps"), 0.0),
}  # fmt: skip
_NUM_BAGS = 3
NUM_TREES = 300
_NO_WEIGHT = 1e6
# A run could take 16 hours, less its overhead, when the curves were recorded; what would take longer was cut short.
_RECORDING_LIMIT_S = 0.85 * 16 * 3600.0


def learn(curves: Curves, datasets: Sequence[CurvesDataset], skip_families: Sequence[str] = ()) -> Portfolio:
    """Learn a portfolio from the runs on some data sets.

    Parameters
    ----------
    curves
        The recordings.
    datasets
        Those of them to learn from.
    skip_families
        Families of networks to leave out.
    """
    parts = [_rows(curves, dataset, skip_families) for dataset in datasets]
    names = sorted({str(row["model"]) for _, row in curves.configs.iterrows()})
    networks = [network for name in names if (network := network_of(name)).family not in skip_families]
    slope, intercept = np.polyfit([np.log10(n.num_params / 1e6) for n in networks], [n.top1 for n in networks], 1)
    scores = np.concatenate([part["score_rows"] for part in parts]), np.concatenate([part["scores"] for part in parts])
    weights = np.concatenate([np.full(len(part["scores"]), 1 / len(part["scores"])) for part in parts])
    configs = np.concatenate([part["cost_rows"] for part in parts])
    # A feature that is constant in these runs, such as a family left out, must not make a new network an outlier.
    scale = np.where(np.ptp(configs, axis=0) > 0, configs.std(axis=0), _NO_WEIGHT)
    weight = np.array([_WEIGHTS.get(name, 0.15) for name in FEATURES])
    cost = HistGradientBoostingRegressor(
        max_iter=NUM_TREES, learning_rate=0.05, max_leaf_nodes=12, min_samples_leaf=10, random_state=0
    ).fit(configs, np.concatenate([part["log_cost"] for part in parts]))
    return Portfolio(
        score=[_boosted(*scores, weights / weights.mean(), seed) for seed in range(_NUM_BAGS)],
        cost=exported(cost),
        top1_of_params=(float(intercept), float(slope)),
        kernel_mean=configs.mean(axis=0),
        kernel_scale=scale / np.maximum(weight, 1e-9),
    )


def _rows(curves: Curves, dataset: CurvesDataset, skip_families: Sequence[str]) -> dict[str, np.ndarray]:
    """Return what there is to learn from one data set."""
    keys = [key for key in dataset.curves if curves.describe(key).network.family not in skip_families]
    unlearned = Portfolio([], Trees(0, [], [], [], []), (0.5, 0.1), np.zeros(1), np.ones(1))
    rows = unlearned.rows([curves.describe(key) for key in keys], dataset.data)
    low, high = dataset.lowest, dataset.best
    score_rows, scores = [], []
    for epoch in EPOCHS:
        known = [index for index, key in enumerate(keys) if is_known_at(dataset.curves[key], epoch)]
        score_rows.append(with_epoch(rows[known], epoch))
        best = [dataset.curves[keys[index]].scores[:epoch].max() for index in known]
        scores.append((np.array(best) - low) / (high - low))
    epoch_s = np.array([dataset.curves[key].epoch_s.mean() for key in keys])
    return {
        "score_rows": np.concatenate(score_rows),
        "scores": np.concatenate(scores),
        "cost_rows": rows,
        "log_cost": np.log(epoch_s / dataset.data.num_images),
    }


def is_known_at(curve: Curve, epoch: int) -> bool:
    """Return whether the score of a run after an epoch is known.

    A run that ended by itself before that epoch, such as one that crashed, keeps its score: without this, trees ranked
    every third configuration too high, because only first epochs of its kind were recorded. The score of a run that the
    recording cut short is unknown.
    """
    was_cut = curve.epoch_s.sum() + 2 * curve.epoch_s.mean() > _RECORDING_LIMIT_S
    return bool(len(curve.scores) >= epoch or not was_cut)


def _boosted(rows: np.ndarray, scores: np.ndarray, weights: np.ndarray, seed: int) -> Trees:
    model = HistGradientBoostingRegressor(
        max_iter=NUM_TREES, learning_rate=0.06, max_leaf_nodes=16, min_samples_leaf=15, l2_regularization=1.0,
        max_features=0.4, random_state=seed,
    )  # fmt: skip
    return exported(model.fit(rows, scores, weights))


def exported(model: HistGradientBoostingRegressor) -> Trees:
    """Return a fitted model of scikit-learn's as plain arrays; see `Trees`."""
    roots: list[int] = []
    feature: list[int] = []
    value: list[float] = []
    right: list[int] = []

    def add(nodes: np.ndarray, index: int) -> None:
        node, place = nodes[index], len(feature)
        feature.append(-1 if node["is_leaf"] else int(node["feature_idx"]))
        value.append(float(node["value"] if node["is_leaf"] else node["num_threshold"]))
        right.append(0)
        if not node["is_leaf"]:
            add(nodes, int(node["left"]))
            right[place] = len(feature) - place
            add(nodes, int(node["right"]))

    for (predictor,) in model._predictors:
        roots.append(len(feature))
        add(predictor.nodes, 0)
    return Trees(float(np.ravel(model._baseline_prediction)[0]), roots, feature, value, right)


def portfolio_to_json(portfolio: Portfolio) -> dict[str, Any]:
    """Return a dictionary that JSON can hold, for `Portfolio.from_json`."""
    return {
        "provenance": portfolio.provenance,
        "features": list(FEATURES),
        "top1_of_params": list(portfolio.top1_of_params),
        "kernel_mean": [float(f"{value:.6g}") for value in portfolio.kernel_mean],
        "kernel_scale": [float(f"{value:.6g}") for value in portfolio.kernel_scale],
        "cost": trees_to_json(portfolio.cost),
        "score": [trees_to_json(trees) for trees in portfolio.score],
    }


def trees_to_json(trees: Trees) -> dict[str, Any]:
    """Return the arguments that make these trees, rounded."""
    return {
        "baseline": float(trees.baseline),
        "scale": float(trees.scale),
        "roots": trees.roots.tolist(),
        "feature": trees.feature.tolist(),
        "value": [float(f"{value:.4g}") for value in trees.value],
        "right": trees.right.tolist(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn from all data sets, and write the portfolio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, required=True, help="folder with curves.json and its tables")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    options = parser.parse_args(arguments)
    curves = Curves.read(options.curves)
    portfolio = learn(curves, curves.datasets)
    portfolio.provenance.update(
        learned_from="Quick-Tune's Extended meta-dataset (Meta-Album images; Pineda Arango et al., ICLR 2024)",
        datasets=[dataset.name for dataset in curves.datasets],
        num_runs=sum(len(dataset.curves) for dataset in curves.datasets),
        script="benchmarks/learn_portfolio.py",
        date=date.today().isoformat(),
        versions={"saccade": __version__, "scikit-learn": sklearn.__version__},
    )
    text = json.dumps(portfolio_to_json(portfolio), separators=(",", ":"))
    options.out.write_text(text + "\n", encoding="utf-8")
    print(f"{options.out}: {len(text) / 1e6:.2f} MB, {portfolio.provenance['num_runs']} runs")


if __name__ == "__main__":
    main()
