"""Runs that are killed by SIGKILL and resumed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from saccade import ImagePredictor

MakeColours = Callable[..., pd.DataFrame]

KILLS = {
    "inline": [("run_started", 1), ("job_started", 1), ("epoch_done", 3), ("job_done", 2)],
    "process": [("epoch_done", 2)],
}
"""After which number of which events the run is killed; a worker process takes seconds to start each time."""


def run_command(command: list[str], output: Path, cache: str) -> None:
    """Run the command line in this process."""
    import os

    os.environ["SACCADE_CACHE"] = cache
    from saccade.cli.app import app

    with output.open("w") as file, contextlib.redirect_stdout(file):
        app(command, prog_name="saccade")


def wait_for(folder: Path, kind: str, num: int, process: BaseProcess) -> None:
    while process.is_alive():
        if (folder / "events.jsonl").is_file() and len(whole_events(folder, kind)) >= num:
            return
        time.sleep(0.005)
    raise AssertionError("it ended before")


def whole_events(folder: Path, kind: str) -> list[dict[str, Any]]:
    text = (folder / "events.jsonl").read_bytes()
    found = [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
    return [event for event in found if event["kind"] == kind]


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signals")
@pytest.mark.slow
@pytest.mark.parametrize("executor", KILLS)
def test_a_run_that_is_killed_repeatedly_completes(make_colours: MakeColours, tmp_path: Path, executor: str) -> None:
    make_colours(30)
    folder = tmp_path / "run"
    small = [f"--set={setting}" for setting in ("pretrained=False", "img_size=32", "batch_size=4", "epochs=5")]
    fit = ["fit", str(tmp_path / "colours_0"), "--model", "test_resnet", "--lr", "1e-3,1e-2,1e-1", *small]
    fit += ["--searcher", "random", "--scheduler", "fifo"]  # nothing is measured before the search
    fit += ["--out", str(folder), "--executor", executor, "--verbosity", "0", "--time-limit", "10m"]
    resume = ["resume", str(folder)]
    context = multiprocessing.get_context("forkserver")  # every process is a copy of one that has imported torch
    context.set_forkserver_preload(["saccade.cli.app", "saccade.fit.fitting", "saccade.training.trial.trainer"])

    def start(command: list[str]) -> BaseProcess:
        process = context.Process(target=run_command, args=(command, tmp_path / "output", str(tmp_path / "cache")))
        process.start()
        return process

    for number, (kind, num) in enumerate(KILLS[executor]):
        process = start(resume if number else fit)
        wait_for(folder, kind, num, process)
        process.kill()
        process.join()
        assert not (folder / "predictor").exists()
    last = start(resume)
    last.join()
    assert last.exitcode == 0
    assert (tmp_path / "output").read_text().endswith(f"run {folder}\n")
    epochs = [(event["trial"], event["epoch"]) for event in whole_events(folder, "epoch_done")]
    assert len(epochs) == len(set(epochs))
    predictor = ImagePredictor.load(folder, verbosity=0)
    assert predictor.predict(str(tmp_path / "colours_0" / "red" / "000.png")).notna().all()
    assert len(predictor.leaderboard()) == 3
