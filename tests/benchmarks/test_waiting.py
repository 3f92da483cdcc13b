from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import waiting


def test_ways_to_wait_are_measured_alone_and_beside_another_program(
    run_benchmark: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(waiting.SPINS, "2,000")  # each way takes two processes
    figures = run_benchmark(waiting.main, "--networks", "test_resnet", "--sizes", 32, "--num-images", 40, "--rounds", 1)
    found = figures["test_resnet, 32"]
    assert found.keys() == {"own", "none", "own, busy", "none, busy"}
    ((name, own, *_),) = waiting.rows_of(figures)
    assert (name, own) == ("test_resnet, 32", found["own"])
    assert own > 0
