from __future__ import annotations

import pytest

from saccade.deadline import Deadline
from saccade.scheduler import AutoScheduler
from saccade.searcher import RandomSearcher
from saccade.space import Real
from saccade.study.study import Study
from saccade.testing.scheduler_contract import SchedulerContract
from saccade.testing.simulated_executor import SimulatedExecutor

NUM_EPOCHS = 27


class TestAutoScheduler(SchedulerContract):
    leaves_paused = True
    resumes_first = False  # with more time there are other rungs

    def make(self):
        return AutoScheduler()


def curve(config):
    """Return a learning curve whose height is ``x``."""
    return [config["x"] * (1 - 0.7**epoch) for epoch in range(1, NUM_EPOCHS + 1)]


def test_rungs_are_chosen_for_the_number_of_trials():
    epochs = {}
    for num_trials in (2, 9, 40):
        executor = SimulatedExecutor(curve, epoch_s=10.0)
        scheduler = AutoScheduler(NUM_EPOCHS)
        Study(executor, RandomSearcher({"x": Real(0, 1)}), scheduler, num_trials=num_trials).run()
        epochs[num_trials] = scheduler._asha.brackets[0].epochs
    assert epochs == {2: [14, 27], 9: [3, 9, 27], 40: [1, 3, 9, 27]}


@pytest.mark.parametrize(("num_workers", "factor"), [(1, 2.0), (8, 3.0)])
def test_rungs_are_chosen_for_as_many_workers_as_there_are(num_workers, factor):
    executor = SimulatedExecutor(curve, num_workers, epoch_s=10.0)
    scheduler = AutoScheduler(NUM_EPOCHS)
    deadline = Deadline(600, executor.clock)  # for two whole trainings with one worker
    Study(executor, RandomSearcher({"x": Real(0, 1)}), scheduler, deadline=deadline).run()
    assert scheduler._asha.reduction_factor == factor


def test_rungs_are_chosen_when_an_epoch_has_been_measured():
    executor = SimulatedExecutor(curve, epoch_s=10.0)
    scheduler = AutoScheduler(NUM_EPOCHS)
    deadline = Deadline(3000, executor.clock)
    study = Study(executor, RandomSearcher({"x": Real(0, 1)}), scheduler, deadline=deadline)
    assert scheduler._asha is None
    study.run()
    assert scheduler._asha is not None
    assert 0 < max(trial.num_epochs for trial in study.trials) <= NUM_EPOCHS
    assert min(trial.num_epochs for trial in study.trials) < NUM_EPOCHS
