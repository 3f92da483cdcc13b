"""Studies that are interrupted, at any event or by a kill at any instant, and go on."""

from __future__ import annotations

import contextlib
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.deadline import Deadline
from saccade.errors import SearchFailedError
from saccade.events import JobFailed, JobStarted, Warned
from saccade.scheduler import FIFOScheduler, make_scheduler
from saccade.searcher import RandomSearcher
from saccade.space import Categorical, Dict, Real
from saccade.study.event_log import EventLog
from saccade.study.life import StudyRecord
from saccade.study.study import Study
from saccade.study.trial import Decision, Status
from saccade.study.trial_files import LocalTrialFiles
from saccade.testing.simulated_executor import SimulatedExecutor

SPACE = Dict(x=Real(0, 1), epochs=Categorical(1, 4, 9))
NUM_TRIALS = 12


class Stop(BaseException):
    pass


class Files(SimulatedExecutor):
    """Simulated workers whose checkpoints are files."""

    def __init__(self, num_workers=1, **options):
        super().__init__(self.scores, num_workers, **options)
        self.trained = Counter()

    @staticmethod
    def scores(config):
        if 0.4 < config["x"] < 0.5:
            raise ValueError("invalid x")
        return [config["x"] * epoch for epoch in range(1, config["epochs"] + 1)]

    def checkpoint(self, job, epoch):
        self.trained[job.trial, epoch] += 1
        return job.files.put(job.trial, str(epoch), None, lambda path: path.touch())


class Picky(Files):
    """Workers that cannot continue from a file in which there is something."""

    def _train_epoch(self, running, handle):
        job = running.job
        if job.checkpoint and job.files.get(job.trial, job.checkpoint).read_text():
            return JobFailed(job.trial, "ValueError: no checkpoint")
        return super()._train_epoch(running, handle)


class Interruption:
    """Ends a search at one of its events."""

    def __init__(self, num_events):
        self.num_left = num_events

    def __call__(self, event):
        self.num_left -= 1
        if self.num_left == 0:
            raise Stop


def run(folder, num_events=None, scheduler="fifo", executor=None, **options):
    """Continue the search in a folder, until the interruption if there is one; return the study."""
    executor = executor or Files()
    listeners = [*options.pop("listeners", []), *([Interruption(num_events)] if num_events else [])]
    with EventLog(folder / "events.jsonl", SPACE) as log:
        study = Study(
            executor,
            options.pop("searcher", None) or RandomSearcher(SPACE, seed=3),
            make_scheduler(scheduler),
            files=LocalTrialFiles(folder / "trials"),
            log=log,
            listeners=listeners,
            **{"num_trials": NUM_TRIALS, **options},
        )
        with contextlib.suppress(Stop):
            study.run()
    return study


def logged(folder):
    """Return the trials of the event log in a folder."""
    return StudyRecord.load(EventLog(folder / "events.jsonl")).trials


def outcome(trials):
    return [
        (trial.number, trial.config, trial.status, [(report.epoch, report.score) for report in trial.reports])
        for trial in trials
    ]


@pytest.mark.parametrize("scheduler", ["fifo", "median", "asha", "hyperband"])
class TestAnyEvent:
    def test_the_result_is_that_of_a_search_without_interruptions(self, tmp_path_factory, scheduler):
        whole = run(tmp_path_factory.mktemp("whole"), scheduler=scheduler)

        @given(lives=st.lists(st.integers(1, 40), max_size=12))
        @settings(max_examples=30)
        def check(lives):
            folder, executor = tmp_path_factory.mktemp("parts"), Files()
            for num_events in lives:
                run(folder, num_events, scheduler, executor)
                executor._running.clear()
            study = run(folder, None, scheduler, executor)
            assert outcome(study.trials) == outcome(whole.trials)
            assert study.best_trial.number == whole.best_trial.number
            assert set(executor.trained.values()) == {1}
            assert outcome(logged(folder)) == outcome(whole.trials)

        check()

    @given(data=st.data(), num_workers=st.integers(2, 4))
    @settings(max_examples=30)
    def test_several_workers_train_nothing_twice_and_all_that_there_is(
        self, tmp_path_factory, scheduler, data, num_workers
    ):
        folder, executor = tmp_path_factory.mktemp("parts"), Files(num_workers)
        for num_events in data.draw(st.lists(st.integers(1, 40), max_size=6)):
            run(folder, num_events, scheduler, executor)
            executor._running.clear()
        study = run(folder, None, scheduler, executor)
        assert [trial.number for trial in study.trials] == list(range(NUM_TRIALS))
        assert len({trial.config["x"] for trial in study.trials}) == NUM_TRIALS
        assert set(executor.trained.values()) == {1}
        for trial in study.trials:
            assert trial.status is not Status.RUNNING
            assert trial.status is not Status.PAUSED or scheduler in ("asha", "hyperband")
            assert [report.epoch for report in trial.reports] == list(range(1, trial.num_epochs + 1))

    def test_a_finished_search_that_is_resumed_does_nothing(self, tmp_path, scheduler):
        before = outcome(run(tmp_path, scheduler=scheduler).trials)
        size = (tmp_path / "events.jsonl").stat().st_size
        executor = Files()
        study = run(tmp_path, scheduler=scheduler, executor=executor)
        assert executor.jobs == []
        assert outcome(study.trials) == before
        assert (tmp_path / "events.jsonl").stat().st_size == size

    def test_more_trials_can_be_asked_for(self, tmp_path, scheduler):
        before = outcome(run(tmp_path, scheduler=scheduler, num_trials=5).trials)
        study = run(tmp_path, scheduler=scheduler, num_trials=9)
        assert [trial.number for trial in study.trials] == list(range(9))
        assert [config for _, config, *_ in before] == [trial.config for trial in study.trials[:5]]
        assert len(list((tmp_path / "trials").iterdir())) == 9


class TestWhatIsTold:
    def test_searcher_and_scheduler_receive_all_events_in_order(self, tmp_path):
        told = []

        class Learning(RandomSearcher):
            def observe(self, config, epoch, score, cost):
                told.append(("observe", config["x"], epoch, score, cost))
                super().observe(config, epoch, score, cost)

            def on_end(self, config, *, has_failed, is_complete=False):
                told.append(("on_end", config["x"], has_failed, is_complete))

        class Following(FIFOScheduler):
            def on_report(self, report):
                told.append(("on_report", report.trial, report.epoch))
                return super().on_report(report)

            def on_job_end(self, trial):
                told.append(("scheduler.on_job_end", trial.number, trial.status, trial.num_epochs))
                super().on_job_end(trial)

        run(tmp_path, 30, searcher=Learning(SPACE, seed=3), scheduler=Following())
        first, told = told, []
        run(tmp_path, 1, searcher=Learning(SPACE, seed=3), scheduler=Following())
        assert len(first) > 20
        assert told[: len(first)] == first

    def test_the_jobs_of_earlier_processes_come_first(self, tmp_path):
        run(tmp_path, 12, executor=Files(3))
        events = []
        run(tmp_path, executor=Files(3), listeners=[events.append])
        started = [event.trial for event in events if isinstance(event, JobStarted)]
        running = {trial.number for trial in logged(tmp_path)} - set(started)
        assert started == sorted(started)
        assert len(set(started)) == len(started) == NUM_TRIALS - len(running)

    def test_the_best_score_of_an_earlier_process_is_good_enough(self, tmp_path):
        best = run(tmp_path, num_trials=6).best_trial.best_report.score
        executor = Files()
        study = run(tmp_path, executor=executor, max_score=best)
        assert executor.jobs == []
        assert len(study.trials) == 6

    def test_failures_of_earlier_processes_count(self, tmp_path):
        class Failing(Files):
            @staticmethod
            def scores(config):
                raise ValueError("always")

        for _ in range(2):
            with pytest.raises(SearchFailedError, match="stopped after 10 trials"):
                run(tmp_path, executor=Failing())


class TestCheckpoints:
    def interrupted(self, tmp_path, executor=Files):
        """Interrupt the search in the fourth epoch of a trial; return its folder and the trial."""
        events = []
        whole = run(tmp_path / "uninterrupted", executor=executor(), listeners=[events.append])
        number = next(trial.number for trial in whole.trials if trial.num_epochs == 9)
        num_events = 1 + next(
            row
            for row, event in enumerate(events)
            if (event.kind, event.trial) == ("epoch_done", number) and event.epoch == 4
        )
        study = run(tmp_path / "run", num_events, executor=executor())
        assert (study.trials[-1].number, study.trials[-1].num_epochs) == (number, 4)
        return tmp_path / "run", study.trials[-1]

    def test_training_continues_from_the_last(self, tmp_path):
        folder, trial = self.interrupted(tmp_path)
        executor = Files()
        run(folder, executor=executor)
        assert executor.jobs[0].checkpoint == trial.reports[-1].checkpoint
        assert executor.jobs[0].config == trial.config

    def test_a_missing_one_is_a_warning_and_the_one_before_it_is_used(self, tmp_path):
        folder, trial = self.interrupted(tmp_path)
        trial.files.delete(trial.number, trial.reports[-1].checkpoint)
        events, executor = [], Files()
        study = run(folder, executor=executor, listeners=[events.append])
        assert executor.jobs[0].checkpoint == trial.reports[-2].checkpoint
        assert events[0] == Warned(f"Checkpoint {trial.reports[-1].checkpoint} of trial {trial.number} is missing")
        assert [report.epoch for report in study.trials[trial.number].reports] == list(range(1, 10))

    def test_without_any_the_trial_restarts_with_its_number_and_configuration(self, tmp_path):
        folder, trial = self.interrupted(tmp_path)
        for report in trial.reports:
            trial.files.delete(trial.number, report.checkpoint)
        executor = Files()
        study = run(folder, executor=executor)
        job, again = executor.jobs[0], study.trials[trial.number]
        assert (job.trial, job.config, job.checkpoint) == (trial.number, trial.config, None)
        assert [report.epoch for report in again.reports] == list(range(1, 10))
        assert again.seconds == 9.0 + 4.0

    def test_an_unreadable_one_restarts_the_trial(self, tmp_path):
        folder, trial = self.interrupted(tmp_path)
        trial.files.get(trial.number, trial.reports[-1].checkpoint).write_text("garbage")
        events, executor = [], Picky()
        study = run(folder, executor=executor, listeners=[events.append])
        assert [job.checkpoint is None for job in executor.jobs[:2]] == [False, True]
        (warning,) = [event for event in events if isinstance(event, Warned)]
        assert "is restarted, as training from checkpoint 4 failed" in warning.text
        assert warning.text.endswith("ValueError: no checkpoint")
        assert study.trials[trial.number].status is Status.COMPLETED
        assert outcome(study.trials) == outcome(run(tmp_path / "whole").trials)

    def test_so_does_one_of_a_paused_trial(self, tmp_path):
        study = run(tmp_path, scheduler=Halving())
        trial = next(trial for trial in study.trials if trial.status is Status.PAUSED)
        trial.files.get(trial.number, trial.reports[-1].checkpoint).write_text("garbage")
        executor = Picky()
        again = run(tmp_path, executor=executor).trials[trial.number]
        assert [job.checkpoint is None for job in executor.jobs if job.trial == trial.number] == [False, True]
        assert again.status is Status.COMPLETED

    def test_a_failure_after_a_report_is_a_failure(self, tmp_path):
        class Failing(Files):
            def _train_epoch(self, running, handle):
                if running.epoch == 6:
                    return JobFailed(running.job.trial, "ValueError: in the middle")
                return super()._train_epoch(running, handle)

        folder, trial = self.interrupted(tmp_path)
        executor = Failing()
        study = run(folder, executor=executor)
        assert [job.trial for job in executor.jobs].count(trial.number) == 1
        assert study.trials[trial.number].failure.reason == "ValueError: in the middle"
        assert study.trials[trial.number].num_epochs == 6

    def test_a_trial_whose_folder_was_not_made_yet_gets_it(self, tmp_path):
        run(tmp_path, 1)
        folder = tmp_path / "trials" / "0000"
        (folder / "config.json").unlink()
        folder.rmdir()
        study = run(tmp_path)
        assert json.loads((folder / "config.json").read_text()) == study.trials[0].config

    def test_a_paused_trial_keeps_its_reports_without_its_checkpoint(self, tmp_path):
        study = run(tmp_path, scheduler=Halving())
        paused = [trial for trial in study.trials if trial.status is Status.PAUSED and trial.config["epochs"] == 9]
        number, x = paused[0].number, paused[0].config["x"]
        paused[0].files.delete(number, paused[0].reports[-1].checkpoint)
        executor = Files()
        again = run(tmp_path, executor=executor).trials[number]
        assert [job.checkpoint for job in executor.jobs if job.trial == number] == [None]
        assert [(report.epoch, report.score) for report in again.reports] == [
            (epoch, x * epoch) for epoch in range(1, 10)
        ]
        assert again.seconds == 9.0 + 1.0

    def test_a_run_that_was_moved_continues_in_its_new_folder(self, tmp_path):
        folder, trial = self.interrupted(tmp_path)
        new = folder.rename(tmp_path / "elsewhere")
        executor = Files()
        study = run(new, executor=executor)
        assert executor.jobs[0].files.root == new / "trials"
        assert executor.jobs[0].checkpoint == "4"
        assert study.trials[trial.number].status is Status.COMPLETED

    def test_trials_without_checkpoints_restart(self, tmp_path):
        class Without(Files):
            def checkpoint(self, job, epoch):
                super().checkpoint(job, epoch)
                return

        folder, trial = self.interrupted(tmp_path, Without)
        executor = Without()
        study = run(folder, executor=executor)
        assert executor.jobs[0].trial == trial.number
        assert outcome(study.trials) == outcome(run(tmp_path / "whole").trials)
        assert set(executor.trained.values()) == {1}


class Halving(FIFOScheduler):
    """Pauses every trial after its first epoch, and leaves it there."""

    def next_job(self, state):
        self._paused.clear()
        return super().next_job(state)

    def on_report(self, report):
        return Decision.PAUSE


class TestTime:
    def test_without_time_what_was_running_is_left_paused_with_its_reports(self, tmp_path):
        whole = outcome(run(tmp_path / "whole").trials)
        for num_events in range(1, 25):
            folder = tmp_path / str(num_events)
            before = run(folder, num_events)
            executor = Files()
            if before.best_trial is None:
                continue
            study = run(folder, executor=executor, deadline=Deadline(0.0, executor.clock))
            assert executor.jobs == []
            assert all(trial.status is not Status.RUNNING for trial in study.trials)
            assert outcome(study.trials)[:-1] == outcome(before.trials)[:-1]
            assert study.trials[-1].reports == before.trials[-1].reports
            later = run(folder)
            assert outcome(later.trials) == whole

    def test_one_trial_is_trained_even_without_time_so_that_there_is_a_result(self, tmp_path):
        run(tmp_path, 1)
        executor = Files()
        study = run(tmp_path, executor=executor, deadline=Deadline(0.0, executor.clock))
        assert len(executor.jobs) == 1
        assert study.best_trial.number == 0


def test_paused_trials_are_finished_before_new_ones_by_a_scheduler_that_pauses_none(tmp_path):
    before = run(tmp_path, scheduler=Halving())
    paused = [trial.number for trial in before.trials if trial.status is Status.PAUSED]
    assert len(paused) > 3
    executor = Files()
    study = run(tmp_path, executor=executor, num_trials=NUM_TRIALS + 3)
    assert [job.trial for job in executor.jobs] == [*paused, NUM_TRIALS, NUM_TRIALS + 1, NUM_TRIALS + 2]
    assert set(executor.trained.values()) == {1}
    assert all(trial.status in (Status.COMPLETED, Status.FAILED) for trial in study.trials)


@pytest.mark.parametrize("scheduler", ["fifo", "asha"])
def test_trials_that_met_a_full_disk_are_retried_by_the_next_process(tmp_path, scheduler):
    whole = run(tmp_path / "whole", scheduler=scheduler)
    late = next(trial.number for trial in whole.trials if len(trial.reports) > 1)
    early = next(trial.number for trial in whole.trials if trial.reports and trial.number != late)

    class Full(Files):
        """Workers whose disk is full in an epoch of two trials."""

        def _train_epoch(self, running, handle):
            if (running.job.trial, running.epoch) in ((early, 0), (late, 1)):
                return JobFailed(running.job.trial, "OSError: [Errno 28] No space left on device", is_disk_full=True)
            return super()._train_epoch(running, handle)

    first = run(tmp_path / "run", scheduler=scheduler, executor=Full())
    assert {trial.number for trial in first.trials if trial.failure and trial.failure.is_disk_full} == {early, late}
    executor = Files()
    again = run(tmp_path / "run", scheduler=scheduler, executor=executor)
    checkpoints = {job.trial: job.checkpoint for job in executor.jobs[:2]}
    assert checkpoints == {early: None, late: "1"}
    assert not [trial for trial in again.trials if trial.failure and trial.failure.is_disk_full]
    if scheduler == "fifo":
        assert outcome(again.trials) == outcome(whole.trials)
    assert outcome(logged(tmp_path / "run")) == outcome(again.trials)


@pytest.mark.parametrize("num_events", [4, 9, 17])
def test_the_searcher_of_a_resumed_search_knows_the_pending_trials(tmp_path, num_events):
    class Pending(RandomSearcher):
        """Keeps the configurations that are pending, in the order of their starts."""

        def __init__(self):
            super().__init__(SPACE, seed=3)
            self.pending = {}

        def on_begin(self, config):
            super().on_begin(config)
            self.pending[config["x"]] = config

        def on_end(self, config, **how):
            super().on_end(config, **how)
            del self.pending[config["x"]]

    executor, interrupted, resumed = Files(3), Pending(), Pending()
    run(tmp_path, num_events, "asha", executor, searcher=interrupted)
    executor._running.clear()
    opened = [trial.config["x"] for trial in logged(tmp_path) if trial.status is Status.RUNNING]
    with EventLog(tmp_path / "events.jsonl", SPACE) as log:
        Study(executor, resumed, make_scheduler("asha"), log=log)
    assert sorted(resumed.pending) == sorted(opened)
    assert opened
    run(tmp_path, None, "asha", executor, searcher=(finished := Pending()))
    assert not finished.pending
