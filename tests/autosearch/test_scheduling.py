from __future__ import annotations

import functools
import math
from types import SimpleNamespace

import pytest

from saccade.autosearch.features import DatasetDescription, Description, NetworkDescription
from saccade.autosearch.search import AutoSearch
from saccade.deadline import Deadline
from saccade.errors import HyperparameterError
from saccade.events import EpochDone
from saccade.searcher import RandomSearcher
from saccade.space import Real
from saccade.study.study import Study
from saccade.study.trial import Status, Trial
from saccade.testing.simulated_executor import SimulatedExecutor

NUM_EPOCHS = 27


def curve(config):
    """Return a learning curve whose height is ``x``."""
    return [config["x"] * (1 - 0.7**epoch) for epoch in range(1, NUM_EPOCHS + 1)]


def run(time_limit_s=None, num_trials=None, num_workers=1, epoch_s=10.0, **options):
    executor = SimulatedExecutor(curve, num_workers, epoch_s, **options)
    searcher = AutoSearch(
        {"x": Real(0, 1)},
        describe=lambda config: Description(NetworkDescription(1e7, top1=0.8), {}, NUM_EPOCHS),
        data=DatasetDescription(1000, 10),
        log_speed=math.log(10),
    )
    deadline = Deadline(time_limit_s, executor.clock)
    study = Study(executor, searcher, searcher, deadline=deadline, num_trials=num_trials)
    study.run()
    return study, executor


# The forecasts of a search cost most of its time.
limited_run = functools.cache(lambda num_workers: run(time_limit_s=2000, num_workers=num_workers))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_best_trials_are_trained_longest(num_workers):
    study, _ = limited_run(num_workers)
    by_height = sorted(study.trials, key=lambda trial: -trial.config["x"])
    assert len(by_height) > 10
    best, worst = by_height[: len(by_height) // 4], by_height[-len(by_height) // 4 :]
    assert sum(trial.num_epochs for trial in best) / len(best) > 1.5 * sum(t.num_epochs for t in worst) / len(worst)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_no_epoch_is_trained_twice_and_the_time_is_used(num_workers):
    study, executor = limited_run(num_workers)
    for trial in study.trials:
        epochs = [report.epoch for report in trial.reports]
        assert epochs == list(range(1, len(epochs) + 1))
        assert trial.status in (Status.PAUSED, Status.COMPLETED, Status.STOPPED)
    trained_s = sum(trial.num_epochs for trial in study.trials) * 10.0
    assert trained_s >= 0.95 * 2000 * num_workers - 10.0 * num_workers
    assert executor.now_s <= 2000 * 1.02


def test_auto_search_pauses_trials():
    study, executor = limited_run(1)
    assert any(job.checkpoint is not None for job in executor.jobs)
    assert any(trial.status is Status.PAUSED for trial in study.trials)


def test_the_start_of_a_training_with_a_known_probe_is_not_reconsidered(monkeypatch):
    network = NetworkDescription(1e7, top1=0.8)
    search = AutoSearch(
        {"x": Real(0, 1)},
        describe=lambda config: Description(network, {}, 5, starts_with_probe=True),
        data=DatasetDescription(1000, 10),
    )
    trials = []

    def new_trial():
        trials.append(Trial(len(trials), search.suggest()))
        return trials[-1]

    state = SimpleNamespace(
        seconds_left=1000.0, trials=trials, new_trial=new_trial, num_workers=1, reference_speed=None
    )
    search.on_start(state)
    reconsidered = []
    for number in range(2):
        job = search.next_job(state)
        search.observe(job.config, 0, 0.8, 4.0)
        with monkeypatch.context() as patch:
            patch.setattr(search, "_timed_advice", lambda *_, number=number, **__: reconsidered.append(number))
            search.on_report(EpochDone(number, 0, 0.8, 4.0, checkpoint="a file"))
        search.on_end(job.config, has_failed=False, is_complete=True)
    assert reconsidered == [0]  # the first was started for its probe


def test_trials_of_another_searcher_are_refused():
    executor = SimulatedExecutor(curve, 1, 10.0)
    describe = lambda config: Description(NetworkDescription(1e7), {}, NUM_EPOCHS)  # noqa: E731
    search = AutoSearch({"x": Real(0, 1)}, describe=describe, data=DatasetDescription(1000, 10))
    study = Study(executor, RandomSearcher({"x": Real(0, 1)}), search, deadline=Deadline(1000, executor.clock))
    with pytest.raises(HyperparameterError, match="Pass the same instance as searcher"):
        study.run()


@pytest.mark.parametrize("num_workers", [1, 4])
def test_without_a_time_limit_few_trials_are_trained_to_their_ends(num_workers):
    study, _ = run(num_trials=12, num_workers=num_workers)
    num_epochs = [trial.num_epochs for trial in study.trials]
    assert len(num_epochs) == 12
    assert max(num_epochs) == NUM_EPOCHS
    assert sum(epochs < NUM_EPOCHS / 2 for epochs in num_epochs) >= 6
    assert sum(num_epochs) < 12 * NUM_EPOCHS / 2
    best = max(study.trials, key=lambda trial: trial.config["x"])
    assert best.num_epochs == NUM_EPOCHS
    assert not study.searcher.running
