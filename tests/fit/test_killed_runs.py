"""Runs that are killed or interrupted by signals, and resumed."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from forked import Forked, forked_saccade
from saccade import ImagePredictor
from saccade.cli import app

MakeColours = Callable[..., pd.DataFrame]


def wait_for(folder: Path, kind: str, num: int, process: Forked) -> None:
    while process.poll() is None:
        if (folder / "events.jsonl").is_file() and len(whole_events(folder, kind)) >= num:
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate())


def whole_events(folder: Path, kind: str) -> list[dict[str, Any]]:
    text = (folder / "events.jsonl").read_bytes()
    found = [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
    return [event for event in found if event["kind"] == kind]


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signals")
def test_a_run_that_is_killed_repeatedly_completes(
    make_colours: MakeColours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("saccade.executor.slots.num_usable_cpus", lambda: 1)  # so there is one worker
    make_colours(10)
    folder = tmp_path / "run"
    small = [f"--set={setting}" for setting in ("pretrained=False", "img_size=32", "batch_size=4", "epochs=5")]
    fit = ["fit", str(tmp_path / "colours_0"), "--model", "test_resnet", "--lr", "1e-3,1e-2,1e-1", *small]
    fit += ["--out", str(folder), "--verbosity", "1", "--time-limit", "10m", "--executor"]
    with forked_saccade(*fit, "inline") as killed:
        wait_for(folder, "epoch_done", 3, killed)
        killed.send_signal(signal.SIGKILL)
    assert not (folder / "predictor").exists()

    process = forked_saccade(*fit, "process", "--resume")
    wait_for(folder, "job_done", 1, process)
    process.send_signal(signal.SIGINT)  # Ctrl-C: the first one makes the predictor
    wait_for(folder, "warned", 1 + len(whole_events(folder, "warned")), process)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate()[1]
    assert not (folder / "predictor").exists()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert f"saccade resume {folder}. Or" in stderr
    assert f"saccade resume {folder} --finish" in stderr
    done = CliRunner().invoke(app, [*fit, "inline", "--resume"])
    assert done.exit_code == 0, done.stderr
    assert f"\nrun {folder}\n" in done.stdout
    epochs = [(event["trial"], event["epoch"]) for event in whole_events(folder, "epoch_done")]
    assert len(epochs) == len(set(epochs))
    predictor = ImagePredictor.load(folder, verbosity=0)
    assert predictor.predict(str(tmp_path / "colours_0" / "red" / "000.png")).notna().all()
    assert len(predictor.leaderboard()) == 3
