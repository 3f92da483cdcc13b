from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import heads
from saccade.tasks.problem import Problem


def test_each_way_is_compared_with_ensemble_selection(
    run_benchmark: Callable[..., Any], tiny_photos: Path, tiny_weights: Path
) -> None:
    figures = run_benchmark(
        heads.main, "--data", tiny_photos, "--weights", tiny_weights, "--images-per-class", "all", "--draws", 2
    )
    found = figures["all"]
    assert found[heads.SELECTED]["gain"] == found[heads.SELECTED]["loss_error"] == 0
    assert all(0 <= each["accuracy"] <= 1 and each["log_loss"] > 0 for each in found.values())
    assert len(heads.rows_of(figures)) == len(found) == 7


def test_a_head_on_concatenated_features_uses_what_single_networks_lack() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(240) % 4
    parts = [np.eye(2)[y % 2], np.eye(2)[y // 2]]  # each network separates two pairs of classes
    x = [(3 * part + rng.normal(0, 0.3, part.shape)).astype(np.float32) for part in parts]
    problem = Problem.of([f"class {number}" for number in y], "multiclass")
    ways = heads.methods_of(x, np.arange(160), np.arange(160, 240), y, problem)
    accuracy = {name: (rows.argmax(1) == y[160:]).mean() for name, (_, rows) in ways.items()}
    assert accuracy["the best probe"] < 0.7
    assert min(accuracy["concatenated features"], accuracy["mean of log-probabilities"]) > 0.9
