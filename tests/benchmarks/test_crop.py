from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import crop


def test_each_network_and_their_mean_are_judged_at_each_crop(
    run_benchmark: Callable[..., Any], tiny_photos: Path, tiny_weights: Path
) -> None:
    figures = run_benchmark(
        crop.main, "--data", tiny_photos, "--weights", tiny_weights, "--crops", 1, 0.5, "--folds", 3
    )
    assert list(figures) == ["1", "0.5"]
    assert set(figures["1"]) >= {"test_resnet", crop.MEAN}
    assert all(0 <= accuracy <= 1 for found in figures.values() for accuracy in found.values())
    assert len(crop.rows_of(figures)) == len(figures["1"])
