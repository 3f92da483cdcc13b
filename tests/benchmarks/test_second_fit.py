from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import second_fit


def test_both_fits_report(
    run_benchmark: Callable[..., Any], tiny_photos: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_WEIGHTS", str(tiny_weights))
    figures = run_benchmark(
        second_fit.main, "--data", tiny_photos, "--network", "test_resnet", "--time-limit", 20, "--rounds", 1
    )
    assert list(figures) == ["first", "second"]
    assert all(found["first report s"] > found["probe s"] > 0 for found in figures.values())
