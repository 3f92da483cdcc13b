from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from saccade.errors import HyperparameterError
from saccade.events import EpochDone, JobDone, JobFailed
from saccade.executor import ProcessExecutor, WorkerSlot
from saccade.executor.process import processor_time
from saccade.study.function import FunctionTrainable
from saccade.study.trial import Decision, Job, Trainable
from saccade.testing.executor_contract import Counting, ExecutorContract, Recorder, run_all

posix_only = pytest.mark.skipif(os.name != "posix", reason="has no fork, or no such signals")


class TestProcessExecutor(ExecutorContract):
    def make(self, trainable):
        return several(2, trainable)


def several(num, trainable=None):
    return ProcessExecutor(trainable, workers=[WorkerSlot(num_threads=1)] * num)


def pids_of(events):
    return [int(event.score) for event in events if isinstance(event, EpochDone)]


def report_pid(config, report):
    """A job that reports its process and then dies, or waits for a file, as the configuration says.

    Imports stand inside, so that the function can be sent to a worker that cannot import this file.
    """
    import os
    import time
    from pathlib import Path

    report(score=os.getpid())
    if "exit_code" in config:
        os._exit(config["exit_code"])
    if "signal" in config:
        os.kill(os.getpid(), config["signal"])
    while "until" in config and not Path(config["until"]).exists():
        time.sleep(0.01)


def test_jobs_share_one_process_that_is_not_this_one(run_function):
    pids = pids_of(run_function(report_pid, {}, {}, {}).events)
    assert len(pids) == 3
    assert set(pids) != {os.getpid()}
    assert len(set(pids)) == 1


def test_a_worker_that_exits_fails_its_job_and_is_replaced(run_function):
    done = run_function(report_pid, {"exit_code": 3}, {})
    first, failure, second, end = done.events
    assert failure == JobFailed(0, "WorkerDiedError: the worker process ended with exit code 3", is_worker_lost=True)
    assert end == JobDone(1)
    assert first.score != second.score


@posix_only
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SIGKILL", "SIGKILL (the system ends processes this way when memory runs out)"),
        ("SIGSEGV", "SIGSEGV"),
    ],
)
def test_a_killed_worker_fails_its_job_with_the_signals_name_and_is_replaced(run_function, name, text):
    done = run_function(report_pid, {"signal": getattr(signal, name)}, {})
    _, failure, _, end = done.events
    reason = f"WorkerDiedError: the worker process was killed by signal {text}"
    assert failure == JobFailed(0, reason, is_worker_lost=True)
    assert end == JobDone(1)


@posix_only
def test_a_worker_that_died_while_it_was_idle_costs_no_job():
    with ProcessExecutor(FunctionTrainable(report_pid)) as executor:
        (pid,) = pids_of(run_all(executor, {}).events)
        os.kill(pid, signal.SIGKILL)
        while executor._workers[0].is_alive:
            time.sleep(0.01)
        done = run_all(executor, {})
    assert done.events[-1] == JobDone(0)
    assert pids_of(done.events) != [pid]


def test_a_lost_worker_fails_one_job_and_the_others_continue(tmp_path):
    stop = tmp_path / "stop"
    with several(3, FunctionTrainable(report_pid)) as executor:
        waiting = {"until": str(stop)}
        recorder = Recorder(executor, [Job(0, waiting), Job(1, {"exit_code": 3}), Job(2, waiting)])

        def handle(event):
            decision = recorder(event)
            if isinstance(event, JobFailed):
                assert executor.num_free == 1
                executor.submit(Job(3, {}))
            if isinstance(event, JobDone) and event.trial == 3:  # in the lost worker's place, the others still at work
                stop.touch()
            return decision

        executor.run(handle)
    failures = [event for event in recorder.events if isinstance(event, JobFailed)]
    assert [(failure.trial, failure.is_worker_lost) for failure in failures] == [(1, True)]
    assert [recorder.of_trial(trial)[-1] for trial in (0, 2, 3)] == [JobDone(0), JobDone(2), JobDone(3)]
    assert len({*pids_of(recorder.events)}) == 4


@posix_only
def test_a_worker_that_is_killed_while_its_report_is_handled_fails_one_job():
    with several(2, FunctionTrainable(report_pid)) as executor:
        recorder = Recorder(executor, [Job(trial, {}) for trial in range(6)])

        def handle(event):
            if isinstance(event, EpochDone) and event.trial in (1, 4):
                os.kill(int(event.score), signal.SIGKILL)
            return recorder(event)

        executor.run(handle)
    ends = {event.trial: event for event in recorder.events if isinstance(event, JobDone | JobFailed)}
    assert [trial for trial in range(6) if isinstance(ends[trial], JobFailed)] == [1, 4]
    assert all("SIGKILL" in ends[trial].reason for trial in (1, 4))
    assert len(recorder.events) == 12


def test_every_job_ends_once_even_if_its_worker_dies():
    ways = [{}, {"exit_code": 0}, {}, {"raise": True}, {"exit_code": 9}, {}, {"exit_code": 1}, {"raise": True}, {}, {}]

    def function(config, report):
        report_pid(config, report)
        if "raise" in config:
            raise ValueError("as configured")

    with several(3, FunctionTrainable(function)) as executor:
        done = run_all(executor, *ways)
        assert executor.num_free == 3
    for trial, way in enumerate(ways):
        _, end = done.of_trial(trial)
        assert isinstance(end, JobFailed if way else JobDone)
        assert getattr(end, "is_worker_lost", False) == ("exit_code" in way)


class CountsItsPickles(Counting):
    num_pickles = 0

    def __getstate__(self):
        type(self).num_pickles += 1
        return {"num_jobs": 0}

    def __setstate__(self, state):
        self.__dict__.update(state)


def test_the_trainable_is_pickled_once_for_all_workers():
    CountsItsPickles.num_pickles = 0
    with several(3, CountsItsPickles()) as executor:
        executor.wait_for_start()
        done = run_all(executor, *[{}] * 9)
    assert sum(isinstance(event, JobDone) for event in done.events) == 9
    assert CountsItsPickles.num_pickles == 1


def test_each_worker_has_the_environment_of_its_slot(monkeypatch):
    def environment(config, report):
        import os

        report(score=1.0, threads=int(os.environ["OMP_NUM_THREADS"]), gpu=int(os.environ["CUDA_VISIBLE_DEVICES"]))

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    slots = [WorkerSlot("cuda:1", 3), WorkerSlot("cuda:0", 2), WorkerSlot("cpu", 1)]
    with ProcessExecutor(FunctionTrainable(environment), workers=slots) as executor:
        executor.wait_for_start()
        reports = run_all(executor, {}, {}, {}).events
    values = [tuple(event.metrics.values()) for event in reports if isinstance(event, EpochDone)]
    assert sorted(values) == [(1, -1), (2, 5), (3, 7)]
    assert os.environ["OMP_NUM_THREADS"] == "64"


def test_a_job_is_sent_to_a_warm_worker(tmp_path, monkeypatch):
    (tmp_path / "slow_once.py").write_text(
        "import pathlib, time\n"
        "try:\n"
        "    pathlib.Path(__file__).with_name('first').mkdir()\n"
        "except FileExistsError:\n"
        "    time.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    slots = [WorkerSlot()] * 3
    with ProcessExecutor(FunctionTrainable(report_pid), ("slow_once",), slots) as executor:
        while executor.num_ready == 0:
            time.sleep(0.01)
        assert not executor.wait_for_start(0.0)
        assert run_all(executor, {}).events[-1] == JobDone(0)


def test_waiting_for_workers_that_die_at_their_start_ends(tmp_path, monkeypatch):
    (tmp_path / "dies.py").write_text("import os\nos._exit(5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with ProcessExecutor(preload=["dies"], workers=[WorkerSlot()] * 2) as executor:
        assert executor.wait_for_start()
        assert executor.num_ready == 0


def test_jobs_begin_when_they_are_submitted(tmp_path):
    def touch(config, report):
        from pathlib import Path

        Path(config["file"]).touch()
        report(score=1.0)

    with several(2, FunctionTrainable(touch)) as executor:
        executor.submit(Job(0, {"file": str(tmp_path / "begun")}))
        end_s = time.monotonic() + 30
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < end_s
            time.sleep(0.01)
        executor.run(lambda event: Decision.CONTINUE)


def test_closing_drops_the_jobs(tmp_path):
    executor = several(2, FunctionTrainable(report_pid))
    executor.submit(Job(0, {"until": str(tmp_path / "never")}))
    executor.close()
    assert executor.num_free == 2
    executor.run(lambda event: pytest.fail("an event of a dropped job"))
    assert run_all(executor, {}).events[-1] == JobDone(0)
    executor.close()


def test_threads_of_a_worker_end_with_it():
    before = threading.active_count()
    with several(3, Counting()) as executor:
        run_all(executor, {}, {}, {})
    assert threading.active_count() == before


def test_wrong_use_is_an_error():
    with pytest.raises(HyperparameterError, match="workers is empty; pass at least one slot"):
        ProcessExecutor(workers=[])
    with several(1) as executor:
        with pytest.raises(AssertionError, match="set the executor's trainable"):
            executor.submit(Job(0, {}))
        executor.trainable = Counting()
        executor.submit(Job(0, {}))
        with pytest.raises(AssertionError, match="see num_free"):
            executor.submit(Job(1, {}))


class Deaf(Trainable):
    """Closes every channel that it can find, the one to its parent included."""

    def train(self, job, report):
        import os

        os.closerange(3, 64)
        return ""


def test_a_worker_that_loses_its_channel_is_lost():
    with ProcessExecutor(Deaf()) as executor:
        (failure,) = run_all(executor, {}).events
    assert failure.is_worker_lost


@posix_only
def test_a_worker_that_is_stopped_is_lost_and_replaced(monkeypatch):
    def stop_once(config, report):
        import os
        import signal

        report(score=os.getpid())
        if config["stops"]:
            os.kill(os.getpid(), signal.SIGSTOP)

    monkeypatch.setattr("saccade.executor.process.SILENCE_S", 1.0)
    monkeypatch.setattr("saccade.executor.process.UNKNOWN_FACTOR", 1)
    with ProcessExecutor(FunctionTrainable(stop_once)) as executor:
        _, failure, _, end = run_all(executor, {"stops": True}, {"stops": False}).events
    assert failure.is_worker_lost
    assert "the worker process was stopped or hung: no sign of life for 1 s" in failure.reason
    assert end == JobDone(1)


@pytest.mark.skipif(processor_time(os.getpid()) is None, reason="the processor time of other processes is not known")
def test_code_that_holds_the_lock_of_python_is_not_taken_for_a_hang(monkeypatch):
    def hold(config, report):
        sum(range(10**8))  # one instruction of the interpreter, in which no other thread runs
        report(score=1.0)

    monkeypatch.setattr("saccade.executor.process.SILENCE_S", 0.5)
    monkeypatch.setattr("saccade.executor.process.HEARTBEAT_S", 0.25)
    with ProcessExecutor(FunctionTrainable(hold)) as executor:
        assert run_all(executor, {}).events[-1] == JobDone(0)


def test_a_full_disk_in_a_worker_is_marked(run_function):
    def full(config, report):
        import errno

        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        except OSError as error:
            raise RuntimeError("cannot save") from error

    (failure,) = run_function(full, {}).events
    assert (failure.is_disk_full, failure.is_worker_lost) == (True, False)
