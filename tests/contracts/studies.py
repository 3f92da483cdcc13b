"""Studies to look at."""

from __future__ import annotations

from saccade.deadline import Deadline
from saccade.executor import InlineExecutor
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher, RandomSearcher
from saccade.space import Real
from saccade.study.function import FunctionTrainable
from saccade.study.study import Study
from saccade.testing.simulated_executor import SimulatedExecutor


def make_study(space, function=None, executor=None, searcher=GridSearcher, scheduler=None, **options):
    """Return a study of all configurations, of a function or with an executor."""
    executor = executor or InlineExecutor(FunctionTrainable(function))
    return Study(executor, searcher(space), scheduler or FIFOScheduler(), **options)


def simulated(epoch_s=1.0, num_epochs=1, num_workers=1, limit_s=None, space=None, **options):
    """Return a study of simulated trials that all score their `x`, with a searcher that never ends."""
    executor = SimulatedExecutor(lambda config: [config["x"]] * num_epochs, num_workers, epoch_s)
    deadline = Deadline(limit_s, executor.clock)
    space = space or {"x": Real(0, 1)}
    study = make_study(space, executor=executor, searcher=RandomSearcher, deadline=deadline, **options)
    return study, executor
