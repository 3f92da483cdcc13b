from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.events import EpochDone
from saccade.scheduler import HyperbandScheduler
from saccade.searcher import RandomSearcher
from saccade.space import Real
from saccade.study.study import Study
from saccade.study.trial import Decision, Status
from saccade.testing.scheduler_contract import NUM_EPOCHS, SchedulerContract
from saccade.testing.simulated_executor import SimulatedExecutor


class TestHyperband(SchedulerContract):
    leaves_paused = True

    def make(self):
        return HyperbandScheduler()

    @pytest.mark.parametrize("num_workers", [1, 8])
    def test_each_bracket_gets_about_the_same_time(self, num_workers):
        scheduler = HyperbandScheduler(max_epochs=NUM_EPOCHS)
        self.make = lambda: scheduler
        study, _ = self.run(num_workers, time_limit_s=3000)
        num_epochs = [0, 0, 0]
        for trial in study.trials:
            num_epochs[scheduler.bracket(trial.number)] += trial.num_epochs
        assert max(num_epochs) < 1.25 * min(num_epochs)

    def test_trials_pause_at_the_rungs_of_their_brackets_only(self):
        scheduler = HyperbandScheduler(max_epochs=NUM_EPOCHS)
        self.make = lambda: scheduler
        study, _ = self.run(1, time_limit_s=500)
        seen = {0: set(), 1: set(), 2: set()}
        for trial in study.trials:
            if trial.status is Status.PAUSED:
                seen[scheduler.bracket(trial.number)].add(trial.num_epochs)
        assert seen == {0: {1, 3}, 1: {3}, 2: set()}


class TestHyperbandWithAnEnd(SchedulerContract):
    leaves_paused = True

    def make(self):
        return HyperbandScheduler(max_epochs=NUM_EPOCHS, grace_epochs=0, reduction_factor=2)


def test_without_a_time_limit_few_trials_of_each_bracket_are_trained_to_the_end():
    scheduler = HyperbandScheduler(max_epochs=NUM_EPOCHS)
    executor = SimulatedExecutor(lambda config: [config["x"]] * NUM_EPOCHS)
    study = Study(executor, RandomSearcher({"x": Real(0, 1)}), scheduler, num_trials=30)
    study.run()
    ended = [scheduler.bracket(trial.number) for trial in study.trials if trial.status is Status.COMPLETED]
    assert set(ended) == {0, 1, 2}
    assert len(ended) < 15


class TestStopping(SchedulerContract):
    def make(self):
        return HyperbandScheduler(max_epochs=NUM_EPOCHS, type="stopping")


class TestBrackets:
    @pytest.mark.parametrize(
        ("options", "epochs"),
        [
            ({"max_epochs": 27}, [[1, 3, 9, 27], [3, 9, 27], [9, 27], [27]]),
            ({"max_epochs": 27, "num_brackets": 2}, [[1, 3, 9, 27], [3, 9, 27]]),
            (
                {"max_epochs": 20, "grace_epochs": 4, "reduction_factor": 2},
                [[4, 8, 16, 20], [8, 16, 20], [16, 20], [20]],
            ),
            ({"max_epochs": 9, "num_brackets": 1}, [[1, 3, 9]]),
            ({"max_epochs": 9, "num_brackets": 20}, [[1, 3, 9], [3, 9], [9]]),
            ({"max_epochs": 1}, [[1]]),
        ],
    )
    def test_each_bracket_omits_one_more_rung(self, options, epochs):
        assert [bracket.epochs for bracket in HyperbandScheduler(**options).brackets] == epochs

    @pytest.mark.parametrize(("num_brackets", "firsts"), [(None, [2, 4, 8]), (5, [2, 4, 8, 16, 32]), (1, [2])])
    def test_without_a_highest_rung(self, num_brackets, firsts):
        scheduler = HyperbandScheduler(grace_epochs=2, reduction_factor=2, num_brackets=num_brackets)
        assert [bracket.rung(0).epoch for bracket in scheduler.brackets] == firsts

    @given(
        max_epochs=st.none() | st.integers(1, 300),
        eta=st.floats(1.5, 6),
        num_brackets=st.integers(1, 6),
        trials=st.lists(st.integers(0, 300), min_size=1, max_size=30),
    )
    def test_a_trials_bracket_depends_on_its_number_alone(self, max_epochs, eta, num_brackets, trials):
        one, other = (HyperbandScheduler(max_epochs, 1, eta, num_brackets) for _ in range(2))
        expected = [one.bracket(trial) for trial in range(301)]
        assert [other.bracket(trial) for trial in trials] == [expected[trial] for trial in trials]

    @given(max_epochs=st.none() | st.integers(1, 300), eta=st.floats(1.5, 6), num_trials=st.integers(1, 300))
    def test_at_any_time_each_has_its_share_of_trials(self, max_epochs, eta, num_trials):
        scheduler = HyperbandScheduler(max_epochs, 1, eta)
        brackets = [scheduler.bracket(trial) for trial in range(num_trials)]
        shares = [1 / bracket.relative_cost for bracket in scheduler.brackets]
        for bracket, share in enumerate(shares):
            expected = num_trials * share / sum(shares)
            assert math.isclose(brackets.count(bracket), expected, abs_tol=len(shares) / 2 + 0.5)

    def test_trials_are_compared_within_their_bracket(self):
        scheduler = HyperbandScheduler(max_epochs=4, reduction_factor=2, num_brackets=2, type="stopping")
        first = next(trial for trial in range(9) if scheduler.bracket(trial) == 0)
        others = [trial for trial in range(9) if scheduler.bracket(trial) == 1]
        scores = {first: 0.9, others[0]: 0.1, others[1]: 0.05}
        answers = {
            trial: [scheduler.on_report(EpochDone(trial, epoch, score)) for epoch in (1, 2)]
            for trial, score in scores.items()
        }
        assert answers[first] == answers[others[0]] == [Decision.CONTINUE] * 2
        assert answers[others[1]] == [Decision.CONTINUE, Decision.STOP]


@pytest.mark.parametrize("num_brackets", [0, -1, 1.5, "3", True])
def test_invalid_num_brackets(num_brackets):
    with pytest.raises(
        HyperparameterError, match=rf"num_brackets was given {num_brackets!r}; expected a whole number, 1"
    ):
        HyperbandScheduler(num_brackets=num_brackets)


def test_other_options_are_those_of_asha():
    with pytest.raises(HyperparameterError, match="reduction_factor was given 0"):
        HyperbandScheduler(reduction_factor=0)
    with pytest.raises(UnknownNameError, match="Did you mean 'stopping'"):
        HyperbandScheduler(type="stoping")
