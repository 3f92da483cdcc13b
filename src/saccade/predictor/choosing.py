"""Choosing among the predictors of a search with several objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saccade.errors import HyperparameterError
from saccade.inference.saved import Choice
from saccade.study.objectives import COSTS


def choose(choices: Sequence[Choice], most: Mapping[str, float | None], min_score: float | None = None) -> Choice:
    """Return the choice with the highest score that costs no more than it may; or the cheapest of so high a score.

    Parameters
    ----------
    choices : sequence of Choice
        A Pareto front.
    most : mapping
        Limits by the name of the figure; None is no limit.
    min_score : float or None
        The least score. With it the cheapest choice counts.

    Raises
    ------
    HyperparameterError
        When there is none, or its costs are not known.
    """
    limits = {name: limit for name, limit in most.items() if limit is not None}
    for name, limit in [*limits.items(), *([] if min_score is None else [("min_score", min_score)])]:
        if isinstance(limit, bool) or not isinstance(limit, int | float) or limit != limit:
            raise HyperparameterError(f"{name} was given {limit!r}; expected a number")
    known = list(choices[0].costs) if choices else []
    if missing := [name for name in limits if name not in known]:
        asked = {figure: name for name, figure in COSTS.items()}
        raise HyperparameterError(
            f"{', '.join(missing)} cannot be chosen by: the search was not asked for it. Search with "
            f"objectives={['accuracy', *[asked[name] for name in (*known, *missing)]]}"
        )
    if not choices:
        raise HyperparameterError(
            "there is nothing to choose from: the search had one objective. Search with "
            "objectives=['accuracy', 'latency']"
        )
    fitting = [
        choice
        for choice in choices
        if all(choice.costs[name] <= limit for name, limit in limits.items())
        and (min_score is None or choice.summary["valid_score"] >= min_score)
    ]
    if not fitting:
        raise HyperparameterError(f"no trial is within these limits; there are:\n{_listed(choices)}")
    if min_score is not None:
        return min(fitting, key=lambda choice: tuple(choice.costs.values()))
    return max(fitting, key=lambda choice: choice.summary["valid_score"])


def _listed(choices: Sequence[Choice]) -> str:
    return "\n".join(
        f"  trial {choice.trial}: score {choice.summary['valid_score']:.4f}, "
        + ", ".join(f"{name} {cost:,.4g}" for name, cost in choice.costs.items())
        for choice in choices
    )
