"""A user's own starting configurations: checked against the space, and completed with its defaults."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from saccade.errors import SpaceError, UnknownNameError, near_names
from saccade.space import Categorical, Dict, List, Space, encode, from_optuna
from saccade.space.base import Constant
from saccade.space.constants import copied


def completed_configs(space: Dict, given: Sequence[Mapping[Any, Any]] | None) -> list[dict[Any, Any]]:
    """Return whole configurations of the space for those that were given, which may be partial.

    Parameters
    ----------
    space
        The space.
    given
        The configurations; what one of them leaves out has the default of the space, in nested spaces too. In a
        `Categorical` of spaces it is completed in the first branch that it fits.

    Returns
    -------
    list of dict
        Configurations in `space`, in the same order, with numbers as the space has them.

    Raises
    ------
    SpaceError
        If a configuration has a value that is not in the space; the message tells which one, and the place.
    UnknownNameError
        If it has a name that the space does not have.

    Examples
    --------
    >>> from saccade.space import Int, Real
    >>> space = Dict(model=Categorical("a", {"name": "b", "depth": Int(1, 9, default=3)}), lr=Real(0.1, 1))
    >>> completed_configs(space, [{"lr": 1}, {"model": {"name": "b"}}])
    [{'model': 'a', 'lr': 1.0}, {'model': {'name': 'b', 'depth': 3}, 'lr': 0.1}]
    """
    if given is None:
        return []
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise SpaceError(
            f"starting_configs is {given!r}; it must be a list of configurations, such as [{{'lr': 0.01}}]."
        )
    configs = []
    for index, config in enumerate(given):
        place = f"starting_configs[{index}]"
        whole = _completed(space, config, place)
        try:
            params = encode(space, whole)
        except SpaceError as error:
            raise SpaceError(f"{place} is not in the search space. {error}") from None
        configs.append(from_optuna(space, params))
    return configs


def _completed(space: Space, given: Any, place: str) -> Any:
    """Return `given` with the defaults of the space where it leaves something out."""
    if isinstance(space, Dict):
        return _completed_dict(space, given, place)
    if isinstance(space, List) and isinstance(given, (list, tuple)) and len(given) == len(space):
        pairs = zip(space.children(), given, strict=True)
        return [_completed(part, value, f"{place}[{key}]") for (key, part), value in pairs]
    if isinstance(space, Categorical):
        return _completed_choice(space, given, place)
    if given not in space:
        expected = (
            f"but the space fixes it at {space!r}" if isinstance(space, Constant) else f"which is not in {space!r}"
        )
        raise SpaceError(f"{place} is {given!r}, {expected}.")
    return copied(given)


def _completed_dict(space: Dict, given: Any, place: str) -> dict[Any, Any]:
    if not isinstance(given, Mapping):
        raise SpaceError(f"{place} is {given!r} ({type(given).__name__}); it must be a dict of values in {space!r}.")
    for key in given:
        if key not in space.keys():  # noqa: SIM118 (`in space` asks for a configuration)
            raise UnknownNameError.of("hyperparameter", key, map(str, space.keys()), f"It stands in {place}.")
    return {
        key: _completed(part, given[key], f"{place}[{key!r}]") if key in given else part.default
        for key, part in space.children()
    }


def _completed_choice(space: Categorical, given: Any, place: str) -> Any:
    if given in space:
        return copied(given)
    fitting = [member for member in space.members if _is_branch_of(member, given)]
    for member in fitting[:-1]:
        with contextlib.suppress(SpaceError, UnknownNameError):
            return _completed(member, given, place)
    if fitting:
        return _completed(fitting[-1], given, place)
    choices = [choice for choice in space.data if isinstance(choice, str)]
    near = near_names(given, choices, num=1) if isinstance(given, str) else []
    advice = f" Did you mean {near[0]!r}?" if near else ""
    raise SpaceError(f"{place} is {given!r}, which is not in {space!r}.{advice}")


def _is_branch_of(member: Space, given: Any) -> bool:
    """Tell whether a choice is of the same form as `given`, and has the same constants."""
    if isinstance(member, Dict) and isinstance(given, Mapping):
        constants = {key: part for key, part in member.children() if isinstance(part, Constant)}
        return all(given[key] in part for key, part in constants.items() if key in given)
    if isinstance(member, List) and isinstance(given, (list, tuple)):
        return len(member) == len(given)
    return isinstance(member, Categorical)
