from __future__ import annotations

import math

import pytest

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.executor import EXECUTORS, InlineExecutor, ProcessExecutor, WorkerSlot, make_executor, use_executor
from saccade.study.trial import Trainable


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"given": "inline"}, InlineExecutor),
        ({"given": "process", "num_trials": 1, "time_limit_s": 1.0}, ProcessExecutor),
        ({"num_trials": 1}, InlineExecutor),
        ({"num_trials": 2}, ProcessExecutor),
        ({"time_limit_s": 60.0}, InlineExecutor),
        ({"time_limit_s": -1.0}, InlineExecutor),
        ({"time_limit_s": 600.0}, ProcessExecutor),
        ({"time_limit_s": math.inf}, ProcessExecutor),
        ({"workers": lambda: [WorkerSlot(), WorkerSlot()], "num_trials": 1, "time_limit_s": 1.0}, ProcessExecutor),
    ],
)
def test_executors_are_made(arguments, kind):
    with make_executor(**arguments) as executor:
        assert type(executor) is kind
        assert executor.num_workers == len(arguments.get("workers", lambda: [0])())


def test_an_unknown_name_is_an_error():
    with pytest.raises(UnknownNameError, match=r"Unknown executor 'proces'. Did you mean 'process'"):
        make_executor("proces")
    with pytest.raises(UnknownNameError, match=r"or an instance of saccade.executor.base.Executor"):
        make_executor(3)
    assert set(EXECUTORS) >= {"auto", "inline", "process"}


def test_an_instance_is_returned_and_a_registered_class_gets_the_arguments_that_it_has(monkeypatch):
    class Own(InlineExecutor):
        def __init__(self, time_limit_s=None):
            super().__init__()
            self.time_limit_s = time_limit_s

    executor = Own()
    assert make_executor(executor, time_limit_s=3.0) is executor
    monkeypatch.setattr(EXECUTORS, "_builtin", {"own": Own})
    assert make_executor("own", preload=["json"], time_limit_s=3.0).time_limit_s == 3.0
    with pytest.raises(HyperparameterError, match=r"no option 'num_gpus'"):
        EXECUTORS.make("own", {"num_gpus": 3})


class Closing(InlineExecutor):
    is_closed = False

    def close(self):
        self.is_closed = True


@pytest.mark.parametrize("given", ["inline", None])
def test_only_an_executor_that_was_made_by_name_is_closed(given):
    executor = Closing(Trainable)
    with pytest.raises(ZeroDivisionError), use_executor(given or executor, executor):
        raise ZeroDivisionError
    assert executor.is_closed == (given is not None)
    assert given or executor.trainable is None
