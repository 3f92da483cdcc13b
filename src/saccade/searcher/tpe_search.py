"""Tree-structured Parzen estimators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from saccade.searcher.optuna_search import ModelSearcher
from saccade.space import encode, suggest

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from saccade.searcher.optuna_study import SamplerStudy


class TPESearcher(ModelSearcher):
    """Tree-structured Parzen estimators: proposes what is likely among the good and unlikely among the bad.

    Optuna's ``TPESampler`` in its multivariate form, which models the parameters jointly [1]_ [2]_; in a conditional
    space jointly within each branch. Configurations that are running count among the bad ones (the constant liar), so
    that proposals made at the same time differ.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.
    num_startup_trials
        So many configurations must have been observed before the model is asked; until then the draws are random.

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
