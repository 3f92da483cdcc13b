from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import frozen_layers


def test_each_factor_is_measured_and_fewer_layers_are_trained_the_larger_it_is(
    run_benchmark: Callable[..., Any],
) -> None:
    figures = run_benchmark(
        frozen_layers.main, "--networks", "test_resnet", "--sizes", 64, "--factors", 0, 0.5, "--rounds", 1
    )
    assert figures["test_resnet, 64"].keys() == {"0.0", "0.5"}
    assert all(step_ms > 0 for step_ms in figures["test_resnet, 64"].values())
    (row,) = frozen_layers.rows_of({"a network": {"0.0": 4.0, "0.5": 3.0}})
    assert row == ["a network", 4.0, 3.0, 0.75]
    trained = [len(frozen_layers.Step("test_resnet", 64, factor).optimizer.param_groups) for factor in (0.0, 0.5)]
    assert trained[0] > trained[1]
