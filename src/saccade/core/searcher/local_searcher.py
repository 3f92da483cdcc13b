"""Searchers of the API that Saccade revives, which keep the reward of each configuration.

They are `Searcher` classes as well, so a study accepts them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping
from fractions import Fraction
from typing import Any

from saccade.checks import whole_number
from saccade.errors import SpaceError, suggestion
from saccade.searcher.base import Searcher
from saccade.searcher.sampling import GridSearcher, RandomSearcher
from saccade.space import Bool, Categorical, Dict, Int, Real, canonical_key, parameters
from saccade.space.base import Constant, copied, plain
from saccade.space.flat_form import child_name

_log = logging.getLogger(__name__)


class LocalSearcher(Searcher):
    """Keeps the reward of each configuration; subclasses override `get_config`.

    Two configurations are the same if their parameters are; values of the constants of the space are ignored.

    Parameters
    ----------
    search_space
        A `saccade.space.Dict`, or a mapping of names to spaces and constants.
    reward_attr
        The keyword of `update` that holds the reward.
    random_seed
        Seed of all random choices.

    Examples
    --------
    >>> from saccade.space import Real
    >>> searcher = LocalSearcher({"lr": Real(0.01, 1), "epochs": 5})
    >>> searcher.update({"lr": 0.1, "epochs": 5}, reward=0.7)
    >>> searcher.update({"lr": 0.5, "epochs": 5}, reward=0.4)
    >>> searcher.get_best_config(), searcher.get_best_reward()
    ({'lr': 0.1, 'epochs': 5}, 0.7)
    """

    _proposer: Searcher | None = None

    def __init__(
        self, search_space: Dict | Mapping[Any, Any], reward_attr: str = "reward", *, random_seed: int = 0
    ) -> None:
        super().__init__(search_space, seed=random_seed)
        self.search_space = search_space
        self.reward_attr = reward_attr
        self._results: dict[Hashable, float] = {}
        self._configs: dict[Hashable, dict[Any, Any]] = {}
        self._begun: set[Hashable] = set()

    def get_config(self) -> dict[Any, Any]:
        """Return the next configuration to try, which is new; else raise an ExhaustedSearchSpaceError."""
        if self._proposer is None:
            raise NotImplementedError(f"{type(self).__name__} does not override get_config()")
        return self._proposer.suggest()

    def update(self, config: Mapping[Any, Any], **metrics: Any) -> None:
        """Record the reward of a configuration, which need not come from this searcher; it replaces an earlier one.

        The reward is the keyword `reward_attr`; a single metric is the reward under any name. Raises a SpaceError if
        the configuration is not in the space, or the reward is missing or not a number.
        """
        key = self._pickle_config(config)
        if self.reward_attr in metrics:
            reward = metrics[self.reward_attr]
        elif len(metrics) == 1:
            (reward,) = metrics.values()
        else:
            raise SpaceError(f"The reward {self.reward_attr!r} is not among {sorted(metrics)}. Give it as a keyword.")
        number: Any = plain(reward)
        if not isinstance(number, (int, float)) or math.isnan(number):
            raise SpaceError(f"The reward is {reward!r} ({type(reward).__name__}); it must be a number, and not NaN.")
        self._record(key, number)

    def register_pending(self, config: Mapping[Any, Any]) -> None:
        """Note that a configuration is running, so that it is not proposed."""
        self._note(self._pickle_config(config))

    def evaluation_failed(self, config: Mapping[Any, Any]) -> None:
        """Forget the reward of a configuration, because its trial failed."""
        self._results.pop(self._pickle_config(config), None)

    def get_reward(self, config: Mapping[Any, Any]) -> float:
        """Return the reward of a configuration; -inf if it has none."""
        return self._results.get(self._pickle_config(config), -math.inf)

    def get_best_reward(self) -> float:
        """Return the highest reward; -inf if there is none."""
        return max(self._results.values(), default=-math.inf)

    def get_best_config(self) -> dict[Any, Any]:
        """Return the configuration with the highest reward, the earliest among equals; {} if none has a reward."""
        if self.get_best_reward() == -math.inf:
            return {}
        return self.get_results()[0][0]

    def get_results(self, sort: bool = True) -> list[tuple[dict[Any, Any], float]]:
        """Return the recorded configurations with their rewards, the highest first; unsorted, the earliest first."""
        results = [(self._unpickle_config(key), reward) for key, reward in self._results.items()]
        return sorted(results, key=lambda result: result[1], reverse=True) if sort else results

    def suggest(self) -> dict[str, Any]:
        """Return the result of `get_config`."""
        return self.get_config()

    def on_begin(self, config: Mapping[str, Any]) -> None:
        """Register a configuration once, whose jobs may be several."""
        key = self._pickle_config(config)
        if key not in self._begun:
            self._begun.add(key)
            self.register_pending(config)

    def observe(self, config: Mapping[str, Any], epoch: int, score: float, cost: float) -> None:  # noqa: ARG002
        """Record the score as the reward, unless an earlier epoch has a higher one."""
        self.update(config, **{self.reward_attr: max(score, self.get_reward(config))})

    def on_end(self, config: Mapping[str, Any], *, has_failed: bool, is_complete: bool = False) -> None:  # noqa: ARG002
        """Note that the configuration was tried, so that it is not proposed."""
        self._note(self._pickle_config(config))

    def _record(self, key: Hashable, reward: float) -> None:
        self._results[key] = reward
        self._note(key)

    def _note(self, key: Hashable) -> None:
        if self._proposer is not None:
            self._proposer.observe(self._configs[key], 1, self._results.get(key, -math.inf), 0.0)

    def _pickle_config(self, config: Mapping[Any, Any]) -> Hashable:
        """Return a key that equal configurations share. The name is kept for subclasses; nothing is pickled."""
        own = self._checked(config)
        key = canonical_key({name: own[name] for name, part in self.space.children() if not isinstance(part, Constant)})
        self._configs.setdefault(key, own)
        return key

    def _unpickle_config(self, key: Hashable) -> dict[Any, Any]:
        """Return the configuration of a key of `_pickle_config`."""
        config: dict[Any, Any] = copied(self._configs[key])
        return config

    def _checked(self, config: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return a copy of the configuration with the constants of the space."""
        if not isinstance(config, Mapping) or config.keys() != self.space.keys():
            raise SpaceError(f"{config!r} is not a configuration; expected a dict with the keys {list(self.space)!r}.")
        own = {}
        for name, part in self.space.children():
            value = part.default if isinstance(part, Constant) else plain(config[name])
            if isinstance(part, Bool) and isinstance(value, int) and value in (0, 1):
                value = bool(value)  # as in the API that Saccade revives
            if value not in part:
                raise SpaceError(f"{name!r} is {value!r} in the configuration, which is not in {part!r}.")
            own[name] = copied(value)
        return own


class LocalRandomSearcher(LocalSearcher):
    """Random search that keeps the rewards; see `RandomSearcher` for how it draws.

    A configuration is recorded when it is proposed, with -inf until it has a reward.

    Parameters
    ----------
    search_space, reward_attr
        As in `LocalSearcher`.
    first_is_default
        Propose the defaults of the space first.
    random_seed
        Seed of the draws.

    Examples
    --------
    >>> from saccade.space import Categorical
    >>> searcher = LocalRandomSearcher({"model": Categorical("small", "large")})
    >>> config = searcher.get_config()
    >>> config, searcher.get_reward(config)
    ({'model': 'small'}, -inf)
    """

    def __init__(
        self,
        search_space: Dict | Mapping[Any, Any],
        first_is_default: bool = True,
        random_seed: int = 0,
        *,
        reward_attr: str = "reward",
    ) -> None:
        super().__init__(search_space, reward_attr, random_seed=random_seed)
        self._proposer = RandomSearcher(self.space, seed=random_seed, first_is_default=first_is_default)

    def get_config(self) -> dict[Any, Any]:
        """Return the next configuration to try, and record it."""
        config = super().get_config()
        self.register_pending(config)
        return config

    def register_pending(self, config: Mapping[Any, Any]) -> None:
        """Record a configuration, so that it is not proposed; its reward is -inf unless it has one."""
        key = self._pickle_config(config)
        self._record(key, self._results.get(key, -math.inf))

    def evaluation_failed(self, config: Mapping[Any, Any]) -> None:
        """Set the reward of a configuration to -inf, because its trial failed."""
        self._record(self._pickle_config(config), -math.inf)


class LocalGridSearcher(LocalSearcher):
    """Grid search that keeps the rewards; see `GridSearcher` for the order.

    An invalid number of points raises a HyperparameterError.

    Parameters
    ----------
    search_space, reward_attr
        As in `LocalSearcher`.
    grid_numeric_spaces_points_number
        Number of points of each `Real` and `Int`, at least 1: both bounds, and evenly spaced points between them
        (log-evenly with ``log``), which an `Int` truncates. An `Int` with fewer values has all of them.
    grid_num_sample_settings
        The same for single parameters by name. Names that are no `Real` or `Int` of the space are ignored, and logged.

    Examples
    --------
    >>> from saccade.space import Int, Real
    >>> searcher = LocalGridSearcher({"lr": Real(0, 1), "depth": Int(12, 15)}, 2, {"depth": 3})
    >>> [tuple(searcher.get_config().values()) for _ in range(4)]
    [(0.0, 12), (0.0, 13), (0.0, 15), (1.0, 12)]
    """

    def __init__(
        self,
        search_space: Dict | Mapping[Any, Any],
        grid_numeric_spaces_points_number: int = 4,
        grid_num_sample_settings: Mapping[Any, int] | None = None,
        *,
        reward_attr: str = "reward",
    ) -> None:
        super().__init__(search_space, reward_attr)
        whole_number("grid_numeric_spaces_points_number", grid_numeric_spaces_points_number)
        numeric = [name for name, part in parameters(self.space).items() if isinstance(part, (Real, Int))]
        by_name = {}
        for given, num_points in (grid_num_sample_settings or {}).items():
            name = child_name(None, given) if given in self.space.keys() else given  # noqa: SIM118 (a key, not a config)
            whole_number(f"grid_num_sample_settings[{given!r}]", num_points)
            if name in numeric:
                by_name[name] = num_points
            else:  # as in the API that Saccade revives, whose scripts share settings among spaces
                advice = suggestion(str(given), numeric)
                _log.warning(
                    "grid_num_sample_settings: the space has no number %r, which is ignored. %s", given, advice
                )
        parts: dict[Any, Any] = {}
        for key, part in self.space.children():
            parts[key] = part
            if isinstance(part, (Real, Int)):
                num_points = by_name.pop(child_name(None, key), grid_numeric_spaces_points_number)
                parts[key] = Categorical(*_points(part, num_points))
        self._proposer = GridSearcher(parts, num_points=grid_numeric_spaces_points_number, num_points_by_name=by_name)


def _points(domain: Real | Int, num: int) -> list[float]:
    """Return the points of a grid over one number."""
    if domain.log or num == 1 or num >= domain.num_configurations:
        return list(domain.grid(num))
    # Fractions, because a float slightly below a whole number would be truncated to the next lower one.
    low, high = Fraction(domain.lower), Fraction(domain.upper)
    points = (low + (high - low) * step / (num - 1) for step in range(num))
    return list(dict.fromkeys(int(point) if isinstance(domain, Int) else float(point) for point in points))
