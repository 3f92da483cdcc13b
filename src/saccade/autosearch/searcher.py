"""The searcher that knows what to try: a learned portfolio first, corrected by all that the search has seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.autosearch.costs import EpochCosts
from saccade.autosearch.features import DatasetDescription, Description
from saccade.autosearch.forecast import AFTER_PROBES, EARLIEST, Forecaster
from saccade.autosearch.portfolio import EPOCHS, Portfolio
from saccade.autosearch.probe_scores import Probes
from saccade.autosearch.steps import HORIZONS, Item, Steps
from saccade.errors import ExhaustedSearchSpaceError, SpaceError
from saccade.searcher.base import Searcher, exhausted
from saccade.searcher.random_search import RandomSearcher
from saccade.space import Dict, canonical_key, encode, from_optuna
from saccade.space.constants import copied

POOL_SIZE = 256
"""How many configurations wait to be tried; more is slower and gains little."""

MAX_PAUSED = 64
"""How many paused trials are considered at a time: those that were last forecast to become best."""

NUM_OFFSPRING = 8
"""How many variations of the best configurations join the pool after as many new trials."""

PASSES, PASSES_OF_PRETRAINED = 3.5, 2.3
"""Forward passes that a step of training takes as long as: itself, backward, and the optimizer.

Of pretrained networks the first layers are not trained, in which most of backward would go.
"""

SPEED_WEIGHT = 0.25
"""How much of an observation the measured speed of the machine counts, where networks were timed as well: a first trial
tells better what all else takes."""


@dataclass(frozen=True)
class Advice:
    """The next step of a search.

    Attributes
    ----------
    key : hashable or None
        `canonical_key` of the paused configuration to go on with; None is a new one, which `suggest` will return.
    until_epoch : int
        How far to train it, as things stand; 0 is the probe that its training begins with.
    """

    key: Hashable | None
    until_epoch: int


class AutoSearcher(Searcher):
    """Proposes what promises most for each second, under the time that remains.

    A portfolio that was learned from recorded fine-tuning runs says what to expect of each configuration and what an
    epoch of it costs, so that the first trials are good ones already. A Gaussian process corrects those expectations by
    the scores that come in, and measured seconds the costs. The next step (a new configuration, or a paused one to go
    on with, and how far) is that with the highest expected improvement [1]_ over the best score so far, weighed by
    its cost against the time that remains. After the head start the pool of candidates is refilled with variations of
    what did best, so that the model takes over.

    Parameters
    ----------
    space, seed, starting_configs
        As in `Searcher`.
    describe : callable
        Says of a configuration what the portfolio knows configurations by: a `saccade.autosearch.features.Description`.
    data : DatasetDescription
        What is known of the images.
    portfolio : Portfolio or None
        None is the one that comes with the package.
    score_range : tuple of float
        The score of guessing, and the highest that there can be.
    forward_s : mapping
        Seconds that a forward pass of an image takes on this machine, by `Description.network`; costs of the networks
        that are in it follow from these, those of others from the portfolio alone.
    log_speed : float or None
        Natural logarithm of how many times as long an epoch takes on this machine as on that of the recordings; None
        is not known, and is learned from the first report on.
    is_for_mean : bool
        Whether the mean of several networks may be the result: see `saccade.autosearch.steps.Steps`.
    num_probed : float
        The most images that a probe looks at.

    References
    ----------
    .. [1] D. R. Jones, M. Schonlau and W. J. Welch, "Efficient global optimization of expensive black-box functions",
       Journal of Global Optimization 13, 1998.

    Examples
    --------
    >>> from saccade.autosearch.features import NetworkDescription
    >>> from saccade.space import Real
    >>> searcher = AutoSearcher(
    ...     {"lr": Real(1e-6, 1, log=True)},
    ...     describe=lambda config: Description(NetworkDescription(12e6, top1=0.75), config, num_epochs=5),
    ...     data=DatasetDescription(num_images=1000, num_classes=10),
    ... )
    >>> 1e-5 < searcher.suggest()["lr"] < 0.1
    True
    """

    def __init__(
        self,
        space: Dict | Mapping[Any, Any],
        *,
        seed: int = 0,
        starting_configs: Sequence[Mapping[Any, Any]] | None = None,
        describe: Callable[[dict[str, Any]], Description],
        data: DatasetDescription,
        portfolio: Portfolio | None = None,
        score_range: tuple[float, float] = (0.0, 1.0),
        log_speed: float | None = None,
        forward_s: Mapping[Any, float] | None = None,
        is_for_mean: bool = False,
        num_probed: float = math.inf,
    ) -> None:
        super().__init__(space, seed=seed, starting_configs=starting_configs)
        self.describe, self.data = describe, data
        self.portfolio = portfolio or Portfolio.load()
        self.score_range = score_range
        self.forecaster = Forecaster((EARLIEST, *HORIZONS))
        self.probes = Probes(HORIZONS)
        self.costs = EpochCosts(
            log_speed,
            prior_weight=SPEED_WEIGHT if forward_s else 1.0,
            probed_part=min(1.0, num_probed / max(data.num_images, 1)),
        )
        self.forward_s = forward_s or {}
        self.is_for_mean = is_for_mean
        self._log_speed = log_speed or 0.0
        self._source = RandomSearcher(self.space, seed=seed)
        self._rng = np.random.default_rng(seed)
        self._items: dict[Hashable, Item] = {}
        self._pool: dict[Hashable, Item] = {}
        self._known: dict[Hashable, Item] = {}  # all that were begun
        self._running: dict[Hashable, Item] = {}
        self._trained: set[Hashable] = set()
        self._chosen: Item | None = None
        self._start: Item | None = None
        self._best = 0.0
        self._num_begun = 0

    @property
    def num_epochs(self) -> int:
        """The epochs of a whole training: those that the space's default asks for."""
        return max(self.describe(copied(self.space.default)).num_epochs, 1)

    def suggest(self) -> dict[str, Any]:
        """Return the configuration that was last advised, or else the most promising new one."""
        item = self._chosen or self._next_start() or self._most_promising()
        self._chosen = None
        if item is None:
            raise exhausted(len(self._known))
        self._begin(item)
        config: dict[str, Any] = copied(item.config)
        return config

    def advise(
        self,
        paused: Collection[Hashable],
        seconds_left: float = math.inf,
        *,
        can_begin: bool = True,
        starts_first: bool = True,
    ) -> Advice | None:
        """Say what to train next.

        Parameters
        ----------
        paused
            The keys of the paused configurations that may go on.
        seconds_left
            Time left for training.
        can_begin
            Whether a new configuration may be begun.
        starts_first
            Whether starting configurations that are still to be begun come before all else.

        Returns
        -------
        Advice or None
            None when nothing would be ready in time.
        """
        self.seconds_left = seconds_left
        self._chosen = None
        if can_begin and starts_first and (start := self._next_start()) is not None:
            self._chosen = start
            start.target = float(self._horizon(start))
            return Advice(None, int(start.target))
        if can_begin:
            self._refill()
        waiting = [self._known[key] for key in paused if key in self._known]
        waiting = sorted(waiting, key=lambda item: -item.promise)[:MAX_PAUSED]
        found = self._best_step([*(self._pool.values() if can_begin else ()), *waiting])
        if found is None:
            return None
        item, until = found
        item.target = float(until)
        if item.key not in self._known:
            self._chosen = item
            return Advice(None, until)
        return Advice(item.key, until)

    def observe(self, config: Mapping[str, Any], epoch: int, score: float, cost: float) -> None:
        """Learn a score, and what it has cost."""
        item = self._item_of(config)
        item.epoch = max(item.epoch, epoch)
        item.best = max(item.best, self._normal(score))
        self._best = max(self._best, item.best)
        self.costs.observe(item.number, epoch, cost)
        if epoch == 0 and item.has_probe:
            more = self.probes.learn(item.network, item.best)
            for each in (*self._known.values(), *self._pool.values()):
                if each.network == item.network:
                    self.forecaster.expect_more(each.number, more)
        if epoch >= 1:
            # The probe's score stays the best where training only hurts, and would hide it.
            if item.has_probe:
                self._trained.add(item.network)
            item.trained = max(item.trained, self._normal(score)) if item.has_probe else item.best
        if epoch in HORIZONS or epoch == 0:
            is_rough = epoch == 1 and not item.has_probe
            self.forecaster.observe(item.number, epoch, item.best if epoch == 0 else item.trained, is_rough=is_rough)

    def on_end(self, config: Mapping[str, Any], *, has_failed: bool, is_complete: bool = False) -> None:
        """Learn that a configuration is not running any more."""
        item = self._item_of(config)
        item.is_running, item.has_ended = False, has_failed or is_complete
        self._running.pop(item.key, None)
        if has_failed:
            self.forecaster.observe(item.number, max(item.epoch, 1), max(item.best, 0.0))
        elif is_complete and item.epoch not in HORIZONS and item.trained > -math.inf:
            self.forecaster.observe(item.number, item.epoch, item.trained)

    def begin_again(self, key: Hashable, until_epoch: int) -> None:
        """Take note that a paused configuration runs again."""
        item = self._known[key]
        item.is_running, item.target = True, float(until_epoch)
        self._running[key] = item

    def pause(self, key: Hashable) -> None:
        """Take note that a configuration may be left, or go on."""
        self._known[key].is_running = False
        self._running.pop(key, None)

    def promise(self, key: Hashable) -> float:
        """Return what a configuration was worth when it was last considered; what never was comes first."""
        return self._known[key].promise if key in self._known else -math.inf

    def _begin(self, item: Item) -> None:
        if item is self._start:
            self._start = None
        self.is_new(item.config)
        self._pool.pop(item.key, None)
        self._known[item.key] = self._running[item.key] = item
        item.is_begun = item.is_running = True
        self.probes.begin(item.network)
        self._num_begun += 1

    def _item_of(self, config: Mapping[str, Any]) -> Item:
        """Return what is known of a configuration, which may come from elsewhere."""
        key = canonical_key(dict(config))
        item = self._known.get(key) or self._pool.pop(key, None)
        if item is None:
            (item,) = self._made([copied(dict(config))])
        if key not in self._known:
            self.is_new(item.config)
            self._source.observe(item.config, 1, 0.0, 0.0)
            self._known[key] = item
            item.is_begun = True
        return item

    def _next_start(self) -> Item | None:
        """Return the starting configuration whose turn it is, the same one until it is begun."""
        if self._start is None and (config := self.next_start()) is not None:
            self._source.observe(config, 1, 0.0, 0.0)
            self._start = self._pool.get(canonical_key(config)) or self._made([config])[0]
        return self._start

    def _most_promising(self) -> Item | None:
        self._refill()
        found = self._best_step(list(self._pool.values()))
        if found is None and self._pool:  # nothing is expected to be ready in time: that which is soonest
            items = list(self._pool.values())
            return items[int(np.argmin(self.costs.epoch_s([item.number for item in items])))]
        return None if found is None else found[0]

    def _refill(self) -> None:
        """Fill the pool: with whatever is new at first, and with variations of the best as trials come in."""
        configs = []
        if self._num_begun and self._num_begun % NUM_OFFSPRING == 0 and len(self._known) > 1:
            configs += self._offspring()
        wanted = POOL_SIZE if not self._num_begun else min(POOL_SIZE, len(self._pool) + NUM_OFFSPRING)
        if len(self._pool) < POOL_SIZE - NUM_OFFSPRING or not self._num_begun:
            try:
                while len(self._pool) + len(configs) < wanted:
                    configs.append(self._source.suggest())
            except ExhaustedSearchSpaceError:
                pass  # the pool holds all that is left
        fresh = [config for config in configs if canonical_key(config) not in self._known]
        self._pool.update({item.key: item for item in self._made(fresh)})

    def _offspring(self) -> list[dict[str, Any]]:
        """Return variations of the best configurations: each takes some parameters from a random one."""
        parents = sorted(self._known.values(), key=lambda item: -item.best)[:4]
        children = []
        for index in range(NUM_OFFSPRING):
            own = encode(self.space, parents[index % len(parents)].config)
            other = encode(self.space, self.space.sample(self._rng))
            mixed = {**other, **{name: value for name, value in own.items() if self._rng.random() < 0.75}}
            try:
                config = from_optuna(self.space, mixed)
            except SpaceError:  # of a branch that the two share nothing of
                continue
            if canonical_key(config) not in self._known and canonical_key(config) not in self._pool:
                children.append(config)
                self._source.observe(config, 1, 0.0, 0.0)
        return children

    def _made(self, configs: list[dict[str, Any]]) -> list[Item]:
        """Return items for configurations, with what the portfolio expects of them."""
        if not configs:
            return []
        described = [self.describe(copied(config)) for config in configs]
        scores = self.portfolio.predict_scores(described, self.data)
        at = np.log(HORIZONS)
        curves = np.stack([np.interp(at, np.log(EPOCHS), row) for row in scores])
        networks, have_probes = [each.network for each in described], [each.starts_with_probe for each in described]
        from_probe = self.probes.expect(networks, curves, [max(each.num_epochs, 1) for each in described])
        expected = np.where(np.array(have_probes)[:, None], from_probe, np.concatenate([curves[:, :1], curves], axis=1))
        if any(have_probes):
            self.forecaster.settings = AFTER_PROBES
        numbers = self.forecaster.add(self.portfolio.embed(described, self.data), expected)
        self.costs.add(self._log_epoch_s(described), networks, have_probes)
        return [
            Item(canonical_key(config), config, number, max(each.num_epochs, 1), each.network, each.starts_with_probe)
            for config, number, each in zip(configs, numbers, described, strict=True)
        ]

    def _log_epoch_s(self, described: Sequence[Description]) -> np.ndarray:
        """Return what an epoch is expected to cost where the runs were recorded, so that it costs here what it does."""
        predicted = self.portfolio.predict_log_epoch_s(described, self.data)
        kinds = [(each.network, each.starts_with_probe) for each in described]
        for network, is_pretrained in set(kinds):
            if network not in self.forward_s:
                continue
            of_network = np.array([each == (network, is_pretrained) for each in kinds])
            passes = PASSES_OF_PRETRAINED if is_pretrained else PASSES
            epoch_s = passes * self.forward_s[network] * self.data.num_images
            # Only the differences between recipes of one network are the portfolio's.
            predicted[of_network] += math.log(epoch_s) - self._log_speed - predicted[of_network].mean()
        return predicted

    def _best_step(self, items: list[Item]) -> tuple[Item, int] | None:
        """Return the most promising item and how far to train it; None when none would report in time."""
        known = self.forecaster, self.costs, self.probes, self._best, self._trained
        steps = Steps(*known, self.seconds_left, self.is_for_mean)
        return steps.most_promising(items, self._imagined())

    def _imagined(self) -> dict[int, tuple[float, float]]:
        """Return what running trials are assumed to reach: their forecast, so that others look elsewhere."""
        items = [item for item in self._running.values() if item.epoch < item.target]
        if not items:
            return {}
        curves = self.forecaster.forecast([item.number for item in items]).mean
        return {
            item.number: (item.target, float(np.interp(item.target, (EARLIEST, *HORIZONS), curve)))
            for item, curve in zip(items, curves, strict=True)
        }

    def _horizon(self, item: Item) -> int:
        found = self._best_step([item])
        return item.num_epochs if found is None else found[1]

    def _normal(self, score: float) -> float:
        low, high = self.score_range
        return min(max((score - low) / (high - low), -1.0), 1.5)
