"""Jobs in the calling process, one after the other: nothing to start, nothing to send."""

from __future__ import annotations

from collections import deque

from saccade.events import EpochDone
from saccade.executor.base import Executor, Handler, run_job
from saccade.trial import Decision, Job, Trainable


class InlineExecutor(Executor):
    """The calling process is the one worker.

    Parameters
    ----------
    trainable : Trainable or None
        What is trained; may be set later, before the first job.
    """

    def __init__(self, trainable: Trainable | None = None) -> None:
        self.trainable = trainable
        self._jobs: deque[Job] = deque()

    @property
    def num_workers(self) -> int:
        """One."""
        return 1

    @property
    def num_free(self) -> int:
        """One, unless a job waits already."""
        return 1 - len(self._jobs)

    def submit(self, job: Job) -> None:
        """Queue a job for `run`."""
        self._jobs.append(job)

    def run(self, handle: Handler) -> None:
        """Do the queued jobs, and those that the handler adds."""

        def report(event: EpochDone) -> Decision:
            return handle(event)

        while self._jobs:
            assert self.trainable is not None
            handle(run_job(self.trainable, self._jobs.popleft(), report))
