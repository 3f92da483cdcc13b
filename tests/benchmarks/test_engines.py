from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import engines
from saccade.numerics.engine import ONNX

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def test_engines_are_measured_side_by_side(run_benchmark: Callable[..., Any]) -> None:
    figures = run_benchmark(engines.main, "--networks", "test_resnet", "--num-images", 8, "--rounds", 2)
    found = figures["test_resnet"]
    assert set(found["rates"]) == set(engines.ENGINES)
    assert all(rate > 0 for rates in found["rates"].values() for rate in rates)
    assert found["difference"][ONNX] < 1e-5 < found["difference"]["torch, 16 bits"]
    (parts,), (rates,) = engines.rows_of(figures)
    assert all(value >= 0 for value in parts[1:] + rates[1:])
