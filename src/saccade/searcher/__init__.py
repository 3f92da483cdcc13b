"""Searchers: what proposes the next configuration.

`make_searcher` makes one by name; `Searcher` is the class to inherit from for another.

============  ====================================================================================
``random``    `RandomSearcher`: independent draws
``grid``      `GridSearcher`: an evenly spaced grid, in order
``qmc``       `QMCSearcher`: draws that cover the space evenly
``tpe``       `TPESearcher`: what resembles the good ones and not the bad ones; quick, for any space
``gp``        `GPSearcher`: a model of the scores; for few trials, or long ones
``cmaes``     `CmaEsSearcher`: a cloud of draws that moves uphill; for numbers, and many trials
============  ====================================================================================
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from saccade.errors import HyperparameterError, UnknownNameError, near_names
from saccade.searcher.auto import Advice, AutoSearcher
from saccade.searcher.base import Searcher
from saccade.searcher.cmaes_search import CmaEsSearcher
from saccade.searcher.gp_search import GPSearcher
from saccade.searcher.grid_search import GridSearcher
from saccade.searcher.local import LocalGridSearcher, LocalRandomSearcher, LocalSearcher
from saccade.searcher.qmc_search import QMCSearcher
from saccade.searcher.random_search import RandomSearcher
from saccade.searcher.tpe_search import TPESearcher
from saccade.space import Dict

__all__ = [
    "SEARCHERS",
    "Advice",
    "AutoSearcher",
    "CmaEsSearcher",
    "GPSearcher",
    "GridSearcher",
    "LocalGridSearcher",
    "LocalRandomSearcher",
    "LocalSearcher",
    "QMCSearcher",
    "RandomSearcher",
    "Searcher",
    "TPESearcher",
    "make_searcher",
]

SEARCHERS: dict[str, type[Searcher]] = {
    "random": RandomSearcher,
    "grid": GridSearcher,
    "qmc": QMCSearcher,
    "tpe": TPESearcher,
    "gp": GPSearcher,
    "cmaes": CmaEsSearcher,
    "auto": AutoSearcher,
    # The names that the API which Saccade revives had for them.
    "bayesopt": GPSearcher,
    "bayes": GPSearcher,
    "skopt": TPESearcher,
}


def make_searcher(name: str | Searcher, space: Dict | Mapping[Any, Any], seed: int = 0, **options: Any) -> Searcher:
    """Return the searcher of that name.

    Parameters
    ----------
    name
        A key of `SEARCHERS`; or a searcher, which is returned as it is. Where nobody says how to `describe` a
        configuration to the learned portfolio, ``auto`` is ``tpe``.
    space
        What to search, as in `Searcher`.
    seed
        Seed of its random numbers.
    **options
        Further arguments of that searcher.

    Raises
    ------
    UnknownNameError
        If there is no searcher of that name.
    HyperparameterError
        If the searcher has no such option, or if a ready searcher comes with options.
    SpaceError
        If the option `starting_configs` (see `Searcher`) holds what is not in the space.

    Examples
    --------
    >>> from saccade.space import Int
    >>> make_searcher("grid", Dict(depth=Int(1, 9)), num_points=3).suggest()
    {'depth': 1}
    >>> make_searcher("tpe", Dict(depth=Int(1, 9)), starting_configs=[{"depth": 5}]).suggest()
    {'depth': 5}
    """
    if isinstance(name, Searcher):
        if options:
            raise HyperparameterError(
                f"The options {sorted(options)} came with a {type(name).__name__} that is made already. "
                "Give them where it is made, or name the searcher."
            )
        return name
    if name not in SEARCHERS:
        raise UnknownNameError.of("searcher", name, SEARCHERS)
    searcher = SEARCHERS[name]
    if searcher is AutoSearcher and "describe" not in options:
        searcher = TPESearcher
    known = [option for option in inspect.signature(searcher).parameters if option not in ("space", "seed")]
    for option in options:
        if option not in known:
            near = near_names(option, known)
            advice = f"Did you mean {near[0]!r}? " if near else ""
            raise HyperparameterError(
                f"The searcher {name!r} has no option {option!r}. {advice}Its options: {', '.join(known)}."
            )
    return searcher(space, seed=seed, **options)
