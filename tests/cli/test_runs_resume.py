"""``saccade resume``, and ``saccade fit --resume``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saccade import ImagePredictor
from saccade.fit.config_file import FIT_TOML, FitConfig

SMALL = ("--model", "test_resnet", "--set", "pretrained=False", "--set", "img_size=32", "--set", "batch_size=4")
# What goes into an ensemble leaves the trials' folders, and `interrupted` could not bring it back.
ONE = ("--ensemble", "1")


def interrupted(folder: Path) -> None:
    """Take the end away from a finished run: its predictor, and the last events."""
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    last_end = max(number for number, line in enumerate(lines) if json.loads(line)["kind"] == "job_done")
    (folder / "events.jsonl").write_text("".join(lines[:last_end]))
    for path in (folder / "predictor").iterdir():
        path.unlink()
    (folder / "predictor").rmdir()


def test_an_interrupted_run_is_finished_and_shown(saccade, splits, tmp_path):
    run = tmp_path / "run"
    first = saccade(
        "fit", splits, *SMALL, *ONE, "--set", "epochs=2", "--lr", "1e-3,1e-2", "--scheduler", "fifo", "--out", run,
        "--executor", "inline",
    )  # fmt: skip
    assert first.exit_code == 0, first.stderr
    interrupted(run)
    result = saccade("resume", run)
    assert result.exit_code == 0, result.stderr
    assert "completed" in result.stdout
    places = f"run {run}\nno report was written; write it: saccade report {run}\n"
    assert result.stdout.endswith(places)
    assert len(ImagePredictor.load(run).leaderboard()) == 2
    shown = saccade("resume", run, "--verbosity", "0")
    assert (shown.exit_code, shown.stdout) == (0, places)


def test_the_time_limit_and_the_place_of_trials_can_be_changed(saccade, splits, tmp_path):
    run = tmp_path / "run"
    saccade("fit", splits, *SMALL, "--set", "epochs=1", "--out", run, "--time-limit", "5m")
    interrupted(run)
    elsewhere = saccade("resume", run, "--executor", "ray", "--address", "127.0.0.1:9")
    assert elsewhere.exit_code == 2
    assert "Ray" in elsewhere.stderr  # nobody listens there
    assert "Unknown executor 'rey'. Did you mean 'ray'?" in saccade("resume", run, "--executor", "rey").stderr
    # The last place is that of later sessions.
    assert saccade("resume", run, "--time-limit", "10m", "--executor", "inline").exit_code == 0
    record = json.loads((run / "run.json").read_text())
    assert (record["time_limit_s"], record["arguments"]["time_limit"]) == (600, 600)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere is not a run folder"),
        ((".",), "is not a run folder"),
        (("nowhere", "--time-limit", "soon"), "--time-limit was given 'soon'"),
    ],
)
def test_invalid_arguments_are_errors_that_leave_no_files(saccade, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = saccade("resume", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_fit_resume_starts_resumes_and_loads(saccade, splits, tmp_path):
    run = tmp_path / "run"
    command = ("fit", splits, *SMALL, "--set", "epochs=2", "--trial-time-limit", "2m", "--out", run, "--resume")
    assert saccade(*command).exit_code == 0
    interrupted(run)
    assert saccade(*command).exit_code == 0
    again = saccade(*command)
    assert again.exit_code == 0, again.stderr
    assert "test top1" in again.stdout
    config = FitConfig.read(run / FIT_TOML)
    assert (config.data, config.trial_time_limit) == (str(splits), 120)
    other = saccade(*command, "--set", "epochs=3")
    assert other.exit_code == 2


def test_options_that_differ_from_the_run_are_named(saccade, splits, tmp_path):
    run = tmp_path / "run"
    saccade("fit", splits, *SMALL, "--set", "epochs=1", "--out", run)
    other = saccade("fit", splits, *SMALL, "--set", "epochs=2", "--out", run, "--resume")
    assert other.exit_code == 2
    assert "epochs was 1 and is 2" in other.stderr
