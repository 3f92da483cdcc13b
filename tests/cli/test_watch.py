"""``saccade watch``: runs that wait, work, finish, die and are not there yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import saccade
from saccade.cli import app
from saccade.events import (
    EpochDone,
    Event,
    JobDone,
    JobStarted,
    PhaseDone,
    RunFinished,
    RunPlanned,
    RunStarted,
    TrialCreated,
)
from saccade.space import Categorical
from saccade.study.event_log import EventLog
from saccade.study.run_folder import lock_owner, locked

START: list[Event] = [
    RunStarted("run", None, 90.0),
    RunPlanned("binary (2 different labels)", "accuracy", ["resnet18"], "cpu", "in this process"),
    PhaseDone("preparing", 0.0, 1.0, "search"),
    TrialCreated(0, {"model": "resnet18", "epochs": 2}),
    JobStarted(0),
    EpochDone(0, 1, 0.75, 3.0, {"accuracy": 0.75}),
]
END: list[Event] = [JobDone(0), RunFinished(0, 0.75, 8.0, "trial 0, accuracy 0.7500")]


def write(folder: Path, events: list[Event]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").touch()
    with EventLog(folder / "events.jsonl") as log:
        for event in events:
            log(event)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_finished_run_is_shown_and_not_touched(tmp_path: Path) -> None:
    write(tmp_path, START + END)
    before = snapshot(tmp_path)
    result = CliRunner().invoke(app, ["watch", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "  trial 0  accuracy 0.7500 in epoch 1\nresult: trial 0, accuracy 0.7500  8.0 s in all\n" in result.stdout
    assert "\x1b" not in result.stdout
    assert snapshot(tmp_path) == before


def test_a_run_that_died_is_an_error_that_says_how_to_continue(tmp_path: Path) -> None:
    write(tmp_path, START)
    result = CliRunner().invoke(app, ["watch", str(tmp_path)])
    assert result.exit_code == 2
    assert "saccade: No process works on the run any more" in result.stderr
    assert f"saccade resume {tmp_path}" in result.stderr
    lines = CliRunner().invoke(app, ["watch", str(tmp_path), "--json"]).stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [*(event.kind for event in START), "error"]


def test_the_search_of_a_function_has_its_own_advice(tmp_path: Path) -> None:
    def fail(config: dict[str, int]) -> float:
        if config["x"] == 2:
            raise KeyboardInterrupt
        return -config["x"]

    options = {"searcher": "grid", "mode": "max", "metric": "gain", "verbosity": 0}
    with pytest.raises(KeyboardInterrupt):
        saccade.tune(fail, {"x": Categorical(1, 2)}, path=tmp_path / "search", **options)  # type: ignore[arg-type]
    result = CliRunner().invoke(app, ["watch", str(tmp_path / "search")])
    assert result.exit_code == 2
    assert "trial 0  gain -1.0000 in epoch 1" in result.stdout
    assert f"Continue the search in {tmp_path / 'search'} in Python: call saccade.tune" in result.stderr


@pytest.mark.parametrize("content", ["file", "folder"])
def test_something_else_than_a_run_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "thing").write_text("x")
    given = tmp_path / "thing" if content == "file" else tmp_path
    result = CliRunner().invoke(app, ["watch", str(given)])
    assert result.exit_code == 2
    assert "is not a run folder" in result.stderr


def test_the_owner_of_a_lock_is_found_without_a_trace(tmp_path: Path) -> None:
    assert lock_owner(tmp_path) is None
    with locked(tmp_path / "run"):
        owner = subprocess.run([sys.executable, "-c", OWNER, str(tmp_path / "run")], capture_output=True, check=True)
        assert int(owner.stdout) in (0, os.getpid())
    assert lock_owner(tmp_path / "run") is None
    with locked(tmp_path / "run"):
        pass


OWNER = """
import sys
from pathlib import Path
from saccade.study.run_folder import lock_owner
print(lock_owner(Path(sys.argv[1])))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are those of POSIX systems")
class TestOnATerminal:
    def watch(self, run: Path, **options: int):
        from terminal import Program

        return Program([sys.executable, "-m", "saccade", "watch", str(run)], **options)

    def test_a_run_that_does_not_exist_yet_until_it_ends(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        with self.watch(run) as program:
            program.wait_for("does not contain a run yet")
            with locked(run):
                write(run, START)
                program.wait_for("worker 1 trial 0 resnet18")
                assert "left of 1:30" in program.screen.text
                assert "best      accuracy 0.7500" in program.screen.text
                write(run, END)
                program.wait_for("result: trial 0")
            assert program.end() == 0
            assert "saccade run in run  (time limit 1 min 30 s, any number of trials)" in program.screen.text
            assert "left of" not in program.screen.text
            assert program.screen.is_cursor_shown

    def test_ctrl_c_ends_the_watching_quietly(self, tmp_path: Path) -> None:
        with locked(tmp_path):
            write(tmp_path, START)
            before = snapshot(tmp_path)
            with self.watch(tmp_path, width=60) as program:
                program.wait_for("worker 1")
                program.press("\x03")
                assert program.end() == 0
                assert program.screen.text in ("", "^C")
                assert program.screen.is_cursor_shown
            assert snapshot(tmp_path) == before

    def test_a_finished_run_is_shown_as_it_ended(self, tmp_path: Path) -> None:
        write(tmp_path, START + END)
        with self.watch(tmp_path) as program:
            assert program.end() == 0
            assert "finished" in program.screen.text
            assert "result    trial 0, accuracy 0.7500" in program.screen.text
