"""Auto search: a learned portfolio and freeze-thaw scheduling, as one searcher and scheduler."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from saccade.autosearch.costs import EpochCosts
from saccade.autosearch.features import DatasetDescription, Description
from saccade.autosearch.forecast import AFTER_PROBES, EARLIEST, Forecaster
from saccade.autosearch.portfolio import EPOCHS, Portfolio
from saccade.autosearch.probes import Probes
from saccade.autosearch.steps import HORIZONS, Item, best_step
from saccade.errors import ExhaustedSearchSpaceError, HyperparameterError, SpaceError
from saccade.events import ENGINE_GAIN, EpochDone
from saccade.scheduler.asha import AutoScheduler
from saccade.scheduler.base import Scheduler, StudyState
from saccade.searcher.base import Searcher, exhausted
from saccade.searcher.sampling import RandomSearcher
from saccade.space import Dict, canonical_key, encode, from_optuna
from saccade.space.base import copied
from saccade.study.objectives import load
from saccade.study.trial import Decision, Job, Status, Trial

POOL_SIZE = 256  # configurations among which the next one is chosen; more take more time and gain little
MAX_CONSIDERED = 64  # paused trials considered for the next step: those with the largest last expected gain
MAX_PAUSED = 256  # with more paused trials, only the half with the largest expected gains can continue
NUM_OFFSPRING = 8  # variations of the best configurations that enter the pool after this many new trials

# Time of a training step in units of a forward pass: forward, backward, and the optimizer.
# The first layers of pretrained networks are frozen, which saves most of the backward pass.
PASSES, PASSES_OF_PRETRAINED = 3.5, 2.3

SPEED_WEIGHT = 0.25  # weight of the measured speed of the machine, in observations, where networks were timed as well
FASTEST = 3.0  # how many times as fast as `forward_s` a network may be in predictions: folded, in the fastest numerics
# Parts of the time that are spent on reconsidering running trials: before their targets, and, with several workers, at
# most at all. One process reconsiders for all of them.
RECONSIDERING_PART, MAX_RECONSIDERING_PART = 0.01, 0.2


@dataclass(frozen=True)
class Advice:
    """The next step of a search."""

    key: Hashable | None  # `canonical_key` of the paused configuration to continue; None is a new one, `suggest`'s next
    until_epoch: int  # to train it to, unless that is reconsidered; 0 is the linear probe that starts a training


class AutoSearch(Searcher, Scheduler):
    """Choose each step of a search by expected improvement per second; pass one instance as searcher and scheduler.

    A portfolio learned from recorded fine-tuning runs predicts the learning curve of each configuration, and the
    seconds of an epoch. A Gaussian process corrects these curves by the observed scores, and measured seconds correct
    the costs. The next step is a new configuration, or a paused trial to continue, and the epoch to train it to: the
    one with the highest expected improvement [1]_ over the best score, in relation to its cost and the remaining time.
    While a trial runs, this is reconsidered every few epochs, and the trial pauses when another step is better: this is
    freeze-thaw scheduling [2]_. After the first proposals, variations of the best configurations enter the pool.

    Without a time limit there is nothing to relate costs to. Then `saccade.scheduler.AutoScheduler` (successive
    halving) schedules the trials. As a searcher it works with any other scheduler, too.

    Parameters
    ----------
    space, seed, starting_configs
        As in `Searcher`.
    describe : callable
        Returns the `Description` of a configuration, from which the portfolio predicts.
    data : DatasetDescription
        The size of the training set.
    portfolio : Portfolio or None
        None is the one in the package.
    score_range : tuple of float
        The score of constant predictions, and the highest possible score.
    forward_s : mapping
        Seconds of a forward pass of an image on this machine, by `Description.network`. The costs of these networks
        follow from them, those of others from the portfolio alone.
    log_speed : float or None
        Natural logarithm of the duration of an epoch on this machine relative to the machine of the recordings; None
        estimates it from the first reports.
    is_for_mean : bool
        Whether an ensemble may be the result: see `saccade.autosearch.steps.best_step`.
    num_probed : float
        The most images that a linear probe is fitted to.
    screened : mapping
        Scores of linear probes on few images, by `Description.network`; see `saccade.training.trial.screening`.
    cached : collection
        Each `Description.network` whose features were cached by an earlier fit, so that its probe costs little.
    limits : mapping
        Limits of the predictor's costs by name, in milliseconds. Networks that exceed them are not tried further: by
        `forward_s`, or by the costs in their first report.
    max_epochs : int or None
        The most epochs of any configuration, for searches without a time limit; None is that of the
        space's default configuration.

    References
    ----------
    .. [1] D. R. Jones, M. Schonlau and W. J. Welch, "Efficient global optimization of expensive black-box functions",
       Journal of Global Optimization 13, 1998.
    .. [2] K. Swersky, J. Snoek and R. P. Adams, "Freeze-thaw Bayesian optimization", arXiv:1406.3896, 2014.

    Examples
    --------
    >>> from saccade.autosearch.features import NetworkDescription
    >>> from saccade.space import Real
    >>> search = AutoSearch(
    ...     {"lr": Real(1e-6, 1, log=True)},
    ...     describe=lambda config: Description(NetworkDescription(12e6, top1=0.75), config, num_epochs=5),
    ...     data=DatasetDescription(num_images=1000, num_classes=10),
    ... )
    >>> 1e-5 < search.suggest()["lr"] < 0.1
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
        screened: Mapping[Hashable, float] | None = None,
        cached: Collection[Hashable] = (),
        limits: Mapping[str, float] | None = None,
        max_epochs: int | None = None,
    ) -> None:
        super().__init__(space, seed=seed, starting_configs=starting_configs)
        self.describe, self.data = describe, data
        self.portfolio = portfolio or Portfolio.load()
        self.score_range = score_range
        self.forecaster = Forecaster((EARLIEST, *HORIZONS))
        low, high = score_range
        self.probes = Probes(HORIZONS, {key: (score - low) / (high - low) for key, score in (screened or {}).items()})
        self.costs = EpochCosts(
            log_speed,
            prior_weight=SPEED_WEIGHT if forward_s else 1.0,
            probed_part=min(1.0, num_probed / max(data.num_images, 1)),
            cached=cached,
        )
        self.forward_s, self.limits = forward_s or {}, limits or {}
        # The largest part of a limit that a network uses; a network may be faster in predictions than `forward_s`.
        least_ms = min(self.limits.values(), default=math.inf)
        self.loads = {network: 1000 * seconds / FASTEST / least_ms for network, seconds in self.forward_s.items()}
        self.is_for_mean, self.max_epochs = is_for_mean, max_epochs
        self._log_speed = log_speed or 0.0
        self._source = RandomSearcher(self.space, seed=seed)
        self._rng = np.random.default_rng(seed)
        self._pool: dict[Hashable, Item] = {}
        self._known: dict[Hashable, Item] = {}  # all that were started or observed
        self.running: dict[Hashable, Item] = {}
        self.trained: set[Hashable] = set()  # networks that were trained beyond their probes
        self._chosen: Item | None = None
        self._start: Item | None = None
        self.best = 0.0
        self._num_started = 0
        # As a scheduler:
        self._halving: Scheduler | None = None
        self._state: StudyState | None = None
        self._before: list[EpochDone | Trial] = []
        self._paused: dict[Hashable, Trial] = {}
        self._reconsidering_s = 0.0

    # The searcher: configurations and their expected scores and costs.

    def suggest(self) -> dict[str, Any]:
        """Return the configuration of the last advice, or else the new one with the largest expected gain."""
        item = self._chosen or self._next_start()
        self._chosen = None
        if item is None:
            self._refill()
            if not self._pool:
                raise exhausted(len(self._known))
            items = list(self._pool.values())
            found = best_step(self, items)
            # If none would report in time, the cheapest is as good as any.
            cheapest = items[int(np.argmin(self.costs.epoch_s([each.number for each in items])))]
            item = cheapest if found is None else found[0]
        if item is self._start:
            self._start = None
        self.is_new(item.config)
        self._pool.pop(item.key, None)
        self._known[item.key] = self.running[item.key] = item
        item.is_begun = True
        self.probes.begun.add(item.network)
        self._num_started += 1
        config: dict[str, Any] = copied(item.config)
        return config

    def on_begin(self, config: Mapping[str, Any]) -> None:
        """Note that a configuration is pending: it counts as if it had its forecast score, so that proposals differ."""
        item = self._item_of(config)
        self.running[item.key] = item

    def observe(self, config: Mapping[str, Any], epoch: int, score: float, cost: float) -> None:
        """Use a score and its cost for further forecasts."""
        item = self._item_of(config)
        low, high = self.score_range
        normal = min(max((score - low) / (high - low), -1.0), 1.5)
        item.epoch, item.best = max(item.epoch, epoch), max(item.best, normal)
        self.best = max(self.best, item.best)
        self.costs.observe(item.number, epoch, cost)
        if epoch == 0 and item.has_probe:
            shift = self.probes.observe(item.network, item.best)
            for each in (*self._known.values(), *self._pool.values()):
                if each.network == item.network:
                    self.forecaster.shift_expected(each.number, shift)
        if epoch >= 1:
            # The probe's score would stay the best where training makes it worse, and hide that.
            if item.has_probe:
                self.trained.add(item.network)
            item.trained = max(item.trained, normal) if item.has_probe else item.best
        if epoch in HORIZONS or epoch == 0:
            is_rough = epoch == 1 and not item.has_probe
            self.forecaster.observe(item.number, epoch, item.best if epoch == 0 else item.trained, is_rough=is_rough)

    def on_end(self, config: Mapping[str, Any], *, has_failed: bool, is_complete: bool = False) -> None:
        """Use the end of a training: a failure has a low score, a completed one keeps its last score."""
        item = self._item_of(config)
        self.running.pop(item.key, None)
        if has_failed:
            self.forecaster.observe(item.number, max(item.epoch, 1), max(item.best, 0.0))
        elif is_complete and item.epoch not in HORIZONS and item.trained > -math.inf:
            self.forecaster.observe(item.number, item.epoch, item.trained)

    def advise(
        self,
        paused: Collection[Hashable],
        seconds_left: float = math.inf,
        *,
        can_begin: bool = True,
        starts_first: bool = True,
    ) -> Advice | None:
        """Return the best next step, first a start if `starts_first`; without `can_begin` a paused one; or None."""
        self.seconds_left = seconds_left
        self._chosen = None
        if can_begin and starts_first and (start := self._next_start()) is not None:
            self._chosen = start
            found = best_step(self, [start])
            start.target = start.num_epochs if found is None else found[1]
            return Advice(None, start.target)
        if can_begin:
            self._refill()
        waiting = [self._known[key] for key in paused if key in self._known]
        waiting = sorted(waiting, key=lambda item: -item.expected_gain)[:MAX_CONSIDERED]
        found = best_step(self, [*(self._pool.values() if can_begin else ()), *waiting])
        if found is None:
            return None
        item, until = found
        item.target = until
        if item.key not in self._known:
            self._chosen = item
            return Advice(None, item.target)
        return Advice(item.key, item.target)

    def _item_of(self, config: Mapping[str, Any]) -> Item:
        """Return the item of a configuration, which may come from elsewhere."""
        key = canonical_key(dict(config))
        item = self._known.get(key) or self._pool.pop(key, None)
        if item is None:
            (item,) = self._items([copied(dict(config))])
        if key not in self._known:
            self.is_new(item.config)
            self._source.observe(item.config, 1, 0.0, 0.0)
            self._known[key] = item
            item.is_begun = True
        return item

    def _next_start(self) -> Item | None:
        """Return the next starting configuration, the same one until it is started."""
        if self._start is None and (config := self.next_start()) is not None:
            self._source.observe(config, 1, 0.0, 0.0)
            self._start = self._pool.get(canonical_key(config)) or self._items([config])[0]
        return self._start

    def _refill(self) -> None:
        """Fill the pool, with random configurations and with variations of the best."""
        configs: list[dict[str, Any]] = []
        if self._num_started and self._num_started % NUM_OFFSPRING == 0 and len(self._known) > 1:
            # Variations: each takes some parameters of one of the best configurations from a random one.
            parents = sorted(self._known.values(), key=lambda item: -item.best)[:4]
            for index in range(NUM_OFFSPRING):
                own = encode(self.space, parents[index % len(parents)].config)
                other = encode(self.space, self.space.sample(self._rng))
                mixed = {**other, **{name: value for name, value in own.items() if self._rng.random() < 0.75}}
                try:
                    config = from_optuna(self.space, mixed)
                except SpaceError:  # the two have different branches of a nested space
                    continue
                if canonical_key(config) not in self._known and canonical_key(config) not in self._pool:
                    configs.append(config)
                    self._source.observe(config, 1, 0.0, 0.0)
        size = POOL_SIZE if not self._num_started else min(POOL_SIZE, len(self._pool) + NUM_OFFSPRING)
        if len(self._pool) < POOL_SIZE - NUM_OFFSPRING or not self._num_started:
            try:
                while len(self._pool) + len(configs) < size:
                    configs.append(self._source.suggest())
            except ExhaustedSearchSpaceError:
                pass  # the pool holds all that is left
        fresh = [config for config in configs if canonical_key(config) not in self._known]
        self._pool.update({item.key: item for item in self._items(fresh)})

    def _items(self, configs: list[dict[str, Any]]) -> list[Item]:
        """Return items for configurations, with the scores and costs that the portfolio predicts."""
        if not configs:
            return []
        described = [self.describe(copied(config)) for config in configs]
        num_epochs = [max(each.num_epochs, 1) for each in described]
        networks, have_probes = [each.network for each in described], [each.starts_with_probe for each in described]
        scores = self.portfolio.predict_scores(described, self.data)
        curves = np.stack([np.interp(np.log(HORIZONS), np.log(EPOCHS), row) for row in scores])
        from_probe = self.probes.expected_curves(networks, curves, num_epochs)
        expected = np.where(np.array(have_probes)[:, None], from_probe, np.concatenate([curves[:, :1], curves], axis=1))
        if any(have_probes):
            self.forecaster.settings = AFTER_PROBES
        numbers = self.forecaster.add(self.portfolio.embed(described, self.data), expected)
        log_epoch_s = self.portfolio.predict_log_epoch_s(described, self.data)
        kinds = list(zip(networks, have_probes, strict=True))
        for network, is_pretrained in set(kinds):
            if network in self.forward_s:
                is_kind = np.array([each == (network, is_pretrained) for each in kinds])
                passes = PASSES_OF_PRETRAINED if is_pretrained else PASSES
                epoch_s = passes * self.forward_s[network] * self.data.num_images
                # The mean is measured; the portfolio predicts the differences between recipes of one network.
                log_epoch_s[is_kind] += math.log(epoch_s) - self._log_speed - log_epoch_s[is_kind].mean()
        self.costs.add(log_epoch_s, networks, have_probes)
        return [
            Item(canonical_key(config), config, number, epochs, network, has_probe)
            for config, number, epochs, network, has_probe in zip(
                configs, numbers, num_epochs, networks, have_probes, strict=True
            )
        ]

    # The scheduler: which trial runs, and for how long.

    def on_start(self, state: StudyState) -> None:
        """Read the paused trials of a resumed run; without a time limit, set up successive halving."""
        self._state = state
        self._paused = {canonical_key(trial.config): trial for trial in state.trials if trial.status is Status.PAUSED}
        if math.isinf(state.seconds_left):
            # Without a limit, the epochs are those of the space's default configuration.
            num_epochs = self.max_epochs or max(self.describe(copied(self.space.default)).num_epochs, 1)
            self._halving = AutoScheduler(num_epochs)
            for each in self._before:
                if isinstance(each, EpochDone):
                    self._halving.on_report(each)
                else:
                    self._halving.on_job_end(each)
            self._halving.on_start(state)
        self._before.clear()

    def next_job(self, state: StudyState) -> Job | None:
        """Return the job with the best next step."""
        self._state = state
        if self._halving is not None:
            job = self._halving.next_job(state)
            if job is not None and job.checkpoint is not None:
                trial = state.trials[job.trial]
                self._item_of(trial.config).target = trial.num_epochs + 1
            return job
        if len(self._paused) > MAX_PAUSED:
            gains = {key: self._known[key].expected_gain if key in self._known else -math.inf for key in self._paused}
            kept = sorted(self._paused, key=lambda key: -gains[key])[: MAX_PAUSED // 2]
            self._paused = {key: self._paused[key] for key in kept}
        can_begin = True
        late: set[Hashable] = set()
        while True:
            paused = [key for key in self._paused if key not in late]
            advice = self._timed_advice(paused, state, can_begin=can_begin)
            if advice is None:
                # The first trial is started however short the time is, so that there is a result.
                first = state.new_trial() if can_begin and not state.trials else None
                return None if first is None else Job(first.number, first.config)
            if advice.key is None:
                new = state.new_trial()
                if new is None:  # no more trials are allowed, or there is no time for one
                    can_begin = False
                    continue
                trial = new
                if canonical_key(trial.config) not in self._known:
                    raise HyperparameterError(
                        "AutoSearch schedules its own suggestions only. Pass the same instance as searcher and as "
                        'scheduler, or scheduler="auto"'
                    )
            else:
                trial = self._paused[advice.key]
                if not state.has_time_for(trial):
                    late.add(advice.key)
                    continue
                del self._paused[advice.key]
            self._known[canonical_key(trial.config)].unconsidered_s = 0.0
            checkpoint = trial.reports[-1].checkpoint if trial.reports else None
            return Job(trial.number, trial.config, checkpoint=checkpoint)

    def on_report(self, report: EpochDone) -> Decision:
        """Pause the trial if another step is better."""
        if self._halving is not None:
            return self._halving.on_report(report)
        state = self._state
        if state is None:
            self._before.append(report)
            return Decision.CONTINUE
        item = self._item_of(state.trials[report.trial].config)
        if gain := report.metrics.get(ENGINE_GAIN):
            self.costs.observe_gain(item.number, gain)
        item.unconsidered_s += report.seconds
        if self.limits:
            self.loads[item.network] = load(report.metrics, self.limits)
        share_s = item.unconsidered_s / max(state.num_workers, 1)
        is_affordable = state.num_workers <= 1 or share_s * MAX_RECONSIDERING_PART >= self._reconsidering_s
        is_due = report.epoch >= item.target and is_affordable
        is_cheap = share_s * RECONSIDERING_PART >= self._reconsidering_s
        # Epoch 0 is not a horizon: starting a training whose probe is known changes no forecast.
        if report.is_last or report.checkpoint is None or not (is_due or (is_cheap and report.epoch in HORIZONS)):
            return Decision.CONTINUE
        self.running.pop(item.key, None)
        advice = self._timed_advice([*self._paused, item.key], state, starts_first=False)
        item.unconsidered_s = 0.0
        if advice is not None and advice.key != item.key:
            return Decision.PAUSE
        # Without advice no step would report in time; the trial itself decides what it can still do.
        self.running[item.key] = item
        if advice is None:
            item.target = report.epoch + 1
        return Decision.CONTINUE

    def on_job_end(self, trial: Trial) -> None:
        """Keep the paused trials."""
        if self._halving is not None:
            self._halving.on_job_end(trial)
            return
        if self._state is None:
            self._before.append(replace(trial))  # with its current status
        key = canonical_key(trial.config)
        self._paused.pop(key, None)
        if trial.status is Status.PAUSED:
            self._paused[key] = trial

    def _timed_advice(self, paused: Collection[Hashable], state: StudyState, **how: bool) -> Advice | None:
        start_s = time.perf_counter()
        if state.reference_speed is not None:
            self.costs.set_log_speed(-math.log(state.reference_speed))
        advice = self.advise(paused, state.seconds_left, **how)
        self._reconsidering_s = time.perf_counter() - start_s
        return advice


AutoSearcher = AutoSearch
"""The name of `AutoSearch` as a searcher."""
