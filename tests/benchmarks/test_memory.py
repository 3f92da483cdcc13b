from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import memory


def test_fit_and_prediction_over_numbers_of_images(
    run_benchmark: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_benchmark(memory.main, "--num-images", 16, "--times", 1, 2, "--photo-size", 40, 30)
    seen = [(one["task"], one["num_images"]) for one in found["measured"]]
    assert seen == [("fit", 16), ("predict", 16), ("fit", 32), ("predict", 32)]
    assert all(one["all_mb"] >= one["start_mb"] > 0 for one in found["measured"])
    assert set(found["bytes_per_image"]) == {"fit", "predict"}
    assert "fit, 32 images" in capsys.readouterr().out
