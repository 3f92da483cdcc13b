from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from saccade.scheduler.rungs import Bracket, Rung, TrialProgress, choose_rungs, choose_rungs_for

reduction_factors = st.floats(1.1, 8) | st.integers(2, 8)
scores = st.lists(st.floats(-1e9, 1e9) | st.integers(-3, 3), max_size=40)


class TestBracket:
    @given(grace=st.integers(0, 20), eta=reduction_factors, more=st.integers(0, 200))
    def test_epochs_grow_from_the_first_rung_to_the_last(self, grace, eta, more):
        max_epochs = max(1, grace) + more
        epochs = Bracket(grace, eta, max_epochs).epochs
        assert (epochs[0], epochs[-1]) == (grace, max_epochs)
        assert epochs == sorted(set(epochs))
        trained = [epoch for epoch in epochs if epoch]
        for lower, upper in itertools.pairwise(trained):
            assert upper <= max(lower + 1, eta * lower + (1 + eta) / 2)

    @pytest.mark.parametrize(
        ("bracket", "epochs"),
        [
            (Bracket(1, 3, 27), [1, 3, 9, 27]),
            (Bracket(1, 3, 28), [1, 3, 9, 27, 28]),
            (Bracket(2, 4, 7), [2, 7]),
            (Bracket(5, 3, 5), [5]),
            (Bracket(0, 2, 8), [0, 1, 2, 4, 8]),
            (Bracket(1, 1.5, 8), [1, 2, 3, 4, 5, 8]),
            (Bracket(1, 1.01, 5), [1, 2, 3, 4, 5]),
            (Bracket(0, 3, 9, num_skipped=2), [3, 9]),
            (Bracket(1, 3, 9, num_skipped=10), [9]),
        ],
    )
    def test_epochs(self, bracket, epochs):
        assert bracket.epochs == epochs
        assert [bracket.rung(level).epoch for level in range(len(epochs))] == epochs
        assert bracket.rung(len(epochs)) is None
        assert [rung.is_top for rung in bracket.rungs] == [False] * (len(epochs) - 1) + [True]

    def test_bracket_without_max_epochs_grows_with_its_trials(self):
        bracket = Bracket(1, 3)
        assert bracket.epochs == []
        assert bracket.rung(3).epoch == 27
        assert bracket.epochs == [1, 3, 9, 27]
        assert not any(rung.is_top for rung in bracket.rungs)

    @pytest.mark.parametrize(
        ("bracket", "cost"),
        [
            (Bracket(1, 3, 9), 1 + 2 / 3 + 6 / 9),  # a third is trained 2 epochs more, a ninth 6 epochs more
            (Bracket(3, 3, 9), 3 + 6 / 3),
            (Bracket(9, 3, 9), 9),
            (Bracket(4, 3), 4),
        ],
    )
    def test_relative_cost(self, bracket, cost):
        assert bracket.relative_cost == pytest.approx(cost)


class TestRung:
    @given(scores=scores, eta=reduction_factors)
    @example(scores=[1.0] * 9, eta=3)
    @example(scores=[1.0] * 33, eta=1.1)
    def test_top_fraction_prefers_the_earlier_of_equal_trials(self, scores, eta):
        rung = Rung(1, eta)
        for trial, score in enumerate(scores):
            rung.enter(trial, score)
        order = sorted(range(len(scores)), key=lambda trial: -scores[trial])
        assert len(rung) == len(scores)
        assert rung.num_top == math.floor(len(scores) / eta + 1e-9)
        assert [trial for trial in order if rung.in_top_fraction(trial)] == order[: rung.num_top]
        assert [trial for trial in order if rung.in_top_fraction(trial, at_least=2)] == order[: max(2, rung.num_top)]

    @given(data=st.data(), scores=scores, eta=reduction_factors)
    def test_best_paused_trials_in_the_top_fraction_come_first(self, data, scores, eta):
        rung, finished = Rung(1, eta), set()
        for trial, score in enumerate(scores):
            rung.enter(trial, score)
        waiting = data.draw(st.sets(st.sampled_from(range(len(scores))))) if scores else set()
        finished = set(range(len(scores))) - waiting
        for trial in waiting:
            rung.pause(trial)
        for trial in finished:
            rung.finish(trial)
        order = sorted(range(len(scores)), key=lambda trial: -scores[trial])
        front = order[: rung.num_top]
        promoted = []
        while rung.has_promotable():
            assert rung.best_paused()[1] not in promoted
            promoted.append(rung.pop_paused())
        assert promoted == [trial for trial in front if trial in waiting]
        gone = list(iter(rung.pop_finished_in_top, None))
        assert gone == [trial for trial in front if trial in finished]
        rest = [rung.pop_paused() for _ in range(len(waiting) - len(promoted))]
        assert rest == [trial for trial in order if trial in waiting and trial not in front]
        assert rung.best_paused() is None

    @given(scores=scores, failed=st.sets(st.integers(0, 39)))
    def test_best_trial_that_has_not_failed_leads(self, scores, failed):
        rung = Rung(1, 3)
        for trial, score in enumerate(scores):
            rung.enter(trial, score)
            if trial in failed:
                rung.fail(trial)
        left = [trial for trial in range(len(scores)) if trial not in failed]
        best = max(left, key=lambda trial: (scores[trial], -trial), default=None)
        assert [trial for trial in range(len(scores)) if rung.leads(trial)] == ([] if best is None else [best])

    def test_second_score_of_a_trial_is_ignored(self):
        rung = Rung(1, 2)
        rung.enter(0, 0.5)
        rung.enter(1, 0.7)
        rung.enter(0, 0.9)
        assert (len(rung), rung.score(0)) == (2, 0.5)
        assert rung.in_top_fraction(1)
        assert not rung.in_top_fraction(0)


class TestTrialProgress:
    def test_it_stands_on_a_rung_only_as_long_as_it_is_not_trained(self):
        progress = TrialProgress(7, Bracket(1, 3))
        seen = []
        for epoch in range(1, 10):
            progress.report(epoch, epoch / 10)
            seen.append((progress.rung.epoch, progress.is_on_rung))
        assert seen == [(1, True), (1, False), (3, True), *[(3, False)] * 5, (9, True)]
        assert [rung.score(7) for rung in progress.bracket.rungs[:3]] == [0.1, 0.3, 0.9]
        assert progress.next_rung.epoch == 27

    def test_reports_that_skip_epochs_skip_no_rung(self):
        progress = TrialProgress(0, Bracket(1, 3))
        progress.report(10, 0.5)
        assert [rung.score(0) for rung in progress.bracket.rungs[:3]] == [0.5, 0.5, 0.5]
        assert (progress.rung.epoch, progress.is_on_rung) == (9, True)

    def test_epochs_reported_again_do_not_count(self):
        progress = TrialProgress(0, Bracket(1, 3))
        for epoch in (1, 2, 3, 1, 2, 3):
            progress.report(epoch, epoch / 10)
        assert (progress.level, progress.is_on_rung) == (2, False)
        assert [len(rung) for rung in progress.bracket.rungs] == [1, 1, 0]

    def test_reports_before_the_first_rung_are_not_compared(self):
        progress = TrialProgress(0, Bracket(1, 3))
        progress.report(0, 0.99)
        assert (progress.level, progress.rung, progress.is_on_rung) == (0, None, False)
        progress.report(1, 0.5)
        assert progress.rung.score(0) == 0.5

    def test_an_ended_trial_enters_the_next_rung_with_its_last_score(self):
        progress = TrialProgress(0, Bracket(1, 3))
        progress.report(1, 0.2)
        progress.report(2, 0.1)
        progress.end()
        progress.end()
        low, high = progress.bracket.rungs
        assert (low.score(0), high.score(0)) == (0.2, 0.1)
        for other in (1, 2, 3, 4, 5):
            high.enter(other, 0.0)
        assert [high.pop_finished_in_top() for _ in range(2)] == [0, None]

    def test_a_trial_that_reports_again_has_not_ended(self):
        progress = TrialProgress(0, Bracket(1, 3))
        progress.report(1, 0.2)
        progress.end()
        progress.report(2, 0.3)
        progress.end()
        assert [rung.score(0) for rung in progress.bracket.rungs] == [0.2, 0.3]

    def test_a_trial_that_ends_on_a_rung_stays_there(self):
        progress = TrialProgress(0, Bracket(1, 3))
        progress.report(1, 0.2)
        progress.end()
        assert progress.rung.epoch == 1
        assert progress.rung.best_paused() is None

    def test_a_trial_that_ends_without_a_score_enters_no_rung(self):
        progress = TrialProgress(0, Bracket(1, 3))
        progress.end()
        assert progress.rung is None

    def test_failed_trial_does_not_lead_and_keeps_its_places(self):
        bracket = Bracket(1, 3)
        climbers = [TrialProgress(trial, bracket) for trial in range(2)]
        for epoch in (1, 3):
            for progress, score in zip(climbers, (0.9, 0.1), strict=True):
                progress.report(epoch, score)
        climbers[0].fail()
        assert [[rung.leads(trial) for trial in range(2)] for rung in bracket.rungs[:2]] == [[False, True]] * 2
        assert [len(rung) for rung in bracket.rungs[:2]] == [2, 2]

    def test_an_ended_trial_is_promoted_with_its_score(self):
        progress = TrialProgress(0, Bracket(1, 3, 9))
        progress.report(1, 0.2)
        progress.end()
        for _ in range(5):
            progress.promote()
        assert [rung.score(0) for rung in progress.bracket.rungs] == [0.2, 0.2, 0.2]
        assert progress.next_rung is None


class TestChooseRungs:
    times = st.floats(0, 1e7) | st.just(math.inf)

    @given(
        max_epochs=st.integers(1, 500),
        time_limit_s=times,
        epoch_s=st.floats(1e-3, 1e5),
        num_workers=st.integers(1, 64),
        more=st.floats(1, 100),
    )
    def test_they_can_be_and_more_time_makes_them_later_and_harder(
        self, max_epochs, time_limit_s, epoch_s, num_workers, more
    ):
        grace_epochs, eta = choose_rungs(max_epochs, time_limit_s, epoch_s, num_workers)
        assert 1 <= grace_epochs <= max(1, min(max_epochs, time_limit_s / epoch_s) / 4)
        assert 2 <= eta <= 4
        longer = choose_rungs(max_epochs, more * time_limit_s, epoch_s, num_workers)
        assert longer[0] >= grace_epochs
        assert longer[1] >= eta

    @given(max_epochs=st.integers(1, 500), num_epochs=st.floats(0, 5000), epoch_s=st.floats(1e-3, 1e5))
    def test_only_the_number_of_epochs_that_fit_counts(self, max_epochs, num_epochs, epoch_s):
        num_epochs = math.floor(num_epochs) + 0.5
        assert choose_rungs(max_epochs, num_epochs * epoch_s, epoch_s) == choose_rungs(max_epochs, num_epochs, 1.0)

    def test_with_little_time_one_trial_in_two_is_promoted_after_the_first_epoch(self):
        assert choose_rungs(max_epochs=50, time_limit_s=20, epoch_s=10) == (1, 2)

    def test_epochs_of_no_duration(self):
        assert choose_rungs(max_epochs=100, time_limit_s=20, epoch_s=0) == (4, 3)


@given(num_trials=st.integers(1, 2000), max_epochs=st.integers(1, 300))
def test_rungs_for_a_number_of_trials_lead_from_all_of_them_to_a_few(num_trials, max_epochs):
    grace_epochs, factor = choose_rungs_for(num_trials, max_epochs)
    num_promotions = len(Bracket(grace_epochs, factor, max_epochs).epochs) - 1
    assert 1 <= grace_epochs <= max_epochs
    assert num_trials >= factor**num_promotions or num_trials == 1
    # There are comparisons while there is something to choose from, and an epoch before the first of them.
    assert grace_epochs == 1 or num_trials < factor ** (num_promotions + 1)
