"""Searchers on Optuna's samplers: quasi-random, TPE, Gaussian process, and CMA-ES.

Each is a `RandomSearcher` until its model has enough observations, and again when the model proposes nothing new.
"""

from __future__ import annotations

import heapq
import math
import statistics
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saccade.checks import whole_number
from saccade.searcher.observations import Observation, Observations
from saccade.searcher.random_search import RandomSearcher
from saccade.space import Categorical, Dict, Int, Real, Space, encode, from_optuna, parameters

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from saccade.searcher.optuna_study import SamplerStudy

MAX_REPEATS = 10
# An Int with more values is treated as a Real and rounded, because some samplers enumerate the values of an Int.
_MAX_LISTED = 1000
# A parameter that is narrower than this fraction of its largest value has only rounding errors for a sampler.
_MIN_SPAN = 1e-9
_MAX_SEED = 2**32  # of NumPy's RandomState


class OptunaSearcher(RandomSearcher):
    """Base class of the searchers on Optuna's samplers; subclasses make the sampler.

    A sampler that repeats a proposal is asked again a few times; then a random draw takes its place.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.
    """

    def __init__(
        self,
        space: Dict | Mapping[Any, Any],
        *,
        seed: int = 0,
        starting_configs: Sequence[Mapping[Any, Any]] | None = None,
        first_is_default: bool = True,
    ) -> None:
        super().__init__(space, seed=seed, starting_configs=starting_configs, first_is_default=first_is_default)
        self._parameters = parameters(self.space)
        self._is_askable = bool(self._parameters) and all(map(_is_well_scaled, self._parameters.values()))
        self._study: SamplerStudy | None = None
        self._distributions: dict[str, BaseDistribution] = {}

    def suggest(self) -> dict[str, Any]:
        """Return a new configuration: a starting one, else the sampler's, else a random one."""
        config = self.next_start()
        if config is None and self._is_askable:
            config = self._propose()
        if config is None:
            config = self._draw_new()
        self._begin(config)
        return config

    @abstractmethod
    def _shown(self) -> list[FrozenTrial] | None:
        """Return the trials that the sampler sees; None if they are too few."""

    @abstractmethod
    def _make_sampler(self, shown: list[FrozenTrial]) -> BaseSampler:
        """Return the sampler."""

    @property
    def _max_repeats(self) -> int:
        """Number of repeated proposals after which a random draw takes over."""
        return MAX_REPEATS

    def _begin(self, config: dict[str, Any]) -> None:
        """Note the suggestion."""

    def _accept(self, asked: FrozenTrial) -> None:
        """Note the trial of the proposal."""

    def _propose(self) -> dict[str, Any] | None:
        """Return the sampler's proposal; None if it has too few observations or nothing new."""
        shown = self._shown()
        if shown is None:
            return None
        import numpy as np  # lazily, as Optuna is

        study = self._study or self._make_study(shown)
        repeats_left = self._max_repeats
        while repeats_left > 0:
            # In spaces near the limits of floats a sampler computes with infinities.
            with np.errstate(all="ignore"):
                config = self._ask(study, shown)
            if self.is_new(config):
                self._accept(study.asked)
                return config
            repeats_left -= 1
        return None

    def _make_study(self, shown: list[FrozenTrial]) -> SamplerStudy:
        from optuna.exceptions import ExperimentalWarning  # lazily: importing Optuna is slow

        from saccade.searcher.optuna_study import SamplerStudy

        with warnings.catch_warnings():
            # They announce changes of arguments, which concern Saccade and not its users.
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study = SamplerStudy(self._make_sampler(shown))
        return self._study

    def _ask(self, study: SamplerStudy, shown: list[FrozenTrial]) -> dict[str, Any]:
        """Ask for all parameters; leave out those of branches that are not chosen."""
        return self._config_of(study.ask(shown, self._next_number, self._all_distributions()).params)

    @property
    def _sampler_seed(self) -> int:
        return self.seed % _MAX_SEED

    @property
    def _next_number(self) -> int:
        return len(self._seen) + 1

    def _config_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        rounded = {
            name: round(value) if isinstance(self._parameters[name], Int) else value for name, value in params.items()
        }
        config: dict[str, Any] = from_optuna(self.space, rounded)
        return config

    def _all_distributions(self) -> dict[str, BaseDistribution]:
        """Return the distributions of all parameters, those of inactive branches too."""
        from optuna.distributions import FloatDistribution  # lazily: importing Optuna is slow

        if not self._distributions:
            for name, parameter in self._parameters.items():
                if isinstance(parameter, Int) and parameter.num_configurations > _MAX_LISTED:
                    distribution = FloatDistribution(parameter.lower, parameter.upper, log=parameter.log)
                    self._distributions[name] = distribution
                else:
                    self._distributions[name] = parameter.to_optuna()
        return self._distributions

    def _all_params(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of all parameters, those of inactive branches at their defaults."""
        defaults = {
            name: parameter.labels[0] if isinstance(parameter, Categorical) else parameter.default
            for name, parameter in self._parameters.items()
        }
        return defaults | encode(self.space, config)

    def _frozen(self, number: int, config: Mapping[str, Any]) -> FrozenTrial:
        """Return a trial of Optuna's with all parameters."""
        from saccade.searcher.optuna_study import frozen_trial

        return frozen_trial(number, self._all_params(config), self._all_distributions(), {})


class ModelSearcher(OptunaSearcher):
    """Base class of the searchers with a model of the scores; subclasses say which.

    `saccade.searcher.observations.Observations` describes how scores of different epochs are compared. By default a
    sampler sees ranks instead of scores. It sees a bounded number of configurations, the best and the latest ones, so
    that proposals do not become slower.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.
    num_startup_trials
        Number of observed configurations from which on the model is used; before, draws are random.

    Raises
    ------
    HyperparameterError
        If `num_startup_trials` is not a whole number of at least 1.
    """

    # Maximum number of visible configurations: the best ones, the latest of the others, and running ones.
    _num_best = 100
    _num_latest = 100
    _num_pending = 64

    def __init__(
        self,
        space: Dict | Mapping[Any, Any],
        *,
        seed: int = 0,
        starting_configs: Sequence[Mapping[Any, Any]] | None = None,
        first_is_default: bool = True,
        num_startup_trials: int = 10,
    ) -> None:
        super().__init__(space, seed=seed, starting_configs=starting_configs, first_is_default=first_is_default)
        self.num_startup_trials = whole_number("num_startup_trials", num_startup_trials)
        num_dimensions = len(encode(self.space, self.space.default))
        self._observations = Observations(num_needed=num_dimensions + 1)
        self._trials: dict[int, FrozenTrial] = {}

    def observe(self, config: Mapping[str, Any], epoch: int, score: float, cost: float) -> None:
        """Note the score of a configuration at an epoch; it is not suggested again."""
        super().observe(config, epoch, score, cost)
        if config in self.space:
            self._observations.observe(config, epoch, score)

    def on_end(self, config: Mapping[str, Any], *, has_failed: bool, is_complete: bool = False) -> None:
        """Note that a configuration is no longer running; a failed one counts as the worst."""
        super().on_end(config, has_failed=has_failed, is_complete=is_complete)
        if config in self.space:
            self._observations.end(config, has_failed=has_failed, is_complete=is_complete)

    def _begin(self, config: dict[str, Any]) -> None:
        self._observations.begin(config)

    @property
    def _next_number(self) -> int:
        return len(self._observations)

    def _shown(self) -> list[FrozenTrial] | None:
        standing = self._observations.standing()
        if len(standing.ranked) < self.num_startup_trials:
            return None
        from optuna.trial import TrialState  # lazily: importing Optuna is slow

        num_best = self._num_best
        others = heapq.nlargest(self._num_latest, standing.ranked[num_best:], key=lambda item: item.number)
        latest = {item.number for item in others}
        ranked = [item for place, item in enumerate(standing.ranked) if place < num_best or item.number in latest]
        shown = []
        for item, value in zip(ranked, self._values(ranked, standing.epoch), strict=True):
            trial = self._trial(item)
            trial.state, trial.value = TrialState.COMPLETE, value
            shown.append(trial)
        for item in standing.pending[-self._num_pending :]:
            trial = self._trial(item)
            trial.state = TrialState.RUNNING
            shown.append(trial)
        return sorted(shown, key=lambda trial: trial.number)

    def _values(self, ranked: Sequence[Observation], epoch: float) -> Sequence[float]:
        """Return the value of each visible configuration; they are given best first."""
        return normal_scores([item.merit(epoch) for item in ranked])

    def _trial(self, item: Observation) -> FrozenTrial:
        if item.number not in self._trials:
            self._trials[item.number] = self._frozen(item.number, item.config)
        return self._trials[item.number]


def _is_well_scaled(parameter: Space) -> bool:
    """Return whether the differences of a parameter's values are more than rounding errors."""
    if not isinstance(parameter, (Real, Int)):
        return True
    span = parameter.upper - parameter.lower
    return math.isfinite(span) and span > _MIN_SPAN * max(abs(parameter.lower), abs(parameter.upper))


def normal_scores(merits: Sequence[tuple[float, float]]) -> list[float]:
    """Return the normal quantile of each merit's rank (the mean rank among equals); merits are given best first.

    Examples
    --------
    >>> [round(score, 2) for score in normal_scores([(2, 0.9), (2, 0.8), (1, 0.9), (1, 0.9)])]
    [1.15, 0.32, -0.67, -0.67]
    """
    normal = statistics.NormalDist()
    places: dict[tuple[float, float], list[int]] = {}
    for place, merit in enumerate(merits):
        places.setdefault(merit, []).append(place)
    scores = {
        merit: normal.inv_cdf(1 - (statistics.fmean(equal) + 0.5) / len(merits)) for merit, equal in places.items()
    }
    return [scores[merit] for merit in merits]
