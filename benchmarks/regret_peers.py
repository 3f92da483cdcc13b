"""Other searches on recorded curves, by their own libraries, for comparison."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pandas as pd

from benchmarks.curves import CurvesDataset
from benchmarks.pool import encode, table_space
from saccade.space import Categorical

Peer = Callable[[CurvesDataset, pd.DataFrame, float, int], "float | None"]
"""Called with a data set, its configurations, seconds and a seed; returns the best accuracy seen, None for nothing."""

NUM_EPOCHS = 50


class _Clock:
    """Trains recorded configurations one after the other, until the time limit."""

    def __init__(self, dataset: CurvesDataset, configs: pd.DataFrame, limit_s: float) -> None:
        self.dataset, self.limit_s = dataset, limit_s
        self.now_s, self.best = 0.0, None
        self.space = table_space(configs)
        self._points = {key: encode(self.space, row) for key, row in configs.iterrows()}
        self.left = list(self._points)
        self.epochs: dict[str, int] = {}

    def nearest(self, config: Mapping[str, Any]) -> str | None:
        """Return the recorded configuration nearest to one, among those not tried yet."""
        wish = encode(self.space, config)
        if not self.left:
            return None
        key = min(self.left, key=lambda key: float(np.abs(self._points[key] - wish).sum()))
        self.left.remove(key)
        return key

    def train(self, key: str) -> float | None:
        """Train one more epoch; return its accuracy, None at the end of the curve or of the time."""
        curve, epoch = self.dataset.curves[key], self.epochs.get(key, 0)
        if epoch == len(curve.scores):
            return None
        self.now_s += float(curve.epoch_s[epoch])
        if self.now_s > self.limit_s:
            return None
        self.epochs[key] = epoch + 1
        score = float(curve.scores[epoch])
        self.best = score if self.best is None else max(self.best, score)
        return score

    @property
    def is_over(self) -> bool:
        return self.now_s >= self.limit_s or not self.left


def tpe_hyperband(dataset: CurvesDataset, configs: pd.DataFrame, limit_s: float, seed: int) -> float | None:
    """Optuna's TPE with its HyperbandPruner, which stops trials permanently."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    clock = _Clock(dataset, configs, limit_s)

    def objective(trial: optuna.Trial) -> float:
        config = {name: trial.suggest_categorical(name, choices.data) for name, choices in clock.space.data.items()}
        key = clock.nearest(config)
        assert key is not None
        best = 0.0
        while (score := clock.train(key)) is not None:
            best = max(best, score)
            trial.report(score, clock.epochs[key])
            if trial.should_prune():
                raise optuna.TrialPruned
        if clock.is_over:
            trial.study.stop()
        return best

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(multivariate=True, seed=seed)
        pruner = optuna.pruners.HyperbandPruner(1, NUM_EPOCHS, 3)
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        # A pruned trial does not stop the study at its end, so the callback does.
        study.optimize(objective, callbacks=[lambda study, _: study.stop() if clock.is_over else None])
    return clock.best


def dehb(dataset: CurvesDataset, configs: pd.DataFrame, limit_s: float, seed: int) -> float | None:
    """Differential evolution with Hyperband; a configuration that returns with more epochs resumes."""
    from ConfigSpace import CategoricalHyperparameter, ConfigurationSpace, OrdinalHyperparameter
    from dehb import DEHB

    clock = _Clock(dataset, configs, limit_s)
    space = ConfigurationSpace(seed=seed)
    for name, choices in clock.space.data.items():
        assert isinstance(choices, Categorical)
        is_ordered = not any(isinstance(value, str) for value in choices.data)
        kind = OrdinalHyperparameter if is_ordered else CategoricalHyperparameter
        space.add(kind(name, list(choices.data)))
    keys: dict[Any, str] = {}
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = DEHB(
            cs=space, f=None, min_fidelity=1, max_fidelity=NUM_EPOCHS, eta=3, n_workers=1, seed=seed,
            output_path=folder, log_level="ERROR",
        )  # fmt: skip
        while not clock.is_over:
            job = search.ask()
            key = keys.get(job["config_id"]) or clock.nearest(job["config"])
            if key is None:
                break
            keys[job["config_id"]] = key
            until, score = round(job["fidelity"]), None
            while clock.epochs.get(key, 0) < until and (got := clock.train(key)) is not None:
                score = got
            if score is None:
                score = float(dataset.curves[key].scores[: max(clock.epochs.get(key, 0), 1)][-1])
            search.tell(job, {"fitness": 1 - score, "cost": 1.0})
    return clock.best


def available() -> dict[str, Peer]:
    """Return the peers whose libraries are installed, by name."""
    peers: dict[str, Peer] = {"tpe + hyperband": tpe_hyperband}
    if importlib.util.find_spec("dehb"):
        peers["dehb"] = dehb
    return peers
