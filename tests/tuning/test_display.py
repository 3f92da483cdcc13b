from __future__ import annotations

import pytest

from saccade.events import EpochDone, JobDone, JobFailed, JobStarted, RunFinished, RunStarted, TrialCreated, Warned
from saccade.study.trial import Trial
from saccade.tuning.display import TuneDisplay

EVENTS = [
    RunStarted("runs/a", 3, 60.0),
    Warned("mind the gap"),
    TrialCreated(0, {"lr": 0.123456, "depth": 3}),
    JobStarted(0),
    EpochDone(0, 1, -0.5, 1.0, {"loss": 0.5}),
    EpochDone(0, 2, -0.75, 1.0, {"loss": 0.75}),
    JobDone(0, "paused", "paused by the scheduler"),
    JobStarted(0),
    JobDone(0, "stopped", "time limit"),
    JobFailed(1, "ValueError: bad", "the traceback"),
    RunFinished(0, -0.5, 12.34),
]
LINES = [
    (2, "tuning loss (60 s, 3 trials) in runs/a"),
    (1, "warning: mind the gap"),
    (2, "trial 0  lr=0.123  depth=3"),
    (3, "trial 0  epoch 1: loss 0.5 (1.0 s)"),
    (3, "trial 0  epoch 2: loss 0.75 (1.0 s)"),
    (2, "trial 0  paused: loss 0.5 in epoch 1"),
    (2, "trial 0  continues"),
    (2, "trial 0  stopped (time limit): loss 0.5 in epoch 1"),
    (1, "trial 1  failed: ValueError: bad"),
    (3, "the traceback"),
    (1, "best: trial 0, loss 0.5 in epoch 1 (12.3 s in all)"),
]


@pytest.mark.parametrize("verbosity", [0, 1, 2, 3])
def test_it_tells_what_was_asked_for(capsys, verbosity):
    display = TuneDisplay(verbosity, "loss")
    for event in EVENTS:
        display(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [line for level, line in LINES if level <= verbosity]


def test_it_knows_of_earlier_processes(capsys):
    display = TuneDisplay(2, "accuracy")
    display.resume([Trial(0, {}, reports=[EpochDone(0, 3, 0.5)])])
    display(JobStarted(0))
    display(RunFinished(0, 0.5, 1.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "goes on after 1 trial",
        "trial 0  continues",
        "best: trial 0, accuracy 0.5 in epoch 3 (1.0 s in all)",
    ]


def test_a_search_without_a_result_has_no_best(capsys):
    TuneDisplay(3, "accuracy")(RunFinished(None, None, 1.0))
    assert capsys.readouterr().err == ""
