from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import measuring, waiting
from saccade.executor import Executor, InlineExecutor
from saccade.study.registry import Registry


def test_ways_to_wait_are_measured_alone_and_beside_another_program(
    run_benchmark: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Six processes with a worker each would import torch twelve times.
    only_inline: Registry[Executor] = Registry("executor", Executor, {"auto": InlineExecutor})  # type: ignore[type-abstract]
    monkeypatch.setattr(measuring, "in_own_process", lambda function, environment, **given: function(**given))
    monkeypatch.setattr("saccade.executor.EXECUTORS", only_inline)
    figures = run_benchmark(waiting.main, "--networks", "test_resnet", "--sizes", 32, "--num-images", 40, "--rounds", 1)
    found = figures["test_resnet, 32"]
    assert found.keys() == {"own", "2,000", "none", "own, busy", "2,000, busy", "none, busy"}
    ((name, own, *_),) = waiting.rows_of(figures)
    assert (name, own) == ("test_resnet, 32", found["own"])
    assert own > 0
