"""A Gaussian process."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from saccade.searcher.observations import Observation
from saccade.searcher.optuna_search import ModelSearcher

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


class GPSearcher(ModelSearcher):
    """A Gaussian process: proposes where the expected improvement over the best score is largest.

    Optuna's ``GPSampler``: a Matérn kernel with a length scale for each parameter, and log expected improvement [1]_.
    With running configurations it is the expected improvement of the whole batch, over what they may turn out to be.
    Of a conditional space the process sees all parameters, the inactive ones at their defaults.

    It learns most from few trials. What a proposal costs grows with the cube of the number of configurations that the
    process sees, so of many it sees a bounded number: the best 32, the latest 32 of the others, and 16 that are
    running. The best proposal is searched for by draws and their variations (`saccade.searcher.gp_sampler`), since
    Optuna's own search for it takes several times as long as all else.

    Parameters
    ----------
    space, seed, starting_configs, first_is_default
        As in `RandomSearcher`.
    num_startup_trials
        So many configurations must have been observed before the model is asked; until then the draws are random.

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
        return 2  # it would propose the same again, and takes long

    def _make_sampler(self, shown: list[FrozenTrial]) -> BaseSampler:  # noqa: ARG002
        from saccade.searcher.gp_sampler import QuickGPSampler

        # It warns that another package would make it faster, which is nothing for who only searches.
        logging.getLogger("optuna._gp.batched_lbfgsb").setLevel(logging.ERROR)
        return QuickGPSampler(seed=self._sampler_seed, n_startup_trials=1, warn_independent_sampling=False)

    def _values(self, ranked: Sequence[Observation], epoch: float) -> Sequence[float]:
        merits = [item.merit(epoch) for item in ranked]
        # Who failed or ended before that epoch has no score that could stand beside the others'.
        return clipped_scores([score if reached == merits[0][0] else -math.inf for reached, score in merits])


def clipped_scores(scores: Sequence[float]) -> list[float]:
    """Return the scores with the bad ones raised to a floor, which lies as far below the median as the best lies above.

    A process that had to follow a loss that exploded would see no difference among the good ones. They are scaled to
    lie between -1 and 1.

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
    # Where half of them are the best there is no such distance.
    floor = max(2 * median - best, finite[0]) if median < best else finite[0]
    raised = [min(max(score / largest, floor), best) for score in scores]
    largest = max(abs(floor), abs(best)) or 1.0
    return [score / largest for score in raised]
