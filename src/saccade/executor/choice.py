"""Whether jobs run in this process or in a worker's, by what a worker was measured to cost."""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from saccade.errors import UnknownNameError, WorkerDiedError
from saccade.events import EpochDone, Event
from saccade.executor.base import Executor, Handler
from saccade.executor.inline import InlineExecutor
from saccade.executor.process import ProcessExecutor
from saccade.executor.slots import WorkerSlot
from saccade.study.trial import Decision, Job, Reporter, Trainable

ExecutorName = Literal["auto", "inline", "process"]

MAX_WORKER_SHARE = 0.05
"""What a worker may cost of a search's time: a crash that ends the search is worth insuring against, but not more."""

_TYPICAL_IMPORT_S = 4.0
"""What modules worth preloading take to import, until a worker has been measured."""

_TYPICAL_START_S = 0.2
"""What a bare interpreter takes to start, until then."""


@dataclass(frozen=True)
class WorkerCosts:
    """What a worker process costs.

    Attributes
    ----------
    start_s : float
        Seconds from its start until it is ready for a job, imports included.
    import_s : float
        The part of that which goes into imports; this process needs them too, unless it has done them already.
    round_trip_s : float
        Seconds that a report and its answer are on their way.
    """

    start_s: float
    import_s: float = 0.0
    round_trip_s: float = 0.0


_measured: dict[tuple[str, ...], WorkerCosts] = {}
"""What workers that preload these modules were measured to cost in this process's life."""


def choose_executor(
    name: str,
    costs: WorkerCosts,
    *,
    num_workers: int = 1,
    num_trials: int | None = None,
    search_s: float | None = None,
    epoch_s: float | None = None,
    has_imported: bool = True,
) -> Literal["inline", "process"]:
    """Choose where jobs run.

    ``"auto"`` takes worker processes when there are to be several at once. A single worker pays where a crash of one
    trial should not end the others, and costs its start and the way of each report. So a lone trial runs in this
    process, and so does a search of which these costs would take more than `MAX_WORKER_SHARE`.

    Parameters
    ----------
    name
        ``"inline"``, ``"process"`` or ``"auto"``.
    costs
        What a worker costs; see `measure_costs`.
    num_workers
        How many jobs are to run at once.
    num_trials
        How many trials there will be at most; None is any number.
    search_s
        Seconds that the search may take; None is no limit.
    epoch_s
        Seconds between two reports, where that is known.
    has_imported
        Whether this process has imported already what a worker would have to.

    Raises
    ------
    UnknownNameError
        For another name.

    Examples
    --------
    >>> costs = WorkerCosts(start_s=3.0, import_s=2.8, round_trip_s=0.0002)
    >>> choose_executor("auto", costs, search_s=600)
    'process'
    >>> choose_executor("auto", costs, search_s=10)
    'inline'
    >>> choose_executor("auto", costs, search_s=10, has_imported=False)
    'process'
    """
    if name not in get_args(ExecutorName):
        raise UnknownNameError.of("executor", name, get_args(ExecutorName))
    if name != "auto":
        return cast('Literal["inline", "process"]', name)
    if num_workers > 1:
        return "process"
    if num_trials == 1:
        return "inline"
    extra_start_s = costs.start_s - (0.0 if has_imported else costs.import_s)
    if search_s is not None and extra_start_s > MAX_WORKER_SHARE * search_s:
        return "inline"
    if epoch_s is not None and costs.round_trip_s > MAX_WORKER_SHARE * epoch_s:
        return "inline"
    return "process"


def make_executor(
    name: str = "auto",
    preload: Sequence[str] = (),
    workers: Sequence[WorkerSlot] = (WorkerSlot(),),
    *,
    num_trials: int | None = None,
    search_s: float | None = None,
    epoch_s: float | None = None,
    costs: WorkerCosts | None = None,
) -> Executor:
    """Make the executor that `choose_executor` chooses; its trainable is to be set before the first job.

    Where ``"auto"`` chooses one worker process, it gets the time that the caller spends on preparing, and then may
    still be found to take too long; see `AutoExecutor`.

    Parameters
    ----------
    name, num_trials, search_s, epoch_s
        As for `choose_executor`.
    preload, workers
        As for `ProcessExecutor`; ``"inline"`` leaves both alone.
    costs
        What a worker costs; None is what was measured last in this process, or else what is typical.

    Raises
    ------
    UnknownNameError
        For another name.

    Examples
    --------
    >>> type(make_executor("auto", num_trials=1)).__name__
    'InlineExecutor'
    """
    chosen = choose_executor(
        name,
        costs or known_costs(preload),
        num_workers=len(workers),
        num_trials=num_trials,
        search_s=search_s,
        epoch_s=epoch_s,
        has_imported=_has_imported(preload),
    )
    if chosen == "inline":
        return InlineExecutor()
    process = ProcessExecutor(preload=preload, workers=workers)
    return AutoExecutor(process, preload) if name == "auto" and len(workers) == 1 else process


class AutoExecutor(Executor):
    """A worker process, or this process when at the first job the worker is found not to start soon enough.

    The start of the worker is measured by starting it, while the caller prepares what is to be trained; that alone
    tells how long it takes on this machine as busy as it is now. At the first job it is waited for, for no more than
    `MAX_WORKER_SHARE` of the time that the job has; without a limit, or when this process would have to do the same
    imports, as long as it takes.

    Parameters
    ----------
    process : ProcessExecutor
        The worker, started just now; it ends with this executor.
    preload : sequence of str
        What it preloads, to remember what that costs.
    """

    def __init__(self, process: ProcessExecutor, preload: Sequence[str] = ()) -> None:
        self._process, self._preload = process, tuple(preload)
        self._chosen: Executor | None = None

    @property
    def trainable(self) -> Trainable | None:
        """What is trained."""
        return self._executor.trainable

    @trainable.setter
    def trainable(self, trainable: Trainable | None) -> None:
        self._executor.trainable = trainable

    @property
    def num_workers(self) -> int:
        """As many as the worker processes; this process is one."""
        return self._executor.num_workers

    @property
    def num_free(self) -> int:
        """How many more jobs may be submitted now."""
        return self._executor.num_free

    @property
    def is_inline(self) -> bool:
        """Whether jobs run in this process, as far as that is known."""
        return isinstance(self._executor, InlineExecutor)

    def submit(self, job: Job) -> None:
        """Take up a job; the first one decides where all are done."""
        if self._chosen is None:
            start_s = time.monotonic()
            self._chosen = self._choose(MAX_WORKER_SHARE * max(0.0, job.seconds_left))
            job = replace(job, seconds_left=job.seconds_left - (time.monotonic() - start_s))  # what it waited counts
        self._chosen.submit(job)

    def run(self, handle: Handler) -> None:
        """Work until no job is left."""
        self._executor.run(handle)

    def close(self) -> None:
        """End the worker, if there is one; what its start cost is remembered."""
        if (startup := self._process.startup) is not None:
            costs = replace(known_costs(self._preload), start_s=startup.start_s, import_s=startup.import_s)
            _measured[self._preload] = costs
        self._process.close()

    @property
    def _executor(self) -> Executor:
        return self._chosen or self._process

    def _choose(self, patience_s: float) -> Executor:
        if patience_s == math.inf or not _has_imported(self._preload) or self._process.wait_for_start(patience_s):
            return self._process
        self._process.close()
        return InlineExecutor(self._process.trainable)


def _has_imported(modules: Sequence[str]) -> bool:
    return all(module in sys.modules for module in modules)


def known_costs(preload: Sequence[str] = ()) -> WorkerCosts:
    """Return what a worker that preloads these modules was last measured to cost, or else what is typical."""
    import_s = _TYPICAL_IMPORT_S if preload else 0.0
    return _measured.get(tuple(preload)) or WorkerCosts(_TYPICAL_START_S + import_s, import_s)


def measure_costs(preload: Sequence[str] = (), slot: WorkerSlot = WorkerSlot()) -> WorkerCosts:  # noqa: B008 (frozen)
    """Start a worker, let it report to and fro, and return what that cost; `make_executor` remembers it.

    Raises
    ------
    WorkerDiedError
        When the worker cannot start.
    """
    with ProcessExecutor(preload=preload, workers=[slot]) as executor:
        executor.wait_for_start()
        startup = executor.startup
        if startup is None:
            raise WorkerDiedError(f"a worker that preloads {list(preload)} died before it was ready")
        costs = WorkerCosts(startup.start_s, startup.import_s, measure_round_trip_s(executor))
    _measured[tuple(preload)] = costs
    return costs


def measure_round_trip_s(executor: Executor, num_reports: int = 200) -> float:
    """Return the seconds from one report to the next of a trainable that does nothing else: the median.

    The executor's trainable is another one afterwards.
    """
    times_s: list[float] = []

    def handle(event: Event) -> Decision:
        if isinstance(event, EpochDone):
            times_s.append(time.perf_counter())
        return Decision.CONTINUE

    executor.trainable = _Reporting(num_reports + 1)
    executor.submit(Job(0, {}))
    executor.run(handle)
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(times_s))


class _Reporting(Trainable):
    def __init__(self, num_epochs: int) -> None:
        self.num_epochs = num_epochs

    def train(self, job: Job, report: Reporter) -> str:
        for epoch in range(1, self.num_epochs + 1):
            report(EpochDone(job.trial, epoch, 0.0))
        return ""
