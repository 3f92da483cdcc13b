"""Searchers propose the next configuration.

`make_searcher` makes one by name; inherit from `Searcher` for another.

============  ====================================================================================
``random``    `RandomSearcher`: independent draws
``grid``      `GridSearcher`: an evenly spaced grid, in order
``qmc``       `QMCSearcher`: draws that cover the space evenly
``tpe``       `TPESearcher`: densities of good and bad configurations; fast, for any space
``gp``        `GPSearcher`: a Gaussian process; for few or long trials
``cmaes``     `CmaEsSearcher`: an evolution strategy; for numbers and many trials
============  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saccade.errors import HyperparameterError, missing_attributes
from saccade.searcher.base import Searcher
from saccade.searcher.optuna_search import CmaEsSearcher, GPSearcher, QMCSearcher, TPESearcher
from saccade.searcher.sampling import GridSearcher, RandomSearcher
from saccade.space import Dict
from saccade.study.registry import Registry

__all__ = [
    "SEARCHERS",
    "CmaEsSearcher",
    "GPSearcher",
    "GridSearcher",
    "QMCSearcher",
    "RandomSearcher",
    "Searcher",
    "TPESearcher",
    "make_searcher",
]

SEARCHERS: Registry[Searcher] = Registry(
    "searcher",
    Searcher,  # type: ignore[type-abstract]
    {
        "random": RandomSearcher,
        "grid": GridSearcher,
        "qmc": QMCSearcher,
        "tpe": TPESearcher,
        "gp": GPSearcher,
        "cmaes": CmaEsSearcher,
        "auto": TPESearcher,  # of images: saccade.autosearch
        # Names of AutoGluon.
        "bayesopt": GPSearcher,
        "bayes": GPSearcher,
        "skopt": TPESearcher,
    },
)


# Names from modules that import this one.
_LAZY = {
    "AutoSearcher": "saccade.autosearch.search",
    "LocalGridSearcher": "saccade.core.searcher.local_searcher",
    "LocalRandomSearcher": "saccade.core.searcher.local_searcher",
    "LocalSearcher": "saccade.core.searcher.local_searcher",
}
__getattr__ = missing_attributes(__name__, __all__, _LAZY)


def make_searcher(name: str | Searcher, space: Dict | Mapping[Any, Any], seed: int = 0, **options: Any) -> Searcher:
    """Return the searcher of that name.

    Raises an UnknownNameError for other names, a SpaceError for invalid starting configurations, and a
    HyperparameterError for an option that the searcher does not have, options together with an instance, or an instance
    for another space.

    Parameters
    ----------
    name
        A key of `SEARCHERS`; or a searcher of the same space, which is returned as it is. ``auto`` is ``tpe``; in fits
        of images it is `saccade.autosearch.search.AutoSearch`.
    space, seed, **options
        Arguments of that searcher; see `Searcher`.

    Examples
    --------
    >>> from saccade.space import Int
    >>> make_searcher("grid", Dict(depth=Int(1, 9)), num_points=3).suggest()
    {'depth': 1}
    """
    if isinstance(name, Searcher):
        check_space(name, name.space.data, space.data if isinstance(space, Dict) else space)
        return SEARCHERS.make(name, options)
    return SEARCHERS.make(name, options, {"space": space, "seed": seed})


def check_space(searcher: Searcher, own: Mapping[Any, Any], given: Mapping[Any, Any], what: str = "space") -> None:
    """Check that a ready searcher searches what the user has given as the argument `what`."""

    def text(space: Mapping[Any, Any], name: Any) -> str:
        return repr(space[name]) if name in space else "missing"

    both = own.keys() & given.keys()
    names = [name for name in {**own, **given} if name not in both or Dict({0: own[name]}) != Dict({0: given[name]})]
    if names:
        parts = [f"{name} is {text(own, name)} there and {text(given, name)} in {what}" for name in names]
        raise HyperparameterError(
            f"The searcher is a {type(searcher).__name__} that was made for another space: {'; '.join(parts)}. "
            f"Make it with the same space."
        )
