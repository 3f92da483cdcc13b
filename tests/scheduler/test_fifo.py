from __future__ import annotations

from saccade.events import EpochDone
from saccade.scheduler import FIFOScheduler
from saccade.study.trial import Decision, Job, Status
from saccade.testing.scheduler_contract import NUM_EPOCHS, OneTrial, SchedulerContract


class TestFIFOScheduler(SchedulerContract):
    def make(self):
        return FIFOScheduler()

    def test_every_trial_is_trained_to_its_end_in_order(self):
        study, executor = self.run(num_workers=1, num_trials=20)
        assert [job.trial for job in executor.jobs] == list(range(20))
        for trial in study.trials:
            assert trial.status in (Status.COMPLETED, Status.FAILED)
            assert trial.num_epochs == (NUM_EPOCHS if trial.status is Status.COMPLETED else 3)


def test_a_trial_has_one_job_without_an_end_or_a_checkpoint():
    scheduler, state = FIFOScheduler(), OneTrial()
    assert scheduler.next_job(state) == Job(0, {"x": 0.5})
    assert scheduler.next_job(state) is None


def test_every_trial_continues():
    assert FIFOScheduler().on_report(EpochDone(0, 1, -1e9)) is Decision.CONTINUE
