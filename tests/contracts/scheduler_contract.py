"""What every scheduler must do.

To hold a scheduler to it, inherit from `SchedulerContract` in a test module::

    class TestMyScheduler(SchedulerContract):
        def make(self):
            return MyScheduler()

The tests run whole studies with it, on simulated workers.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.simulated_executor import SimulatedExecutor
from saccade.deadline import Deadline
from saccade.events import EpochDone
from saccade.scheduler import Scheduler
from saccade.scheduler.study import Study
from saccade.searcher import RandomSearcher
from saccade.space import Int, Real
from saccade.trial import Decision, Job, Status, Trial

NUM_EPOCHS = 9


class SchedulerContract:
    """The tests; `make` is to be overridden."""

    def make(self) -> Scheduler:
        """Return a new scheduler."""
        raise NotImplementedError

    def run(self, num_workers: int, **limits: Any) -> tuple[Study, WatchedExecutor]:
        """Run a study of trials that last `NUM_EPOCHS`, a tenth of which fail in the middle."""
        executor = WatchedExecutor(num_workers)
        deadline = Deadline(limits.pop("time_limit_s", None), executor.clock)
        searcher = RandomSearcher(limits.pop("space", {"x": Real(0, 1)}), seed=limits.pop("seed", 0))
        study = Study(executor, searcher, self.make(), deadline=deadline, **limits)
        executor.study = study
        study.run()
        return study, executor

    def test_it_is_a_scheduler(self) -> None:
        assert isinstance(self.make(), Scheduler)

    @given(num_workers=st.integers(1, 4), num_trials=st.integers(2, 40), seed=st.integers(0, 2**32 - 1))
    @settings(max_examples=25, deadline=None)
    def test_a_search_begins_all_trials_and_leaves_none_running(
        self, num_workers: int, num_trials: int, seed: int
    ) -> None:
        study, executor = self.run(num_workers, num_trials=num_trials, seed=seed)
        assert [trial.number for trial in study.trials] == list(range(num_trials))
        assert all(trial.status is not Status.RUNNING for trial in study.trials)
        assert executor.num_free == num_workers

    @pytest.mark.parametrize("num_workers", [1, 3])
    def test_an_epoch_is_trained_once(self, num_workers: int) -> None:
        study, _ = self.run(num_workers, num_trials=40)
        for trial in study.trials:
            epochs = [report.epoch for report in trial.reports]
            assert epochs == list(range(1, len(epochs) + 1))
            assert len(epochs) <= NUM_EPOCHS

    @pytest.mark.parametrize("num_workers", [1, 3])
    def test_a_search_ends_when_the_space_does(self, num_workers: int) -> None:
        study, _ = self.run(num_workers, space={"x": Int(0, 5)})
        assert study.is_exhausted
        assert len(study.trials) == 6

    @pytest.mark.parametrize("num_workers", [1, 3])
    def test_a_search_ends_when_the_time_does(self, num_workers: int) -> None:
        study, executor = self.run(num_workers, time_limit_s=100)
        assert 98 <= executor.now_s <= 101
        assert sum(trial.num_epochs for trial in study.trials) > 80 * num_workers

    def test_some_trial_is_trained_to_its_end(self) -> None:
        study, _ = self.run(1, num_trials=30)
        assert max(trial.num_epochs for trial in study.trials) == NUM_EPOCHS

    def test_reports_are_answered_with_a_decision(self) -> None:
        state = OneTrial()
        scheduler = self.make()
        job = scheduler.next_job(state)
        assert isinstance(job, Job)
        assert (job.trial, job.config, job.folder) == (0, {"x": 0.5}, "a folder")
        assert isinstance(scheduler.on_report(EpochDone(0, 1, 0.5, 1.0)), Decision)

    def test_there_is_no_job_when_no_trial_can_be_begun(self) -> None:
        state = OneTrial()
        state.new_trial()
        state.trials[0].status = Status.FAILED
        assert self.make().next_job(state) is None


class WatchedExecutor(SimulatedExecutor):
    """Simulated workers that refuse jobs that make no sense."""

    study: Study

    def __init__(self, num_workers: int) -> None:
        super().__init__(_scores, num_workers, epoch_s=1.0)

    def submit(self, job: Job) -> None:
        trial = self.study.trials[job.trial]
        assert job.trial not in {running.job.trial for running in self._running}
        assert trial.failure is None
        assert (job.config, job.folder) == (trial.config, trial.folder)
        assert job.checkpoint == (trial.reports[-1].checkpoint if trial.reports else None)
        assert job.until_epoch is None or job.until_epoch > trial.num_epochs
        super().submit(job)


class OneTrial:
    """The state of a study that can begin one trial."""

    seconds_left = math.inf

    def __init__(self) -> None:
        self.trials: list[Trial] = []

    def new_trial(self) -> Trial | None:
        if self.trials:
            return None
        self.trials.append(Trial(0, {"x": 0.5}, "a folder"))
        return self.trials[0]


def _scores(config: dict[str, Any]) -> list[float]:
    x = config["x"]
    scores = [x * (1 - math.exp(-epoch)) for epoch in range(1, NUM_EPOCHS + 1)]
    return [*scores[:3], *([math.nan] if 0.4 < x < 0.5 else scores[3:])]
