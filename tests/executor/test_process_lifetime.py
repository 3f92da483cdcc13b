"""Real scripts with workers, and what ends them.

A script's output ends, and `communicate` returns, only when every process that inherited it has ended: so that is how
the tests here see that no worker is left behind.
"""

from __future__ import annotations

import os
import signal

import pytest

posix_only = pytest.mark.skipif(os.name != "posix", reason="has no fork, or no such signals")

NUM_WORKERS = 3

# An executor with several workers, whose jobs sleep for a minute; the script says when they have begun.
SLEEPING_SCRIPT = """
import time
from saccade.executor import ProcessExecutor, WorkerSlot
from saccade.study.trial import Decision, Job
from saccade.study.function import FunctionTrainable

def sleep(config, report):
    report(score=1.0)
    time.sleep(60)

def handle(event):
    print("sleeping", flush=True)
    return Decision.CONTINUE

executor = ProcessExecutor(FunctionTrainable(sleep), workers=[WorkerSlot()] * NUM)
for trial in range(NUM):
    executor.submit(Job(trial, {}))
executor.run(handle)
""".replace("NUM", str(NUM_WORKERS))


def wait_until_all_sleep(process):
    for _ in range(NUM_WORKERS):
        assert process.stdout.readline() == "sleeping\n"


def test_a_script_does_not_need_a_main_guard(start_script):
    process = start_script("""
from saccade.executor import ProcessExecutor
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher
from saccade.space import Categorical
from saccade.study.study import Study
from saccade.study.function import FunctionTrainable

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


def test_closing_ends_workers_in_the_middle_of_their_jobs(start_script):
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


def test_a_worker_ends_with_a_parent_that_does_not_close_it(start_script):
    process = start_script("""
from saccade.executor import ProcessExecutor
executor = ProcessExecutor(preload=("saccade.study.study",))
print("forgotten")
""")
    out, _ = process.communicate(timeout=30)
    assert (out.splitlines(), process.returncode) == (["forgotten"], 0)


def test_workers_end_at_once_when_their_parent_is_killed(start_script):
    process = start_script(SLEEPING_SCRIPT)
    wait_until_all_sleep(process)
    process.kill()
    _, err = process.communicate(timeout=10)
    assert err == ""


@posix_only
def test_ctrl_c_ends_workers_without_their_tracebacks(start_script):
    process = start_script(SLEEPING_SCRIPT)
    wait_until_all_sleep(process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=10)
    # On a busy machine the parent may see a worker's pipe closed before its own interrupt, and tells of both together.
    assert err.count("Traceback") - err.count("During handling of the above exception") == 1
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert process.returncode == -signal.SIGINT


@posix_only
def test_only_the_parent_reacts_to_ctrl_c(start_script):
    ignoring = "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n"
    script = SLEEPING_SCRIPT.replace("sleep(60)", "sleep(1)").replace('    print("sleeping"', "    print(event.kind")
    process = start_script(ignoring + script)
    assert process.stdout.readline() == "epoch_done\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (err, process.returncode) == ("", 0)
    assert sorted(out.split()) == ["epoch_done"] * (NUM_WORKERS - 1) + ["job_done"] * NUM_WORKERS


@posix_only
def test_ctrl_c_can_be_caught_and_the_executor_used_again(start_script):
    process = start_script(
        SLEEPING_SCRIPT.replace("time.sleep(60)", "time.sleep(config.get('seconds', 60))").replace(
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
    wait_until_all_sleep(process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out.splitlines()[-1], err) == ("done", "")


def test_workers_that_are_still_starting_end_with_their_parent(start_script):
    process = start_script("""
import time
from saccade.executor import ProcessExecutor, WorkerSlot
executor = ProcessExecutor(preload=("saccade.study.study",), workers=[WorkerSlot()] * 3)
print("made", flush=True)
time.sleep(60)
""")
    assert process.stdout.readline() == "made\n"
    process.kill()
    _, err = process.communicate(timeout=30)
    assert err == ""


@posix_only
def test_no_child_is_left_of_workers_that_died_were_killed_or_closed(start_script):
    process = start_script("""
import os
from saccade.executor import ProcessExecutor, WorkerSlot
from saccade.study.function import FunctionTrainable
from saccade.study.trial import Job

def train(config, report):
    report(score=1.0)
    if config["dies"]:
        os._exit(3)

executor = ProcessExecutor(FunctionTrainable(train), workers=[WorkerSlot()] * 3)
for trial in range(3):
    executor.submit(Job(trial, {"dies": trial == 1}))
executor.run(lambda event: "continue")
executor.close()
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child")
""")
    out, err = process.communicate(timeout=30)
    assert (out, err) == ("no child\n", "")


def test_a_parent_without_standard_error_has_a_worker_too(start_script):
    process = start_script("""
import os, subprocess, sys
code = '''
import sys
assert sys.__stderr__ is None
from contextlib import redirect_stdout
from saccade.executor import ProcessExecutor
from saccade.study.trial import Decision, Job
from saccade.study.function import FunctionTrainable
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
