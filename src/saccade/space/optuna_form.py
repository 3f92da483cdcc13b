"""Spaces as Optuna has them: flat, with a distribution for each named parameter.

Optuna's samplers know numbers and choices among simple values, by name. So a nested space is flattened
(the names are those of `saccade.space.parameters`), and where a choice is no simple value, all choices are
written by their positions.

Conditional spaces: the parameters of *all* branches are in `to_optuna`, because a sampler such as QMC or
CMA-ES wants a fixed list. `from_optuna` then reads only the branches that were chosen and ignores the rest.
A sampler that can condition (TPE) is better asked through `suggest`, which asks for the parameters of the
chosen branches only; and `encode` gives only those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from saccade.errors import SpaceError, UnknownNameError
from saccade.space.base import Constant, Space
from saccade.space.composite import Categorical, Dict, List
from saccade.space.constants import canonical_key
from saccade.space.names import child_name, parameters
from saccade.space.numeric import Int, Real

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial


def to_optuna(space: Space) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions for all parameters of a space, those of inactive branches too.

    Parameters
    ----------
    space
        A `Dict`, as a rule.

    Returns
    -------
    dict of str to optuna.distributions.BaseDistribution
        By the names of `parameters`. Constants are left out.

    Raises
    ------
    SpaceError
        If two parameters have the same name.

    Examples
    --------
    >>> for name, distribution in to_optuna(Dict(model=Categorical("a", List(Int(1, 2))))).items():
    ...     print(name, distribution)
    model CategoricalDistribution(choices=(0, 1))
    model/1/0 IntDistribution(high=2, log=False, low=1, step=1)
    """
    return {name: parameter.to_optuna() for name, parameter in parameters(space).items()}


def from_optuna(space: Space, params: Mapping[str, Any]) -> Any:
    """Return the configuration that a set of Optuna's parameter values stands for.

    Parameters
    ----------
    space
        The space that was given to `to_optuna`.
    params
        The values by name, such as ``trial.params``. Those of branches that were not chosen may be missing
        and are ignored.

    Returns
    -------
    object
        A value in `space`: a dict for a `Dict`.

    Raises
    ------
    SpaceError
        If a parameter is missing, or its value is not in its domain.
    UnknownNameError
        If the space has no parameter of a name.

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
    """Ask an Optuna trial for a configuration, for the parameters of the chosen branches only.

    Parameters
    ----------
    space
        The space, a `Dict` as a rule.
    trial
        What ``study.ask()`` returns.

    Returns
    -------
    object
        A value in `space`.

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
    """Return a configuration as Optuna's parameter values; `from_optuna` is the way back.

    Parameters
    ----------
    space
        The space, a `Dict` as a rule.
    config
        A value in it.

    Returns
    -------
    dict
        The parameters of the chosen branches by name. Where a value lies in two branches of a
        `Categorical`, it is the first.

    Raises
    ------
    SpaceError
        If the configuration is not in the space; the message names the place.

    Examples
    --------
    >>> encode(Dict(model=Categorical("a", List(Int(1, 2))), epochs=5), {"model": [2], "epochs": 5})
    {'model': 1, 'model/1/0': 2}
    """
    params: dict[str, Any] = {}
    _write(space, None, config, params)
    return params


def _read(space: Space, name: str | None, value_of: Callable[[str, Space], Any]) -> Any:
    """Build a value of the space from the values that `value_of` gives for its active parameters."""
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
    """Put the parameters that `value` has in the space into `params`."""
    if isinstance(space, Constant):
        _in_domain(space, name, value)
    elif isinstance(space, Dict):
        if not isinstance(value, Mapping) or value.keys() != space.keys():
            raise SpaceError(f"{_place(name)} is {value!r}; it must have the keys {list(space.keys())!r}.")
        for key, part in space.children():
            _write(part, child_name(name, key), value[key], params)
    elif isinstance(space, List):
        if not isinstance(value, (list, tuple)) or len(value) != len(space):
            raise SpaceError(f"{_place(name)} is {value!r}; it must be a list of length {len(space)}.")
        for (key, part), part_value in zip(space.children(), value, strict=True):
            _write(part, child_name(name, key), part_value, params)
    elif isinstance(space, Categorical):
        _in_domain(space, name, value)
        index = next(index for index, member in enumerate(space.members) if value in member)
        params[name or ""] = space.labels[index]
        _write(space.members[index], child_name(name, index), value, params)
    else:
        params[name or ""] = _in_domain(space, name, value)


def _in_domain(space: Space, name: str | None, value: Any) -> Any:
    if value not in space:
        raise SpaceError(f"{_place(name)} is {value!r}, which is not in {space!r}.")
    if isinstance(space, Real):
        return float(value)
    return int(value) if isinstance(space, Int) else value


def _place(name: str | None) -> str:
    return "The configuration" if name is None else f"The parameter {name!r}"
