from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import cloudpickle
import pytest

from saccade.executor import ProcessExecutor
from saccade.study.function import FunctionTrainable
from saccade.testing.executor_contract import run_all


@pytest.fixture(autouse=True)
def _send_functions_of_the_test_file_by_value(request):
    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture
def run_function():
    """Return a function that runs a function as jobs on one worker."""

    def run(function, *configs, preload=()):
        with ProcessExecutor(FunctionTrainable(function), preload) as executor:
            return run_all(executor, *configs)

    return run


@pytest.fixture
def start_script(tmp_path, react_to_ctrl_c):
    """Return a function that runs a Python script in a process group of its own."""
    started = []

    def start(text):
        script = tmp_path / "script.py"
        script.write_text(text, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            start_new_session=os.name == "posix",
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.communicate()
