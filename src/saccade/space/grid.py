"""The configurations of a grid, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from saccade.errors import HyperparameterError, SpaceError, UnknownNameError
from saccade.space.base import Constant, Space
from saccade.space.composite import Categorical, Dict, List
from saccade.space.constants import copied
from saccade.space.names import child_name, parameters
from saccade.space.numeric import Bool, Int, Real


def grid(
    space: Space,
    num_points: float = math.inf,
    num_points_by_name: Mapping[str, float] | None = None,
) -> Iterator[Any]:
    """Return all configurations of a full-factorial grid, made one at a time.

    The last parameter varies fastest. Each branch of a `Categorical` is gone through with its own
    parameters only.

    Parameters
    ----------
    space
        The space. All values of a `Bool` and a `Categorical` are taken.
    num_points
        How many points to take of each `Real` and `Int`, at least 1; an `Int` with no more values than that
        is taken whole. ``math.inf`` goes through all of a finite space.
    num_points_by_name
        The same for single parameters, by their names (see `parameters`).

    Raises
    ------
    SpaceError
        If all points of a `Real` are asked for.
    HyperparameterError
        If a number of points is not a whole number of at least 1.
    UnknownNameError
        If there is no `Real` or `Int` of a name.

    Examples
    --------
    >>> list(grid(Dict(lr=Real(0.01, 1, log=True), flip=Bool()), num_points=2))[:3]
    [{'lr': 0.01, 'flip': False}, {'lr': 0.01, 'flip': True}, {'lr': 1.0, 'flip': False}]
    """
    by_name = dict(num_points_by_name or {})
    numeric = {name: domain for name, domain in parameters(space).items() if isinstance(domain, (Real, Int))}
    _check_points("num_points", num_points)
    for name, count in by_name.items():
        if name not in numeric:
            hint = "Only Real and Int parameters have a number of points."
            raise UnknownNameError.of("numeric parameter", name, numeric, hint)
        _check_points(f"num_points_by_name[{name!r}]", count)
    for name, domain in numeric.items():
        if isinstance(domain, Real) and math.isinf(by_name.get(name, num_points)):
            raise SpaceError(f"{name!r} is {domain!r}, which has no end. Give a finite number of points.")
    points = _points(space, None, lambda name: by_name.get(name, num_points))
    return (copied(config) for config in points)


def _points(space: Space, name: str | None, num_points: Callable[[str], float]) -> Iterator[Any]:
    if isinstance(space, Constant):
        yield space.value
    elif isinstance(space, (Real, Int, Bool)):
        yield from space.grid(num_points(name or ""))
    elif isinstance(space, Categorical):
        for key, member in space.children():
            yield from _points(member, child_name(name, key), num_points)
    elif isinstance(space, (List, Dict)):
        children = [(child_name(name, key), member) for key, member in space.children()]
        for values in _combinations(children, num_points):
            yield values if isinstance(space, List) else dict(zip(space.keys(), values, strict=True))
    else:
        raise SpaceError(f"A grid over {space!r} is not known.")


def _combinations(children: Sequence[tuple[str, Space]], num_points: Callable[[str], float]) -> Iterator[list[Any]]:
    # Not itertools.product, which first makes the list of all values of each factor: a finite space
    # may have an Int with 2**53 of them.
    if not children:
        yield []
        return
    (name, member), *rest = children
    for value in _points(member, name, num_points):
        for values in _combinations(rest, num_points):
            yield [value, *values]


def _check_points(what: str, count: Any) -> None:
    whole = isinstance(count, int) and not isinstance(count, bool)
    if count != math.inf and not (whole and count >= 1):
        raise HyperparameterError(f"{what} is {count!r}; it must be a whole number of at least 1.")
