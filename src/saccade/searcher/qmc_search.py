"""Quasi-random search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saccade.searcher.optuna_search import MAX_REPEATS, OptunaSearcher
from saccade.space import Dict

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


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
        # A search that is resumed meets the points of its first run again, and is to go past them.
        return MAX_REPEATS + len(self._seen) - self._num_suggested

    def _begin(self, config: dict[str, Any]) -> None:  # noqa: ARG002
        self._num_suggested += 1

    def _shown(self) -> list[FrozenTrial]:
        # From the one trial that it sees the sampler learns which parameters there are.
        from optuna.trial import TrialState  # lazily: importing Optuna is slow

        if not self._first:
            self._first = [self._frozen(0, self.space.default)]
            self._first[0].state = TrialState.COMPLETE
        return self._first

    def _make_sampler(self, shown: list[FrozenTrial]) -> BaseSampler:  # noqa: ARG002
        from optuna.samplers import QMCSampler  # lazily: importing Optuna is slow

        return QMCSampler(qmc_type="sobol", scramble=True, seed=self._sampler_seed, warn_independent_sampling=False)
