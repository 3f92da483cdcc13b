from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.study_by_hand import StudyByHand
from saccade.deadline import Deadline
from saccade.events import EpochDone, JobDone, JobStarted, TrialCreated
from saccade.scheduler import ASHAScheduler
from saccade.searcher import GridSearcher, RandomSearcher
from saccade.space import Categorical, Real
from saccade.study.study import Study
from saccade.study.trial import Job, Status, Trial
from saccade.testing.scheduler_contract import MemoryLog, WatchedExecutor
from saccade.testing.simulated_executor import SimulatedExecutor


class TestTheEnd:
    def state(self, *scores, seconds_left=math.inf, **options):
        """Return a state in which all trials wait at the first rung, and no more can be begun."""
        state = StudyByHand(ASHAScheduler(**options), num_trials=len(scores), seconds_left=seconds_left)
        for _ in scores:
            state.next_job()
        for trial, score in enumerate(scores):
            state.train(trial, [score])
        return state

    def test_trials_outside_the_top_fraction_stay_paused(self):
        state = self.state(0.1, 0.3, 0.2, 0.0)
        assert state.next_job().trial == 1
        state.train(1, [0.3] * 8, first_epoch=2)
        while (job := state.next_job()) is not None:
            assert job.trial == 1
            num_epochs = state.trials[1].num_epochs
            state.train(1, [0.3] * (20 - num_epochs), first_epoch=num_epochs + 1, num_epochs=20)
        assert [trial.num_epochs for trial in state.trials] == [1, 20, 1, 1]

    def test_all_trials_continue_while_time_is_left(self):
        state = self.state(0.1, 0.3, 0.2, 0.0, seconds_left=100.0)
        assert [state.next_job().trial for _ in range(4)] == [1, 2, 0, 3]

    def test_the_best_of_too_few_continues(self):
        state = self.state(0.1, 0.2)
        assert state.next_job().trial == 1
        assert state.next_job() is None  # what runs may become better
        state.train(1, [0.2] * 2, first_epoch=2)
        assert state.next_job() == Job(1, {}, None, "after 3")

    def test_when_it_fails_the_next_one_does(self):
        state = self.state(0.1, 0.2)
        assert state.next_job().trial == 1
        state.end(1, Status.FAILED)
        assert state.next_job().trial == 0

    def test_when_it_has_ended_none_does(self):
        state = StudyByHand(ASHAScheduler(), num_trials=2)
        state.begin([0.2], num_epochs=1)
        state.begin([0.1])
        assert state.next_job() is None

    def test_it_waits_for_those_that_an_earlier_process_was_training(self):
        state = self.state(0.1, 0.2)
        state.trials.append(Trial(2, {}))
        state.scheduler.on_start(state)
        assert state.next_job() is None
        state.train(2, [0.3])
        assert state.next_job().trial == 2


class TestTrialsOfDifferentLengths:
    def test_a_trial_that_ends_below_a_rung_enters_it_with_its_last_score(self):
        state = StudyByHand(ASHAScheduler(grace_epochs=4, reduction_factor=2))
        state.begin([0.9, 0.5], num_epochs=2)
        state.begin([0.4] * 4)
        state.begin([0.45] * 4)
        state.begin([0.1] * 4)  # two of four are in front: the first, and the third
        assert state.next_job().trial == 2
        assert state.next_job().trial == 4

    def test_ended_trial_enters_higher_rungs_while_in_the_top_fraction(self):
        state = StudyByHand(ASHAScheduler(reduction_factor=2))
        state.begin([0.9], num_epochs=1)
        state.begin([0.5])
        state.next_job()
        low, middle = state.scheduler.brackets[0].rungs[:2]
        assert (len(low), len(middle)) == (2, 1)
        state.train(2, [0.6])
        state.begin([0.1])
        assert state.next_job().trial == 2
        state.train(2, [0.7], first_epoch=2)
        state.next_job()
        assert (len(middle), middle.score(0), middle.score(2)) == (2, 0.9, 0.7)
        assert state.trials[2].status is Status.PAUSED  # one of two is in front, and it is the first

    def test_an_ended_trial_is_never_trained_again(self):
        state = StudyByHand(ASHAScheduler(), num_trials=9)
        for number in range(9):
            state.begin([number / 10], num_epochs=1)
        assert state.next_job() is None

    @given(
        lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60),
        num_workers=st.sampled_from([1, 8]),
        eta=st.integers(2, 4),
    )
    @settings(max_examples=40, deadline=None)
    def test_with_enough_time_all_trials_are_trained_to_the_end(self, lengths, num_workers, eta):
        executor = SimulatedExecutor(lambda config: [config["n"] % 7 / 7] * lengths[config["n"]], num_workers)
        searcher = GridSearcher({"n": Categorical(*range(len(lengths)))})
        study = Study(executor, searcher, ASHAScheduler(reduction_factor=eta), deadline=Deadline(1e9, executor.clock))
        study.run()
        assert [trial.num_epochs for trial in study.trials] == [lengths[trial.config["n"]] for trial in study.trials]


class TestResume:
    def resumed(self, scores, ended=()):
        """Return a state that goes on after these reports of trials, those in `ended` being over."""
        events = []
        for number, trial_scores in enumerate(scores):
            events += [TrialCreated(number, {"x": number / 100}), JobStarted(number, 1)]
            for epoch, score in enumerate(trial_scores, start=1):
                if epoch in (2, 4):  # it was promoted from the rung before
                    events += [JobDone(number, "paused"), JobStarted(number, 3 * (epoch - 1))]
                events.append(EpochDone(number, epoch, score, 1.0, {}, str(epoch)))
            events.append(JobDone(number, "completed" if number in ended else "paused"))
        scheduler = ASHAScheduler()
        executor = WatchedExecutor(1)
        study = Study(executor, RandomSearcher({"x": Real(0, 1)}), scheduler, log=MemoryLog(events))
        return study, scheduler

    def test_a_resumed_search_continues_with_the_same_state(self):
        study, scheduler = self.resumed([[0.1], [0.3], [0.2], [0.1], [0.1]])
        job = scheduler.next_job(study)
        assert (job.trial, job.checkpoint) == (1, "1")
        assert scheduler.next_job(study).trial == 5

    def test_a_trial_is_not_promoted_twice(self):
        study, scheduler = self.resumed([[0.1], [0.3, 0.3, 0.3], [0.2]])
        assert scheduler.next_job(study).trial == 3

    def test_a_trial_paused_on_a_rung_is_not_paused_on_lower_ones(self):
        study, scheduler = self.resumed([[0.3], [0.9] * 3, [0.2], [0.1], [0.1], [0.1]])
        assert [scheduler.next_job(study).trial for _ in range(2)] == [0, 6]

    def test_a_trial_between_rungs_continues_first(self):
        study, scheduler = self.resumed([[0.3], [0.1, 0.1], [0.2]])
        jobs = [scheduler.next_job(study) for _ in range(2)]
        assert [(job.trial, job.checkpoint) for job in jobs] == [(1, "2"), (0, "1")]

    def test_ended_trials_do_not_continue(self):
        study, scheduler = self.resumed([[0.3], [0.1], [0.2]], ended=[0])
        assert scheduler.next_job(study).trial == 3
