from __future__ import annotations

import math

from saccade.deadline import Deadline


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
