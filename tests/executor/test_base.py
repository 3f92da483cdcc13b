from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from saccade.events import EpochDone, JobDone, JobFailed
from saccade.executor import InlineExecutor
from saccade.study.function import FunctionTrainable
from saccade.study.trial import Decision, Job, Trainable
from saccade.testing.executor_contract import Counting, ExecutorContract, run_all


class TestInlineExecutor(ExecutorContract):
    can_cancel = False

    def make(self, trainable):
        return InlineExecutor(trainable)


class Pid(Trainable):
    def train(self, job, report):
        report(EpochDone(job.trial, 1, os.getpid()))
        return ""


def test_jobs_run_in_this_process():
    assert run_all(InlineExecutor(Pid()), {}).events[0].score == os.getpid()


def test_the_trainable_is_not_copied():
    trainable = Counting()
    run_all(InlineExecutor(trainable), {}, {})
    assert trainable.num_jobs == 2


def test_ctrl_c_ends_the_run():
    def interrupted(config, report):
        raise KeyboardInterrupt

    executor = InlineExecutor(FunctionTrainable(interrupted))
    executor.submit(Job(0, {}))
    with pytest.raises(KeyboardInterrupt):
        executor.run(lambda event: None)
    assert executor.num_free == 1


def test_the_traceback_shows_the_line_that_raised():
    def broken(config, report):
        return config["no such key"]

    (failure,) = run_all(InlineExecutor(FunctionTrainable(broken)), {}).events
    assert isinstance(failure, JobFailed)
    assert failure.reason == "KeyError: 'no such key'"
    assert 'return config["no such key"]' in failure.traceback


def test_wrong_use_is_an_error():
    executor = InlineExecutor()
    executor.submit(Job(0, {}))
    with pytest.raises(AssertionError, match="see num_free"):
        executor.submit(Job(1, {}))
    assert not executor.cancel(0)
    with pytest.raises(AssertionError, match="set the executor's trainable"):
        executor.run(lambda event: None)


can_interrupt = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="cannot interrupt the main thread")


def spin(config, report):
    while True:
        pass


def sleep(config, report):
    time.sleep(60)


def suppress(config, report):
    for _ in range(2):
        with contextlib.suppress(BaseException):
            time.sleep(60)
    time.sleep(60)


@can_interrupt
@pytest.mark.parametrize("function", [spin, sleep, suppress])
def test_a_timeout_ends_a_job_that_hangs(monkeypatch, function):
    monkeypatch.setattr("saccade.executor.base.REPEAT_S", 0.05)
    before = signal.getsignal(signal.SIGVTALRM)
    executor, events = InlineExecutor(FunctionTrainable(function)), []
    executor.submit(Job(0, {}))
    executor.run_within_limits(events.append, lambda: {0: 0.05})
    assert events == [JobDone(0, "stopped", "time limit")]
    assert executor.num_free == 1
    assert signal.getsignal(signal.SIGVTALRM) == before


@can_interrupt
def test_the_handler_is_not_interrupted_and_the_job_ends_after_it():
    executor, events = InlineExecutor(FunctionTrainable(lambda config, report: report(score=1.0))), []

    def handle(event):
        end_s = time.monotonic() + 0.2
        while time.monotonic() < end_s:
            pass
        events.append(event)
        return Decision.CONTINUE

    executor.submit(Job(0, {}))
    executor.run_within_limits(handle, lambda: {0: 0.05})
    assert [event.score for event in events[:-1]] == [1.0]
    assert events[-1] == JobDone(0, "stopped", "time limit")


def test_elsewhere_a_timeout_waits_for_the_job():
    executor, events = InlineExecutor(FunctionTrainable(lambda config, report: time.sleep(0.1))), []
    executor.submit(Job(0, {}))
    thread = threading.Thread(target=executor.run_within_limits, args=(events.append, lambda: {0: 0.01}))
    thread.start()
    thread.join()
    assert events == [JobDone(0)]
