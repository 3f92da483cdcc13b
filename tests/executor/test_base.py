from __future__ import annotations

import os

import pytest

from saccade.events import EpochDone, JobFailed
from saccade.executor import InlineExecutor
from saccade.study.function import FunctionTrainable
from saccade.study.trial import Job, Trainable
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
