from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import pipeline


def test_every_stage_is_measured(run_benchmark: Callable[..., Any], tiny_photos: Path) -> None:
    arguments = ["--data", tiny_photos, "--networks", "test_resnet", "--sizes", 32, "--batch-size", 8]
    (case,) = run_benchmark(pipeline.main, *arguments, "--num-images", 24, "--seconds", 0.01, "--rounds", 1)
    rate = case["images_per_s"]
    assert set(pipeline.STAGES) <= set(rate)
    assert rate["store"] > rate["decode 1"], "a store that is no faster than decoding would be of no use"
    assert 0 <= case["data_part"] <= 1
    slower = min(rate["decode"], rate["predict"])
    assert case["predict_over_slower"] == pytest.approx(rate["files"] / slower)
    assert case["predict_over_together"] > case["predict_over_slower"]


def test_the_bottleneck_is_the_slower_one() -> None:
    assert pipeline.bottleneck({"batches": 10.0, "train": 20.0}) == "batches"
