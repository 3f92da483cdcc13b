"""Trials that have several jobs: promoted, out of time, or with a worker that was lost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.studies import make_study, simulated
from saccade.deadline import Deadline
from saccade.errors import SearchFailedError
from saccade.events import JobDone, JobFailed, JobStarted, TrialRestarted, Warned
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher
from saccade.space import Categorical
from saccade.study.trial import Decision, Job, Status
from saccade.testing.simulated_executor import SimulatedExecutor


class Promoting(FIFOScheduler):
    """Trains trials to epochs 1, 2, 4, ..., new ones first; it never asks whether there is time."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def next_job(self, state):
        trial = state.new_trial()
        paused = [trial for trial in state.trials if trial.status is Status.PAUSED]
        trial = trial or min(paused, key=lambda trial: (trial.num_epochs, trial.number), default=None)
        if trial is None:
            return None
        checkpoint = trial.reports[-1].checkpoint if trial.reports else None
        return Job(trial.number, trial.config, max(1, 2 * trial.num_epochs), checkpoint)

    def on_report(self, report):
        return Decision.PAUSE if report.epoch & (report.epoch - 1) == 0 else Decision.CONTINUE

    def on_job_end(self, trial):
        self.ends.append((trial.number, trial.status, trial.num_epochs))


def promoting(curve, executor=SimulatedExecutor, num=2, **options):
    """Return a study of `num` trials that are promoted, and its executor."""
    workers = executor(curve, **{name: options.pop(name) for name in ["is_lost", "epoch_s"] if name in options})
    deadline = Deadline(options.pop("limit_s", None), workers.clock)
    space = {"n": Categorical(*range(num))}
    return make_study(space, executor=workers, scheduler=Promoting(), deadline=deadline, **options), workers


class WithoutCheckpoints(SimulatedExecutor):
    def checkpoint(self, job, epoch):
        return None


class TestPromotion:
    def test_a_paused_trial_continues_from_its_checkpoint_until_its_last_epoch(self):
        events = []
        study, executor = promoting(lambda config: [0.1, 0.2, 0.3, 0.4, 0.5], listeners=[events.append])
        study.run()
        assert [(job.trial, job.checkpoint, job.until_epoch) for job in executor.jobs] == [
            *((0, None, 1), (1, None, 1)),
            *((0, "1", 2), (1, "1", 2)),
            *((0, "2", 4), (1, "2", 4)),
            *((0, "4", 8), (1, "4", 8)),
        ]
        assert [trial.status for trial in study.trials] == [Status.COMPLETED] * 2
        assert [[report.epoch for report in trial.reports] for trial in study.trials] == [[1, 2, 3, 4, 5]] * 2
        assert executor.now_s == 10
        assert [event.trial for event in events if isinstance(event, JobStarted)] == [0, 1] * 4
        assert [event.status for event in events if isinstance(event, JobDone)] == ["paused"] * 6 + ["completed"] * 2

    def test_the_last_epoch_completes_a_trial_whatever_the_decision(self):
        study, executor = promoting(lambda config: [0.1, 0.2, 0.3, 0.4])
        study.run()
        assert [trial.status for trial in study.trials] == [Status.COMPLETED] * 2
        assert [trial.note for trial in study.trials] == ["", ""]
        assert len(executor.jobs) == 6

    def test_scheduler_and_searcher_receive_the_end_of_each_job(self):
        class Hearing(GridSearcher):
            def on_end(self, config, *, has_failed, is_complete=False):
                heard.append((config["n"], has_failed, is_complete))

        heard = []
        study, _ = promoting(lambda config: [0.1, 0.2 if config["n"] else math.nan], searcher=Hearing)
        study.run()
        assert heard == [(0, False, False), (1, False, False), (0, True, False), (1, False, True)]
        assert study.scheduler.ends == [
            *((0, Status.PAUSED, 1), (1, Status.PAUSED, 1)),
            *((0, Status.FAILED, 1), (1, Status.COMPLETED, 2)),
        ]

    def test_a_trial_that_is_never_promoted_stays_paused_and_counts(self):
        class Ending(Promoting):
            def next_job(self, state):
                trial = state.new_trial()
                return None if trial is None else Job(trial.number, trial.config, until_epoch=1)

        executor = SimulatedExecutor(lambda config: [config["x"], 0.0])
        study = make_study({"x": Categorical(0.1, 0.9, 0.5)}, executor=executor, scheduler=Ending())
        study.run()
        assert [trial.status for trial in study.trials] == [Status.PAUSED] * 3
        assert study.best_trial.number == 1

    def test_without_checkpoints_epochs_are_trained_again_but_count_once(self):
        class Hearing(GridSearcher):
            def observe(self, config, epoch, score, cost):
                heard.append((config["n"], epoch, cost))

        heard = []
        study, executor = promoting(
            lambda config: [0.1, 0.2, 0.3], WithoutCheckpoints, num=1, epoch_s=2.0, searcher=Hearing
        )
        study.run()
        (trial,) = study.trials
        assert [job.until_epoch for job in executor.jobs] == [1, 2, 4]
        assert [report.epoch for report in trial.reports] == [1, 2, 3]
        assert heard == [(0, 1, 2.0), (0, 2, 6.0), (0, 3, 12.0)]
        assert trial.seconds == executor.now_s == 12.0


class TestTimeOfPausedTrials:
    def test_none_is_continued_that_could_not_report_before_the_deadline(self):
        for limit_s, num_epochs in [(3.5, 3), (3.0, 2), (4.5, 4)]:
            study, executor = promoting(lambda config: [0.1] * 9, num=1, limit_s=limit_s)
            study.run()
            assert study.trials[0].num_epochs == executor.now_s == num_epochs
            assert study.trials[0].status in (Status.PAUSED, Status.STOPPED)

    def test_one_without_a_checkpoint_needs_time_for_all_of_its_epochs(self):
        for limit_s, num_jobs in [(2.5, 1), (3.5, 2)]:
            study, executor = promoting(lambda config: [0.1] * 9, WithoutCheckpoints, num=1, limit_s=limit_s)
            study.run()
            assert len(executor.jobs) == num_jobs
            assert study.trials[0].num_epochs == num_jobs

    def test_a_reserve_that_is_measured_is_asked_as_the_run_goes(self):
        study, executor = simulated(epoch_s=10, limit_s=101, reserve_s=lambda: 30 if executor.now_s > 45 else 0)
        study.run()
        assert executor.now_s == 70


class TestTrialTimeLimit:
    def test_it_counts_the_training_of_all_jobs(self):
        study, executor = promoting(lambda config: [0.1] * 20, num=2, epoch_s=1.0, trial_time_limit_s=3.5)
        study.run()
        assert [trial.num_epochs for trial in study.trials] == [3, 3]
        assert [(trial.status, trial.note) for trial in study.trials] == [(Status.STOPPED, "trial time limit")] * 2
        assert [job.seconds_left for job in executor.jobs if job.trial == 0] == [3.5, 2.5, 1.5]

    def test_a_paused_trial_that_has_spent_it_is_stopped(self):
        events = []
        study, executor = promoting(lambda config: [0.1] * 20, trial_time_limit_s=2.5, listeners=[events.append])
        study.run()
        assert [trial.num_epochs for trial in study.trials] == [2, 2]
        assert {(trial.status, trial.note) for trial in study.trials} == {(Status.STOPPED, "trial time limit")}
        assert events[-1] == JobDone(1, "stopped", "trial time limit")
        assert study.scheduler.ends[-1] == (1, Status.STOPPED, 2)
        assert len(executor.jobs) == 4

    def test_a_trial_that_completes_in_it_is_complete(self):
        study, _ = promoting(lambda config: [0.1, 0.2], trial_time_limit_s=2.0)
        study.run()
        assert [trial.status for trial in study.trials] == [Status.COMPLETED] * 2

    def test_the_limit_that_comes_first_is_named(self):
        for own_s, whole_s, note in [(3.0, 5.0, "trial time limit"), (5.0, 3.0, "time limit")]:
            study, executor = simulated(num_epochs=9, num_trials=1, limit_s=whole_s, trial_time_limit_s=own_s)
            study.run()
            assert (study.trials[0].note, executor.now_s) == (note, 3.0)

    def test_the_search_continues_with_other_trials(self):
        study, executor = simulated(num_epochs=9, limit_s=20, trial_time_limit_s=3)
        study.run()
        assert [trial.num_epochs for trial in study.trials] == [3] * 6 + [2]
        assert executor.now_s == 20


class TestLostWorkers:
    def lost_once(self, *losses):
        """Return a function that says that the worker is lost in each of these epochs of trials, once."""
        left = list(losses)

        def is_lost(job, epoch):
            if (job.trial, epoch) in left:
                left.remove((job.trial, epoch))
                return True
            return False

        return is_lost

    def study(self, *losses, executor=SimulatedExecutor, num_epochs=4, scheduler=None, num_workers=1, **options):
        events = []
        workers = executor(
            lambda config: [config["x"] * epoch for epoch in range(1, num_epochs + 1)],
            num_workers,
            is_lost=self.lost_once(*losses),
        )
        space = {"x": Categorical(1.0, 2.0, 3.0)}
        study = make_study(space, executor=workers, listeners=[events.append], scheduler=scheduler, **options)
        return study, workers, events

    @pytest.mark.parametrize("num_workers", [1, 2])
    def test_a_trial_is_tried_once_more_from_its_last_checkpoint(self, num_workers):
        study, executor, events = self.study((1, 3), num_workers=num_workers)
        study.run()
        assert [job.checkpoint for job in executor.jobs if job.trial == 1] == [None, "2"]
        assert [trial.status for trial in study.trials] == [Status.COMPLETED] * 3
        assert [report.epoch for report in study.trials[1].reports] == [1, 2, 3, 4]
        assert [trial.num_retries for trial in study.trials] == [0, 1, 0]
        assert [event for event in events if isinstance(event, Warned | JobFailed)] == [
            Warned("Trial 1 is retried from epoch 3: the worker is gone")
        ]

    def test_without_a_checkpoint_training_restarts_and_no_report_counts_twice(self):
        class Hearing(GridSearcher):
            def observe(self, config, epoch, score, cost):
                heard.append((config["x"], epoch))

        heard = []
        study, _, events = self.study((0, 3), executor=WithoutCheckpoints, searcher=Hearing)
        study.run()
        assert Warned("Trial 0 is retried from the beginning: the worker is gone") in events
        assert [report.epoch for report in study.trials[0].reports] == [1, 2, 3, 4]
        assert heard == [(x, epoch) for x in (1.0, 2.0, 3.0) for epoch in (1, 2, 3, 4)]
        assert study.trials[0].seconds == 6.0

    def test_what_was_reported_after_the_checkpoint_is_trained_again(self):
        class EverySecond(SimulatedExecutor):
            def checkpoint(self, job, epoch):
                return None if epoch % 2 else str(epoch)

        study, executor, _ = self.study((0, 4), executor=EverySecond)
        study.run()
        assert [job.checkpoint for job in executor.jobs[:2]] == [None, "2"]
        trial = study.trials[0]
        assert [(report.epoch, report.checkpoint) for report in trial.reports] == [
            *((1, None), (2, "2")),
            *((3, None), (4, "4")),
        ]
        assert trial.seconds == 5.0

    def test_scheduler_and_searcher_do_not_receive_it(self):
        study, executor, _ = self.study((0, 2), scheduler=Promoting(), num_epochs=2)
        study.run()
        assert [job.until_epoch for job in executor.jobs if job.trial == 0] == [1, 2, 2]
        assert study.scheduler.ends == [
            *((number, Status.PAUSED, 1) for number in range(3)),
            *((number, Status.COMPLETED, 2) for number in range(3)),
        ]

    @given(
        losses=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=6),
        num_workers=st.integers(1, 3),
        executor=st.sampled_from([SimulatedExecutor, WithoutCheckpoints]),
        scheduler=st.sampled_from([FIFOScheduler, Promoting]),
    )
    @settings(max_examples=100, deadline=None)
    def test_record_is_consistent_after_any_loss(self, losses, num_workers, executor, scheduler):
        study, _, events = self.study(*losses, num_workers=num_workers, executor=executor, scheduler=scheduler())
        try:
            study.run()
        except SearchFailedError:
            assert all(trial.status is Status.FAILED for trial in study.trials)
        for trial in study.trials:
            assert trial.status in (Status.COMPLETED, Status.FAILED)
            assert trial.num_retries <= 1
            epochs = [report.epoch for report in trial.reports]
            assert epochs == list(range(1, len(epochs) + 1))
            assert trial.seconds >= len(epochs)
        restarts = [event for event in events if isinstance(event, TrialRestarted)]
        assert sum(isinstance(event, Warned) for event in events) == len(restarts)
