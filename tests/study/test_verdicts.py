from __future__ import annotations

import pytest

from contracts.studies import make_study
from saccade.deadline import Deadline
from saccade.events import EpochDone, JobDone, JobFailed
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher
from saccade.space import Categorical
from saccade.study.budget import Budget
from saccade.study.entries import Reported
from saccade.study.open_jobs import OpenJob
from saccade.study.trial import Decision, Job, Status, Trial
from saccade.study.verdicts import TIME_LIMIT, TRIAL_TIME_LIMIT, verdict
from saccade.testing.simulated_executor import SimulatedExecutor


def end(event, decision=Decision.CONTINUE, until_epoch=None, own_limit_s=None, has_own_limit=False, **report):
    """Return the verdict on a job that has reported its third epoch, of a second each."""
    last = EpochDone(0, 3, 0.5, **{"seconds": 1.0, "checkpoint": "a file", **report})
    trial = Trial(0, {}, reports=[EpochDone(0, 1, 0.5, 1.0), EpochDone(0, 2, 0.5, 1.0), last])
    job = OpenJob(until_epoch, None, has_own_limit, Reported(last, decision))
    return verdict(trial, job, event, Budget(Deadline(None), 0.0, own_limit_s))


LOST = JobFailed(0, "gone", is_worker_lost=True)
CUT = JobDone(0, "stopped", TIME_LIMIT)


@pytest.mark.parametrize(
    ("event", "how", "expected"),
    [
        (JobDone(0), {}, JobDone(0)),
        (JobDone(0), {"until_epoch": 4}, JobDone(0)),  # it has found an end of its own
        (JobDone(0), {"until_epoch": 3}, JobDone(0, "paused")),
        (JobDone(0), {"until_epoch": 3, "is_last": True}, JobDone(0)),
        (JobDone(0, "paused", "as decided"), {"is_last": True}, JobDone(0)),
        (JobDone(0, "stopped", "no better for 5 epochs"), {}, JobDone(0, "stopped", "no better for 5 epochs")),
        (CUT, {}, JobDone(0, "paused", TIME_LIMIT)),
        (CUT, {"checkpoint": None}, CUT),
        (CUT, {"has_own_limit": True}, JobDone(0, "stopped", TRIAL_TIME_LIMIT)),
        (CUT, {"own_limit_s": 3.5}, JobDone(0, "stopped", TRIAL_TIME_LIMIT)),
        (JobDone(0, "paused"), {"own_limit_s": 3.5}, JobDone(0, "stopped", TRIAL_TIME_LIMIT)),
        (JobDone(0, "paused"), {"own_limit_s": 4.5}, JobDone(0, "paused")),
        (LOST, {}, LOST),
        (LOST, {"until_epoch": 3}, JobDone(0, "paused")),
        (LOST, {"is_last": True}, JobDone(0)),
        (LOST, {"is_last": True, "decision": Decision.PAUSE}, JobDone(0)),
        (LOST, {"decision": Decision.PAUSE}, JobDone(0, "paused")),
        (LOST, {"decision": Decision.STOP}, JobDone(0, "stopped")),
        (JobFailed(0, "ValueError"), {"is_last": True}, JobFailed(0, "ValueError")),
    ],
)
def test_how_a_job_has_ended(event, how, expected):
    assert end(event, **how) == expected


def test_a_trial_without_a_report_has_failed():
    budget = Budget(Deadline(None), 0.0, None)
    assert verdict(Trial(0, {}), OpenJob(), CUT, budget) == JobFailed(0, "it ended without a single report: time limit")


class Steps(FIFOScheduler):
    """Trains two epochs at a time, with jobs that end there and no word when they do."""

    def next_job(self, state):
        for trial in state.trials:
            if trial.status is Status.PAUSED:
                last = trial.reports[-1]
                return Job(trial.number, trial.config, trial.folder, last.epoch + 2, last.checkpoint)
        new = state.new_trial()
        return None if new is None else Job(new.number, new.config, new.folder, 2)


def test_a_trial_is_not_complete_where_only_its_job_ends():
    ends = []

    class Hearing(GridSearcher):
        def on_end(self, config, *, has_failed, is_complete=False):
            ends.append((config["n"], is_complete))

    executor = SimulatedExecutor(lambda config: [0.1] * 5)
    study = make_study({"n": Categorical(0, 1)}, executor=executor, scheduler=Steps(), searcher=Hearing)
    study.run()
    assert [(job.trial, job.checkpoint) for job in executor.jobs] == [
        (n, at) for n in (0, 1) for at in (None, "2", "4")
    ]
    assert [trial.status for trial in study.trials] == [Status.COMPLETED] * 2
    assert ends == [(n, is_complete) for n in (0, 1) for is_complete in (False, False, True)]
