"""The table of the ends of jobs, row by row, in studies whose worker does what a case says."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from contracts.studies import make_study
from saccade.deadline import Deadline
from saccade.errors import SearchFailedError
from saccade.events import EpochDone, JobDone, JobFailed, JobStarted, TrialCreated, Warned
from saccade.executor import Executor
from saccade.scheduler import FIFOScheduler
from saccade.study import study
from saccade.study.life import (
    ENDS,
    NO_REPORT,
    NUM_LOST_NODES,
    TIME_LIMIT,
    TRIAL_TIME_LIMIT,
    Action,
    Budget,
    Cause,
    Fact,
    StudyRecord,
    find_end,
)
from saccade.study.trial import Decision, Job, Status, Trial
from saccade.study.trial_files import LocalTrialFiles
from saccade.testing.scheduler_contract import MemoryLog


class Scripted(Executor):
    """A worker that sends, in each job, what the script says; each epoch takes a second."""

    trainable = None
    num_workers = 1

    def __init__(self, *scripts):
        self.scripts, self.jobs, self.now_s, self.waiting = list(scripts), [], 0.0, []

    @property
    def num_free(self):
        return 1 - len(self.waiting)

    def submit(self, job):
        self.jobs.append(job)
        self.waiting.append(job)

    def run(self, handle, timeout_s=None):
        while self.waiting:
            *reports, end = self.scripts.pop(0)
            for report in reports:
                self.now_s += 1.0
                handle(report)
            self.waiting.clear()
            handle(end)


class Deciding(FIFOScheduler):
    """Trains each trial once, to epoch `until_epoch`, and makes one decision."""

    def __init__(self, decision=Decision.CONTINUE, until_epoch=None):
        super().__init__()
        self.decision, self.until_epoch = decision, until_epoch

    def next_job(self, state):
        new = state.new_trial()
        return None if new is None else Job(new.number, new.config, self.until_epoch)

    def on_report(self, report):
        return self.decision


def report(epoch=1, checkpoint="saved", **others):
    return EpochDone(0, epoch, 0.5, 1.0, {}, checkpoint, **others)


LOST = JobFailed(0, "gone", is_worker_lost=True)
NODE = JobFailed(0, "gone", is_worker_lost=True, is_node_lost=True)
ERROR = JobFailed(0, "ValueError: wrong", "the traceback")
PAUSED = JobDone(0, "paused", "as decided")
STOPPED = JobDone(0, "stopped", "no improvement")
OUT_OF_TIME = JobDone(0, "stopped", TIME_LIMIT)
SAVED = [TrialCreated(0, {"x": 1}), JobStarted(0), report(decision=Decision.CONTINUE)]
PAUSE, STOP = Decision.PAUSE, Decision.STOP

# what the worker sends in each job; how the study is set up; status, reason and number of jobs in the end
CASES = {
    "completed": ([[report(), JobDone(0)]], {}, "completed", "", 1),
    "completed at the last epoch": ([[report(is_last=True), JobDone(0)]], {}, "completed", "", 1),
    "paused at the last epoch": ([[report(is_last=True), PAUSED]], {"decision": PAUSE}, "completed", "", 1),
    "out of time at the last epoch": ([[report(is_last=True), OUT_OF_TIME]], {}, "completed", "", 1),
    "completed before the end of the job": ([[report(), JobDone(0)]], {"until_epoch": 2}, "completed", "", 1),
    "at the end of the job": ([[report(), JobDone(0)]], {"until_epoch": 1}, "paused", "", 1),
    "at the end of the job and of its own time": (
        [[report(), JobDone(0)]], {"until_epoch": 1, "own_s": 1.5}, "stopped", TRIAL_TIME_LIMIT, 1,
    ),
    "paused": ([[report(), PAUSED]], {"decision": PAUSE}, "paused", "", 1),
    "paused at the end of its own time": (
        [[report(), PAUSED]], {"decision": PAUSE, "own_s": 1.5}, "stopped", TRIAL_TIME_LIMIT, 1,
    ),
    "stopped": ([[report(), STOPPED]], {}, "stopped", "no improvement", 1),
    "without a report": ([[JobDone(0)]], {}, "failed", NO_REPORT, 1),
    "out of time without a report": ([[OUT_OF_TIME]], {}, "failed", f"{NO_REPORT}: time limit", 1),
    "out of time": ([[report(), OUT_OF_TIME]], {}, "paused", TIME_LIMIT, 1),
    "out of time without a checkpoint": ([[report(checkpoint=None), OUT_OF_TIME]], {}, "stopped", TIME_LIMIT, 1),
    "out of its own time": ([[report(), OUT_OF_TIME]], {"own_s": 9.0}, "stopped", TRIAL_TIME_LIMIT, 1),
    "out of time, with an own limit as well": (
        [[report(), OUT_OF_TIME]], {"own_s": 1.5, "limit_s": 1.0}, "stopped", TRIAL_TIME_LIMIT, 1,
    ),
    "an error": ([[report(), ERROR]], {}, "failed", "ValueError: wrong", 1),
    "an error after the last epoch": ([[report(is_last=True), ERROR]], {}, "failed", "ValueError: wrong", 1),
    "lost": ([[report(), LOST], [report(2), JobDone(0)]], {}, "completed", "", 2),
    "lost twice": ([[report(), LOST], [LOST]], {}, "failed", "gone", 2),
    "nodes lost again and again": ([[report(), NODE], *[[NODE]] * NUM_LOST_NODES], {}, "failed", "gone", 6),
    "lost after the last epoch": ([[report(is_last=True), LOST]], {}, "completed", "", 1),
    "lost after the decision to stop": ([[report(), LOST]], {"decision": STOP}, "stopped", "", 1),
    "lost after the decision to pause": ([[report(), LOST]], {"decision": PAUSE}, "paused", "", 1),
    "lost at the end of the job": ([[report(), LOST]], {"until_epoch": 1}, "paused", "", 1),
    "lost without time": ([[report(), LOST]], {"limit_s": 1.5}, "paused", "gone", 1),
    "lost without own time": ([[report(), LOST]], {"own_s": 1.5}, "stopped", TRIAL_TIME_LIMIT, 1),
    "lost without time or a report": ([[LOST]], {"limit_s": 0.0}, "failed", "gone", 1),
    "killed": ([[report(2), JobDone(0)]], {"log": SAVED}, "completed", "", 1),
    "killed before the first job": ([[report(), JobDone(0)]], {"log": SAVED[:1]}, "completed", "", 1),
    "killed after the decision to stop": ([], {"log": [*SAVED[:2], report(decision=STOP)]}, "stopped", "", 0),
    "killed after the last epoch": ([], {"log": [*SAVED[:2], report(is_last=True)]}, "completed", "", 0),
    "killed, with a damaged checkpoint": ([[ERROR], [report(), JobDone(0)]], {"log": SAVED}, "completed", "", 2),
    "killed, with an error later on": ([[report(2), ERROR]], {"log": SAVED}, "failed", "ValueError: wrong", 1),
    "killed, without time": ([], {"log": SAVED, "limit_s": 0.5}, "paused", "", 0),
    "killed, without own time": ([], {"log": SAVED, "own_s": 1.5}, "stopped", TRIAL_TIME_LIMIT, 0),
}  # fmt: skip


def run(case, folder):
    """Run the study of a case; return its trial, executor and log."""
    scripts, options, status, *_ = CASES[case]
    executor, log = Scripted(*scripts), MemoryLog(options.get("log", []))
    if log:
        (folder / "0000").mkdir()
        (folder / "0000" / "saved").touch()
    made = make_study(
        {"x": 1},
        executor=executor,
        deadline=Deadline(options.get("limit_s"), lambda: executor.now_s),
        trial_time_limit_s=options.get("own_s"),
        log=log,
        files=LocalTrialFiles(folder),
        scheduler=Deciding(options.get("decision", Decision.CONTINUE), options.get("until_epoch")),
    )
    if status == "failed":
        with pytest.raises(SearchFailedError):
            made.run()
    else:
        made.run()
    return made.trials[0], executor, log


@pytest.mark.parametrize("case", CASES)
def test_each_case_ends_as_in_the_table(case, tmp_path):
    _, _, status, reason, num_jobs = CASES[case]
    trial, executor, log = run(case, tmp_path)
    assert (trial.status.value, len(executor.jobs), executor.scripts) == (status, num_jobs, [])
    assert (trial.note if trial.failure is None else trial.failure.reason) == reason
    assert StudyRecord.load(log, trial.files).trials == [trial]


def test_the_cases_walk_the_whole_table(tmp_path, monkeypatch):
    used = set()

    def recorded(cause, facts):
        end = find_end(cause, facts)
        used.add((cause, end))
        return end

    monkeypatch.setattr(study, "find_end", recorded)
    for number, case in enumerate(CASES):
        folder = tmp_path / str(number)
        folder.mkdir()
        run(case, folder)
    assert {end.action for end in set(ENDS) - {end for _, end in used}} == {Action.WAIT}  # its test is below
    assert {cause for cause, _ in used} == set(Cause)


@pytest.mark.parametrize("cause", Cause)
def test_some_row_fits_whatever_the_facts_and_no_job_is_retried_that_was_done(cause):
    facts = list(Fact)
    for num in range(4):
        for some in itertools.combinations(facts, num):
            end = find_end(cause, some)
            if end.action is Action.RETRY:
                assert end.status is Status.PAUSED
                assert not {Fact.LAST_EPOCH, Fact.STOP_DUE, Fact.PAUSE_DUE} & set(some)


def test_a_job_without_time_or_a_report_stays_open_for_a_later_process(tmp_path):
    log = MemoryLog([TrialCreated(0, {"x": 1}), JobStarted(0), TrialCreated(1, {"x": 2}), JobStarted(1)])
    log += [EpochDone(1, 1, 0.5, 2.0), JobDone(1)]
    executor = Scripted()
    made = make_study(
        {"x": 1}, executor=executor, deadline=Deadline(1.0, lambda: 0.0), log=log, files=LocalTrialFiles(tmp_path)
    )
    made.run()
    assert (executor.jobs, list(StudyRecord.load(log).jobs)) == ([], [0])


@pytest.mark.parametrize(
    ("is_node_lost", "num_lost", "num_new_epochs", "status"),
    [
        (False, 1, 0, Status.COMPLETED),
        (False, 2, 0, Status.FAILED),  # the trial may be the cause
        (False, 4, 1, Status.COMPLETED),  # it has gone on each time
        (True, NUM_LOST_NODES, 0, Status.COMPLETED),
        (True, NUM_LOST_NODES + 1, 0, Status.FAILED),
        (True, NUM_LOST_NODES + 4, 1, Status.COMPLETED),
    ],
)
def test_a_trial_is_retried_until_it_loses_workers_without_progress(is_node_lost, num_lost, num_new_epochs, status):
    lost = JobFailed(0, "gone", is_worker_lost=True, is_node_lost=is_node_lost)
    jobs = [[*[report(job + 1)] * num_new_epochs, lost] for job in range(num_lost)]
    executor, log = Scripted(*jobs, [report(num_lost + 1), JobDone(0)]), MemoryLog()
    made = make_study({"x": 1}, executor=executor, scheduler=Deciding(), log=log)
    with contextlib.suppress(SearchFailedError):
        made.run()
    assert made.trials[0].status is status
    restored = StudyRecord.load(log).trials[0]
    assert (restored.num_retries, restored.num_lost_nodes) == (
        made.trials[0].num_retries,
        made.trials[0].num_lost_nodes,
    )


def test_retries_are_announced():
    events = []
    executor = Scripted([report(), report(2, None), LOST], [report(2), JobDone(0)])
    made = make_study({"x": 1}, executor=executor, scheduler=Deciding(), listeners=[events.append])
    made.run()
    assert [event for event in events if isinstance(event, Warned)] == [Warned("Trial 0 is retried from epoch 2: gone")]
    assert [job.checkpoint for job in executor.jobs] == [None, "saved"]
    assert made.trials[0].num_retries == 1


def test_a_trial_needs_time_for_its_set_up_as_well() -> None:
    now_s = 0.0
    budget = Budget(Deadline(10, lambda: now_s), 0.0, None)
    trial = Trial(0, {})
    budget.submitted(trial)
    assert budget.has_time_for_a_trial()  # nothing is known yet
    now_s = 4.0
    trial.reports.append(EpochDone(0, 0, 0.5, seconds=1.0, checkpoint="last-0000"))
    budget.learn(trial)
    assert budget.setup_s == 3.0
    assert budget.has_time_for_a_trial()
    assert budget.has_time_for(trial)
    now_s = 7.0
    assert not budget.has_time_for_a_trial()
    assert not budget.has_time_for(trial)
