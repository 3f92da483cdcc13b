from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.arithmetic import trials_s

from benchmarks import efficiency
from saccade.numerics.choice import NumericsMemory
from saccade.numerics.device import Numerics


def test_ratios_and_where_the_time_went(
    run_benchmark: Callable[..., Any], tiny_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", tiny_photos, "--networks", "test_resnet", "--sizes", 32, "--epochs", 1]
    (case,) = run_benchmark(efficiency.main, *arguments, "--trials", 1, "--num-images", 30, "--rounds", 1)
    figures = case["figures"]
    for name in ("warm", "cold"):
        assert figures[name]["ratio"] > 0
        # The parts are the whole: the ratio is 1, and what is more than the arithmetic.
        assert sum(figures[name]["overhead"].values()) == pytest.approx(figures[name]["ratio"] - 1, abs=0.02)
    (one,) = case["rounds"]
    assert one["fits"]["cold"]["parts_s"]["images"] > 0
    assert "test_resnet  32" in capsys.readouterr().out


def test_parts_of_a_log_are_its_whole(tmp_path: Path) -> None:
    metrics = {"train_s": 4.0, "val_s": 1.0, "data_s": 0.5}
    records: list[dict[str, Any]] = [
        {"time": 101.0, "kind": "run_started"},
        {"time": 103.0, "kind": "data_ready"},
        {"time": 103.5, "kind": "job_started", "trial": 0},
        {"time": 110.0, "kind": "epoch_done", "trial": 0, "seconds": 5.5, "metrics": metrics},
        {"time": 116.0, "kind": "epoch_done", "trial": 0, "seconds": 5.5, "metrics": metrics},
        {"time": 116.25, "kind": "job_done", "trial": 0},
        {"time": 117.0, "kind": "run_finished"},
    ]
    log = tmp_path / "events.jsonl"
    log.write_text("\n".join(map(json.dumps, records)) + "\n")
    parts = efficiency.parts_s(log, 100.0, 117.5)
    assert parts == pytest.approx(
        {"checks": 1.0, "images": 2.0, "search set up": 0.5, "trial set up": 1.0, "training": 7.0, "data": 1.0,
         "validation": 2.0, "writing": 1.0, "between": 0.75, "finishing": 0.75, "closing": 0.5}
    )  # fmt: skip


def test_the_first_pass_of_a_process_counts_once() -> None:
    assert trials_s([5.0, 2.0], 1) == 7.0
    assert trials_s([5.0, 2.0], 3) == 15.0


def test_the_numerics_of_a_fit_are_read_from_what_it_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    assert efficiency.remembered_numerics() == {}
    chosen = Numerics(torch.device("cpu"), torch.bfloat16)
    NumericsMemory().put("training | resnet18 | 8x3x64x64", {"numerics": chosen.to_json(), "part": 1.0})
    assert efficiency.remembered_numerics() == {"training": "bfloat16, channels last"}
