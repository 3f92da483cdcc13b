"""Searchers on Optuna's samplers: quasi-random, tree-structured Parzen estimators, Gaussian process and CMA-ES."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saccade.searcher.observations import Observation
from saccade.searcher.optuna_search import MAX_REPEATS, ModelSearcher, OptunaSearcher
from saccade.space import Bool, Categorical, Dict, encode, suggest

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from saccade.searcher.optuna_study import SamplerStudy


class QMCSearcher(OptunaSearcher):
    """Quasi-random search: points of a scrambled Sobol sequence, which cover the space more evenly than random draws.

    No proposal depends on results. Optuna's ``QMCSampler`` [1]_ [2]_.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.

    References
    ----------
    .. [1] T. Akiba et al., "Optuna: a next-generation hyperparameter optimization framework", KDD 2019.
    .. [2] J. Bergstra and Y. Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012.

    Examples
    --------
    >>> from saccade.space import Real
    >>> searcher = QMCSearcher({"x": Real(0, 1)}, first_is_default=False)
    >>> sorted(int(4 * searcher.suggest()["x"]) for _ in range(4))
    [0, 1, 2, 3]
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
        self._first: list[FrozenTrial] = []
        self._num_suggested = 0

    @property
    def _max_repeats(self) -> int:
        # A resumed search draws the points of its first run again, and must skip them.
        return MAX_REPEATS + len(self._seen) - self._num_suggested

    def _begin(self, config: dict[str, Any]) -> None:  # noqa: ARG002
        self._num_suggested += 1

    def _shown(self) -> list[FrozenTrial]:
        # One trial is enough for the sampler to infer the parameters.
        from optuna.trial import TrialState  # lazily: importing Optuna is slow

        if not self._first:
            self._first = [self._frozen(0, self.space.default)]
            self._first[0].state = TrialState.COMPLETE
        return self._first

    def _make_sampler(self, shown: list[FrozenTrial]) -> BaseSampler:  # noqa: ARG002
        from optuna.samplers import QMCSampler  # lazily: importing Optuna is slow

        return QMCSampler(qmc_type="sobol", scramble=True, seed=self._sampler_seed, warn_independent_sampling=False)


class TPESearcher(ModelSearcher):
    """Tree-structured Parzen estimators: proposes values likely in good configurations and unlikely in bad ones.

    Optuna's ``TPESampler`` in its multivariate form, which models the parameters jointly [1]_ [2]_; in a conditional
    space jointly within each branch. Running configurations count as bad (constant liar), so that simultaneous
    proposals differ.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.
    num_startup_trials
        Number of observed configurations from which on the model is used; before, draws are random.

    References
    ----------
    .. [1] J. Bergstra, R. Bardenet, Y. Bengio and B. Kégl, "Algorithms for hyper-parameter optimization", NIPS 2011.
    .. [2] S. Watanabe, "Tree-structured Parzen estimator: understanding its algorithm components and their roles for
       better empirical performance", arXiv:2304.11127, 2023.

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

        if not self._distributions:
            self._distributions = {name: parameter.to_optuna() for name, parameter in self._parameters.items()}
        params = encode(self.space, config)
        return frozen_trial(number, params, {name: self._distributions[name] for name in params}, {})


class GPSearcher(ModelSearcher):
    """A Gaussian process: proposes where the expected improvement over the best score is largest.

    Optuna's ``GPSampler``: a Matérn kernel with a length scale for each parameter, and log expected improvement [1]_.
    With running configurations it is the expected improvement of the whole batch, averaged over their possible scores.
    In a conditional space the model has all parameters, the inactive ones at their defaults.

    It needs the fewest trials. The cost of a proposal grows with the cube of the number of configurations in the model,
    so the model sees at most the best 32, the latest 32 of the others, and 16 that are running. The acquisition
    function is maximised by random draws and their mutations, which is several times as fast as Optuna's own search.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.
    num_startup_trials
        Number of observed configurations from which on the model is used; before, draws are random.

    References
    ----------
    .. [1] S. Ament et al., "Unexpected improvements to expected improvement for Bayesian optimization", NeurIPS 2023.

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

    # Its cost grows with the cube of what it sees.
    _num_best = 32
    _num_latest = 32
    _num_pending = 16

    @property
    def _max_repeats(self) -> int:
        return 2  # the same proposal would come again, and is slow

    def _make_sampler(self, shown: list[FrozenTrial]) -> BaseSampler:  # noqa: ARG002
        from saccade.searcher.optuna_study import QuickGPSampler

        # Its hint at a package that makes it faster is not for users of a search.
        logging.getLogger("optuna._gp.batched_lbfgsb").setLevel(logging.ERROR)
        return QuickGPSampler(seed=self._sampler_seed, n_startup_trials=1, warn_independent_sampling=False)

    def _values(self, ranked: Sequence[Observation], epoch: float) -> Sequence[float]:
        merits = [item.merit(epoch) for item in ranked]
        # A configuration that failed or ended before that epoch has no score comparable to the others.
        return clipped_scores([score if reached == merits[0][0] else -math.inf for reached, score in merits])


def clipped_scores(scores: Sequence[float]) -> list[float]:
    """Return the scores scaled to [-1, 1], the worst clipped at as far below the median as the best is above.

    Otherwise one diverged loss would hide the differences among the good scores.

    Examples
    --------
    >>> clipped_scores([80, 40, 40, -1e9, -math.inf])
    [1.0, 0.5, 0.5, 0.0, 0.0]
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


class CmaEsSearcher(ModelSearcher):
    """CMA-ES: draws from a normal distribution that moves and turns towards the better half of each generation.

    Optuna's ``CmaEsSampler`` [1]_. The distribution starts where the random draws before it were best [2]_. A normal
    distribution has no choices (`Categorical`, `Bool`), so these are drawn by TPE, each independently. It needs several
    generations, that is a hundred trials or more. Simultaneous proposals are draws from one distribution: they differ.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.
    num_startup_trials
        Number of observed configurations from which on the model is used; before, draws are random.

    References
    ----------
    .. [1] N. Hansen, "The CMA evolution strategy: a tutorial", arXiv:1604.00772, 2016.
    .. [2] M. Nomura et al., "Warm starting CMA-ES for hyperparameter optimization", AAAI 2021.

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

        sources = [source for source in map(self._numeric, shown) if source.state.is_finished()]
        return CmaEsSampler(
            seed=self._sampler_seed,
            n_startup_trials=1,
            independent_sampler=TPESampler(seed=self._sampler_seed, multivariate=False, n_startup_trials=1),
            warn_independent_sampling=False,
            source_trials=sources if len(sources) >= self._min_sources else None,
        )

    def _numeric(self, trial: FrozenTrial) -> FrozenTrial:
        """Return the trial without its choices."""
        from saccade.searcher.optuna_study import frozen_trial

        names = [name for name in trial.params if not isinstance(self._parameters[name], (Categorical, Bool))]
        params = {name: trial.params[name] for name in names}
        source = frozen_trial(trial.number, params, {name: trial.distributions[name] for name in names}, {})
        source.state, source.value = trial.state, trial.value
        return source

    def _accept(self, asked: FrozenTrial) -> None:
        # The sampler keeps its state in its trials, so it must see its proposals, inactive parameters included.
        self._trials[asked.number] = asked
