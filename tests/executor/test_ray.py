"""`RayExecutor` on a small Ray cluster."""

from __future__ import annotations

import pytest

from saccade.events import Decision
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
