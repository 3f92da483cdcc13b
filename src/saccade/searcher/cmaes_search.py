"""CMA-ES."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saccade.searcher.optuna_search import ModelSearcher
from saccade.space import Bool, Categorical

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


class CmaEsSearcher(ModelSearcher):
    """CMA-ES: draws from a normal distribution that moves and turns towards the better half of each generation.

    Optuna's ``CmaEsSampler`` [1]_. The distribution starts where the random draws before it were best [2]_. Choices
    (`Categorical`, `Bool`) are no matter of a normal distribution, and are drawn by TPE, each for itself. It needs
    generations, so it is for searches of a hundred trials and more. Proposals made at the same time are draws from one
    distribution, so they differ.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.
    num_startup_trials
        So many configurations must have been observed before the model is asked; until then the draws are random.

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

    # Fewer say too little of where to start.
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
        # The sampler keeps its state in its trials, and must see what it proposed, inactive parameters too.
        self._trials[asked.number] = asked
