"""The worker process: its channel, its imports, its messages."""

from __future__ import annotations

import sys
import threading

from saccade.events import EpochDone, JobDone
from saccade.executor import ProcessExecutor
from saccade.study.trial import Decision, Job
from saccade.testing.executor_contract import Counting, Echo, run_all


def report_one(config, report):
    report(score=1.0)


def test_printing_and_reading_do_not_disturb_the_channel(run_function, capfd):
    def chatty(config, report):
        import os
        import subprocess
        import sys

        print("printed ✓")  # noqa: T201
        os.write(1, b"written by a library\n")
        subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)
        print("warned", file=sys.stderr)  # noqa: T201
        assert sys.stdin.read() == ""
        assert os.read(0, 10) == b""
        report(score=1.0)

    done = run_function(chatty, {}, {})
    assert done.events[1::2] == [JobDone(0), JobDone(1)]
    out, err = capfd.readouterr()
    assert out == ""
    for text in ("written by a library", "printed by a child", "warned"):
        assert err.count(text) == 2
    assert err.count("printed") == 4


def test_long_reports_arrive(run_function):
    def detailed(config, report):
        report(score=1.0, **{f"metric {number}": number for number in range(50_000)})

    report, _ = run_function(detailed, {}).events
    assert len(report.metrics) == 50_000


def test_an_object_that_cannot_be_pickled_fails_one_job(run_function):
    class Refuses:
        def __reduce__(self):
            return int, ("no number",)

    lock = threading.Lock()

    def locked(config, report):
        return lock

    cannot_go = run_function(locked, {}).events
    assert "cannot pickle '_thread.lock' object" in cannot_go[0].reason
    assert "Traceback" in cannot_go[0].traceback

    refused = Refuses()
    cannot_come = run_function(lambda config, report: refused, {}, {}).events
    assert [event.trial for event in cannot_come] == [0, 1]
    assert all("ValueError: invalid literal for int()" in event.reason for event in cannot_come)
    assert "unpickler.load" in cannot_come[1].traceback

    failure, _, end = run_function(report_one, {"x": lock}, {}).events
    assert "cannot pickle '_thread.lock' object" in failure.reason
    assert end == JobDone(1)


def test_a_report_that_cannot_be_pickled_fails_one_job():
    class Odd(Counting):
        def train(self, job, report):
            if job.config:
                report(EpochDone(job.trial, 1, 0.5, metrics={"lock": threading.Lock()}))
            return super().train(job, report)

    with ProcessExecutor(Odd()) as executor:
        failure, *after = run_all(executor, {"odd": True}, {}).events
    assert "cannot pickle '_thread.lock' object" in failure.reason
    assert after == [EpochDone(1, 1, 0.1, metrics={"num_jobs": 1}), JobDone(1)]


def test_modules_are_imported_before_a_job_needs_them(run_function):
    def imported(config, report):
        import gc
        import sys

        assert gc.isenabled()
        report(score="wave" in sys.modules)

    assert run_function(imported, {}, preload=("wave",)).events[0].score == 1.0
    assert run_function(imported, {}).events[0].score == 0.0


def test_the_time_that_a_worker_takes_to_start_counts(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.7)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with ProcessExecutor(Echo(), preload=("slow_to_import",)) as executor:
        executor.submit(Job(0, {}, seconds_left=10.0))
        reports = []
        executor.run(lambda event: reports.append(event) or Decision.CONTINUE)
    assert 0 < reports[0].metrics["seconds_left"] < 9.4


def test_a_module_that_cannot_be_imported_fails_the_jobs_with_its_traceback(run_function, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    events = run_function(report_one, {}, {}, preload=("json", "broken_module")).events
    assert [event.trial for event in events] == [0, 1]
    for event in events:
        assert event.reason == "ModuleNotFoundError: No module named 'no_such_module_anywhere'"
        assert "broken_module.py" in event.traceback


def test_a_module_that_crashes_the_worker_fails_the_jobs(run_function, tmp_path, monkeypatch):
    (tmp_path / "crashing_module.py").write_text("import os\nos._exit(5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    events = run_function(report_one, {}, {}, preload=("crashing_module",)).events
    assert [event.reason for event in events] == ["WorkerDiedError: the worker process ended with exit code 5"] * 2


def test_the_working_folder_hides_no_modules(run_function, tmp_path, monkeypatch):
    for name in ("signal", "pickle", "saccade", "threading"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('hidden by the working folder')\n")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    monkeypatch.chdir(tmp_path)
    assert run_function(report_one, {}).events[-1] == JobDone(0)
