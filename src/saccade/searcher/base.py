"""Base class of searchers, and the check of starting configurations."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from saccade.errors import ExhaustedSearchSpaceError, SpaceError, UnknownNameError, count_of, near_names
from saccade.space import Categorical, Dict, List, Space, canonical_key, encode, from_optuna
from saccade.space.base import Constant, copied


class Searcher(ABC):
    """Suggests configurations, and may use their scores for that.

    It does not depend on images, clocks or workers. An invalid space or starting configuration raises a SpaceError, an
    unknown name in it an UnknownNameError.

    Parameters
    ----------
    space
        A `saccade.space.Dict`, or a mapping of names to spaces and constants, which each configuration contains.
    seed
        Seed of all random choices: the same seed and the same observations give the same suggestions.
    starting_configs
        Configurations to suggest first, in this order, before any of its own (``points_to_evaluate`` in Ray Tune,
        ``enqueue_trial`` in Optuna). Missing values have the default of the space. Repeated ones, and those that are
        observed before, are skipped.

    Notes
    -----
    To offer `starting_configs`, pass the argument to ``super().__init__`` and call `next_start` first in `suggest`.
    `is_new` helps to suggest nothing twice. Test a new searcher with `saccade.testing.SearcherContract`. One that is
    registered by name (entry point group ``saccade.searchers``) is created with the keywords ``space`` and ``seed``;
    the user's ``searcher_options`` are its other parameters.
    """

    seconds_left: float = math.inf
    """Time left for training, set by the study before each `suggest`; inf without a limit."""

    def __init__(
        self,
        space: Dict | Mapping[Any, Any],
        *,
        seed: int = 0,
        starting_configs: Sequence[Mapping[Any, Any]] | None = None,
    ) -> None:
        self.space = space if isinstance(space, Dict) else Dict(space)
        self.seed = seed
        self._starts: Iterator[dict[Any, Any]] = iter(completed_configs(self.space, starting_configs))
        self._seen: set[Hashable] = set()

    @abstractmethod
    def suggest(self) -> dict[str, Any]:
        """Return the next configuration in `space`, one that it has not returned before; the caller may change it.

        Raises
        ------
        ExhaustedSearchSpaceError
            If none is left. The message has their number.
        """

    def on_begin(self, config: Mapping[str, Any]) -> None:
        """Receive the start of a job of a configuration, which is pending until `on_end`. The default marks it as seen.

        The study calls this after `suggest`, when a paused trial continues, and for all earlier starts when a search is
        resumed. So the configuration need not come from this searcher, and may be pending already. A searcher with a
        model uses pending configurations so that simultaneous proposals differ.
        """
        self.is_new(config)

    def observe(  # noqa: B027 (a searcher without a model needs no scores)
        self, config: Mapping[str, Any], epoch: int, score: float, cost: float
    ) -> None:
        """Receive the score (larger is better) of a configuration after `epoch` epochs, from 1. The default ignores it.

        The configuration need not come from this searcher: a resumed run, or one that starts from known results,
        observes those first. `cost` is the seconds of training so far; where nodes differ in speed, as they would be on
        one of them.
        """

    def on_end(self, config: Mapping[str, Any], *, has_failed: bool, is_complete: bool = False) -> None:  # noqa: ARG002
        """Receive the end of a job of a configuration. The default marks it as seen.

        The configuration need not come from this searcher, and may run again if its trial was paused. If the trial
        `has_failed`, it has no further scores. If it `is_complete`, it was trained to its own last epoch. Then its last
        score is final, also in comparisons with configurations that have more epochs. A paused or stopped one might
        have continued.
        """
        self.is_new(config)

    def next_start(self) -> dict[Any, Any] | None:
        """Return the next starting configuration that is new, and mark it as seen; None if there is none."""
        return next((config for config in self._starts if self.is_new(config)), None)

    def is_new(self, config: Mapping[Any, Any]) -> bool:
        """Return whether the configuration is seen for the first time, and mark it as seen."""
        num_seen = len(self._seen)
        self._seen.add(canonical_key(dict(config)))
        return len(self._seen) > num_seen


def exhausted(num_configurations: int, what: str = "space") -> ExhaustedSearchSpaceError:
    """Return the error for a space or grid whose configurations have all been suggested."""
    num = count_of(num_configurations, "configuration")
    return ExhaustedSearchSpaceError(
        f"The search {what} has {num}, and no new one is left to propose. Ask for fewer trials, or widen it."
    )


def completed_configs(space: Dict, given: Sequence[Mapping[Any, Any]] | None) -> list[dict[Any, Any]]:
    """Return complete configurations of the space for given ones: missing values have the default of the space.

    In a `Categorical` of spaces, the first branch that fits completes it. Numbers have the types of the space.
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
    """Return `given`, completed with the defaults of the space."""
    if isinstance(space, Dict):
        if not isinstance(given, Mapping):
            raise SpaceError(
                f"{place} is {given!r} ({type(given).__name__}); it must be a dict of values in {space!r}."
            )
        for key in given:
            if key not in space.keys():  # noqa: SIM118 (`in space` asks for a configuration)
                raise UnknownNameError.of("hyperparameter", key, map(str, space.keys()), f"It stands in {place}.")
        return {
            key: _completed(part, given[key], f"{place}[{key!r}]") if key in given else part.default
            for key, part in space.children()
        }
    if isinstance(space, List) and isinstance(given, (list, tuple)) and len(given) == len(space):
        pairs = zip(space.children(), given, strict=True)
        return [_completed(part, value, f"{place}[{key}]") for (key, part), value in pairs]
    if given in space:
        return copied(given)
    advice = ""
    if isinstance(space, Categorical):
        fitting = [member for member in space.members if _is_branch_of(member, given)]
        for member in fitting[:-1]:
            with contextlib.suppress(SpaceError, UnknownNameError):
                return _completed(member, given, place)
        if fitting:
            return _completed(fitting[-1], given, place)
        choices = [choice for choice in space.data if isinstance(choice, str)]
        near = near_names(given, choices, num=1) if isinstance(given, str) else []
        advice = f" Did you mean {near[0]!r}?" if near else ""
    wrong = f"but the space fixes it at {space!r}" if isinstance(space, Constant) else f"which is not in {space!r}"
    raise SpaceError(f"{place} is {given!r}, {wrong}.{advice}")


def _is_branch_of(member: Space, given: Any) -> bool:
    """Return whether a choice has the same form and the same constants as `given`."""
    if isinstance(member, Dict) and isinstance(given, Mapping):
        constants = {key: part for key, part in member.children() if isinstance(part, Constant)}
        return all(given[key] in part for key, part in constants.items() if key in given)
    if isinstance(member, List) and isinstance(given, (list, tuple)):
        return len(member) == len(given)
    return isinstance(member, Categorical)
