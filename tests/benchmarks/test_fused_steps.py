from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import fused_steps


def test_steps_and_their_optimizers_are_measured_both_ways(run_benchmark: Callable[..., Any]) -> None:
    figures = run_benchmark(fused_steps.main, "--networks", "test_resnet", "--sizes", 64, "--rounds", 1)
    found = figures["test_resnet, 64"]
    assert list(found) == ["step", "optimizer"]
    assert all(list(ms) == list(fused_steps.WAYS) and min(ms.values()) > 0 for ms in found.values())
    assert all(found["optimizer"][way] < found["step"][way] for way in fused_steps.WAYS)
    (row,) = fused_steps.rows_of({"one": {"step": {"in turn": 4.0, "at once": 2.0}, "optimizer": dict(found["step"])}})
    assert row[:4] == ["one", 4.0, 2.0, 2.0]


def test_the_ways_differ() -> None:
    for way in fused_steps.WAYS:
        step = fused_steps.made("test_resnet", 64, way)
        assert {group["fused"] for group in step.optimizer.param_groups} == {way == "at once"}
