"""`RayExecutor` on a small Ray cluster."""

from __future__ import annotations

import pytest

from saccade.events import Decision, Event, WorkerJoined
from saccade.executor import Executor, RayExecutor
from saccade.study.trial import Trainable
from saccade.testing import ExecutorContract


@pytest.mark.usefixtures("ray_cluster")
class TestRayExecutor(ExecutorContract):
    def make(self, trainable: Trainable | None) -> Executor:
        executor = RayExecutor(trainable, max_workers=2)
        assert executor.wait_for_start(60)
        executor.run(lambda event: Decision.CONTINUE)  # two workers have joined
        return executor


@pytest.mark.usefixtures("ray_cluster")
def test_workers_announce_the_speed_that_they_have_measured() -> None:
    events: list[Event] = []

    def note(event: Event) -> Decision:
        events.append(event)
        return Decision.CONTINUE

    with RayExecutor(max_workers=1, measure_speed="time:monotonic") as executor:
        assert executor.measures_speed
        assert executor.wait_for_start(60)
        executor.run(note)
    (joined,) = (event for event in events if isinstance(event, WorkerJoined))
    assert joined.node
    assert joined.speed is not None
    assert joined.speed > 0
