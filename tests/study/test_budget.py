from __future__ import annotations

from saccade.deadline import Deadline
from saccade.events import EpochDone
from saccade.study.life import Budget
from saccade.study.trial import Trial


def test_a_trial_needs_time_for_its_set_up_as_well() -> None:
    now_s = 0.0
    budget = Budget(Deadline(10, lambda: now_s), 0.0, None)
    trial = Trial(0, {})
    budget.submitted(trial)
    assert budget.has_time_for_a_trial()  # nothing is known yet
    now_s = 4.0
    trial.reports.append(EpochDone(0, 0, 0.5, seconds=1.0, checkpoint="last-0000"))
    budget.learn(trial)
    assert budget.setup_s == 3.0
    assert budget.has_time_for_a_trial()
    assert budget.has_time_for(trial)
    now_s = 7.0
    assert not budget.has_time_for_a_trial()
    assert not budget.has_time_for(trial)
