from __future__ import annotations

import io

import pytest
from rich.console import Console

from saccade.events import (
    DataReady,
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    Progressed,
    RunFinished,
    RunPlanned,
    RunStarted,
    TrialCreated,
    Warned,
    WorkerJoined,
    WorkerLost,
)
from saccade.study.display.progress import ProgressDisplay
from saccade.study.trial import Trial

STORY: list[Event] = [
    RunStarted("runs/[1]", 2, 90.0),
    RunPlanned("binary (2 different labels)", "rmse", ["resnet18", "a[b]"], "cpu, 2 threads", "in 1 process", "Wait"),
    Warned("one image cannot be read"),
    Progressed("decoding images", 4, 4),
    DataReady(10, 2, 3, 1, 0.5),
    TrialCreated(0, {"model": "resnet18", "lr": 0.001, "epochs": 2}),
    JobStarted(0),
    EpochDone(0, 0, -0.9, 1.0, {"rmse": 0.9}),
    EpochDone(0, 1, -0.5, 3.0, {"rmse": 0.5}),
    EpochDone(0, 2, -0.75, 3.0, {"rmse": 0.75}),
    JobDone(0),
    TrialCreated(1, {"model": "resnet34", "epochs": 2}),
    JobStarted(1),
    JobFailed(1, "OutOfMemoryError: too large", "Traceback: here"),
    RunFinished(0, -0.5, 61.0),
]


def shown(verbosity: int, *, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, soft_wrap=True)
    with ProgressDisplay(verbosity, "rmse", console) as display:
        for event in STORY:
            display(event)
    text = console.file.getvalue()
    assert isinstance(text, str)
    return text


def test_lines_name_the_node_where_there_are_several() -> None:
    console = Console(file=io.StringIO(), width=100, soft_wrap=True)
    display = ProgressDisplay(3, "score", console)
    story: list[Event] = [
        WorkerJoined(1, "a"),
        WorkerJoined(2, "a"),
        WorkerJoined(3, "[b]"),
        TrialCreated(0, {"x": 1}),
        JobStarted(0, None, "[b]"),
        EpochDone(0, 1, 0.5, 1.0, node="[b]"),
        WorkerLost(2, "[b]"),
        JobStarted(0, None, "a"),
        JobDone(0),
    ]
    for event in story:
        display(event)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "node a joined  1 worker now",
        "node [b] joined  3 workers now",
        "trial 0  x=1",
        "  trial 0  epoch 1  score 0.5000  1.0 s on [b]",
        "node [b] was lost  2 workers now",
        "trial 0  continues",
        "  trial 0  score 0.5000 in epoch 1",
    ]


def test_silence() -> None:
    assert shown(0) == shown(0, terminal=True) == ""


def test_verbosity_1_shows_warnings_failures_and_the_result() -> None:
    lines = shown(1).splitlines()
    assert lines == [
        "warning: one image cannot be read",
        "trial 1  failed: OutOfMemoryError: too large",
        "result: trial 0, rmse 0.5000  1 min 1 s in all",
    ]


def test_higher_verbosity_shows_trials_then_epochs_and_tracebacks() -> None:
    trials, epochs = shown(2), shown(3)
    assert "saccade run in runs/[1]  (time limit 1 min 30 s, 2 trials)" in trials
    assert "binary (2 different labels), metric rmse, cpu, 2 threads, trials in 1 process" in trials
    assert "networks: resnet18, a[b]\nWait\n" in trials
    assert "10 training images, 2 validation images, 3 classes" in trials
    assert "trial 0  model=resnet18  lr=0.001  epochs=2" in trials
    assert "rmse 0.5000 in epoch 1" in trials
    assert "Traceback" not in trials
    assert "trial 0  epoch 0 (linear probe)  rmse 0.9000  1.0 s" in epochs
    assert "epoch 2  rmse 0.7500  3.0 s" in epochs
    assert "Traceback: here" in epochs


def test_a_terminal_gets_bars_that_are_removed_at_the_end() -> None:
    text = shown(2, terminal=True)
    assert "\x1b[" in text
    assert "rmse 0.5000 in epoch 1" in text


@pytest.mark.parametrize(("num_trials", "words"), [(1, "1 trial)"), (None, "any number of trials)")])
def test_limits_are_shown_as_text(num_trials: int | None, words: str) -> None:
    console = Console(file=io.StringIO(), width=200)
    ProgressDisplay(2, "accuracy", console)(RunStarted("run", num_trials, None))
    assert f"(no time limit, {words}" in console.file.getvalue()  # type: ignore[attr-defined]


def test_trials_of_several_workers_and_sessions() -> None:
    console = Console(file=io.StringIO(), width=200, soft_wrap=True)
    reports = [EpochDone(0, 1, -0.5, 3.0, {"rmse": 0.5}), EpochDone(0, 2, -0.7, 3.0, {"rmse": 0.7})]
    display = ProgressDisplay(3, "rmse", console)
    display.recall([])
    display.recall([Trial(0, {"epochs": 9}, reports=reports), Trial(1, {"epochs": 9})])
    for event in (
        JobStarted(0),
        TrialCreated(2, {"lr": 0.2, "epochs": 9}),
        JobStarted(2),
        EpochDone(2, 1, -0.9, 3.0, {"rmse": 0.9}),
        EpochDone(0, 3, -0.6, 3.0, {"rmse": 0.6}),
        JobDone(0, "paused"),
        JobDone(2, "stopped", "time limit"),
        RunFinished(0, -0.5, 61.0),
    ):
        display(event)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "resuming after 2 trials, the best of which has rmse 0.5000",
        "trial 0  continues",
        "trial 2  lr=0.2  epochs=9",
        "  trial 2  epoch 1  rmse 0.9000  3.0 s",
        "  trial 0  epoch 3  rmse 0.6000  3.0 s",
        "  trial 0  rmse 0.5000 in epoch 1  paused",
        "  trial 2  rmse 0.9000 in epoch 1  time limit",
        "result: trial 0, rmse 0.5000  1 min 1 s in all",
    ]


def test_a_run_without_a_folder_and_metrics_of_any_size() -> None:
    console = Console(file=io.StringIO(), width=200, soft_wrap=True)
    display = ProgressDisplay(2, "loss", console)
    for event in (RunStarted("", 3, 60.0), RunFinished(0, 1.5e-7, 1.0), RunFinished(None, None, 1.0)):
        display(event)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "saccade run  (time limit 1 min 0 s, 3 trials)",
        "result: trial 0, loss 1.5e-07  1.0 s in all",
    ]
