"""Studies that are interrupted, at any event or by a kill at any instant, and go on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from saccade.study.event_log import EventLog
from saccade.study.life import StudyRecord
from saccade.study.trial import Status

SCRIPT = """
import sys
from pathlib import Path

from saccade.executor import InlineExecutor, ProcessExecutor, WorkerSlot
from saccade.study.study import Study
from saccade.scheduler import make_scheduler
from saccade.study.event_log import EventLog
from saccade.study.optuna_tracker import OptunaTracker
from saccade.searcher import RandomSearcher
from saccade.space import Dict, Int, Real
from saccade.study.trial import Trainable
from saccade.study.trial_files import LocalTrialFiles

folder, scheduler, executor = Path(sys.argv[1]), sys.argv[2], sys.argv[3]


class Training(Trainable):
    def __init__(self, folder):
        self.folder = folder

    def train(self, job, report):
        import time

        from saccade.events import EpochDone
        from saccade.study.trial import Decision

        epoch, score = 0, 0.0
        if job.checkpoint:
            epoch, score = eval(job.files.get(job.trial, job.checkpoint).read_text())
        while epoch < job.config["epochs"]:
            epoch, score = epoch + 1, score + job.config["x"] * 0.7**epoch
            time.sleep(0.004)
            write = lambda path: path.write_text(repr((epoch, score)))
            name = job.files.put(job.trial, f"{epoch}.checkpoint", None, write)
            with open(self.folder / "trained", "a") as file:
                file.write(f"{job.trial} {epoch}\\n")
            event = EpochDone(job.trial, epoch, score, 0.004, {}, name, epoch == job.config["epochs"])
            if report(event) is not Decision.CONTINUE:
                return "stopped by the decision"
        return ""


space = Dict(x=Real(0, 1), epochs=Int(3, 12))
inline = executor == "inline"
workers = InlineExecutor(Training(folder)) if inline else ProcessExecutor(Training(folder), workers=[WorkerSlot()] * 2)
with workers, EventLog(folder / "events.jsonl", space) as log:
    study = Study(
        workers, RandomSearcher(space, seed=5), make_scheduler(scheduler),
        num_trials=30, files=LocalTrialFiles(folder / "trials"), log=log,
    )
    with OptunaTracker(folder / "journal.log", study.trials, space) as tracker:
        study.listeners.append(tracker)
        print("begun", flush=True)
        study.run()
print(study.best_trial.number, study.best_trial.best_report.score)
"""


def as_optuna_sees(journal):
    """Return number, state and curve of each trial, read by Optuna itself."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    (study,) = storage.get_all_studies()
    return [
        (trial.number, trial.state.name, sorted(trial.intermediate_values.items()))
        for trial in storage.get_all_trials(study._study_id)
    ]


IN_OPTUNA = {Status.COMPLETED: "COMPLETE", Status.STOPPED: "COMPLETE", Status.FAILED: "FAIL"}


def logged(folder):
    return StudyRecord.load(EventLog(folder / "events.jsonl")).trials


def assert_optuna_has_all_trials(folder):
    assert as_optuna_sees(folder / "journal.log") == [
        (trial.number, IN_OPTUNA.get(trial.status, "RUNNING"), [(each.epoch, each.score) for each in trial.reports])
        for trial in logged(folder)
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(("scheduler", "executor"), [("asha", "inline"), ("hyperband", "process")])
def test_kills_at_random_instants(tmp_path, scheduler, executor):
    def begin(folder):
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", SCRIPT, str(folder), scheduler, executor]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "begun\n"
        return process

    def num_trained():
        return len((parts / "trained").read_text().splitlines()) if (parts / "trained").exists() else 0

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = begin(whole).communicate()[0]
    rng, num_kills = random.Random(scheduler + executor), 0
    max_kills = 6 if executor == "inline" else 4
    while True:
        goal = num_trained() + rng.randrange(10)  # of some 80 epochs at least
        process = begin(parts)
        if num_kills < max_kills:
            while process.poll() is None and num_trained() < goal:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
        again = process.communicate()[0]
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        num_kills += 1
        if (parts / "journal.log").exists() and (parts / "journal.log").stat().st_size:
            assert len(as_optuna_sees(parts / "journal.log")) <= len(logged(parts))
    assert num_kills >= max_kills // 2
    assert_optuna_has_all_trials(parts)
    trained = Counter((parts / "trained").read_text().splitlines())
    num_workers = 1 if executor == "inline" else 2
    assert sum(num - 1 for num in trained.values()) <= num_kills * num_workers  # the epochs that were in flight
    trials = logged(parts)
    reported = {f"{trial.number} {report.epoch}" for trial in trials for report in trial.reports}
    assert reported == set(trained)
    assert len(trials) == 30
    assert all(trial.status is not Status.RUNNING for trial in trials)
    for trial in trials:
        assert [report.epoch for report in trial.reports] == list(range(1, trial.num_epochs + 1))
        is_complete = trial.num_epochs == trial.config["epochs"]
        assert (trial.status is Status.COMPLETED) == is_complete
    if executor == "inline":  # several workers may end their trials in another order
        assert again == result
        assert as_optuna_sees(parts / "journal.log") == as_optuna_sees(whole / "journal.log")
        assert [trial.config for trial in trials] == [trial.config for trial in logged(whole)]
