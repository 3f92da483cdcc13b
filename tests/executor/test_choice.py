from __future__ import annotations

import math
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.executor_contract import Counting, ExecutorContract
from saccade.errors import UnknownNameError, WorkerDiedError
from saccade.events import EpochDone
from saccade.executor import (
    AutoExecutor,
    InlineExecutor,
    ProcessExecutor,
    WorkerCosts,
    WorkerSlot,
    choice,
    choose_executor,
    make_executor,
    measure_costs,
)
from saccade.executor.choice import MAX_WORKER_SHARE, known_costs, measure_round_trip_s
from saccade.study.function import FunctionTrainable
from saccade.study.trial import Decision, Job, Trainable

CHEAP = WorkerCosts(start_s=0.0)
DEAR = WorkerCosts(start_s=3.0, import_s=2.5, round_trip_s=0.01)
SECONDS = st.floats(1e-6, 1e6)


@pytest.fixture(autouse=True)
def _nothing_is_measured_yet(monkeypatch):
    monkeypatch.setattr(choice, "_measured", {})


@pytest.fixture
def slow_module(tmp_path, monkeypatch):
    """A module that this process seems to have imported, and that a worker imports for a minute."""
    (tmp_path / "slow_for_workers.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "slow_for_workers", os)
    return "slow_for_workers"


class TestAutoExecutorWithAWorker(ExecutorContract):
    def make(self, trainable):
        executor = make_executor("auto", costs=CHEAP)
        assert isinstance(executor, AutoExecutor)
        executor.trainable = trainable
        return executor


class TestAutoExecutorWithoutAWorker(ExecutorContract):
    """With one that takes too long to start."""

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch, slow_module):
        monkeypatch.setattr(choice.AutoExecutor, "_choose", self.choose_at_once)

    @staticmethod
    def choose_at_once(executor, patience_s, choose=AutoExecutor._choose):
        return choose(executor, 0.0)

    def make(self, trainable):
        executor = AutoExecutor(ProcessExecutor(trainable, ["slow_for_workers"]), ["slow_for_workers"])
        assert executor.trainable is trainable
        return executor


@given(SECONDS, SECONDS, st.none() | st.integers(2, 100), st.none() | SECONDS)
def test_names_settle_it(start_s, round_trip_s, num_trials, search_s):
    costs = WorkerCosts(start_s, 0.0, round_trip_s)
    for name in ("inline", "process"):
        assert choose_executor(name, costs, num_trials=num_trials, search_s=search_s) == name


@given(SECONDS, SECONDS, st.floats(0, 1))
def test_a_worker_costs_no_more_than_its_share(start_s, search_s, part):
    costs = WorkerCosts(start_s, part * start_s)
    chosen = choose_executor("auto", costs, search_s=search_s)
    assert chosen == ("process" if start_s <= MAX_WORKER_SHARE * search_s else "inline")
    if chosen == "process":  # what this process has to import as well does not speak against a worker
        assert choose_executor("auto", costs, search_s=search_s, has_imported=False) == "process"
        assert choose_executor("auto", costs, search_s=2 * search_s) == "process"
        assert choose_executor("auto", costs) == "process"


@pytest.mark.parametrize(
    ("circumstances", "chosen"),
    [
        ({}, "process"),
        ({"num_trials": 1}, "inline"),
        ({"num_trials": 2}, "process"),
        ({"search_s": 10}, "inline"),
        ({"search_s": 100}, "process"),
        ({"search_s": 10, "has_imported": False}, "process"),
        ({"search_s": 0}, "inline"),
        ({"search_s": -1}, "inline"),
        ({"search_s": math.inf}, "process"),
        ({"epoch_s": 0.1}, "inline"),
        ({"epoch_s": 1.0}, "process"),
        ({"num_workers": 2, "num_trials": 1, "search_s": 1, "epoch_s": 0.001}, "process"),
    ],
)
def test_circumstances_decide(circumstances, chosen):
    assert choose_executor("auto", DEAR, **circumstances) == chosen


@pytest.mark.parametrize("make", [lambda name: choose_executor(name, CHEAP), make_executor])
def test_an_unknown_name_is_an_error(make):
    with pytest.raises(UnknownNameError, match=r"Unknown executor 'proces'. Did you mean 'process'"):
        make("proces")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"name": "inline"}, InlineExecutor),
        ({"name": "process"}, ProcessExecutor),
        ({"costs": CHEAP}, AutoExecutor),
        ({"costs": CHEAP, "num_trials": 1}, InlineExecutor),
        ({"costs": DEAR, "search_s": 1.0}, InlineExecutor),
        ({"preload": ["json"], "search_s": 1.0}, InlineExecutor),
        ({"workers": [WorkerSlot(), WorkerSlot()], "num_trials": 1}, ProcessExecutor),
    ],
)
def test_executors_are_made(arguments, kind):
    with make_executor(**arguments) as executor:
        assert type(executor) is kind
        assert executor.num_workers == len(arguments.get("workers", [0]))


def run_pid(executor, seconds_left):
    """Return the process of a job."""

    def report_pid(config, report):
        import os

        report(score=os.getpid())

    events = []
    executor.trainable = FunctionTrainable(report_pid)
    executor.submit(Job(0, {}, seconds_left=seconds_left))
    executor.run(lambda event: events.append(event) or Decision.CONTINUE)
    return int(events[0].score)


@pytest.mark.parametrize("seconds_left", [1.0, 0.0, -5.0])
def test_a_worker_that_takes_too_long_to_start_is_given_up(slow_module, seconds_left):
    with make_executor("auto", [slow_module], costs=CHEAP) as executor:
        assert not executor.is_inline
        assert run_pid(executor, seconds_left) == os.getpid()
        assert executor.is_inline
        assert run_pid(executor, 1e9) == os.getpid()


@pytest.mark.parametrize("seconds_left", [math.inf, 1e6])
def test_a_worker_is_waited_for_when_there_is_time(seconds_left):
    with make_executor("auto", costs=CHEAP) as executor:
        assert run_pid(executor, seconds_left) != os.getpid()
        assert not executor.is_inline


def test_the_time_spent_waiting_for_a_worker_is_the_jobs_own(slow_module):
    """Otherwise a fit with one long job would end late by as much."""

    class Remembering(Trainable):
        def train(self, job, report):
            self.seconds_left = job.seconds_left
            return ""

    trainable = Remembering()
    seconds_left = 0.5 / MAX_WORKER_SHARE
    with make_executor("auto", [slow_module], costs=CHEAP) as executor:
        executor.trainable = trainable
        executor.submit(Job(0, {}, seconds_left=seconds_left))
        executor.run(lambda event: Decision.CONTINUE)
        assert executor.is_inline
    assert trainable.seconds_left <= seconds_left - 0.5


def test_a_worker_is_kept_when_this_process_would_import_the_same(tmp_path, monkeypatch):
    (tmp_path / "rather_slow.py").write_text("import time\ntime.sleep(0.5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with make_executor("auto", ["rather_slow"], costs=CHEAP) as executor:
        assert run_pid(executor, 1.0) != os.getpid()


def test_a_worker_that_cannot_start_fails_the_job_and_harms_nobody_else(tmp_path, monkeypatch):
    (tmp_path / "crashes.py").write_text("import os\nos._exit(5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "crashes", os)
    with make_executor("auto", ["crashes"], costs=CHEAP) as executor:
        executor.trainable = Counting()
        events = []
        executor.submit(Job(0, {}, seconds_left=1e6))
        executor.run(lambda event: events.append(event) or Decision.CONTINUE)
    assert [(event.kind, event.is_worker_lost) for event in events] == [("job_failed", True)]


def test_what_a_start_cost_is_remembered(tmp_path, monkeypatch):
    (tmp_path / "quite_slow.py").write_text("import time\ntime.sleep(0.3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with make_executor("auto", ["quite_slow"]) as executor:
        run_pid(executor, math.inf)
    costs = known_costs(["quite_slow"])
    assert 0.3 <= costs.import_s < costs.start_s
    assert known_costs(["another"]) != costs


def test_costs_are_measured():
    costs = measure_costs(["json"])
    assert 0 < costs.round_trip_s < costs.start_s
    assert known_costs(["json"]) == costs


def test_costs_of_a_worker_that_dies_cannot_be_measured(tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text("import os\nos._exit(5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkerDiedError, match="died before it was ready"):
        measure_costs(["crashing"])


def test_round_trips_are_timed_between_reports(monkeypatch):
    times_s = iter([0.0, 1.0, 3.0, 5.0, 50.0])
    monkeypatch.setattr(choice.time, "perf_counter", lambda: next(times_s))
    assert measure_round_trip_s(InlineExecutor(), num_reports=4) == 2.0


def test_the_reports_that_are_timed_are_reports():
    events = []
    executor = InlineExecutor(choice._Reporting(3))
    executor.submit(Job(4, {}))
    executor.run(lambda event: events.append(event) or Decision.CONTINUE)
    assert events[:-1] == [EpochDone(4, epoch, 0.0) for epoch in (1, 2, 3)]
