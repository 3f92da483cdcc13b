from __future__ import annotations

from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from saccade.searcher.optuna_study import SamplerStudy, frozen_trial

X = {"x": FloatDistribution(0, 1)}


class Recording(BaseSampler):
    """Keeps the trials that it sees."""

    def infer_relative_search_space(self, study, trial):
        return X

    def sample_relative(self, study, trial, search_space):
        self.seen = study.get_trials(deepcopy=False)
        self.complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        study._storage.set_trial_system_attr(trial._trial_id, "mark", 5)
        return {"x": 0.25}

    def sample_independent(self, study, trial, param_name, param_distribution):
        return 0.75


def test_a_sampler_sees_the_trials_given_and_the_one_asked_for():
    sampler = Recording()
    study = SamplerStudy(sampler)
    shown = [frozen_trial(number, {"x": 0.5}, X) for number in (2, 5)]
    shown[0].state, shown[0].value = TrialState.COMPLETE, 0.9
    trial = study.ask(shown, 7, X)
    assert [seen.number for seen in sampler.seen] == [2, 5, 7]
    assert sampler.complete == shown[:1]
    assert trial.params == {"x": 0.25}
    assert trial.suggest_float("y", 0, 1) == 0.75
    assert study.asked.params == {"x": 0.25, "y": 0.75}
    assert (study.asked.number, study.asked.system_attrs) == (7, {"mark": 5})


def test_each_trial_is_new():
    study = SamplerStudy(Recording())
    study.ask([], 0, X)
    first = study.asked
    study.ask([first], 1, {})
    assert (first.number, study.asked.number) == (0, 1)
    assert study.asked.params == {}
