from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

import pytest

from saccade.events import EpochDone, JobFailed
from saccade.executor import ProcessExecutor
from saccade.executor.process import exit_text
from saccade.study.function import FunctionTrainable
from saccade.study.trial import Trainable
from saccade.testing.executor_contract import run_all

posix_only = pytest.mark.skipif(os.name != "posix", reason="has no fork, or no such signals")


@posix_only
def test_the_death_of_a_worker_shows_even_while_a_child_of_it_holds_the_pipe(tmp_path):
    def fork_and_die(config, report):
        import os
        from pathlib import Path

        if os.fork() == 0:
            while not Path(config["stop"]).exists():
                time.sleep(0.05)
        os._exit(4)

    stop = tmp_path / "stop"
    rescue = threading.Timer(30, stop.touch)  # should the test not end by itself
    rescue.start()
    with ProcessExecutor(FunctionTrainable(fork_and_die)) as executor:
        done = run_all(executor, {"stop": str(stop)})
        is_rescued = stop.exists()
        stop.touch()
        rescue.cancel()
    reason = "WorkerDiedError: the worker process ended with exit code 4"
    assert done.events == [JobFailed(0, reason, is_worker_lost=True)]
    assert not is_rescued


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "ended with exit code 0"),
        (255, "ended with exit code 255"),
        (0xC0000409, "ended with exit code 3221226505 (0xC0000409)"),
        (-signal.SIGTERM, "was killed by signal SIGTERM"),
        (-1000, "was killed by signal 1000"),
    ],
)
def test_exit_text(code, text):
    assert exit_text(code) == text


def test_two_executors_do_not_keep_each_others_workers(start_script):
    process = start_script("""
from saccade.executor import ProcessExecutor
first, second = ProcessExecutor(), ProcessExecutor()
print("made")
first._workers[0]._process.stdin.close()
first._workers[0]._process.wait(10)
print("the first has ended")
second.close()
first.close()
""")
    try:
        out, _ = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        pytest.fail("the second worker holds the pipe of the first")
    assert out.splitlines() == ["made", "the first has ended"]


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


class Odd(Trainable):
    def train(self, job, report):
        report(EpochDone(job.trial, 1, 0.5, metrics={"odd": Unreadable()}))
        return ""


def test_a_worker_whose_messages_cannot_be_read_is_lost():
    with ProcessExecutor(Odd()) as executor:
        (failure,) = run_all(executor, {}).events
    reason = "WorkerDiedError: the worker process closed its channel or sent an unreadable message"
    assert failure == JobFailed(0, reason, is_worker_lost=True)
