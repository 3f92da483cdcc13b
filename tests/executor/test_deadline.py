"""Jobs that never report, on real processes, and executors whose number of workers changes."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time

import pytest

from saccade.deadline import Deadline
from saccade.errors import SearchFailedError
from saccade.events import EpochDone, JobDone, JobFailed, WorkerJoined, WorkerLost
from saccade.executor import Executor, ProcessExecutor, WorkerSlot, run_job
from saccade.executor.process import processor_time
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher
from saccade.space import Categorical
from saccade.study.function import FunctionTrainable
from saccade.study.study import Study
from saccade.study.trial import Decision, Job, Status
from saccade.tuning import tune

posix_only = pytest.mark.skipif(os.name != "posix", reason="has no such signals")


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    monkeypatch.setattr("saccade.study.study.GRACE_S", 0.3)


def hang(config, report):
    """Report as often as the configuration says, then hang or stop this process."""
    import os
    import signal
    import time

    for _ in range(config["x"]):
        report(score=1.0)
    if config.get("stops"):
        os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        time.sleep(1)


def search(space, limit_s, num_workers=1, **options):
    """Return a study that has ended, the seconds that it took, and its error."""
    workers = [WorkerSlot(num_threads=1)] * num_workers
    with ProcessExecutor(FunctionTrainable(hang), workers=workers) as executor:
        executor.wait_for_start()
        deadline = Deadline(limit_s)
        study = Study(executor, GridSearcher(space), FIFOScheduler(), deadline=deadline, **options)
        try:
            study.run()
        except SearchFailedError as error:
            return study, deadline.elapsed_s(), error
        return study, deadline.elapsed_s(), None


@pytest.mark.parametrize("stops", [False, pytest.param(True, marks=posix_only)])
def test_a_search_whose_only_job_never_reports_ends_after_the_limit(stops):
    study, seconds, error = search({"x": 0, "stops": stops}, limit_s=0.5)
    assert seconds >= 0.8
    assert "the job ended without a report: time limit" in str(error)
    assert study.trials[0].status is Status.FAILED


def test_hanging_jobs_of_several_workers_are_ended_and_reports_are_kept():
    study, seconds, error = search({"x": Categorical(0, 2, 3)}, limit_s=0.5, num_workers=3)
    assert error is None
    assert seconds >= 0.8
    assert [trial.status for trial in study.trials] == [Status.FAILED, Status.STOPPED, Status.STOPPED]
    assert [len(trial.reports) for trial in study.trials] == [0, 2, 3]
    assert study.trials[1].note == "time limit"


def test_a_first_report_may_take_longer_than_the_limit():
    def late(config, report):
        import time

        time.sleep(1.0)
        report(score=1.0)

    with ProcessExecutor(FunctionTrainable(late)) as executor:
        study = Study(
            executor, GridSearcher({"x": 1}), FIFOScheduler(), deadline=Deadline(0.1), first_report_grace_s=60
        )
        study.run()
    assert len(study.trials[0].reports) == 1


@pytest.mark.skipif(processor_time(os.getpid()) is None, reason="the processor time of other processes is not known")
@pytest.mark.parametrize("stops", [False, True])
def test_a_first_job_that_hangs_gets_no_grace(monkeypatch, stops):
    monkeypatch.setattr("saccade.executor.process.STALL_S", 0.2)
    monkeypatch.setattr("saccade.executor.process.HEARTBEAT_S", 0.1)
    _, seconds, error = search({"x": 0, "stops": stops}, limit_s=0.5, first_report_grace_s=60)
    assert seconds < 30
    assert "the job ended without a report: time limit" in str(error)


class ThreadExecutor(Executor):
    """An executor of a third party: a thread for each worker; workers join and leave while it runs."""

    def __init__(self, trainable=None, num_workers=1):
        self.trainable = trainable
        self._num_workers, self._running, self._messages = num_workers, set(), queue.SimpleQueue()

    @property
    def num_workers(self):
        return self._num_workers

    @property
    def num_free(self):
        return max(0, self._num_workers - len(self._running))

    def change_workers(self, change):
        self._num_workers += change
        event = WorkerJoined if change > 0 else WorkerLost
        self._messages.put((event(self._num_workers), None))

    def submit(self, job):
        assert self.num_free
        self._running.add(job.trial)
        threading.Thread(target=self._work, args=(job,), daemon=True).start()

    def run(self, handle, timeout_s=float("inf")):
        end_s = time.monotonic() + timeout_s
        while self._running or not self._num_workers or not self._messages.empty():
            try:
                event, answer = self._messages.get(timeout=min(0.1, max(0.0, end_s - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= end_s:
                    return
                continue
            if isinstance(event, JobDone | JobFailed):
                self._running.remove(event.trial)
            decision = handle(event)
            if answer is not None:
                answer.put(decision)

    def _work(self, job):
        def report(event):
            answer = queue.SimpleQueue()
            self._messages.put((event, answer))
            return answer.get()

        self._messages.put((run_job(self.trainable, job, report), None))


def test_a_study_uses_workers_that_join_and_continues_without_those_that_leave():
    executor, busy, events = ThreadExecutor(num_workers=0), [], []

    def train(config, report):
        time.sleep(0.02)
        report(score=float(config["x"]))

    def listen(event):
        events.append(event)
        if isinstance(event, EpochDone):
            busy.append(executor.num_workers - executor.num_free)
            if event.trial == 1:
                executor.change_workers(+2)
            if event.trial == 12:
                executor.change_workers(-2)

    executor.trainable = FunctionTrainable(train)
    study = Study(executor, GridSearcher({"x": Categorical(*range(24))}), FIFOScheduler(), listeners=[listen])
    threading.Timer(0.1, executor.change_workers, [1]).start()  # the study begins without a worker
    study.run()
    assert [trial.status for trial in study.trials] == [Status.COMPLETED] * 24
    assert (busy[0], max(busy), busy[-1]) == (1, 3, 1)
    assert [type(event) for event in events if not hasattr(event, "trial")] == [WorkerJoined, WorkerJoined, WorkerLost]


@posix_only
def test_a_job_of_a_killed_worker_is_not_lost_by_the_timeout():
    def pid(config, report):
        import os

        report(score=os.getpid())
        import time

        time.sleep(600)

    events = []
    with ProcessExecutor(FunctionTrainable(pid)) as executor:
        executor.submit(Job(0, {}))
        while not events:
            executor.run(lambda event: events.append(event) or Decision.CONTINUE, timeout_s=0.05)
        os.kill(int(events[0].score), signal.SIGKILL)
        executor.run(lambda event: events.append(event) or Decision.CONTINUE)
    assert [type(event) for event in events] == [EpochDone, JobFailed]


def test_a_trial_that_hangs_is_ended_by_its_own_limit():
    study, _, error = search({"x": Categorical(2, 0, 1)}, limit_s=None, trial_time_limit_s=0.3)
    assert error is None
    assert [(trial.status, trial.note) for trial in study.trials[::2]] == [(Status.STOPPED, "trial time limit")] * 2
    assert "the job ended without a report: time limit" in study.trials[1].failure.reason


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="cannot interrupt the main thread")
@pytest.mark.parametrize("limits", [{"time_limit": 0.2}, {"trial_time_limit": 0.1, "num_trials": 1}])
def test_a_function_that_hangs_in_this_process_is_ended(limits):
    with pytest.raises(SearchFailedError, match="the job ended without a report: time limit"):
        tune(hang, {"x": 0}, verbosity=0, **limits)
    result = tune(hang, {"x": 2}, verbosity=0, **limits)
    assert len(result.trials) == 1
