"""Run folders that have a run already, runs that fail, and runs that are interrupted by Ctrl-C."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import saccade as ag
from saccade import ImagePredictor
from saccade.cli import app
from saccade.errors import DataError, HyperparameterError, SaccadeError, SavedPredictorError
from saccade.events import Event
from saccade.fit import fitting
from saccade.fit.run_folder import MOVING, NEW, is_finished, open_run, remove_run

MakeColours = Callable[..., pd.DataFrame]
FAILING = {
    "an unknown hyperparameter": {"hyperparameters": {"learning_rat": 1}},
    "diverging": {"hyperparameters": {"opt": "sgd", "lr": 1e30, "warmup_epochs": 0}},
    "weights": {"hyperparameters": {"model": "resnet50", "pretrained": True}, "weights": "nothing.safetensors"},
}


class Killed(BaseException):
    """Stands for the end of a process; no code catches it."""


def run_command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fit(path: Path | None, frame: pd.DataFrame, tiny: dict[str, Any], **kwargs: Any) -> ImagePredictor:
    hyperparameters = {**tiny, "epochs": 1, **kwargs.pop("hyperparameters", {})}
    options = {"executor": "inline", "nthreads_per_trial": 1, **kwargs}
    return ImagePredictor(path=path, verbosity=0).fit(frame, hyperparameters=hyperparameters, **options)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def raise_at(kind: str, num: int, error: BaseException) -> Callable[[Event], None]:
    """Return a tracker that raises an error at an event."""
    seen = 0

    def tracker(event: Event) -> None:
        nonlocal seen
        seen += event.kind == kind
        if event.kind == kind and seen == num:
            raise error

    return tracker


def test_a_run_is_replaced_only_if_that_is_asked_for_and_by_a_run_with_a_predictor(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame, run = make_colours(8), tmp_path / "run"
    fit(run, frame, tiny)
    mine = ("notes.txt", "predictor/card.md", "trials/0000/why.txt", "trials/plan.txt")
    for name in mine:
        (run / name).write_text("years of work")
    before = content(run)
    with pytest.raises(DataError, match=r"contains a finished run\. Pass overwrite=True"):
        fit(run, frame, tiny)
    with pytest.raises(HyperparameterError, match="Remove one of them"):
        fit(run, frame, tiny, overwrite=True, resume=True)
    for kwargs in ({"frame": frame.assign(label="blue")}, *FAILING.values()):
        with pytest.raises(SaccadeError):
            fit(run, **{"frame": frame, "tiny": tiny, "overwrite": True, **kwargs})
    with pytest.raises(Killed):
        fit(run, frame, tiny, overwrite=True, callbacks=[raise_at("job_started", 1, Killed())])
    assert {name: data for name, data in content(run).items() if not name.startswith(NEW)} == before
    assert not is_finished(run)  # there is a new run to resume
    assert ImagePredictor.load(run, verbosity=0).classes == ["blue", "red"]
    other = make_colours(8, ("green", "yellow"), seed=1)
    assert fit(run, other, tiny, overwrite=True, hyperparameters={"model": "test_vit"}).path == str(run)
    assert ImagePredictor.load(run, verbosity=0).classes == ["green", "yellow"]
    assert {name: (run / name).read_text() for name in mine} == dict.fromkeys(mine, "years of work")
    assert not (run / NEW).exists()
    remove_run(run)
    assert set(content(run)) == {".lock", *mine}


def test_a_killed_run_over_another_one_is_resumed_and_takes_its_place(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fit(run, make_colours(8), tiny)
    other = make_colours(8, ("green", "yellow"), seed=1)
    with pytest.raises(Killed):
        fit(run, other, tiny, overwrite=True, callbacks=[raise_at("epoch_done", 1, Killed())])
    assert ImagePredictor.load(run).classes == ["blue", "red"]
    with pytest.raises(DataError, match="contains a run that has not finished"):
        fit(run, other, tiny)
    resumed = ImagePredictor.resume(run, verbosity=0)
    assert resumed.classes == ImagePredictor.load(run).classes == ["green", "yellow"]
    assert resumed.predict(other).notna().all()
    assert is_finished(run)


@given(st.data())
def test_a_kill_while_a_run_takes_the_place_of_another_one_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("run")
    names = ["run.json", "events.jsonl", "trials/0000/best.safetensors", "predictor/weights.safetensors"]
    for folder, text in ((root, "old"), (root / NEW, "new")):
        for name in (*names, "predictor/predictor.json"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    (root / "predictor" / "mine.txt").write_text("mine")
    num_calls, calls = data.draw(st.integers(0, 16)), 0

    def killed(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > num_calls:
                raise Killed
            return call(*args, **kwargs)

        return counting

    with pytest.MonkeyPatch.context() as patch:
        for name in ("unlink", "replace", "rename", "rmdir"):
            patch.setattr(Path, name, killed(getattr(Path, name)))
        try:
            open_run(root)
        except Killed:
            assert not is_finished(root) or calls > num_calls
    assert open_run(root) == root
    assert not (root / NEW).exists()
    assert not (root / MOVING).exists()
    found = content(root)
    assert found.pop("predictor/mine.txt") == b"mine"
    assert set(found) == {*names, "predictor/predictor.json"}
    assert set(found.values()) == {b"new"}


def test_failed_fits_leave_nothing_behind(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = make_colours(8)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "given").mkdir()
    missing = frame.assign(image=frame["image"] + "x")
    for kwargs in ({"frame": frame.assign(label="blue")}, {"frame": missing}, *FAILING.values()):
        for path in (None, Path("a/b"), tmp_path / "given"):
            with pytest.raises(SaccadeError):
                fit(path, **{"frame": frame, "tiny": tiny, **kwargs})
            with pytest.raises(SaccadeError):
                fit(tmp_path / "new", **{"frame": frame, "tiny": tiny, "resume": True, **kwargs})
    assert list((tmp_path / "work").iterdir()) == []
    assert not (tmp_path / "new").exists()
    assert set(content(tmp_path / "given")) <= {".lock"}


def test_ctrl_c_makes_the_predictor_of_the_trials_so_far_and_the_run_can_be_resumed(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, run = make_colours(8), tmp_path / "run"
    options = {"hyperparameters": {"lr": ag.Categorical(1e-3, 3e-3, 1e-2)}, "searcher": "grid", "scheduler": "fifo"}
    whole = fit(tmp_path / "whole", frame, tiny, **options)
    interrupted = fit(run, frame, tiny, **options, callbacks=[raise_at("epoch_done", 2, KeyboardInterrupt())])
    assert interrupted.fit_summary()["interrupted"] is True
    assert set(interrupted.leaderboard()["status"]) == {"completed", "interrupted"}
    assert ImagePredictor.load(run).predict(frame).notna().all()
    assert not is_finished(run)
    resumed = ImagePredictor.resume(run, verbosity=1)
    assert "interrupted" not in resumed.fit_summary()
    boards = [predictor.leaderboard().drop(columns=["fit_time_s", "images_per_s"]) for predictor in (resumed, whole)]
    pd.testing.assert_frame_equal(*boards)
    assert is_finished(run)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "early", frame, tiny, callbacks=[raise_at("job_started", 1, KeyboardInterrupt())])
    assert not (tmp_path / "early" / "predictor").exists()
    assert capsys.readouterr().err.count("best:") <= 1


@pytest.mark.parametrize("num_signals", [1, 2])
def test_ctrl_c_in_the_last_phase_lets_it_complete_and_a_second_one_ends_it(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    react_to_ctrl_c: None, num_signals: int,
) -> None:  # fmt: skip
    def interrupted(*arguments: Any) -> None:
        for _ in range(num_signals):
            signal.raise_signal(signal.SIGINT)
        assert arguments[-1]() == 0.0  # no time for more features

    monkeypatch.setattr(fitting, "write_features", interrupted)
    frame, run = make_colours(8), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt) if num_signals > 1 else contextlib.nullcontext():
        assert fit(run, frame, tiny).predict(frame).notna().all()
    assert is_finished(run)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert ImagePredictor.resume(run).predict(frame).notna().all()


def test_a_killed_run_is_an_error_with_how_to_finish_it(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame, run = make_colours(8), tmp_path / "run"
    with pytest.raises(Killed):
        fit(run, frame, tiny, hyperparameters={"lr": ag.Categorical(1e-3, 3e-3)}, num_trials=2, searcher="grid",
            callbacks=[raise_at("job_done", 1, Killed())])  # fmt: skip
    how = f"saccade resume {run} --finish"
    with pytest.raises(SavedPredictorError, match="has not finished") as raised:
        ImagePredictor.load(run)
    assert how in str(raised.value)
    image = frame["image"][0]
    for command in (("predict", run, image), ("evaluate", run, tmp_path / "colours_0"), ("explain", run, image)):
        result = run_command(*command)
        assert result.exit_code == 2
        assert how in result.stderr
    shown = run_command("leaderboard", run)
    assert shown.exit_code == 0, shown.stderr
    assert "0.00" in shown.stdout or "1.00" in shown.stdout or "0.50" in shown.stdout
    assert how in shown.stdout
    shutil.copytree(run, tmp_path / "copy")
    finished = run_command("resume", tmp_path / "copy", "--finish")
    assert finished.exit_code == 0, finished.stderr
    predictor = ImagePredictor.load(tmp_path / "copy")
    assert (len(predictor.leaderboard()), is_finished(tmp_path / "copy")) == (1, True)
    assert predictor.predict(frame).notna().all()
    assert len(ImagePredictor.resume(run).leaderboard()) == 2
