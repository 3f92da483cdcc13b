"""Jobs in the calling process, one after the other: nothing to start, nothing to send."""

from __future__ import annotations

from saccade.events import JobDone, JobFailed
from saccade.executor.base import Handler, OneWorkerExecutor, run_job
from saccade.study.trial import Job, Trainable


class InlineExecutor(OneWorkerExecutor):
    """The calling process is the one worker.

    Parameters
    ----------
    trainable : Trainable or None
        What is trained; may be set later, before the first job.

    Examples
    --------
    >>> from saccade.study.trial import Decision
    >>> from saccade.study.function import FunctionTrainable
    >>> executor = InlineExecutor(FunctionTrainable(lambda config, report: report(score=config["x"])))
    >>> executor.submit(Job(trial=0, config={"x": 0.5}))
    >>> ends = []
    >>> executor.run(lambda event: ends.append(event) or Decision.CONTINUE)
    >>> ends[0].score, ends[1].status
    (0.5, 'completed')
    """

    def _do(self, trainable: Trainable, job: Job, handle: Handler) -> JobDone | JobFailed:
        return run_job(trainable, job, handle)
