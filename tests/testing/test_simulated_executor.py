from __future__ import annotations

from typing import ClassVar

import pytest

from saccade.deadline import Deadline
from saccade.events import EpochDone, WorkerJoined, WorkerLost
from saccade.scheduler import make_scheduler
from saccade.searcher import RandomSearcher
from saccade.space import Dict, Real
from saccade.study.event_log import EventLog
from saccade.study.study import Study
from saccade.study.trial import Status
from saccade.testing import SimulatedExecutor, SimulatedWorker

SPACE = Dict(x=Real(0, 1))


def run(workers, scheduler="fifo", epoch_s=1.0, limit_s=20.0, num_epochs=4, **options):
    """Return the study, its executor, and the simulated time of each event."""
    executor = SimulatedExecutor(lambda config: [config["x"]] * num_epochs, workers, epoch_s)
    events = []
    study = Study(
        executor,
        RandomSearcher(SPACE),
        make_scheduler(scheduler),
        deadline=Deadline(limit_s, executor.clock),
        listeners=[lambda event: events.append((executor.now_s, event))],
        **options,
    )
    study.run()
    return study, executor, events


def test_fast_workers_train_more_epochs_and_get_the_first_jobs():
    study, executor, _ = run([SimulatedWorker(1.0), SimulatedWorker(4.0)])
    assert [report.seconds for report in study.trials[0].reports] == [0.25] * 4
    assert [report.seconds for report in study.trials[1].reports] == [1.0] * 4
    assert sum(trial.num_epochs for trial in study.trials) == 5 * 20
    assert executor.utilization == pytest.approx(1.0)
    assert executor.now_s == 20.0


def test_the_seconds_of_epochs_may_differ():
    study, executor, _ = run(1, epoch_s=lambda config: [3.0, 1.0, 1.0, 2.0], num_trials=1)
    assert [report.seconds for report in study.trials[0].reports] == [3.0, 1.0, 1.0, 2.0]
    assert executor.now_s == 7.0


def test_a_worker_that_joins_late_gets_work_at_once_and_the_job_of_one_that_leaves_continues_elsewhere():
    workers = [SimulatedWorker(leaves_s=5.5), SimulatedWorker(joins_s=2.25)]
    study, executor, events = run(workers, limit_s=21.0)
    changes = [(at_s, type(event)) for at_s, event in events if isinstance(event, WorkerJoined | WorkerLost)]
    assert changes == [(2.25, WorkerJoined), (5.5, WorkerLost)]
    assert next(at_s for at_s, event in events if isinstance(event, EpochDone) and event.trial == 1) == 3.25
    # Trial 2 lost its worker in its second epoch, and trial 1 was on the other worker until 6.25.
    reports = [(at_s, event.trial, event.epoch) for at_s, event in events if isinstance(event, EpochDone)]
    assert [at_s for at_s, *report in reports if report == [2, 2]] == [7.25]
    assert study.trials[2].status is Status.COMPLETED
    assert executor.utilization == pytest.approx(1.0)


def test_searchers_observe_costs_as_on_the_first_node(tmp_path):
    class Costs(RandomSearcher):
        costs: ClassVar = {}

        def observe(self, config, epoch, score, cost):
            self.costs.setdefault(config["x"], []).append(cost)

    def search(**options):
        executor = SimulatedExecutor(
            lambda config: [config["x"]] * 4,
            [SimulatedWorker(4.0, node="fast"), SimulatedWorker(0.5, node="slow")],
        )
        with EventLog(tmp_path / "events.jsonl", SPACE) as log:
            study = Study(executor, Costs(SPACE), make_scheduler("fifo"), num_trials=9, log=log)
            study.run()
        return study

    first = search()
    assert {report.node for trial in first.trials for report in trial.reports} == {"fast", "slow"}
    assert set(map(tuple, Costs.costs.values())) == {(0.25, 0.5, 0.75, 1.0)}
    assert first.reference_speed == 4.0
    Costs.costs.clear()
    assert search().reference_speed == 4.0
    assert set(map(tuple, Costs.costs.values())) == {(0.25, 0.5, 0.75, 1.0)}


def test_a_study_waits_for_the_first_worker():
    study, _, events = run([SimulatedWorker(joins_s=3.0)], num_trials=1)
    assert [at_s for at_s, event in events if isinstance(event, EpochDone)] == [4.0, 5.0, 6.0, 7.0]
    assert study.best_trial is not None


@pytest.mark.parametrize(("scheduler", "num_workers"), [("fifo", 64), ("asha", 128), ("hyperband", 64), ("auto", 64)])
def test_no_scheduler_leaves_one_of_many_workers_idle(scheduler, num_workers):
    workers = [SimulatedWorker(0.5 + (index % 7) / 4) for index in range(num_workers)]
    study, executor, _ = run(workers, scheduler, limit_s=20.0, num_epochs=9)
    assert executor.utilization > 0.95
    assert len({trial.config["x"] for trial in study.trials}) == len(study.trials) > num_workers


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "auto"])
def test_without_new_trials_paused_ones_use_the_time(scheduler):
    """All 40 trials end although most were not promoted: the time is not over."""
    study, executor, _ = run([SimulatedWorker(speed) for speed in (0.5, 1, 2)], scheduler, limit_s=900.0, num_trials=40)
    assert all(trial.status is Status.COMPLETED for trial in study.trials)
    assert executor.now_s < 60
