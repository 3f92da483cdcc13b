"""Names for the parameters of a nested space.

The name of a parameter is the path to it: ``optimizer/lr`` is the key ``lr`` in the Dict at the key
``optimizer``. A place in a List and a choice of a Categorical are numbered from 0, so ``model/1/depth`` is
the ``depth`` that exists where choice 1 of ``model`` was made. In keys, ``/`` is written ``~1`` and ``~`` is
written ``~0``, as in JSON Pointer (RFC 6901), so that no two paths have the same name.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from saccade.errors import SpaceError
from saccade.space.base import Constant, Space
from saccade.space.composite import Categorical, Dict, List


def child_name(parent: str | None, key: Hashable) -> str:
    """Return the name of what is at `key` under `parent` (None: under the whole space)."""
    name = str(key).replace("~", "~0").replace("/", "~1")
    return name if parent is None else f"{parent}/{name}"


def parameters(space: Space) -> dict[str, Space]:
    """Return the parameters of a space by name, those of all branches.

    Parameters
    ----------
    space
        A `Dict`, as a rule.

    Returns
    -------
    dict of str to Space
        Each `Real`, `Int`, `Bool` and `Categorical`; constants are no parameters.

    Raises
    ------
    SpaceError
        If two parameters have the same name, because a Dict has keys such as 1 and ``"1"``.

    Examples
    --------
    >>> from saccade.space import Real
    >>> model = Categorical("resnet18", {"width": Real(1, 4)})
    >>> parameters(Dict(model=model, epochs=5))
    {'model': Categorical('resnet18', Dict(width=Real(1.0, 4.0))), 'model/1/width': Real(1.0, 4.0)}
    """
    named: dict[str, Space] = {}
    for name, parameter in _walk(space, None):
        if name in named:
            raise SpaceError(f"Two parameters of the space are called {name!r}. Rename one of the keys.")
        named[name] = parameter
    return named


def _walk(space: Space, name: str | None) -> Iterator[tuple[str, Space]]:
    if isinstance(space, Constant):
        return
    if not isinstance(space, (Dict, List)):
        yield name or "", space
    if isinstance(space, (Dict, List, Categorical)):
        for key, member in space.children():
            yield from _walk(member, child_name(name, key))
