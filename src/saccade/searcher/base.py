"""The seam for searchers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from saccade.errors import ExhaustedSearchSpaceError, SpaceError
from saccade.space import Dict


class Searcher(ABC):
    """Proposes configurations, and may learn from how they did.

    A searcher knows nothing of images, clocks or workers. ``tests/contracts/searcher_contract.py`` holds
    what each must do.

    Parameters
    ----------
    space
        A `saccade.space.Dict`, or a mapping of names to spaces and constants. Constants come back unchanged
        in each configuration.
    seed
        Seed of all random choices: the same seed and the same observations give the same suggestions.

    Attributes
    ----------
    space : saccade.space.Dict
        What is searched.
    seed : int
        The seed.

    Raises
    ------
    SpaceError
        If `space` is neither, or cannot be.
    """

    def __init__(self, space: Dict | Mapping[Any, Any], *, seed: int = 0) -> None:
        if not isinstance(space, (Dict, Mapping)):
            raise SpaceError(
                f"A searcher needs a space.Dict or a dict, but was given {space!r} ({type(space).__name__}). "
                f"Write for instance {Dict.usage}."
            )
        self.space = space if isinstance(space, Dict) else Dict(space)
        self.seed = seed

    @abstractmethod
    def suggest(self) -> dict[str, Any]:
        """Return the next configuration to try, one that it has not returned before.

        Returns
        -------
        dict
            A configuration in `space`, which the caller may change.

        Raises
        ------
        ExhaustedSearchSpaceError
            If none is left. The message says how many there were.
        """

    def observe(  # noqa: B027 (a searcher that learns nothing leaves it as it is)
        self, config: Mapping[str, Any], epoch: int, score: float, cost: float
    ) -> None:
        """Learn how a configuration did. This default learns nothing.

        Parameters
        ----------
        config
            The configuration. It need not come from this searcher: a run that is resumed, or one that starts
            from known results, observes those first.
        epoch
            Up to which epoch it has been trained, from 1.
        score
            What it reached there; larger is better.
        cost
            Seconds that its training has taken so far.
        """


def exhausted(num_configurations: int, what: str = "space") -> ExhaustedSearchSpaceError:
    """Return the error that says that all configurations of the space, or grid, have been proposed."""
    noun = "configuration" if num_configurations == 1 else "configurations"
    return ExhaustedSearchSpaceError(
        f"The search {what} has {num_configurations} {noun}, and no new one is left to propose. "
        "Ask for fewer trials, or widen it."
    )
