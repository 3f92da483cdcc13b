"""Tests that every executor must pass.

To test an executor, inherit from `ExecutorContract` in a test module::

    class TestMyExecutor(ExecutorContract):
        def make(self, trainable):
            return MyExecutor(trainable)

The trainables of these tests are importable in workers that have the same module search path.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from saccade.events import EpochDone, Event, JobDone, JobFailed, WorkerJoined, WorkerLost
from saccade.executor import Executor
from saccade.study.trial import Decision, Job, Reporter, Trainable
from saccade.study.trial_files import LocalTrialFiles


class Counting(Trainable):
    """Reports ``config["num_epochs"]`` epochs, with the number of jobs so far as a metric."""

    def __init__(self) -> None:
        self.num_jobs = 0

    def train(self, job: Job, report: Reporter) -> str:
        self.num_jobs += 1
        for epoch in range(1, job.config.get("num_epochs", 1) + 1):
            event = EpochDone(job.trial, epoch, epoch / 10, metrics={"num_jobs": self.num_jobs})
            if report(event) is not Decision.CONTINUE:
                return "as decided"
        return str(job.config.get("reason", ""))


class Echo(Trainable):
    """Returns the job as its reason."""

    def train(self, job: Job, report: Reporter) -> str:
        report(EpochDone(job.trial, 1, 0.0, metrics={"seconds_left": job.seconds_left}))
        files = None if job.files is None else job.files.folder(job.trial)
        return json.dumps([job.trial, job.config, job.until_epoch, job.checkpoint, str(files)])


class Failing(Trainable):
    """Reports, then fails in the configured way."""

    def train(self, job: Job, report: Reporter) -> str:
        report(EpochDone(job.trial, 1, 0.5))
        match job.config["way"]:
            case "raise":
                raise ValueError("two\n lines")
            case "silent":
                raise KeyError
            case "exit":
                sys.exit("wrong usage")
            case "diverge":
                report(EpochDone(job.trial, 2, math.nan))
        return ""


class Stubborn(Trainable):
    """Raises another error when a report raises."""

    def train(self, job: Job, report: Reporter) -> str:
        for epoch in (1, 2):
            try:
                report(EpochDone(job.trial, epoch, 0.5))
            except Exception as error:
                raise RuntimeError("something else") from error
        return ""


class Meeting(Trainable):
    """Reports, and fails unless ``config["num"]`` jobs run at the same time."""

    def train(self, job: Job, report: Reporter) -> str:
        report(EpochDone(job.trial, 1, 0.5))
        folder = Path(job.config["folder"])
        (folder / str(job.trial)).touch()
        end_s = time.monotonic() + 30
        while len(list(folder.iterdir())) < job.config["num"]:
            if time.monotonic() > end_s:
                raise TimeoutError("the other jobs did not start")
            time.sleep(0.01)
        return ""


class Hanging(Trainable):
    """Never returns, and ignores SIGTERM; with ``num_epochs``, reports and ends."""

    def train(self, job: Job, report: Reporter) -> str:
        if "num_epochs" in job.config:
            return Counting().train(job, report)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(job.config["file"]).touch()
        while True:
            time.sleep(1)


class Recorder:
    """A handler that keeps all events, returns the given decisions, and submits further jobs."""

    def __init__(self, executor: Executor, jobs: Iterable[Job] = (), decisions: Iterable[Decision] = ()) -> None:
        self._executor, self._jobs, self._decisions = executor, list(jobs), list(decisions)
        self.events: list[Any] = []
        self._submit()

    def __call__(self, event: Event) -> Decision:
        if isinstance(event, WorkerJoined | WorkerLost):
            self._submit()
            return Decision.CONTINUE
        self.events.append(event)
        if isinstance(event, JobDone | JobFailed):
            self._submit()
            return Decision.CONTINUE
        return self._decisions.pop(0) if self._decisions else Decision.CONTINUE

    def of_trial(self, trial: int) -> list[Any]:
        return [event for event in self.events if event.trial == trial]

    def _submit(self) -> None:
        while self._jobs and self._executor.num_free:
            self._executor.submit(self._jobs.pop(0))


def run_all(executor: Executor, *configs: dict[str, Any], decisions: Iterable[Decision] = ()) -> Recorder:
    """Run a job for each configuration, and return the recorded events."""
    jobs = [Job(trial, config) for trial, config in enumerate(configs)]
    recorder = Recorder(executor, jobs, decisions)
    executor.run(recorder)
    return recorder


class ExecutorContract:
    """The tests; override `make`."""

    can_cancel: ClassVar[bool] = True
    """Whether the executor can end a job that hangs."""

    def make(self, trainable: Trainable | None) -> Executor:
        """Return a new executor."""
        raise NotImplementedError

    def test_a_worker_is_busy_until_its_job_has_ended(self) -> None:
        with self.make(Counting()) as executor:
            assert isinstance(executor, Executor)
            num = executor.num_workers
            assert executor.num_free == num >= 1
            executor.run(lambda event: pytest.fail("an event without a job"))
            assert not executor.cancel(0)  # no such job
            num_free = []

            def handle(event: Event) -> Decision:
                num_free.append(executor.num_free)
                return Decision.CONTINUE

            executor.submit(Job(0, {"num_epochs": 2}))
            assert executor.num_free == num - 1
            executor.run(handle)
            assert num_free == [num - 1, num - 1, num]
            assert executor.num_free == num
            assert not executor.cancel(0)

    def test_workers_run_many_jobs_and_send_events_in_order_to_the_calling_thread(self) -> None:
        with self.make(Counting()) as executor:
            num_jobs = 3 * executor.num_workers
            recorder = Recorder(executor, [Job(trial, {"num_epochs": 3}) for trial in range(num_jobs)])
            threads, inside = set(), threading.Semaphore(1)

            def handle(event: Event) -> Decision:
                assert inside.acquire(blocking=False)
                threads.add(threading.get_ident())
                time.sleep(0.001)
                inside.release()
                return recorder(event)

            executor.run(handle)
        assert threads == {threading.get_ident()}
        jobs_of_worker = []
        for trial in range(num_jobs):
            *reports, end = recorder.of_trial(trial)
            jobs_of_worker.append(reports[0].metrics["num_jobs"])
            metrics = {"num_jobs": jobs_of_worker[-1]}
            assert reports == [EpochDone(trial, epoch, epoch / 10, metrics=metrics) for epoch in (1, 2, 3)]
            assert end == JobDone(trial, "completed", "")
        assert max(jobs_of_worker) >= 3

    def test_a_job_arrives_unchanged(self) -> None:
        config = {"a": [1, 2.5, None, True, "ä\n\ud800"], "b": {"c": [{}]}, "large": "x" * 3_000_000}
        job = Job(7, config, 4, "a checkpoint", 99.0, LocalTrialFiles(Path("a folder")))
        with self.make(Echo()) as executor:
            recorder = Recorder(executor, [job])
            executor.run(recorder)
            unlimited, _ = run_all(executor, {}).events
        report, end = recorder.events
        assert json.loads(end.reason) == [7, config, 4, "a checkpoint", str(Path("a folder/0007"))]
        assert 60 < report.metrics["seconds_left"] <= 99.0
        assert unlimited.metrics["seconds_left"] == math.inf

    def test_decisions_end_the_trial_that_reported(self) -> None:
        def handle(event: Event) -> Decision:
            recorder(event)
            if not isinstance(event, EpochDone) or event.epoch <= event.trial:
                return Decision.CONTINUE
            return Decision.PAUSE if event.trial % 2 else Decision.STOP

        with self.make(Counting()) as executor:
            recorder = Recorder(executor, [Job(trial, {"num_epochs": 9}) for trial in range(8)])
            executor.run(handle)
            early = run_all(executor, {"reason": "no better for 5 epochs"})
        for trial in range(8):
            *reports, end = recorder.of_trial(trial)
            assert [report.epoch for report in reports] == list(range(1, trial + 2))
            assert end == JobDone(trial, "paused" if trial % 2 else "stopped", "as decided")
        assert early.events[-1] == JobDone(0, "stopped", "no better for 5 epochs")

    def test_a_failure_has_a_reason_and_a_traceback_and_the_next_job_runs(self) -> None:
        reasons = {
            "raise": "ValueError: two lines",
            "silent": "KeyError",
            "exit": "SystemExit: wrong usage",
            "diverge": "DivergedError: the score of epoch 2 is nan; a score is a finite number",
        }
        with self.make(Failing()) as executor:
            done = run_all(executor, *({"way": way} for way in [*reasons, "not at all"]))
        for trial, expected in enumerate(reasons.values()):
            report, failure = done.of_trial(trial)
            assert report == EpochDone(trial, 1, 0.5)
            assert (failure.kind, failure.trial, failure.reason) == ("job_failed", trial, expected)
            assert not failure.is_worker_lost
            assert "executor_contract.py" in failure.traceback
            assert failure.traceback.startswith("Traceback")
        last = len(reasons)
        assert done.of_trial(last) == [EpochDone(last, 1, 0.5), JobDone(last)]

    @pytest.mark.parametrize("trainable", [Counting(), Stubborn()])
    def test_an_exception_of_the_handler_is_not_a_failure_of_the_trial(self, trainable: Trainable) -> None:
        with self.make(trainable) as executor:
            events: list[Event] = []

            def handle(event: Event) -> Decision:
                events.append(event)
                if isinstance(event, EpochDone):
                    raise ZeroDivisionError
                return Decision.CONTINUE

            executor.submit(Job(0, {"num_epochs": 2}))
            with pytest.raises(ZeroDivisionError):
                executor.run(handle)
            assert all(isinstance(event, EpochDone) for event in events)
            assert executor.num_free == executor.num_workers
            after = run_all(executor, {})
        assert after.events[-1] == JobDone(0)

    def test_as_many_jobs_run_at_once_as_there_are_workers(self, tmp_path: Path) -> None:
        with self.make(Meeting()) as executor:
            num = executor.num_workers
            done = run_all(executor, *({"folder": str(tmp_path), "num": num} for _ in range(num)))
        assert [event for event in done.events if isinstance(event, JobFailed)] == []
        assert all(isinstance(event, EpochDone) for event in done.events[:num])

    def test_a_job_that_hangs_is_cancelled_after_the_timeout(self, tmp_path: Path) -> None:
        if not self.can_cancel:
            pytest.skip("can_cancel is False")
        file = tmp_path / "began"
        with self.make(Hanging()) as executor:
            executor.submit(Job(0, {"file": str(file)}))
            recorder = Recorder(executor)
            while not file.exists():
                executor.run(recorder, timeout_s=0.1)
            assert recorder.events == []
            assert executor.num_free == executor.num_workers - 1
            assert executor.cancel(0, "time limit")
            executor.run(recorder)
            assert recorder.events == [JobDone(0, "stopped", "time limit")]
            assert executor.num_free == executor.num_workers
            after = run_all(executor, {"num_epochs": 1})
        assert after.events[-1] == JobDone(0)

    def test_the_trainable_may_come_late_and_change(self) -> None:
        with self.make(None) as executor:
            executor.trainable = Failing()
            assert isinstance(run_all(executor, {"way": "raise"}).events[-1], JobFailed)
            executor.trainable = Counting()
            assert run_all(executor, {}).events[-1] == JobDone(0)

    def test_closing_twice_is_fine(self) -> None:
        executor = self.make(Counting())
        started_s = time.monotonic()
        executor.close()
        executor.close()
        assert time.monotonic() - started_s < 10
