"""Searchers on Optuna's samplers: quasi-random, tree-structured Parzen estimators, Gaussian process and CMA-ES.

Each is a `RandomSearcher` until its model has enough observations, and again when the model proposes nothing new.
"""

from __future__ import annotations

import functools
import heapq
import math
import statistics
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saccade.checks import whole_number
from saccade.searcher.observations import Observation, Observations
from saccade.searcher.sampling import RandomSearcher
from saccade.space import Bool, Categorical, Dict, Int, Real, Space, encode, from_optuna, parameters, suggest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from saccade.searcher.optuna_study import SamplerStudy

_MAX_REPEATS = 10
# A parameter that is narrower than this fraction of its largest value has only rounding errors for a sampler.
_MIN_SPAN = 1e-9


class OptunaSearcher(RandomSearcher):
    """Base class of the searchers on Optuna's samplers; subclasses make the sampler.

    A sampler that repeats a proposal is asked again a few times, then the proposal is a random draw.
    """

    # An Int with more values is treated as a Real and rounded, because some samplers enumerate the values of an Int.
    _max_listed = 1000

    _study: SamplerStudy | None = None

    @functools.cached_property
    def _parameters(self) -> dict[str, Space]:
        return parameters(self.space)

    @functools.cached_property
    def _is_askable(self) -> bool:
        """Whether there are parameters, and the differences of the values of each are more than rounding errors."""
        return bool(self._parameters) and all(
            math.isfinite(span := each.upper - each.lower) and span > _MIN_SPAN * max(abs(each.lower), abs(each.upper))
            for each in self._parameters.values()
            if isinstance(each, (Real, Int))
        )

    @property
    def _sampler_seed(self) -> int:
        return self.seed % 2**32  # of NumPy's RandomState

    def suggest(self) -> dict[str, Any]:
        """Return a new configuration: a starting one, else the sampler's, else a random one."""
        config = self.next_start()
        if config is None and self._is_askable and (shown := self._shown()) is not None:
            config = self._propose(shown)
        if config is None:
            config = self._draw_new()
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
        return _MAX_REPEATS

    def _accept(self, asked: FrozenTrial) -> None:
        """Note the trial of the proposal."""

    def _propose(self, shown: list[FrozenTrial]) -> dict[str, Any] | None:
        """Return a new proposal of the sampler; None if it only repeats earlier ones."""
        import numpy as np  # lazily: importing Optuna is slow, and NumPy is not needed before
        from optuna.exceptions import ExperimentalWarning

        from saccade.searcher.optuna_study import SamplerStudy

        if self._study is None:
            with warnings.catch_warnings():
                # It warns of arguments that may change in later versions; users of Saccade do not pass them.
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._study = SamplerStudy(self._make_sampler(shown))
        study = self._study
        for _ in range(self._max_repeats):
            # In spaces near the limits of floats a sampler computes with infinities.
            with np.errstate(all="ignore"):
                config = self._ask(study, shown)
            if self.is_new(config):
                self._accept(study.asked)
                return config
        return None

    def _ask(self, study: SamplerStudy, shown: list[FrozenTrial]) -> dict[str, Any]:
        """Ask for all parameters; leave out those of branches that are not chosen."""
        params = {
            name: round(value) if isinstance(self._parameters[name], Int) else value
            for name, value in study.ask(shown, self._next_number, self._distributions).params.items()
        }
        config: dict[str, Any] = from_optuna(self.space, params)
        return config

    @property
    def _next_number(self) -> int:
        return len(self._seen) + 1

    @functools.cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        """The distributions of all parameters, those of inactive branches too."""
        from optuna.distributions import FloatDistribution  # lazily: importing Optuna is slow

        return {
            name: FloatDistribution(parameter.lower, parameter.upper, log=parameter.log)
            if isinstance(parameter, Int) and parameter.num_configurations > self._max_listed
            else parameter.to_optuna()
            for name, parameter in self._parameters.items()
        }

    def _frozen(self, number: int, config: Mapping[str, Any]) -> FrozenTrial:
        """Return a trial of Optuna's with all parameters, those of inactive branches at their defaults."""
        from saccade.searcher.optuna_study import frozen_trial

        defaults = {
            name: parameter.labels[0] if isinstance(parameter, Categorical) else parameter.default
            for name, parameter in self._parameters.items()
        }
        return frozen_trial(number, defaults | encode(self.space, config), self._distributions)


class ModelSearcher(OptunaSearcher):
    """Base class of the searchers with a model of the scores.

    `saccade.searcher.observations.Observations` describes how scores of different epochs are compared. By default a
    sampler sees ranks instead of scores. It sees a bounded number of configurations, the best and the latest ones, so
    that proposals do not become slower.
    """

    # Maximum number of visible configurations: the best ones, the latest of the others, and running ones.
    _num_best = 100
    _num_latest = 100
    _num_pending = 512

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

    def suggest(self) -> dict[str, Any]:
        """Return a new configuration, which is pending from now on."""
        config = super().suggest()
        self._observations.begin(config)
        return config

    def on_begin(self, config: Mapping[str, Any]) -> None:
        """Note that a configuration is pending: the sampler sees it as a running trial."""
        super().on_begin(config)
        if config in self.space:
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


class QMCSearcher(OptunaSearcher):
    """Quasi-random search: points of a scrambled Sobol sequence, which cover the space more evenly than random draws.

    No proposal depends on results. Optuna's ``QMCSampler``.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.

    Examples
    --------
    >>> from saccade.space import Real
    >>> searcher = QMCSearcher({"x": Real(0, 1)}, first_is_default=False)
    >>> sorted(int(4 * searcher.suggest()["x"]) for _ in range(4))
    [0, 1, 2, 3]
    """

    _num_suggested = 0

    @property
    def _max_repeats(self) -> int:
        # A resumed search draws the points of its first run again, and must skip them.
        return _MAX_REPEATS + len(self._seen) - self._num_suggested

    def suggest(self) -> dict[str, Any]:
        """Return the next point of the sequence that is new."""
        config = super().suggest()
        self._num_suggested += 1
        return config

    def _shown(self) -> list[FrozenTrial]:
        # One complete trial, from which the sampler infers the parameters.
        from optuna.trial import TrialState  # lazily: importing Optuna is slow

        first = self._frozen(0, self.space.default)
        first.state = TrialState.COMPLETE
        return [first]

    def _make_sampler(self, shown: list[FrozenTrial]) -> BaseSampler:  # noqa: ARG002
        from optuna.samplers import QMCSampler  # lazily: importing Optuna is slow

        return QMCSampler(qmc_type="sobol", scramble=True, seed=self._sampler_seed, warn_independent_sampling=False)


class TPESearcher(ModelSearcher):
    """Tree-structured Parzen estimators: proposes values likely in good configurations and unlikely in bad ones.

    Optuna's ``TPESampler`` (Bergstra et al., Algorithms for hyper-parameter optimization, NIPS 2011; Watanabe,
    arXiv:2304.11127, 2023) in its multivariate form, which models the parameters jointly; in a conditional space
    jointly within each branch. Running configurations count as bad (constant liar), so that simultaneous proposals
    differ.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.
    num_startup_trials
        Number of observed configurations from which the model is used; before that, configurations are drawn at random.

    Examples
    --------
    >>> from saccade.space import Real
    >>> searcher = TPESearcher({"x": Real(0, 1)})
    >>> for _ in range(30):
    ...     config = searcher.suggest()
    ...     searcher.observe(config, epoch=1, score=-abs(config["x"] - 0.7), cost=1.0)
    >>> abs(searcher.suggest()["x"] - 0.7) < 0.2
    True
    """

    def _make_sampler(self, shown: list[FrozenTrial]) -> BaseSampler:  # noqa: ARG002
        from optuna.samplers import TPESampler  # lazily: importing Optuna is slow

        is_conditional = len(encode(self.space, self.space.default)) < len(self._parameters)
        return TPESampler(
            seed=self._sampler_seed, multivariate=True, group=is_conditional, constant_liar=True, n_startup_trials=1
        )

    def _ask(self, study: SamplerStudy, shown: list[FrozenTrial]) -> dict[str, Any]:
        """Ask for the parameters of the chosen branches only."""
        config: dict[str, Any] = suggest(self.space, study.ask(shown, self._next_number, {}))
        return config

    def _frozen(self, number: int, config: Mapping[str, Any]) -> FrozenTrial:
        from saccade.searcher.optuna_study import frozen_trial

        params = encode(self.space, config)
        return frozen_trial(number, params, {name: self._parameters[name].to_optuna() for name in params})


class GPSearcher(ModelSearcher):
    """A Gaussian process: proposes where the expected improvement over the best score is largest.

    Optuna's ``GPSampler``: a Matérn kernel with a length scale for each parameter, and log expected improvement (Ament
    et al., Unexpected improvements to expected improvement for Bayesian optimization, NeurIPS 2023). With running
    configurations it is the expected improvement of the whole batch, averaged over their possible scores. In a
    conditional space the model has all parameters, the inactive ones at their defaults.

    It needs the fewest trials, but a proposal takes longest. That time grows with the cube of the number of
    configurations in the model, so the model sees at most the best 32, the latest 32 of the others, and 16 that are
    running.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default, num_startup_trials
        As in `TPESearcher`.

    Examples
    --------
    >>> from saccade.space import Real
    >>> searcher = GPSearcher({"x": Real(0, 1)})
    >>> for _ in range(13):
    ...     config = searcher.suggest()
    ...     searcher.observe(config, epoch=1, score=-abs(config["x"] - 0.7), cost=1.0)
    >>> abs(searcher.suggest()["x"] - 0.7) < 0.2
    True
    """

    # The cost of a proposal grows with the cube of the number of visible trials.
    _num_best = 32
    _num_latest = 32
    _num_pending = 16
    # The sampler evaluates all values of each Int in turn: with a limit of 1000, proposals take twice as long.
    _max_listed = 16

    @property
    def _max_repeats(self) -> int:
        return 2  # a proposal is slow, and likely to be the same again

    def _make_sampler(self, shown: list[FrozenTrial]) -> BaseSampler:  # noqa: ARG002
        from optuna.samplers import GPSampler  # lazily: importing Optuna is slow

        return GPSampler(seed=self._sampler_seed, n_startup_trials=1, warn_independent_sampling=False)

    def _ask(self, study: SamplerStudy, shown: list[FrozenTrial]) -> dict[str, Any]:
        import optuna

        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # its hint at an optional package is not for our users
        try:
            return super()._ask(study, shown)
        finally:
            optuna.logging.set_verbosity(verbosity)

    def _values(self, ranked: Sequence[Observation], epoch: float) -> Sequence[float]:
        merits = [item.merit(epoch) for item in ranked]
        # A configuration that failed or ended before that epoch has no score comparable to the others.
        return clipped_scores([score if reached == merits[0][0] else -math.inf for reached, score in merits])


class CmaEsSearcher(ModelSearcher):
    """CMA-ES: draws from a normal distribution that moves and turns towards the better half of each generation.

    Optuna's ``CmaEsSampler`` (Hansen, The CMA evolution strategy: a tutorial, arXiv:1604.00772). The distribution
    starts where the random draws before it were best (Nomura et al., AAAI 2021). A normal distribution has no choices
    (`Categorical`, `Bool`), so these are drawn by TPE, each independently. It needs several generations, that is a
    hundred trials or more. Simultaneous proposals are draws from one distribution: they differ.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default, num_startup_trials
        As in `TPESearcher`.

    Examples
    --------
    >>> from saccade.space import Real
    >>> searcher = CmaEsSearcher({"x": Real(0, 1), "y": Real(0, 1)})
    >>> for _ in range(60):
    ...     config = searcher.suggest()
    ...     score = -abs(config["x"] - 0.7) - abs(config["y"] - 0.2)
    ...     searcher.observe(config, epoch=1, score=score, cost=1.0)
    >>> abs(searcher.suggest()["x"] - 0.7) < 0.2
    True
    """

    # Fewer trials do not determine a start.
    _min_sources = 10

    def _make_sampler(self, shown: list[FrozenTrial]) -> BaseSampler:
        from optuna.samplers import CmaEsSampler, TPESampler  # lazily: importing Optuna is slow

        from saccade.searcher.optuna_study import frozen_trial

        sources = []  # the finished trials without their choices
        for trial in (trial for trial in shown if trial.state.is_finished()):
            names = [name for name in trial.params if not isinstance(self._parameters[name], (Categorical, Bool))]
            params = {name: trial.params[name] for name in names}
            sources.append(frozen_trial(trial.number, params, {name: trial.distributions[name] for name in names}))
            sources[-1].state, sources[-1].value = trial.state, trial.value
        return CmaEsSampler(
            seed=self._sampler_seed,
            n_startup_trials=1,
            independent_sampler=TPESampler(seed=self._sampler_seed, multivariate=False, n_startup_trials=1),
            warn_independent_sampling=False,
            source_trials=sources if len(sources) >= self._min_sources else None,
        )

    def _accept(self, asked: FrozenTrial) -> None:
        # The sampler keeps its state in its trials, so it must see its proposals, inactive parameters included.
        self._trials[asked.number] = asked


def normal_scores(merits: Sequence[tuple[float, float]]) -> list[float]:
    """Return the normal quantile of each merit's rank (the mean rank among equals); merits are given best first."""
    normal = statistics.NormalDist()
    places: dict[tuple[float, float], list[int]] = {}
    for place, merit in enumerate(merits):
        places.setdefault(merit, []).append(place)
    scores = {
        merit: normal.inv_cdf(1 - (statistics.fmean(equal) + 0.5) / len(merits)) for merit, equal in places.items()
    }
    return [scores[merit] for merit in merits]


def clipped_scores(scores: Sequence[float]) -> list[float]:
    """Return the scores scaled to [-1, 1], the worst clipped at as far below the median as the best is above.

    Otherwise one diverged loss would hide the differences among the good scores.
    """
    largest = max((abs(score) for score in scores if math.isfinite(score)), default=0.0) or 1.0
    finite = sorted(score / largest for score in scores if math.isfinite(score))
    if not finite:
        return [0.0] * len(scores)
    median, best = statistics.median(finite), finite[-1]
    # If half of them are equal to the best, that distance is 0.
    floor = max(2 * median - best, finite[0]) if median < best else finite[0]
    raised = [min(max(score / largest, floor), best) for score in scores]
    largest = max(abs(floor), abs(best)) or 1.0
    return [score / largest for score in raised]
