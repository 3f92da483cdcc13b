from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.studies import make_study, simulated
from saccade.deadline import Deadline
from saccade.errors import SearchFailedError
from saccade.events import EpochDone, JobDone, JobFailed, JobStarted, TrialCreated, Warned
from saccade.executor import InlineExecutor, ProcessExecutor
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher
from saccade.space import Categorical, Int, Real
from saccade.study.function import FunctionTrainable
from saccade.study.life import NUM_FAILURES
from saccade.study.trial import Decision, Job, Status, Trainable
from saccade.study.trial_files import LocalTrialFiles
from saccade.testing.simulated_executor import SimulatedExecutor


def score_x(config, report):
    report(score=config["x"])


def kinds(events):
    return [event.kind for event in events]


class TestLimits:
    def test_the_number_of_trials_alone(self):
        study, _ = simulated(num_trials=7)
        study.run()
        assert [trial.status for trial in study.trials] == [Status.COMPLETED] * 7
        assert not study.is_exhausted

    def test_the_time_alone(self):
        study, executor = simulated(epoch_s=10, limit_s=101)
        study.run()
        assert (len(study.trials), executor.now_s) == (10, 100)

    def test_whichever_comes_first(self):
        for num_trials, limit_s, expected in [(4, 100, 4), (50, 101, 10)]:
            study, _ = simulated(epoch_s=10, num_trials=num_trials, limit_s=limit_s)
            study.run()
            assert len(study.trials) == expected

    def test_neither_with_a_finite_space_which_is_no_surprise(self):
        events = []
        study = make_study({"x": Int(1, 3)}, score_x, listeners=[events.append])
        study.run()
        assert [trial.config["x"] for trial in study.trials] == [1, 2, 3]
        assert study.is_exhausted
        assert "warned" not in kinds(events)

    @pytest.mark.parametrize(("space", "num"), [({"x": Int(1, 3)}, "3 trials"), ({"x": 1}, "1 trial")])
    def test_a_space_smaller_than_num_trials_is_one_warning(self, space, num):
        events = []
        study = make_study(space, score_x, num_trials=5, listeners=[events.append])
        study.run()
        (warning,) = [event for event in events if isinstance(event, Warned)]
        assert warning.text.endswith(f"The search ends after {num}.")
        assert f"The search grid has {len(study.trials)} configuration" in warning.text
        assert events[-1] == warning

    def test_no_warning_if_num_trials_is_the_size_of_the_space(self):
        study = make_study({"x": Int(1, 3)}, score_x, num_trials=3)
        study.run()
        assert (len(study.trials), study.is_exhausted) == (3, False)

    def test_the_first_trial_is_started_even_without_time(self):
        study, executor = simulated(limit_s=0.0, num_epochs=5, reserve_s=3)
        study.run()
        assert len(study.trials) == 1
        assert study.best_trial is study.trials[0]
        assert executor.jobs[0].seconds_left == -3.0

    def test_no_second_trial_is_started_if_the_first_fails_and_the_time_is_up(self):
        study, _ = simulated(limit_s=0.5, space={"x": math.nan})
        with pytest.raises(SearchFailedError, match="The only trial failed"):
            study.run()
        assert len(study.trials) == 1

    def test_no_trial_is_started_that_could_not_report_before_the_deadline(self):
        study, executor = simulated(epoch_s=10, num_epochs=2, limit_s=29)
        study.run()
        assert (len(study.trials), executor.now_s) == (1, 20)

    def test_the_fastest_first_epoch_so_far_estimates_the_next(self):
        space = {"epoch_s": Categorical(5.0, 20.0, 5.5, 6.0)}
        executor = SimulatedExecutor(lambda config: [1.0], epoch_s=lambda config: config["epoch_s"])
        study = make_study(space, executor=executor, deadline=Deadline(33, executor.clock))
        study.run()
        assert [trial.config["epoch_s"] for trial in study.trials] == [5.0, 20.0, 5.5]

    def test_the_reserve_is_left_alone(self):
        study, executor = simulated(epoch_s=10, limit_s=101, reserve_s=40)
        study.run()
        assert executor.now_s == 60
        assert [job.seconds_left for job in executor.jobs] == [61, 51, 41, 31, 21, 11]

    def test_several_workers_share_the_limits(self):
        study, executor = simulated(num_trials=10, num_workers=4)
        study.run()
        assert len(executor.jobs) == len(study.trials) == 10
        assert executor.now_s == 3.0

        study, executor = simulated(num_workers=4, limit_s=2.5)
        study.run()
        assert (len(study.trials), executor.now_s) == (8, 2.0)


def test_a_searcher_observes_the_cv_score_and_the_best_is_by_the_score():
    def two_figures(config, report):
        report(score=config["x"], cv_score=1 - config["x"])
        report(score=config["x"])

    class Observing(GridSearcher):
        def observe(self, config, epoch, score, cost):
            observed.append((config["x"], epoch, score))

    observed = []
    study = make_study({"x": Categorical(0.25, 0.75)}, two_figures, searcher=Observing)
    study.run()
    assert observed == [(0.25, 1, 0.75), (0.25, 2, 0.25), (0.75, 1, 0.25), (0.75, 2, 0.75)]
    assert study.best_trial.config["x"] == 0.75


class TestMaxScore:
    def test_it_ends_the_trial_and_the_search(self):
        def improving(config, report):
            for epoch in range(1, 100):
                report(score=config["x"] * epoch)

        study = make_study({"x": Categorical(0.001, 1, 2)}, improving, max_score=5)
        study.run()
        assert [trial.status for trial in study.trials] == [Status.COMPLETED, Status.STOPPED]
        assert study.best_trial.number == 1
        assert study.best_trial.best_report.score == 5

    def test_it_stops_trials_on_other_workers_at_their_next_report(self):
        executor = SimulatedExecutor(lambda config: [config["x"]] * 50, 2)
        study = make_study({"x": Categorical(0.1, 0.9)}, executor=executor, max_score=0.9)
        study.run()
        assert [(trial.status, trial.num_epochs) for trial in study.trials] == [
            (Status.STOPPED, 2),
            (Status.STOPPED, 1),
        ]

    def test_a_trial_that_reaches_it_and_then_fails_does_not_count(self):
        def failing_at_first(config, report):
            try:
                report(score=1.0)
            finally:
                if config["x"] == 0:
                    raise RuntimeError("while cleaning up")

        study = make_study({"x": Categorical(*range(6))}, failing_at_first, max_score=1.0)
        study.run()
        assert [trial.status for trial in study.trials] == [Status.FAILED, Status.STOPPED]

    def test_no_paused_trial_is_continued_afterwards(self):
        class Pausing(FIFOScheduler):
            def next_job(self, state):
                for trial in state.trials:
                    if trial.status is Status.PAUSED:
                        return Job(trial.number, trial.config, checkpoint=trial.reports[-1].checkpoint)
                return super().next_job(state)

            def on_report(self, report):
                return Decision.PAUSE

        executor = SimulatedExecutor(lambda config: [0.1, 0.2, 0.3, 0.4])
        study = make_study({"x": 0}, executor=executor, scheduler=Pausing(), max_score=0.3)
        study.run()
        assert [job.checkpoint for job in executor.jobs] == [None, "1", "2"]
        assert study.trials[0].num_epochs == 3


class TestFailures:
    def test_the_search_continues(self):
        def odd_fails(config, report):
            report(score=config["x"])
            if config["x"] % 2:
                raise ValueError(f"{config['x']} is odd")

        study = make_study({"x": Categorical(*range(6))}, odd_fails)
        study.run()
        assert [trial.status is Status.FAILED for trial in study.trials] == [False, True] * 3
        assert study.trials[3].failure.reason == "ValueError: 3 is odd"
        assert study.best_trial.number == 4

    def test_when_all_fail_for_one_reason_it_is_named_with_a_traceback(self):
        def broken(config, report):
            raise ValueError("no such file")

        study = make_study({"x": Int(1, 3)}, broken)
        with pytest.raises(SearchFailedError) as caught:
            study.run()
        message, _, traceback = str(caught.value).partition("\n\n")
        assert message == "All 3 trials failed: ValueError: no such file"
        assert traceback.startswith("Traceback of the first failure:\nTraceback")
        assert 'raise ValueError("no such file")' in traceback
        assert study.best_trial is None

    def test_a_lone_trial_is_named_as_such(self):
        study = make_study({"x": 1}, lambda config, report: 1 / 0)
        with pytest.raises(SearchFailedError, match=r"^The only trial failed: ZeroDivisionError: division by zero\n"):
            study.run()

    def test_when_all_fail_for_several_reasons_each_is_named_once(self):
        def broken(config, report):
            raise ValueError(f"remainder {config['x'] % 2}")

        with pytest.raises(SearchFailedError) as caught:
            make_study({"x": Categorical(*range(6))}, broken).run()
        assert str(caught.value).split("\n\n")[0] == (
            "All 6 trials failed, for 2 reasons:\n  - ValueError: remainder 0\n  - ValueError: remainder 1"
        )

    def test_a_search_stops_if_all_trials_fail_for_the_same_reason(self):
        study, executor = simulated(space={"x": math.nan, "y": Real(0, 1)}, num_trials=1000)
        with pytest.raises(SearchFailedError) as caught:
            study.run()
        assert len(executor.jobs) == NUM_FAILURES
        assert str(caught.value).startswith(
            f"The search was stopped after {NUM_FAILURES} trials, which all failed: the score of epoch 1 is nan"
        )

    @pytest.mark.parametrize("num_workers", [1, 3])
    def test_a_search_with_an_early_success_is_not_stopped(self, num_workers):
        def curve(config):
            if config["x"]:
                raise ValueError("always the same")
            return [1.0]

        executor = SimulatedExecutor(curve, num_workers)
        study = make_study({"x": Categorical(*range(30))}, executor=executor)
        study.run()
        assert len(study.trials) == 30
        assert study.best_trial.number == 0

    def test_a_trial_that_ends_without_a_report_has_failed(self):
        events = []
        study = make_study({"x": 1}, lambda config, report: None, listeners=[events.append])
        with pytest.raises(SearchFailedError, match="The only trial failed: the job ended without a report"):
            study.run()
        assert events[-1] == JobFailed(0, "the job ended without a report")

    def test_exception_of_a_listener_is_not_a_failure_of_a_trial(self):
        def full_disk(event):
            if isinstance(event, EpochDone):
                raise OSError("no space left on the device")

        study = make_study({"x": Int(1, 3)}, score_x, listeners=[full_disk])
        with pytest.raises(OSError, match="no space left"):
            study.run()
        assert [trial.failure for trial in study.trials] == [None]


class TestEvents:
    def test_they_receive_events_in_order(self):
        def two_epochs(config, report):
            report(score=config["x"], loss=1.0)
            report(score=config["x"])
            if config["x"] == 2:
                raise ValueError

        events = []
        make_study({"x": Int(1, 2)}, two_epochs, listeners=[events.append]).run()
        assert kinds(events) == [
            *("trial_created", "job_started", "epoch_done", "epoch_done", "job_done"),
            *("trial_created", "job_started", "epoch_done", "epoch_done", "job_failed"),
        ]
        assert [event.trial for event in events] == [0] * 5 + [1] * 5
        assert events[:2] == [TrialCreated(0, {"x": 1}), JobStarted(0)]
        assert events[4] == JobDone(0)

    def test_every_listener_receives_an_event_before_the_next_one(self):
        heard = []
        listeners = [lambda event, name=name: heard.append((name, event.kind)) for name in "ab"]
        make_study({"x": 1}, score_x, listeners=listeners).run()
        assert heard == [
            (name, kind) for kind in ("trial_created", "job_started", "epoch_done", "job_done") for name in "ab"
        ]

    def test_a_listener_finds_the_trial_as_the_event_left_it(self):
        seen = []

        def look(event):
            trial = study.trials[event.trial]
            seen.append((trial.status, len(trial.reports)))

        study = make_study({"x": 1}, score_x, listeners=[look])
        study.run()
        assert seen == [(Status.RUNNING, 0), (Status.RUNNING, 0), (Status.RUNNING, 1), (Status.COMPLETED, 1)]


class TestBestTrial:
    def best(self, *curves):
        executor = SimulatedExecutor(lambda config: curves[config["n"]])
        study = make_study({"n": Int(0, len(curves) - 1)}, executor=executor)
        study.run()
        return study.best_trial.number

    def test_there_is_none_before_the_search(self):
        assert make_study({"x": 1}, score_x).best_trial is None

    def test_the_first_among_equals(self):
        assert self.best([0.1], [0.7], [0.7]) == 1

    def test_the_best_epoch_counts_not_the_last(self):
        assert self.best([0.1, 0.6], [0.9, 0.2], [0.8, 0.8]) == 1

    def test_scores_below_zero(self):
        assert self.best([-3.0], [-1.5], [-2.0]) == 1

    def test_failed_trials_do_not_count(self):
        assert self.best([0.5], [0.9, math.nan], [0.6]) == 2


class TestConfigurations:
    def test_a_trial_that_changes_its_own_changes_no_record(self):
        def careless(config, report):
            config["nested"]["list"].append(1)
            config.clear()
            report(score=1.0)

        events = []
        space = {"x": Int(0, 2), "nested": {"list": [0]}}
        study = make_study(space, careless, listeners=[events.append])
        study.run()
        expected = [{"x": x, "nested": {"list": [0]}} for x in range(3)]
        assert [trial.config for trial in study.trials] == expected
        assert [event.config for event in events if isinstance(event, TrialCreated)] == expected

    def test_trials_have_numbered_folders_with_what_was_tried(self, tmp_path):
        class Folders(Trainable):
            def train(self, job, report):
                report(EpochDone(job.trial, 1, float(job.files.folder(job.trial).name)))
                return ""

        executor = InlineExecutor(Folders())
        space = {"x": Int(0, 1), "odd": frozenset()}
        study = make_study(space, executor=executor, files=LocalTrialFiles(tmp_path / "new" / "trials"))
        study.run()
        assert [trial.best_report.score for trial in study.trials] == [0.0, 1.0]
        text = (tmp_path / "new" / "trials" / "0001" / "config.json").read_text()
        assert json.loads(text) == {"x": 1, "odd": "frozenset()"}

    def test_without_a_folder_trials_have_none(self):
        study, executor = simulated(num_trials=1)
        study.run()
        assert (study.trials[0].files, executor.jobs[0].files) == (None, None)

    def test_the_searcher_observes_each_epoch_and_the_cost_so_far(self):
        class Learning(GridSearcher):
            def observe(self, config, epoch, score, cost):
                observed.append((config["x"], epoch, score, cost))

        observed = []
        executor = SimulatedExecutor(lambda config: [0.1, 0.2, 0.3], epoch_s=2.0)
        make_study({"x": Int(5, 6)}, executor=executor, searcher=Learning).run()
        assert observed == [(x, epoch, epoch / 10, 2.0 * epoch) for x in (5, 6) for epoch in (1, 2, 3)]


outcomes = st.lists(
    st.tuples(
        st.lists(st.integers(-3, 3) | st.floats(-1e9, 1e9), max_size=4), st.sampled_from(["ends", "raises", "nan"])
    ),
    min_size=1,
    max_size=12,
)


@given(outcomes=outcomes, num_trials=st.none() | st.integers(1, 15))
@settings(max_examples=150, deadline=None)
def test_record_is_consistent_for_any_function(outcomes, num_trials):
    def function(config, report):
        scores, end = outcomes[config["n"]]
        for score in scores:
            report(score=score)
        if end == "raises":
            raise ValueError(f"trial {config['n']}")
        if end == "nan":
            report(score=math.nan)

    events = []
    study = make_study(
        {"n": Categorical(*range(len(outcomes)))}, function, num_trials=num_trials, listeners=[events.append]
    )
    num = min(len(outcomes), num_trials or math.inf)
    good = {n: max(scores) for n, (scores, end) in enumerate(outcomes[:num]) if scores and end == "ends"}
    if good:
        study.run()
        assert study.best_trial.best_report.score == max(good.values())
        assert study.best_trial.number == min(n for n, score in good.items() if score == max(good.values()))
    else:
        with pytest.raises(SearchFailedError):
            study.run()
        assert study.best_trial is None
    num_begun = len(study.trials)
    assert num_begun == num or (not good and num_begun >= NUM_FAILURES)
    for trial, (scores, _) in zip(study.trials, outcomes, strict=False):
        assert trial.status is (Status.COMPLETED if trial.number in good else Status.FAILED)
        assert (trial.failure is None) == (trial.number in good)
        assert [report.score for report in trial.reports] == scores
    ends = [event.trial for event in events if isinstance(event, JobDone | JobFailed)]
    assert ends == list(range(num_begun))
    assert study.is_exhausted == any(isinstance(event, Warned) for event in events) or num_trials is None


def test_a_search_in_another_process_survives_crashes():
    def function(config, report):
        import os

        report(score=config["x"])
        if config["x"] == 3:
            os._exit(7)

    with ProcessExecutor(FunctionTrainable(function)) as executor:
        study = make_study({"x": Int(1, 4)}, executor=executor)
        study.run()
    assert [trial.status.value for trial in study.trials] == ["completed", "completed", "failed", "completed"]
    assert study.trials[2].failure.reason == "WorkerDiedError: the worker process ended with exit code 7"
    assert study.best_trial.number == 3


@pytest.mark.parametrize("curve", [[0.1, 0.2], [0.1, math.nan]])
def test_nothing_is_looked_for_among_all_trials(curve):
    class Unsearched(list):
        def __iter__(self):
            raise AssertionError("all trials are gone through")

    study, executor = simulated(num_trials=20)
    study._record.trials = Unsearched()
    executor._curve = lambda config: [config["x"], *curve] if config["x"] > 0.3 else [0.01]
    study.run()
    assert len(study.trials) == 20
    assert study.best_trial is not None
