from __future__ import annotations

import importlib
import math
import time

import pytest

from saccade import cli
from saccade.deadline import Deadline, call_start_s, counting_from


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


def test_time_runs_from_the_start_and_past_the_limit():
    clock = Clock()
    deadline = Deadline(60, clock)
    assert (deadline.limit_s, deadline.elapsed_s(), deadline.seconds_left()) == (60.0, 0.0, 60.0)
    clock.now_s += 45
    assert (deadline.elapsed_s(), deadline.seconds_left()) == (45.0, 15.0)
    clock.now_s += 45
    assert deadline.seconds_left() == -30.0


def test_without_a_limit_there_is_always_time():
    clock = Clock()
    deadline = Deadline(None, clock)
    clock.now_s += 1e9
    assert deadline.limit_s == deadline.seconds_left() == math.inf


def test_the_real_clock_runs():
    deadline = Deadline(60)
    first = deadline.seconds_left()
    while deadline.seconds_left() == first:
        pass
    assert 0 < 60 - deadline.seconds_left() < 30


def test_a_part_ends_with_the_whole_at_the_latest():
    clock = Clock()
    deadline = Deadline(60, clock, used_s=50)
    assert deadline.within(5).seconds_left() == 5
    assert deadline.within(50).seconds_left() == 10
    clock.now_s += 20
    assert deadline.within(5).seconds_left() == -10


def test_the_time_of_a_command_counts_from_the_start_of_its_process(monkeypatch: pytest.MonkeyPatch):
    now_s = time.monotonic()
    assert call_start_s() >= now_s
    with counting_from(now_s - 5):
        assert call_start_s() == now_s - 5
        assert call_start_s() >= now_s  # a second fit, as in the demo
    starts: list[float] = []
    monkeypatch.setattr(importlib.import_module("saccade.cli.app"), "app", lambda **_: starts.append(call_start_s()))
    cli.main()
    assert starts == [cli.STARTED_S]
    assert call_start_s() >= now_s
