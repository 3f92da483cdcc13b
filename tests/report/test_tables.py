"""The table of trials."""

from __future__ import annotations

import io

import pandas as pd
from rich.console import Console

from saccade.report.tables import print_trials, seconds_line


def printed(*rows: dict[str, object]) -> str:
    base = {"trial": 0, "status": "completed", "score_val": 0.5, "epochs_done": 2, "best_epoch": 1, "fit_time_s": 1.25}
    frame = pd.DataFrame([{**base, **row, "reason": row.get("reason", "")} for row in rows])
    console = Console(file=io.StringIO(), width=160)
    print_trials(console, frame)
    return console.file.getvalue()


def test_hyperparameters_equal_in_all_trials_are_printed_once_below():
    text = printed({"model": "a", "scale": (0.7, 1.0)}, {"trial": 1, "model": "b", "scale": (0.7, 1.0)})
    header, *_, caption = text.strip().splitlines()
    assert "model" in header
    assert "scale" not in header
    assert caption.strip() == "all trials: scale=(0.7, 1.0)"


def test_a_lone_trial_shows_all_its_hyperparameters():
    text = printed({"model": "a", "lr": 0.0012345, "images_per_s": 2110.0})
    assert "0.00123" in text
    assert "2,110" in text
    assert "all trials" not in text


def test_a_failed_trial_has_a_remark_and_empty_cells():
    failed = {"status": "failed", "score_val": None, "best_epoch": None, "reason": "loss is [nan]"}
    text = printed({"lr": 0.1}, {"trial": 1, "lr": 0.2, **failed})
    assert "remark" in text
    assert "loss is [nan]" in text
    assert "None" not in text
    assert " 1.0 " not in text  # epochs are integers


def test_the_result_is_below_the_table():
    frame = pd.DataFrame([{"trial": 1, "status": "completed", "score_val": 0.9, "weight": 0.5, "reason": ""}] * 2)
    console = Console(file=io.StringIO(), width=60)
    result = "ensemble of trials 1 and 0, accuracy 0.85 (best single: trial 1, 0.9)"
    print_trials(console, frame, {"result": result, "why_not_best_trial": "it was lucky", "best_trial": 1})
    lines = console.file.getvalue().splitlines()
    assert any(" 0.50" in line for line in lines)
    assert lines[-2:] == [f"result: {result}", "trial 1 is not the result: it was lucky"]


def test_phases_that_take_no_time_are_left_out() -> None:
    seconds = {"decoding": 3.14, "training": 41.2, "selection": 0.01, "total": 44.35}
    assert seconds_line(seconds) == "44.4 s: decoding 3.1, training 41.2"
