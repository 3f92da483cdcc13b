"""The flat form of a nested space: named parameters, Optuna's distributions, and grids.

The name of a parameter is the path to it: ``optimizer/lr`` is the key ``lr`` in the Dict at the key ``optimizer``.
Positions in a List and choices of a Categorical are numbered from 0, so ``model/1/depth`` is the parameter ``depth``
of choice 1 of ``model``. In keys, ``/`` is written ``~1`` and ``~`` is written ``~0``, as in JSON Pointer (RFC 6901),
so that different paths have different names.

Optuna's parameters are numbers and choices among simple values. Other choices are replaced by their positions.

A conditional space has parameters that exist only in some branches. `to_optuna` has all of them, because samplers such
as QMC and CMA-ES require a fixed list; `from_optuna` ignores those of branches that are not chosen. For samplers
with conditional parameters (TPE), use `suggest` and `encode`, which have those of the chosen branches only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saccade.checks import whole_number
from saccade.errors import SpaceError, UnknownNameError
from saccade.space.base import Constant, Space, canonical_key, copied
from saccade.space.composite import Categorical, Dict, List
from saccade.space.numeric import Bool, Int, Real

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial


def child_name(parent: str | None, key: Hashable) -> str:
    """Return the name of the member `key` of `parent`; None is the whole space."""
    name = str(key).replace("~", "~0").replace("/", "~1")
    return name if parent is None else f"{parent}/{name}"


def parameters(space: Space) -> dict[str, Space]:
    """Return the parameters of a space by name, those of all branches.

    These are each `Real`, `Int`, `Bool` and `Categorical`, but no constants. Raises a SpaceError if two have the same
    name, as by keys 1 and ``"1"`` of a Dict.

    Examples
    --------
    >>> from saccade.space import Real
    >>> model = Categorical("resnet18", {"width": Real(1, 4)})
    >>> parameters(Dict(model=model, epochs=5))
    {'model': Categorical('resnet18', Dict(width=Real(1.0, 4.0))), 'model/1/width': Real(1.0, 4.0)}
    """

    def walk(space: Space, name: str | None) -> Iterator[tuple[str, Space]]:
        if not isinstance(space, (Constant, Dict, List)):
            yield name or "", space
        for key, member in space.children():
            yield from walk(member, child_name(name, key))

    named: dict[str, Space] = {}
    for name, parameter in walk(space, None):
        if name in named:
            raise SpaceError(f"Two parameters of the space are called {name!r}. Rename one of the keys.")
        named[name] = parameter
    return named


def scales(space: Space) -> dict[str, str]:
    """Return the scale of each parameter by its place in a configuration, unlike `parameters` without branch numbers.

    The scale of a `Real` or `Int` is ``"linear"`` or ``"log"``, that of a `Bool` or `Categorical` is ``"choice"``.

    Examples
    --------
    >>> from saccade.space import Real
    >>> model = Categorical("resnet18", {"name": "own", "width": Real(1, 4, log=True)})
    >>> scales(Dict(model=model, epochs=5))
    {'model': 'choice', 'model/name': 'choice', 'model/width': 'log'}
    """
    found: dict[str, str] = {}

    def walk(space: Space, name: str | None, is_choice: bool) -> None:
        if isinstance(space, Dict | List):
            for key, member in space.children():
                walk(member, child_name(name, key), is_choice)
        elif isinstance(space, Categorical):
            for member in space.members:
                walk(member, name, True)
        elif isinstance(space, Real | Int):
            found.setdefault(name or "", "log" if space.log else "linear")
        elif is_choice or isinstance(space, Bool):
            found[name or ""] = "choice"

    walk(space, None, False)
    return found


def to_optuna(space: Space) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions for all `parameters` of a space by name, those of inactive branches included.

    Examples
    --------
    >>> for name, distribution in to_optuna(Dict(model=Categorical("a", List(Int(1, 2))))).items():
    ...     print(name, distribution)
    model CategoricalDistribution(choices=(0, 1))
    model/1/0 IntDistribution(high=2, log=False, low=1, step=1)
    """
    return {name: parameter.to_optuna() for name, parameter in parameters(space).items()}


def from_optuna(space: Space, params: Mapping[str, Any]) -> Any:
    """Return the configuration of a space for Optuna's parameter values by name, such as ``trial.params``.

    Values of branches that are not chosen are ignored and may be missing. Raises a SpaceError if a parameter is missing
    or not in its domain, and an UnknownNameError for one that the space does not have.

    Examples
    --------
    >>> space = Dict(model=Categorical("a", List(Int(1, 2))), epochs=5)
    >>> from_optuna(space, {"model": 1, "model/1/0": 2})
    {'model': [2], 'epochs': 5}
    """
    known = parameters(space)
    for name in params:
        if name not in known:
            raise UnknownNameError.of("parameter", name, known)

    def look_up(name: str, _: Space) -> Any:
        if name not in params:
            given = ", ".join(map(repr, params)) or "none"
            raise SpaceError(f"The parameter {name!r} is missing. Given: {given}.")
        return params[name]

    return _read(space, None, look_up)


def suggest(space: Space, trial: BaseTrial) -> Any:
    """Ask an Optuna trial, one of ``study.ask()``, for a configuration: for the parameters of the chosen branches only.

    Examples
    --------
    >>> from optuna.trial import FixedTrial
    >>> suggest(Dict(lr=Real(0.1, 1), epochs=5), FixedTrial({"lr": 0.5}))
    {'lr': 0.5, 'epochs': 5}
    """

    def ask(name: str, parameter: Space) -> Any:
        if isinstance(parameter, Real):
            return trial.suggest_float(name, parameter.lower, parameter.upper, log=parameter.log)
        if isinstance(parameter, Int):
            return trial.suggest_int(name, parameter.lower, parameter.upper, log=parameter.log)
        choices = parameter.labels if isinstance(parameter, Categorical) else (False, True)
        return trial.suggest_categorical(name, choices)

    return _read(space, None, ask)


def encode(space: Space, config: Any) -> dict[str, Any]:
    """Return the values of Optuna's parameters for a configuration; `from_optuna` is the inverse.

    These are the parameters of the chosen branches by name. If a value lies in two branches of a `Categorical`, the
    first one is chosen. Raises a SpaceError, with the place, if the configuration is not in the space.

    Examples
    --------
    >>> encode(Dict(model=Categorical("a", List(Int(1, 2))), epochs=5), {"model": [2], "epochs": 5})
    {'model': 1, 'model/1/0': 2}
    """
    params: dict[str, Any] = {}
    _write(space, None, config, params)
    return params


def _read(space: Space, name: str | None, value_of: Callable[[str, Space], Any]) -> Any:
    """Build a value of the space from the values that `value_of` returns for its active parameters."""
    if isinstance(space, Constant):
        return space.default
    if isinstance(space, Dict):
        return {key: _read(part, child_name(name, key), value_of) for key, part in space.children()}
    if isinstance(space, List):
        return [_read(part, child_name(name, key), value_of) for key, part in space.children()]
    value = value_of(name or "", space)
    if isinstance(space, Categorical):
        keys = [canonical_key(label) for label in space.labels]
        if canonical_key(value) not in keys:
            raise SpaceError(f"The parameter {name!r} is {value!r}; it must be one of {space.labels!r}.")
        index = keys.index(canonical_key(value))
        return _read(space.members[index], child_name(name, index), value_of)
    return _in_domain(space, name, value)


def _write(space: Space, name: str | None, value: Any, params: dict[str, Any]) -> None:
    """Add the parameters of `value` to `params`."""
    if isinstance(space, Dict):
        if not isinstance(value, Mapping) or value.keys() != space.keys():
            raise SpaceError(f"{_place(name)} is {value!r}; it must have the keys {list(space.keys())!r}.")
        for key, part in space.children():
            _write(part, child_name(name, key), value[key], params)
    elif isinstance(space, List):
        if not isinstance(value, (list, tuple)) or len(value) != len(space):
            raise SpaceError(f"{_place(name)} is {value!r}; it must be a list of length {len(space)}.")
        for (key, part), part_value in zip(space.children(), value, strict=True):
            _write(part, child_name(name, key), part_value, params)
    else:
        own = _in_domain(space, name, value)
        if isinstance(space, Categorical):
            index = next(index for index, member in enumerate(space.members) if value in member)
            params[name or ""] = space.labels[index]
            _write(space.members[index], child_name(name, index), value, params)
        elif not isinstance(space, Constant):
            params[name or ""] = own


def _in_domain(space: Space, name: str | None, value: Any) -> Any:
    if value not in space:
        raise SpaceError(f"{_place(name)} is {value!r}, which is not in {space!r}.")
    if isinstance(space, Real):
        return float(value)
    return int(value) if isinstance(space, Int) else value


def _place(name: str | None) -> str:
    return "The configuration" if name is None else f"The parameter {name!r}"


def grid(
    space: Space, num_points: float = math.inf, num_points_by_name: Mapping[str, float] | None = None
) -> Iterator[Any]:
    """Return all configurations of a full-factorial grid, generated one at a time.

    The last parameter varies fastest. Each branch of a `Categorical` has a grid of its own parameters. Raises a
    SpaceError for infinitely many points of a `Real`, a HyperparameterError for other numbers of points that are not
    whole and at least 1, and an UnknownNameError for other names.

    Parameters
    ----------
    space
        The space. The grid has all values of a `Bool` and a `Categorical`.
    num_points
        The number of points of each `Real` and `Int`, at least 1; an `Int` with fewer values has all of them.
        ``math.inf`` enumerates a finite space.
    num_points_by_name
        The same for single parameters, by their names (see `parameters`).

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
        raise SpaceError(f"A grid over {space!r} is not supported; use the domains of saccade.space.")


def _combinations(children: Sequence[tuple[str, Space]], num_points: Callable[[str], float]) -> Iterator[list[Any]]:
    # Not itertools.product, which creates the list of all values of each factor: an Int may have 2**53 of them.
    if not children:
        yield []
        return
    (name, member), *rest = children
    for value in _points(member, name, num_points):
        for values in _combinations(rest, num_points):
            yield [value, *values]


def _check_points(what: str, count: Any) -> None:
    if count != math.inf:
        whole_number(what, count)
