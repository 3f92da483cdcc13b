from __future__ import annotations

import pytest

from saccade.errors import UnknownNameError
from saccade.scheduler import FIFOScheduler, Scheduler, make_scheduler


@pytest.mark.parametrize("name", ["fifo", "local"])
def test_names(name):
    assert type(make_scheduler(name)) is FIFOScheduler


def test_a_scheduler_passes_through():
    scheduler = FIFOScheduler()
    assert make_scheduler(scheduler) is scheduler


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("fifa", "Did you mean 'fifo'?"),
        ("asynchronous", "Known: fifo, local."),
        (None, "Known: fifo, local."),
        (["fifo"], "Did you mean 'fifo'?"),
        (FIFOScheduler, "Known: fifo, local."),
    ],
)
def test_anything_else_is_refused(name, advice):
    with pytest.raises(UnknownNameError) as caught:
        make_scheduler(name)
    assert str(caught.value) == f"Unknown scheduler {name!r}. {advice}"


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="next_job"):
        Scheduler()
