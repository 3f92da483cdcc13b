from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import streams


def test_training_and_prediction_are_measured_by_streams(run_benchmark: Callable[..., Any]) -> None:
    figures = run_benchmark(streams.main, "--networks", "test_resnet", "--sizes", 64, "--streams", 1, 2, "--rounds", 1)
    found = figures["test_resnet, 64"]
    assert found.keys() == {"train", "predict"}
    assert all(ms.keys() == {"1", "2"} and min(ms.values()) > 0 for ms in found.values())
    (row,) = streams.rows_of({"a network": {"train": {"1": 4.0, "2": 2.0}, "predict": {"1": 3.0, "2": 6.0}}})
    assert row == ["a network", 4.0, 2.0, 2.0, 3.0, 6.0, 1.0]
