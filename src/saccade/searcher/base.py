"""The seam for searchers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from saccade.errors import ExhaustedSearchSpaceError, SpaceError
from saccade.searcher.starting_configs import completed_configs
from saccade.space import Dict, canonical_key


class Searcher(ABC):
    """Proposes configurations, and may learn from how they did.

    It does not depend on images, clocks or workers.

    Parameters
    ----------
    space
        A `saccade.space.Dict`, or a mapping of names to spaces and constants. Constants come back unchanged
        in each configuration.
    seed
        Seed of all random choices: the same seed and the same observations give the same suggestions.
    starting_configs
        Configurations to suggest first, in this order, before any of its own (``points_to_evaluate`` in Ray Tune,
        ``enqueue_trial`` in Optuna). What they leave out has the default of the space. Repeats, and those that are
        observed before their turn, are left out.

    Attributes
    ----------
    space : saccade.space.Dict
        What is searched.
    seed : int
        The seed.
    seconds_left : float
        Time left for training, which the study says before it asks; inf without a limit.

    Raises
    ------
    SpaceError
        If `space` is neither, or cannot be; or if a starting configuration is not in it.
    UnknownNameError
        If a starting configuration has a name that the space does not have.

    Notes
    -----
    To offer `starting_configs`, pass the argument to ``super().__init__`` and call `next_start` first in `suggest`.
    `is_new` helps to suggest nothing twice. Test a new searcher with `saccade.testing.SearcherContract`. One that is
    registered by name (entry point group ``saccade.searchers``) is created with the keywords ``space`` and ``seed``;
    the user's ``searcher_options`` are its other parameters.
    """

    seconds_left: float = math.inf

    def __init__(
        self,
        space: Dict | Mapping[Any, Any],
        *,
        seed: int = 0,
        starting_configs: Sequence[Mapping[Any, Any]] | None = None,
    ) -> None:
        if not isinstance(space, (Dict, Mapping)):
            raise SpaceError(
                f"A searcher needs a space.Dict or a dict, but was given {space!r} ({type(space).__name__}). "
                f"Write for instance {Dict.usage}."
            )
        self.space = space if isinstance(space, Dict) else Dict(space)
        self.seed = seed
        self._starts: Iterator[dict[Any, Any]] = iter(completed_configs(self.space, starting_configs))
        self._seen: set[Hashable] = set()

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

    def on_end(self, config: Mapping[str, Any], *, has_failed: bool, is_complete: bool = False) -> None:  # noqa: ARG002
        """Learn that a configuration is not running any more. This default learns only that it was tried.

        Parameters
        ----------
        config
            The configuration, which need not come from this searcher. It may run again later, when its trial was
            paused.
        has_failed
            Whether its trial failed, so that it will have no (further) score.
        is_complete
            Whether it was trained to its own last epoch, so that its last score is the one that it keeps, also beside
            those of configurations with more epochs. A paused or stopped one might have gone on.
        """
        self.is_new(config)

    def next_start(self) -> dict[Any, Any] | None:
        """Return the next of the starting configurations that is new, and take note of it; None when there is none."""
        return next((config for config in self._starts if self.is_new(config)), None)

    def is_new(self, config: Mapping[Any, Any]) -> bool:
        """Return whether the configuration is seen for the first time, and mark it as seen."""
        num_seen = len(self._seen)
        self._seen.add(canonical_key(dict(config)))
        return len(self._seen) > num_seen


def exhausted(num_configurations: int, what: str = "space") -> ExhaustedSearchSpaceError:
    """Return the error that says that all configurations of the space, or grid, have been proposed."""
    noun = "configuration" if num_configurations == 1 else "configurations"
    return ExhaustedSearchSpaceError(
        f"The search {what} has {num_configurations} {noun}, and no new one is left to propose. "
        "Ask for fewer trials, or widen it."
    )
