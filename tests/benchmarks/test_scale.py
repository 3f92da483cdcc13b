from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import scale


def test_every_step_over_numbers_of_files(run_benchmark: Callable[..., Any], tmp_path: Path) -> None:
    found = run_benchmark(scale.main, "--nums", 300, 600, "--most-decoded", 300, "--folder", tmp_path)
    assert [one["step"] for one in found if one["num_files"] == 300] == list(scale.STEPS)
    assert [one["step"] for one in found if one["num_files"] == 600] == list(scale.STEPS)[: -len(scale.DECODING)]
    assert list(tmp_path.iterdir()) == [tmp_path / "figures.json"], "files are left behind"


def test_files_are_where_the_steps_look_for_them(tmp_path: Path) -> None:
    folder = scale.make_files(tmp_path / "files", 250)
    assert sorted(map(str, folder.glob("*/*/*.pgm"))) == sorted(scale._paths(folder, 250))


def test_costs_are_compared_per_file() -> None:
    found = [
        {"step": "scan", "num_files": 100, "wall_s": 1.0, "grown_mb": 1.0},
        {"step": "scan", "num_files": 1000, "wall_s": 30.0, "grown_mb": 5.0},
        {"step": "scan", "num_files": 1000, "wall_s": 20.0, "grown_mb": 6.0},
    ]
    assert scale.rows_of(found)[-1] == ["scan", "1,000", 20.0, 20_000.0, 5.0, 5000.0, 2.0, 0.5]
