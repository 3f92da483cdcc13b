"""Tests with real processes.

A script's output ends, and `communicate` returns, only when every process that inherited it has ended: so that is how
the tests here see that no worker is left behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from contracts.executor_contract import Counting, Echo, ExecutorContract, run_all
from saccade.events import EpochDone, JobDone, JobFailed
from saccade.executor import ProcessExecutor
from saccade.executor.process import ending
from saccade.trial import Decision, FunctionTrainable, Job

posix_only = pytest.mark.skipif(os.name != "posix", reason="has no fork, or no such signals")

# An executor whose one job sleeps for a minute; the script says when that has begun.
SLEEPING_SCRIPT = """
import time
from saccade.executor import ProcessExecutor
from saccade.trial import Decision, FunctionTrainable, Job

def sleep(config, report):
    report(score=1.0)
    time.sleep(60)

def handle(event):
    print("sleeping", flush=True)
    return Decision.CONTINUE

executor = ProcessExecutor(FunctionTrainable(sleep))
executor.submit(Job(0, {}))
executor.run(handle)
"""


class TestProcessExecutor(ExecutorContract):
    def make(self, trainable):
        return ProcessExecutor(trainable)


def run_function(function, *configs, preload=()):
    with ProcessExecutor(FunctionTrainable(function), preload) as executor:
        return run_all(executor, *configs)


def pids_of(events):
    return [int(event.score) for event in events if isinstance(event, EpochDone)]


def report_pid(config, report):
    """A job that reports its process and then dies as the configuration says.

    Imports stand inside, so that the function can be sent to a worker that cannot import this file.
    """
    import os

    report(score=os.getpid())
    if "exit_code" in config:
        os._exit(config["exit_code"])
    if "signal" in config:
        os.kill(os.getpid(), config["signal"])


@pytest.fixture(autouse=True)
def _send_functions_of_this_file_by_value():
    import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def test_jobs_share_one_process_that_is_not_this_one():
    pids = pids_of(run_function(report_pid, {}, {}, {}).events)
    assert len(pids) == 3
    assert set(pids) != {os.getpid()}
    assert len(set(pids)) == 1


def test_a_worker_that_exits_fails_its_job_and_is_replaced():
    done = run_function(report_pid, {"exit_code": 3}, {})
    first, failure, second, end = done.events
    assert failure == JobFailed(0, "WorkerDiedError: the worker process ended with exit code 3")
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
def test_a_killed_worker_fails_its_job_with_the_signals_name_and_is_replaced(name, text):
    done = run_function(report_pid, {"signal": getattr(signal, name)}, {})
    _, failure, _, end = done.events
    assert failure == JobFailed(0, f"WorkerDiedError: the worker process was killed by signal {text}")
    assert end == JobDone(1)


@posix_only
def test_the_death_of_a_worker_shows_even_while_a_child_of_it_holds_the_pipe(tmp_path):
    def fork_and_die(config, report):
        import os
        import time
        from pathlib import Path

        if os.fork() == 0:
            while not Path(config["stop"]).exists():
                time.sleep(0.05)
        os._exit(4)

    stop = tmp_path / "stop"
    rescue = threading.Timer(30, stop.touch)  # should the test not end by itself
    rescue.start()
    started_s = time.monotonic()
    with ProcessExecutor(FunctionTrainable(fork_and_die)) as executor:
        done = run_all(executor, {"stop": str(stop)})
        seconds = time.monotonic() - started_s
        stop.touch()
        rescue.cancel()
    assert done.events == [JobFailed(0, "WorkerDiedError: the worker process ended with exit code 4")]
    assert seconds < 20


@posix_only
def test_a_worker_that_died_while_it_was_idle_costs_no_job():
    with ProcessExecutor(FunctionTrainable(report_pid)) as executor:
        (pid,) = pids_of(run_all(executor, {}).events)
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        done = run_all(executor, {})
    assert done.events[-1] == JobDone(0)
    assert pids_of(done.events) != [pid]


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
def test_how_a_process_ended(code, text):
    assert ending(code) == text


def test_what_is_printed_or_read_leaves_the_channel_alone(capfd):
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


def test_long_reports_come_through():
    def detailed(config, report):
        report(score=1.0, **{f"metric {number}": number for number in range(50_000)})

    report, _ = run_function(detailed, {}).events
    assert len(report.metrics) == 50_000


def test_what_cannot_be_sent_fails_the_job_alone():
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
    assert "pickle.loads" in cannot_come[1].traceback

    failure, _, end = run_function(report_pid, {"x": lock}, {}).events
    assert "cannot pickle '_thread.lock' object" in failure.reason
    assert end == JobDone(1)


def test_a_report_that_cannot_be_sent_fails_its_job_alone():
    class Odd(Counting):
        def train(self, job, report):
            if job.config:
                report(EpochDone(job.trial, 1, 0.5, metrics={"lock": threading.Lock()}))
            return super().train(job, report)

    with ProcessExecutor(Odd()) as executor:
        failure, *after = run_all(executor, {"odd": True}, {}).events
    assert "cannot pickle '_thread.lock' object" in failure.reason
    assert after == [EpochDone(1, 1, 0.1, metrics={"num_jobs": 1}), JobDone(1)]


def test_modules_are_imported_before_a_job_needs_them():
    def imported(config, report):
        import sys

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


def test_a_module_that_cannot_be_imported_fails_the_jobs_with_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    events = run_function(report_pid, {}, {}, preload=("json", "broken_module")).events
    assert [event.trial for event in events] == [0, 1]
    for event in events:
        assert event.reason == "ModuleNotFoundError: No module named 'no_such_module_anywhere'"
        assert "broken_module.py" in event.traceback


def test_a_module_that_crashes_the_worker_fails_the_jobs(tmp_path, monkeypatch):
    (tmp_path / "crashing_module.py").write_text("import os\nos._exit(5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    events = run_function(report_pid, {}, {}, preload=("crashing_module",)).events
    assert [event.reason for event in events] == ["WorkerDiedError: the worker process ended with exit code 5"] * 2


def test_the_working_folder_hides_no_modules(tmp_path, monkeypatch):
    for name in ("signal", "pickle", "saccade", "threading"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('hidden by the working folder')\n")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    monkeypatch.chdir(tmp_path)
    assert run_function(report_pid, {}).events[-1] == JobDone(0)


def test_a_script_needs_no_main_guard(start_script):
    process = start_script("""
from saccade.executor import ProcessExecutor
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher
from saccade.space import Categorical
from saccade.scheduler.study import Study
from saccade.trial import FunctionTrainable

print("top level")
OFFSET = 10

class Model:
    def score(self, x):
        return helper(x) + OFFSET

def helper(x):
    return -abs(x - 2)

def train(config, report):
    report(score=Model().score(config["x"]))

with ProcessExecutor(FunctionTrainable(train)) as executor:
    study = Study(executor, GridSearcher({"x": Categorical(1, 2, 3)}), FIFOScheduler())
    study.run()
print(study.best_trial.config, study.best_trial.best_report.score)
""")
    out, err = process.communicate(timeout=30)
    assert (out.splitlines(), err) == (["top level", "{'x': 2} 10.0"], "")


def test_closing_ends_a_worker_in_the_middle_of_a_job(start_script):
    script = SLEEPING_SCRIPT.replace("    return Decision.CONTINUE", "    raise InterruptedError")
    process = start_script(f"""{script.replace("executor.run(handle)", "")}
with executor:
    try:
        executor.run(handle)
    except InterruptedError:
        print("interrupted")
print("closed")
""")
    out, err = process.communicate(timeout=30)
    assert (out.splitlines(), err) == (["sleeping", "interrupted", "closed"], "")


def test_a_worker_ends_with_a_parent_that_forgot_it(start_script):
    process = start_script("""
from saccade.executor import ProcessExecutor
executor = ProcessExecutor(preload=("saccade.scheduler.study",))
print("forgotten")
""")
    out, _ = process.communicate(timeout=30)
    assert (out.splitlines(), process.returncode) == (["forgotten"], 0)


def test_a_worker_ends_at_once_when_its_parent_is_killed(start_script):
    process = start_script(SLEEPING_SCRIPT)
    assert process.stdout.readline() == "sleeping\n"
    process.kill()
    _, err = process.communicate(timeout=10)
    assert err == ""


@posix_only
def test_ctrl_c_ends_both_and_only_the_parent_complains(start_script):
    process = start_script(SLEEPING_SCRIPT)
    assert process.stdout.readline() == "sleeping\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert err.count("Traceback") == 1
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert process.returncode == -signal.SIGINT


@posix_only
def test_ctrl_c_is_for_the_parent_to_decide_on(start_script):
    ignoring = "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n"
    process = start_script(
        ignoring + SLEEPING_SCRIPT.replace("sleep(60)", "sleep(1)").replace('"sleeping"', "event.kind")
    )
    assert process.stdout.readline() == "epoch_done\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("job_done\n", "", 0)


@posix_only
def test_ctrl_c_can_be_caught_and_the_executor_used_again(start_script):
    process = start_script(
        SLEEPING_SCRIPT.replace("time.sleep(60)", "time.sleep(config['seconds'])")
        .replace("Job(0, {})", "Job(0, {'seconds': 60})")
        .replace(
            "executor.run(handle)",
            """
try:
    executor.run(handle)
except KeyboardInterrupt:
    executor.submit(Job(1, {'seconds': 0}))
    executor.run(handle)
    print("done")
""",
        )
    )
    assert process.stdout.readline() == "sleeping\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out.splitlines()[-1], err) == ("done", "")


def test_a_parent_without_standard_error_has_a_worker_too(start_script):
    process = start_script("""
import os, subprocess, sys
code = '''
import sys
assert sys.__stderr__ is None
from contextlib import redirect_stdout
from saccade.executor import ProcessExecutor
from saccade.trial import Decision, FunctionTrainable, Job
executor = ProcessExecutor(FunctionTrainable(lambda config, report: (print("lost"), report(score=1.0))))
executor.submit(Job(0, {}))
with executor:
    executor.run(lambda event: (print(event), Decision.CONTINUE)[1])
'''
os.close(2)
sys.exit(subprocess.call([sys.executable, "-c", code]))
""")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "JobDone(trial=0, status='completed', reason='')" in out


def test_two_executors_do_not_keep_each_others_workers(start_script):
    process = start_script("""
from saccade.executor import ProcessExecutor
first, second = ProcessExecutor(), ProcessExecutor()
print("made")
first._worker._process.stdin.close()
first._worker._process.wait(10)
print("the first has ended")
second.close()
first.close()
""")
    try:
        out, _ = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        pytest.fail("the second worker holds the pipe of the first")
    assert out.splitlines() == ["made", "the first has ended"]
