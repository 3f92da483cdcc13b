"""A study for Optuna's samplers that holds only the visible trials.

Optuna's own storages copy every trial and every change, which is too slow here, because the visible trials change with
each proposal. This module imports Optuna, so import it lazily.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

_STUDY_ID = 0


def frozen_trial(number: int, params: dict[str, Any], distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """Return a running trial with these parameters; state and value may be set."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params=params,
        distributions=distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


class SamplerStudy:
    """Asks an Optuna sampler for parameters, given the trials that it sees."""

    def __init__(self, sampler: BaseSampler) -> None:
        self._storage = _ShownTrials()
        self._study = optuna.create_study(storage=self._storage, sampler=sampler, direction="maximize")

    def ask(self, shown: Sequence[FrozenTrial], number: int, distributions: Mapping[str, BaseDistribution]) -> Trial:
        """Return a new trial, whose parameters the sampler chooses."""
        self._storage.shown, self._storage.next_number = list(shown), number
        return self._study.ask(dict(distributions))

    @property
    def asked(self) -> FrozenTrial:
        """The latest trial, with everything that the sampler stored in it."""
        return self._storage.asked


class _ShownTrials(BaseStorage):
    """The visible trials and the new one; operations that `SamplerStudy` does not need are missing."""

    def __init__(self) -> None:
        self.shown: list[FrozenTrial] = []
        self.next_number = 0
        self.asked = frozen_trial(0, {}, {})
        self._attrs: dict[str, Any] = {}

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:  # noqa: ARG002
        return _STUDY_ID

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:  # noqa: ARG002
        self.asked = frozen_trial(self.next_number, {}, {})
        return self.next_number

    def get_trial(self, trial_id: int) -> FrozenTrial:  # noqa: ARG002
        return self.asked

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,  # noqa: ARG002
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        trials = [*self.shown, self.asked]
        return trials if states is None else [trial for trial in trials if trial.state in states]

    def set_trial_param(
        self,
        trial_id: int,  # noqa: ARG002
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        self.asked.params[param_name] = distribution.to_external_repr(param_value_internal)
        self.asked.distributions[param_name] = distribution

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ARG002
        self.asked.system_attrs[key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: ARG002
        self._attrs[key] = value

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:  # noqa: ARG002
        return self._attrs

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:  # noqa: ARG002
        return [StudyDirection.MAXIMIZE]

    def get_study_name_from_id(self, study_id: int) -> str:  # noqa: ARG002
        return "search"

    def get_study_id_from_name(self, study_name: str) -> int:  # noqa: ARG002
        return _STUDY_ID

    def _absent(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("SamplerStudy only supports ask")

    delete_study = get_all_studies = get_study_user_attrs = set_study_user_attr = _absent
    set_trial_state_values = set_trial_intermediate_value = set_trial_user_attr = _absent
