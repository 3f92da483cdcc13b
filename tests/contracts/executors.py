"""An executor for tests that need no worker process, but everything that would travel to one."""

from __future__ import annotations

import math
import pickle

import cloudpickle

from saccade.executor import Handler, InlineExecutor
from saccade.study.trial import Job


class PicklingExecutor(InlineExecutor):
    """Runs jobs in this process, with copies of trainable and job as a worker process would receive them."""

    def submit(self, job: Job) -> None:
        super().submit(pickle.loads(cloudpickle.dumps(job)))

    def run(self, handle: Handler, timeout_s: float = math.inf) -> None:
        given = self.trainable
        self.trainable = pickle.loads(cloudpickle.dumps(given))
        try:
            super().run(handle, timeout_s)
        finally:
            self.trainable = given
