from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import normalisation


def test_prediction_is_measured_before_and_after_folding(run_benchmark: Callable[..., Any]) -> None:
    figures = run_benchmark(normalisation.main, "--networks", "test_resnet", "test_vit", "--sizes", 160, "--rounds", 1)
    assert all(rate > 0 for rate in figures["test_resnet, 160"].values())
    without = figures["test_vit, 160"]
    assert without["after"] is None
    rows = {row[0]: row for row in normalisation.rows_of(figures)}
    assert rows["test_resnet, 160"][3] > 0
    assert rows["test_vit, 160"][3] is None
