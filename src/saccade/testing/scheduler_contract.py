"""Tests that every scheduler must pass.

To test a scheduler, inherit from `SchedulerContract` in a test module::

    class TestMyScheduler(SchedulerContract):
        def make(self):
            return MyScheduler()

The tests run whole studies with it, on simulated workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.deadline import Deadline
from saccade.events import EpochDone, Event
from saccade.executor import Handler
from saccade.scheduler.base import Scheduler
from saccade.searcher import RandomSearcher
from saccade.space import Int, Real
from saccade.study.study import Study
from saccade.study.trial import Decision, Job, Status, Trial
from saccade.testing.simulated_executor import SimulatedExecutor

NUM_EPOCHS = 9

INHERITED = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors])


class SchedulerContract:
    """The tests; override `make`."""

    leaves_paused: ClassVar[bool] = False
    """Whether a search without a time limit may end with paused trials."""
    resumes_first: ClassVar[bool] = True
    """Whether trials that ended at a deadline run before all others in a search with a later one."""

    def make(self) -> Scheduler:
        """Return a new scheduler."""
        raise NotImplementedError

    def run(self, num_workers: int, **limits: Any) -> tuple[Study, WatchedExecutor]:
        """Run a study of trials of `NUM_EPOCHS`, of which a tenth fail halfway.

        No trial may stay paused, except after a time limit or with `leaves_paused`.
        """
        executor = WatchedExecutor(num_workers, limits.pop("is_lost", lambda job, epoch: False))
        deadline = Deadline(limits.pop("time_limit_s", None), executor.clock)
        searcher = RandomSearcher(limits.pop("space", {"x": Real(0, 1)}), seed=limits.pop("seed", 0))
        study = Study(executor, searcher, self.make(), deadline=deadline, **limits)
        executor.study = study
        study.run()
        for trial in study.trials:
            if trial.status is Status.PAUSED:
                assert self.leaves_paused or limits.get("log") or deadline.limit_s < math.inf
                assert trial.reports[-1].checkpoint is not None
            if trial.status is not Status.FAILED:
                assert (trial.status is Status.COMPLETED) == (trial.num_epochs == NUM_EPOCHS)
        return study, executor

    @given(num_workers=st.integers(1, 4), num_trials=st.integers(2, 40), seed=st.integers(0, 2**32 - 1))
    @INHERITED
    def test_a_search_starts_all_trials_and_leaves_none_running(
        self, num_workers: int, num_trials: int, seed: int
    ) -> None:
        study, executor = self.run(num_workers, num_trials=num_trials, seed=seed)
        assert [trial.number for trial in study.trials] == list(range(num_trials))
        assert all(trial.status is not Status.RUNNING for trial in study.trials)
        assert executor.num_free == num_workers

    @pytest.mark.parametrize("num_workers", [1, 3])
    def test_an_epoch_is_trained_once(self, num_workers: int) -> None:
        study, executor = self.run(num_workers, num_trials=40)
        for trial in study.trials:
            epochs = [report.epoch for report in trial.reports]
            assert epochs == list(range(1, len(epochs) + 1))
            assert len(epochs) <= NUM_EPOCHS
        assert len(executor.trained) == sum(len(trial.reports) for trial in study.trials)

    @pytest.mark.parametrize("num_workers", [1, 8])
    def test_a_lost_worker_costs_no_trial_and_no_epoch(self, num_workers: int) -> None:
        lost = set()

        def is_lost(job: Job, epoch: int) -> bool:
            is_new = job.trial % 3 == 0 and epoch == 1 + job.trial % 5 and job.trial not in lost
            lost.update([job.trial] if is_new else [])
            return is_new

        study, executor = self.run(num_workers, num_trials=30, is_lost=is_lost)
        assert lost
        assert all(trial.num_retries == (trial.number in lost) for trial in study.trials)
        assert len(executor.trained) == len(set(executor.trained))

    @pytest.mark.parametrize("num_workers", [1, 3])
    def test_a_search_ends_with_an_exhausted_space(self, num_workers: int) -> None:
        study, _ = self.run(num_workers, space={"x": Int(0, 5)})
        assert study.is_exhausted
        assert len(study.trials) == 6

    @pytest.mark.parametrize("num_workers", [1, 3])
    def test_a_search_ends_at_the_time_limit(self, num_workers: int) -> None:
        study, executor = self.run(num_workers, time_limit_s=100)
        assert 98 <= executor.now_s <= 101
        assert sum(trial.num_epochs for trial in study.trials) > 80 * num_workers

    @given(
        num_workers=st.sampled_from([1, 8]),
        time_limit_s=st.floats(1, 60),
        num_trials=st.none() | st.integers(1, 30),
        seed=st.integers(0, 2**32 - 1),
    )
    @INHERITED
    def test_workers_are_never_idle_while_a_trial_can_run(
        self, num_workers: int, time_limit_s: float, num_trials: int | None, seed: int
    ) -> None:
        study, executor = self.run(num_workers, time_limit_s=time_limit_s, num_trials=num_trials, seed=seed)
        assert executor.now_s <= time_limit_s + 1
        # With a time limit, all schedulers resume paused trials.
        has_paused = any(trial.status is Status.PAUSED for trial in study.trials)
        if has_paused or num_trials is None or len(study.trials) < num_trials:
            assert executor.now_s >= time_limit_s - 1

    @pytest.mark.parametrize("num_workers", [1, 8])
    def test_a_killed_run_resumes_without_repeated_epochs(self, num_workers: int) -> None:
        log = MemoryLog()
        self.run(num_workers, num_trials=25, log=log)
        for num in range(1, len(log), 5):
            killed = MemoryLog(log[:num])
            study, executor = self.run(num_workers, num_trials=25, log=killed)
            assert len(study.trials) == 25
            assert all(trial.status is not Status.RUNNING for trial in study.trials)
            before = [(event.trial, event.epoch) for event in log[:num] if isinstance(event, EpochDone)]
            for trial in study.trials:
                trained = [epoch for number, epoch in before + executor.trained if number == trial.number]
                # A trial that fails after a checkpoint was loaded restarts, because the checkpoint may be the cause.
                assert trained == list(range(1, trial.num_epochs + 1)) or trial.status is Status.FAILED

    def test_a_finished_run_has_no_jobs_when_resumed(self) -> None:
        log = MemoryLog()
        study, _ = self.run(2, num_trials=20, log=log)
        again, executor = self.run(2, num_trials=20, log=MemoryLog(log))
        assert executor.jobs == []
        assert again.trials == study.trials

    @pytest.mark.parametrize("num_workers", [1, 3])
    @pytest.mark.parametrize("num_trials", [1, 2, 5, 30])
    def test_some_trial_is_trained_to_its_end(self, num_workers: int, num_trials: int) -> None:
        study, _ = self.run(num_workers, num_trials=num_trials)
        assert max(trial.num_epochs for trial in study.trials) == NUM_EPOCHS

    @pytest.mark.parametrize("num_workers", [1, 3])
    def test_trials_that_ended_at_the_deadline_resume_with_a_later_one(self, num_workers: int) -> None:
        num_ended = 0
        for time_limit_s in range(7, 20):
            log = MemoryLog()
            study, _ = self.run(num_workers, num_trials=20, time_limit_s=time_limit_s, log=log)
            ended = {trial.number for trial in study.trials if trial.note == "time limit"}
            assert {study.trials[number].status for number in ended} <= {Status.PAUSED}
            log = MemoryLog(log)
            again, executor = self.run(num_workers, num_trials=20, time_limit_s=500, log=log)
            if self.resumes_first:
                assert {job.trial for job in executor.jobs[: len(ended)]} == ended
            for number in ended:
                has_failed = again.trials[number].status is Status.FAILED
                assert has_failed or again.trials[number].num_epochs > study.trials[number].num_epochs
            before = {(trial.number, report.epoch) for trial in study.trials for report in trial.reports}
            assert not before & set(executor.trained)
            num_ended += len(ended)
        assert num_ended > 1

    def test_it_has_jobs_and_answers_reports(self) -> None:
        state, scheduler = OneTrial(), self.make()
        assert isinstance(scheduler, Scheduler)
        job = scheduler.next_job(state)
        assert isinstance(job, Job)
        assert (job.trial, job.config) == (0, {"x": 0.5})
        assert isinstance(scheduler.on_report(EpochDone(0, 1, 0.5, 1.0)), Decision)
        state.trials[0].status = Status.FAILED
        assert self.make().next_job(state) is None  # no trial can start


class WatchedExecutor(SimulatedExecutor):
    """Simulated workers that check each job."""

    study: Study

    def __init__(self, num_workers: int, is_lost: Callable[[Job, int], bool] = lambda job, epoch: False) -> None:
        super().__init__(_scores, num_workers, epoch_s=1.0, is_lost=is_lost)
        self.trained: list[tuple[int, int]] = []

    def run(self, handle: Handler, timeout_s: float = math.inf) -> None:
        def handle_watched(event: Event) -> Decision:
            if isinstance(event, EpochDone):
                self.trained.append((event.trial, event.epoch))
            return handle(event)

        super().run(handle_watched, timeout_s)

    def submit(self, job: Job) -> None:
        trial = self.study.trials[job.trial]
        assert job.trial not in self._running
        assert trial.failure is None
        assert job.config == trial.config
        assert job.checkpoint == (trial.reports[-1].checkpoint if trial.reports else None)
        assert job.until_epoch is None or job.until_epoch > trial.num_epochs
        assert job.seconds_left >= 1.0 or not any(trial.reports for trial in self.study.trials)
        super().submit(job)


class MemoryLog(list[Event]):
    """The event log of a study, in memory."""

    __call__ = list.append


class OneTrial:
    """The state of a study with room for one trial."""

    seconds_left = math.inf
    num_trials = math.inf
    num_workers = 1
    reference_speed = None

    def __init__(self) -> None:
        self.trials: list[Trial] = []

    def new_trial(self) -> Trial | None:
        if self.trials:
            return None
        self.trials.append(Trial(0, {"x": 0.5}))
        return self.trials[0]

    def has_time_for(self, trial: Trial) -> bool:
        return True


def _scores(config: dict[str, Any]) -> list[float]:
    x = config["x"]
    scores = [x * (1 - math.exp(-epoch)) for epoch in range(1, NUM_EPOCHS + 1)]
    return [*scores[:3], *([math.nan] if 0.4 < x < 0.5 else scores[3:])]
