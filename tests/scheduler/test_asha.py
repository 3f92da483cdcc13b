from __future__ import annotations

import math
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.study_by_hand import StudyByHand
from saccade.deadline import Deadline
from saccade.errors import HyperparameterError, UnknownNameError
from saccade.events import EpochDone
from saccade.executor import InlineExecutor
from saccade.scheduler import ASHAScheduler
from saccade.searcher import GridSearcher
from saccade.space import Categorical
from saccade.study.function import FunctionTrainable
from saccade.study.study import Study
from saccade.study.trial import Decision, Job, Status
from saccade.study.trial_files import LocalTrialFiles
from saccade.testing.scheduler_contract import NUM_EPOCHS, OneTrial, SchedulerContract
from saccade.testing.simulated_executor import SimulatedExecutor


class TestASHA(SchedulerContract):
    leaves_paused = True

    def make(self):
        return ASHAScheduler()

    def test_most_trials_end_early_and_the_best_do_not(self):
        study, _ = self.run(1, time_limit_s=300)
        num_epochs = Counter(trial.num_epochs for trial in study.trials)
        assert num_epochs[1] > num_epochs[3] > num_epochs[9] > 0
        done = [trial.config["x"] for trial in study.trials if trial.status is Status.COMPLETED]
        paused = [trial.config["x"] for trial in study.trials if trial.status is Status.PAUSED]
        assert sorted(done)[len(done) // 2] > sorted(paused)[len(paused) * 3 // 4]

    @pytest.mark.parametrize("num_workers", [1, 4])
    def test_without_a_time_limit_most_trials_stay_paused_when_no_more_can_be_begun(self, num_workers):
        study, _ = self.run(num_workers, num_trials=27)
        num_epochs = Counter(trial.num_epochs for trial in study.trials)
        assert num_epochs[1] >= 12
        assert 1 <= num_epochs[NUM_EPOCHS] <= 5
        assert Counter(trial.status for trial in study.trials)[Status.PAUSED] >= 18
        best = max((trial for trial in study.trials if trial.failure is None), key=lambda trial: trial.config["x"])
        assert best.status is Status.COMPLETED

    def test_with_a_time_limit_all_trials_are_trained_to_the_end_the_best_first(self):
        study, executor = self.run(1, num_trials=12, time_limit_s=1000)
        assert {trial.num_epochs for trial in study.trials} <= {3, NUM_EPOCHS}  # a few fail after 3
        last = [job.trial for job in executor.jobs if job.checkpoint == "3"]
        assert len(last) >= 10
        assert study.trials[last[-1]].config["x"] == min(study.trials[trial].config["x"] for trial in last)


class TestASHAWithFewerEpochs(SchedulerContract):
    leaves_paused = True

    def make(self):
        return ASHAScheduler(max_epochs=20, grace_epochs=2, reduction_factor=2)


class TestASHAFromEpochZero(SchedulerContract):
    leaves_paused = True

    def make(self):
        return ASHAScheduler(max_epochs=9, grace_epochs=0)


class TestStopping(SchedulerContract):
    def make(self):
        return ASHAScheduler(type="stopping")

    def test_no_trial_pauses_and_the_best_so_far_always_continues(self):
        study, executor = self.run(1, num_trials=60)
        assert len(executor.jobs) == 60
        assert {trial.status for trial in study.trials} <= {Status.COMPLETED, Status.STOPPED, Status.FAILED}
        best = -math.inf
        for trial in study.trials:
            if trial.config["x"] > best and trial.status is not Status.FAILED:
                assert trial.status is Status.COMPLETED
            best = max(best, trial.config["x"])


class Promotions(ASHAScheduler):
    """Compares each job with what the paper says, by looking at all trials."""

    failures = 0

    def next_job(self, state):
        watched = Watched(state)
        should = self.should_be_promoted(state.trials)
        job = super().next_job(watched)
        if should is not None:
            assert job.trial == should
            assert not watched.is_asked_for_a_trial
        else:
            assert watched.is_asked_for_a_trial
        return job

    def should_be_promoted(self, trials):
        """Return the best paused trial of the highest rung that is among the best 1/η there."""
        for rung in (9, 3, 1):
            reached = [trial for trial in trials if trial.num_epochs >= rung]
            reached.sort(key=lambda trial: -trial.reports[rung - 1].score)
            for trial in reached[: len(reached) // 3]:
                if trial.num_epochs == rung and trial.status is Status.PAUSED:
                    return trial.number
        return None

    @staticmethod
    def leading(trials):
        """Return the numbers of paused trials that are the best of a rung, those aside that failed later."""
        leaders = []
        for rung in (1, 3, 9):
            reached = [trial for trial in trials if trial.num_epochs >= rung and trial.status is not Status.FAILED]
            leader = max(reached, key=lambda trial: trial.reports[rung - 1].score, default=None)
            if leader is not None and (leader.status, leader.num_epochs) == (Status.PAUSED, rung):
                leaders.append(leader.number)
        return leaders


class Watched:
    """The state of a study that knows whether it was asked for a new trial."""

    is_asked_for_a_trial = False

    def __init__(self, state):
        self._state = state

    def __getattr__(self, name):
        return getattr(self._state, name)

    def new_trial(self):
        self.is_asked_for_a_trial = True
        return self._state.new_trial()


@given(
    num_workers=st.sampled_from([1, 8]),
    curves=st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=27, max_size=27), st.integers(1, 60)), max_size=80),
    has_time_limit=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_a_trial_is_promoted_when_it_is_among_the_best_third_and_the_best_of_the_highest_rung(
    num_workers, curves, has_time_limit
):
    def curve(config):
        scores, fails_after = [*curves, ([1] * 27, 60)][config["n"]]
        return [float(score) if epoch < fails_after else math.nan for epoch, score in enumerate(scores)]

    executor = SimulatedExecutor(curve, num_workers)
    scheduler = Promotions(max_epochs=27)
    deadline = Deadline(1e9 if has_time_limit else None, executor.clock)
    searcher = GridSearcher({"n": Categorical(*range(len(curves) + 1))})
    study = Study(executor, searcher, scheduler, deadline=deadline)
    study.run()
    assert scheduler.should_be_promoted(study.trials) is None
    assert scheduler.leading(study.trials) == []
    for trial in study.trials:
        has_ended = trial.num_epochs == 27 or trial.status is Status.FAILED
        assert has_ended if has_time_limit else has_ended == (trial.status is not Status.PAUSED)


class TestJobs:
    def test_a_trial_continues_from_its_checkpoint_to_the_next_rung(self):
        state = StudyByHand(ASHAScheduler(reduction_factor=2))
        state.begin([0.5])
        assert state.next_job() == Job(1, {}, None, None)
        state.train(1, [0.6])
        assert state.next_job() == Job(1, {}, None, "after 1")
        assert state.train(1, [0.6, 0.6], first_epoch=2) is Decision.PAUSE
        assert state.trials[1].num_epochs == 2

    def test_no_job_ends_at_a_rung_by_itself(self):
        state = StudyByHand(ASHAScheduler(max_epochs=5, reduction_factor=2))
        state.begin([0.5])
        state.begin([0.6])
        assert [state.next_job().until_epoch for _ in range(2)] == [5, 5]

    def test_a_trial_with_a_checkpoint_now_and_then_is_not_complete_where_it_has_none(self):
        def now_and_then(config, report):
            for epoch in range(report.last_epoch + 1, 10):
                save = (lambda folder: (folder / "x").touch()) if epoch % 3 else None
                assert report.checkpoint is None or (report.checkpoint / "x").exists()
                report(epoch=epoch, score=config["n"] * epoch, checkpoint=save)

        executor = InlineExecutor(FunctionTrainable(now_and_then))
        with tempfile.TemporaryDirectory() as folder:
            searcher = GridSearcher({"n": Categorical(*range(12, 0, -1))})
            study = Study(executor, searcher, ASHAScheduler(), files=LocalTrialFiles(Path(folder)))
            study.run()
        ends = [(trial.status.value, trial.num_epochs) for trial in study.trials]
        assert ends == [("completed", 9), *[("stopped", 3)] * 3, *[("paused", 1)] * 8]

    def test_the_highest_rung_comes_first(self):
        state = StudyByHand(ASHAScheduler(reduction_factor=2))
        for _ in range(6):
            state.next_job()
        for trial in (0, 1, 2, 3):
            state.train(trial, [0.1 * trial])
        assert [state.next_job().trial for _ in range(2)] == [3, 2]
        state.train(4, [0.8])
        state.train(5, [0.9])
        state.train(3, [0.3], first_epoch=2)
        state.train(2, [0.4], first_epoch=2)
        jobs = [state.next_job() for _ in range(3)]
        assert [(job.trial, job.checkpoint) for job in jobs] == [(2, "after 2"), (5, "after 1"), (4, "after 1")]

    def test_a_trial_without_time_is_not_started_and_does_not_block_others(self):
        state = StudyByHand(ASHAScheduler(reduction_factor=2), num_trials=4, seconds_left=9.0)
        for _ in range(4):
            state.next_job()
        for trial, score in enumerate((0.4, 0.3, 0.2, 0.1)):
            state.train(trial, [score])
        state.without_time = {0, 2}
        assert [job and job.trial for job in (state.next_job(), state.next_job(), state.next_job())] == [1, 3, None]

    def test_an_interrupted_trial_continues_to_the_next_rung_first(self):
        state = StudyByHand(ASHAScheduler())
        for score in (0.9, 0.5, 0.5):
            state.begin([score])
        assert state.next_job().trial == 0
        trial = state.trials[0]
        trial.reports.append(EpochDone(0, 2, 0.9, 1.0, {}, "after 2"))
        assert state.scheduler.on_report(trial.reports[-1]) is Decision.CONTINUE
        state.end(0, Status.PAUSED)
        assert state.next_job() == Job(0, {}, None, "after 2")
        state.end(0, Status.PAUSED)
        state.without_time = {0}
        assert state.next_job().trial == 3

    def test_an_interrupted_promoted_trial_continues_even_outside_the_top_fraction(self):
        state = StudyByHand(ASHAScheduler())
        for score in (0.9, 0.1, 0.2):
            state.begin([score])
        assert state.next_job().trial == 0
        state.begin([0.95])
        state.end(0, Status.PAUSED)
        assert [state.next_job().trial for _ in range(2)] == [0, 3]

    def test_a_trial_that_was_interrupted_before_its_first_report_is_begun_again(self):
        state = StudyByHand(ASHAScheduler())
        state.next_job()
        state.end(0, Status.PAUSED)
        assert state.next_job() == Job(0, {}, None, None)

    def test_a_trial_that_fails_is_not_trained_further_and_keeps_its_place(self):
        state = StudyByHand(ASHAScheduler(), num_trials=6)
        for score in (0.9, 0.1, 0.2):
            state.begin([score])
        assert state.next_job().trial == 0
        state.end(0, Status.FAILED)
        for score in (0.3, 0.4):
            state.begin([score])
        state.begin([0.1])
        assert state.next_job().trial == 4

    def test_restarted_job_pauses_at_its_next_rung(self):
        state = StudyByHand(ASHAScheduler())
        for score in (0.9, 0.1, 0.2):
            state.begin([score])
        assert state.next_job().trial == 0
        state.trials[0].reports.clear()
        assert state.train(0, [0.8, 0.8, 0.7]) is Decision.PAUSE
        assert [report.epoch for report in state.trials[0].reports] == [1, 2, 3]


class TestReports:
    @pytest.mark.parametrize("kind", ["promotion", "stopping"])
    def test_a_trial_at_the_highest_rung_is_stopped(self, kind):
        state = StudyByHand(ASHAScheduler(max_epochs=3, grace_epochs=3, type=kind))
        state.begin([0.1, 0.2, 0.3, 0.4])
        assert (state.trials[0].status, state.trials[0].num_epochs) == (Status.STOPPED, 3)

    def test_the_score_of_the_rungs_epoch_counts_not_the_best(self):
        state = StudyByHand(ASHAScheduler(grace_epochs=2, reduction_factor=2))
        state.begin([0.9, 0.1])
        state.begin([0.1, 0.2])
        assert state.next_job().trial == 1

    def test_a_report_before_the_first_epoch_is_not_compared(self):
        state = StudyByHand(ASHAScheduler(reduction_factor=2))
        state.begin([0.9, 0.1], first_epoch=0)
        state.begin([0.1, 0.2], first_epoch=0)
        assert [trial.num_epochs for trial in state.trials] == [1, 1]
        assert state.next_job().trial == 1

    def test_a_report_before_the_first_epoch_is_the_lowest_rung_without_grace(self):
        state = StudyByHand(ASHAScheduler(grace_epochs=0, reduction_factor=2))
        state.begin([0.4], first_epoch=0)
        assert state.next_job().trial == 1
        state.train(1, [0.5], first_epoch=0)
        assert [trial.num_epochs for trial in state.trials] == [0, 0]
        assert state.next_job() == Job(1, {}, None, "after 0")
        assert state.train(1, [0.5, 0.5], first_epoch=1) is Decision.PAUSE
        assert state.trials[1].num_epochs == 1

    def test_trials_without_epoch_0_enter_the_lowest_rung_at_epoch_1(self):
        state = StudyByHand(ASHAScheduler(grace_epochs=0, reduction_factor=2))
        state.begin([0.4])
        state.begin([0.5])
        assert [len(rung) for rung in state.scheduler.brackets[0].rungs[:2]] == [2, 2]
        assert state.next_job() == Job(1, {}, None, "after 1")

    def test_without_a_checkpoint_it_is_decided_at_once(self):
        state = StudyByHand(ASHAScheduler(reduction_factor=2))
        for scores in ([0.5, 0.5, 0.5], [0.4], [0.6, 0.4], [0.6, 0.7, 0.8]):
            state.begin(scores, has_checkpoints=False, num_epochs=3)
        assert [trial.num_epochs for trial in state.trials] == [3, 1, 2, 3]
        assert [trial.status.value for trial in state.trials] == ["completed", "stopped", "stopped", "completed"]

    def test_trial_stopped_at_a_rung_is_not_promoted_later(self):
        state = StudyByHand(ASHAScheduler(reduction_factor=2, type="stopping"))
        state.begin([0.5, 0.5, 0.5], num_epochs=3)
        for score in (0.4, 0.1, 0.1):
            state.begin([score])
        state.next_job()
        low, middle = state.scheduler.brackets[0].rungs[:2]
        assert (len(low), low.in_top_fraction(1), len(middle)) == (4, True, 1)


class Many:
    """Trials that may be looked up, but not gone through."""

    def __init__(self):
        self._trials, self.num_looked_up = [], 0

    def __len__(self):
        return len(self._trials)

    def __getitem__(self, number):
        self.num_looked_up += 1
        return self._trials[number]

    def append(self, trial):
        self._trials.append(trial)

    __iter__ = None


def test_a_proposal_looks_at_few_trials_however_many_there_are():
    state = StudyByHand(ASHAScheduler(), num_trials=3000, seconds_left=1e9)
    state.trials = Many()
    num_jobs, most = 0, 0
    while (job := state.scheduler.next_job(state)) is not None:
        most = max(most, state.trials.num_looked_up)
        trial = state.trials[job.trial]
        first = trial.num_epochs + 1
        num_jobs += 1
        state.train(job.trial, [(job.trial * 7919 % 3001) / 3001] * 9, first_epoch=first, num_epochs=9)
        state.trials.num_looked_up = 0
    assert num_jobs == 3000 * 3
    assert most <= 2


def test_a_function_without_checkpoints_is_not_trained_twice():
    calls = Counter()

    def train(config, report):
        for epoch in range(1, 10):
            calls[config["n"], epoch] += 1
            report(epoch=epoch, score=float(config["n"] * 7 % 20))

    study = Study(
        InlineExecutor(FunctionTrainable(train)), GridSearcher({"n": Categorical(*range(20))}), ASHAScheduler()
    )
    study.run()
    assert set(calls.values()) == {1}
    assert max(trial.num_epochs for trial in study.trials) == 9
    assert Status.PAUSED not in {trial.status for trial in study.trials}


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"grace_epochs": -1}, r"grace_epochs was given -1; expected a whole number, 0 or more: "),
            ({"grace_epochs": 1.0}, "grace_epochs was given 1.0"),
            ({"grace_epochs": True}, "grace_epochs was given True"),
            ({"max_epochs": 0}, "max_epochs was given 0; expected a whole number, 1 or more"),
            ({"max_epochs": "9"}, "max_epochs was given '9'"),
            ({"max_epochs": 4, "grace_epochs": 5}, "max_epochs was given 4; expected a whole number, 5 or more"),
            ({"reduction_factor": 1}, "reduction_factor was given 1; expected a number above 1, for instance 3"),
            ({"reduction_factor": math.inf}, "reduction_factor was given inf"),
            ({"reduction_factor": math.nan}, "reduction_factor was given nan"),
            ({"reduction_factor": "3"}, "reduction_factor was given '3'"),
            ({"reduction_factor": True}, "reduction_factor was given True"),
        ],
    )
    def test_invalid_numbers(self, options, message):
        with pytest.raises(HyperparameterError, match=message):
            ASHAScheduler(**options)

    @pytest.mark.parametrize(("kind", "advice"), [("promote", "'promotion'"), (None, "promotion, stopping")])
    def test_unknown_type(self, kind, advice):
        with pytest.raises(UnknownNameError, match=rf"Unknown type of successive halving {kind!r}\..*{advice}"):
            ASHAScheduler(type=kind)


def test_the_first_job_is_that_of_a_new_trial():
    scheduler, state = ASHAScheduler(), OneTrial()
    assert scheduler.next_job(state) == Job(0, {"x": 0.5})
    assert scheduler.next_job(state) is None
