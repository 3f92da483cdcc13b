"""Contract tests: inherit from them to test your own searcher, scheduler, executor, trainable, tracker or trial files.

::

    from saccade.testing import SearcherContract

    class TestMySearcher(SearcherContract):
        def make(self, space, seed):
            return MySearcher(space, seed=seed)

`SimulatedExecutor` replays learning curves on a simulated clock, to test a search in milliseconds. The tests require
pytest and hypothesis, which Saccade itself does not install.
"""

from __future__ import annotations

try:
    import hypothesis  # noqa: F401
    import pytest
except ImportError as error:
    raise ImportError("saccade.testing requires pytest and hypothesis: pip install pytest hypothesis") from error

# Before these modules are imported: pytest then shows the values in their failed assertions.
_CONTRACTS = ("executor_contract", "scheduler_contract", "searcher_contract", "trial_contracts")
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _CONTRACTS))

from saccade.testing.executor_contract import ExecutorContract  # noqa: E402
from saccade.testing.scheduler_contract import SchedulerContract  # noqa: E402
from saccade.testing.searcher_contract import LearningSearcherContract, SearcherContract  # noqa: E402
from saccade.testing.simulated_executor import SimulatedExecutor, SimulatedWorker  # noqa: E402
from saccade.testing.trial_contracts import TrackerContract, TrainableContract, TrialFilesContract  # noqa: E402

__all__ = [
    "ExecutorContract",
    "LearningSearcherContract",
    "SchedulerContract",
    "SearcherContract",
    "SimulatedExecutor",
    "SimulatedWorker",
    "TrackerContract",
    "TrainableContract",
    "TrialFilesContract",
]
