from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import deadlines


def test_fits_are_timed_in_each_condition(
    run_benchmark: Callable[..., Any], tiny_photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    seen: list[tuple[Any, ...]] = []

    def quick(photos: str, num_images: int, limit_s: float, executor: str, run: str, options: Any) -> dict[str, Any]:
        assert not Path(run).exists()
        seen.append((photos, num_images, limit_s, executor, options["hyperparameters"]))
        return {"wall_s": limit_s + 3, "over_s": 3.0, "seconds": {}, "num_trials": 1, "valid_score": 0.5}

    monkeypatch.setattr(deadlines, "timed_fit", quick)
    figures = run_benchmark(
        deadlines.main, "--data", tiny_photos, "--limits", 1, 10, 300, "--executors", "inline", "--num-images", 8,
        "--loads", "quiet", "busy", "--caches", "warm", "--set", "model=test_resnet",
    )  # fmt: skip
    assert figures.keys() == {"inline, warm, quiet", "inline, warm, busy"}
    assert seen[0] == (str(tiny_photos), 8, 300.0, "inline", {"model": "test_resnet"})  # warms the cache
    assert [each[2] for each in seen[1:]] == [1.0, 10.0, 300.0] * 2
    assert deadlines.rows_of(figures) == [[name, "+3.0", "+3.0!", "+3.0"] for name in figures]
    assert "+3.0!" in capsys.readouterr().out


def test_a_fit_reports_its_own_seconds(tiny_photos: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    options = {"hyperparameters": {**tiny, "epochs": 1}}
    found = deadlines.timed_fit(str(tiny_photos), 8, 60.0, "inline", str(tmp_path / "run"), options)
    assert found["over_s"] == pytest.approx(found["wall_s"] - 60)
    assert 0 < found["seconds"]["total"] <= found["wall_s"]
    assert found["num_trials"] == 1
