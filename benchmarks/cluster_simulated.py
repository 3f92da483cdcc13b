"""Recorded learning curves at 1 to 512 simulated workers of unequal speed.

    python -m benchmarks.cluster simulated --curves DIR [--workers 1 8 64 512] [--datasets NAME ...] [--seeds 1]

Every method runs in Saccade's study on one simulated clock. A recorded configuration may be trained any number of
times, each with a little luck of its own, so that 512 workers do not run out of configurations. Methods:

- auto: Saccade's auto search, with a portfolio that was learned from other data sets
- auto, unaware: the same, blind to its running trials (only with ``--methods``)
- random + asha: random proposals and Saccade's promotion ASHA
- Ray Tune's ASHA: random proposals and Ray's own ``AsyncHyperBandScheduler``, which stops trials permanently
- Optuna random: Optuna's ``RandomSampler``, whole trainings, as on shared Dask workers

The first table has the simulated time to a regret of .05, and its speed-up over one worker. No search is faster than
the shortest training that reaches the target, on the fastest worker: that bounds the speed-up of a search which needs
few trainings. The second table has the utilisation of searches that use all of their time while workers join and leave,
and the time of the coordinating process for a report beside the interval between two reports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.curves import Curve, Curves, CurvesDataset
from benchmarks.search_regret import learned_in_folds
from saccade.autosearch.portfolio import Portfolio
from saccade.autosearch.search import AutoSearch
from saccade.autosearch.steps import Item
from saccade.deadline import Deadline
from saccade.errors import SearchFailedError
from saccade.events import EpochDone, Event
from saccade.scheduler import ASHAScheduler, FIFOScheduler
from saccade.scheduler.base import Scheduler, StudyState
from saccade.searcher import RandomSearcher
from saccade.searcher.base import Searcher
from saccade.space import Categorical, Dict, Int
from saccade.study.study import Study
from saccade.study.trial import Decision, Job
from saccade.testing import SimulatedExecutor, SimulatedWorker

HOUR_S = 3600.0
REGRET = 0.05
MAX_EPOCHS = 50
SPEED_SPREAD = 0.35  # standard deviation of the logarithm of a worker's speed; the mean speed is 1
REPLICA_SD = 0.005  # of the accuracy of a configuration that is trained again with another seed
NUM_REPLICAS = 10**6


@dataclass(frozen=True)
class Problem:
    """One data set whose recorded configurations can be trained any number of times, each a little different."""

    curves: Curves
    dataset: CurvesDataset
    portfolio: Portfolio
    seed: int

    @property
    def space(self) -> Dict:
        """A recorded configuration and the number of its training."""
        keys = list(self.dataset.curves)
        order = np.random.default_rng(self.seed).permutation(len(keys))
        return Dict(config_id=Categorical(*(keys[index] for index in order)), replica=Int(0, NUM_REPLICAS))

    def curve(self, config: dict[str, Any]) -> Curve:
        """Return the recorded seconds, and the recorded scores with the luck of this training."""
        recorded = self.dataset.curves[config["config_id"]]
        luck = np.random.default_rng(zlib.crc32(repr(sorted(config.items())).encode())).normal()
        return Curve(recorded.scores + REPLICA_SD * luck, recorded.epoch_s)

    @cached_property
    def target(self) -> float:
        """The score with a regret of `REGRET`."""
        return self.dataset.best - REGRET * (self.dataset.best - self.dataset.lowest)

    @property
    def least_s(self) -> float:
        """Seconds of the shortest recorded training that reaches the target: no search on any cluster is faster."""
        return min(
            float(np.cumsum(curve.epoch_s)[np.argmax(curve.scores >= self.target)])
            for curve in self.dataset.curves.values()
            if curve.scores.max() >= self.target
        )


class RayASHA(Scheduler):
    """Ray Tune's own ``AsyncHyperBandScheduler``, asked about each report as Tune's controller does."""

    def __init__(self) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler

        self._ray = AsyncHyperBandScheduler(metric="score", mode="max", max_t=MAX_EPOCHS)
        self._trials: dict[int, SimpleNamespace] = {}

    def next_job(self, state: StudyState) -> Job | None:
        """Return a new trial: Tune's ASHA stops trials, and pauses none."""
        new = state.new_trial()
        if new is None:
            return None
        self._trials[new.number] = SimpleNamespace(trial_id=str(new.number))
        self._ray.on_trial_add(None, self._trials[new.number])
        return Job(new.number, new.config)

    def on_report(self, report: EpochDone) -> Decision:
        """Ask Ray's scheduler."""
        trial, result = self._trials[report.trial], {"training_iteration": report.epoch, "score": report.score}
        if report.is_last:
            self._ray.on_trial_complete(None, trial, result)
            return Decision.CONTINUE
        return Decision.STOP if self._ray.on_trial_result(None, trial, result) == "STOP" else Decision.CONTINUE


class OptunaRandom(Searcher):
    """Optuna's ``RandomSampler``, asked for each free worker, as a study that is shared by Dask workers does."""

    def __init__(self, space: Dict, seed: int) -> None:
        super().__init__(space, seed=seed)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed))
        self._distributions = {name: part.to_optuna() for name, part in space.data.items()}

    def suggest(self) -> dict[str, Any]:
        """Return the parameters of a new trial of Optuna's."""
        return self._study.ask(self._distributions).params


class Unaware(AutoSearch):
    """The auto search without knowledge of its running trials, for comparison."""

    @property
    def running(self) -> dict[Hashable, Item]:  # type: ignore[override]
        """Nothing, whatever is put into it."""
        return {}

    @running.setter
    def running(self, running: dict[Hashable, Item]) -> None: ...


def auto(problem: Problem, kind: type[AutoSearch] = AutoSearch) -> tuple[Searcher, Scheduler]:
    """Return the auto search of a fit."""
    search = kind(
        problem.space,
        seed=problem.seed,
        describe=lambda config: problem.curves.describe(config["config_id"]),
        data=problem.dataset.data,
        portfolio=problem.portfolio,
        log_speed=0.0,
    )
    return search, search


METHODS: dict[str, Callable[[Problem], tuple[Searcher, Scheduler]]] = {
    "auto": auto,
    "auto, unaware": partial(auto, kind=Unaware),
    "random + asha": lambda problem: (RandomSearcher(problem.space, seed=problem.seed), ASHAScheduler(MAX_EPOCHS)),
    "Ray Tune's ASHA": lambda problem: (RandomSearcher(problem.space, seed=problem.seed), RayASHA()),
    "Optuna random": lambda problem: (OptunaRandom(problem.space, problem.seed), FIFOScheduler()),
}


def workers(num: int, seed: int, churn_s: float = math.inf) -> list[SimulatedWorker]:
    """Return workers of unequal speed; within `churn_s` a tenth of them join and another tenth leave."""
    if num == 1:
        return [SimulatedWorker()]
    rng = np.random.default_rng(seed)
    speeds = np.exp(SPEED_SPREAD * rng.normal(size=num))
    speeds /= speeds.mean()
    times = rng.uniform(0, churn_s, num) if churn_s < math.inf else np.zeros(num)
    return [
        SimulatedWorker(
            float(speed),
            at_s if churn_s < math.inf and index % 10 == 0 else 0.0,
            at_s if churn_s < math.inf and index % 10 == 1 else math.inf,
            f"node{index // 8}",
        )
        for index, (speed, at_s) in enumerate(zip(speeds, times.tolist(), strict=True))
    ]


class TargetReachedError(Exception):
    """The target is reached, and the search need not continue."""


@dataclass
class Search:
    """The result of one search."""

    method: str
    dataset: str
    seed: int
    num_workers: int
    reached_s: float  # simulated seconds to the target; inf if it was not reached
    least_s: float
    end_s: float
    utilization: float
    num_reports: int
    report_ms: float  # of the coordinating process, between reports


def search(problem: Problem, method: str, num_workers: int, limit_h: float, *, to_end: bool = False) -> Search:
    """Run one search, until the target is reached or, with workers that come and go, `to_end` of the limit."""
    limit_s = limit_h * HOUR_S
    executor = SimulatedExecutor(
        lambda config: problem.curve(config).scores,
        workers(num_workers, problem.seed, limit_s if to_end else math.inf),
        lambda config: problem.curve(config).epoch_s,
    )
    reached_s, num_reports = math.inf, 0

    def note(event: Event) -> None:
        nonlocal num_reports, reached_s
        if isinstance(event, EpochDone):
            num_reports += 1
            if event.score >= problem.target and executor.now_s <= limit_s:
                reached_s = min(reached_s, executor.now_s)
                if not to_end:
                    raise TargetReachedError

    searcher, scheduler = METHODS[method](problem)
    study = Study(executor, searcher, scheduler, deadline=Deadline(limit_s, executor.clock), listeners=[note])
    start_s = time.perf_counter()
    with contextlib.suppress(SearchFailedError, TargetReachedError):
        study.run()
    report_ms = 1000 * (time.perf_counter() - start_s) / max(num_reports, 1)
    return Search(
        method,
        problem.dataset.name,
        problem.seed,
        num_workers,
        reached_s,
        problem.least_s,
        executor.now_s,
        executor.utilization,
        num_reports,
        report_ms,
    )


def search_all(
    curves: Curves, portfolios: dict[str, Portfolio], tasks: Sequence[tuple[str, int, str, int, float, bool]]
) -> list[Search]:
    """Run searches, each a data set, seed, method, number of workers, limit in hours and `to_end`, on all cores."""
    by_name = {dataset.name: dataset for dataset in curves.datasets}
    # The longest first, so that no core waits for the last one.
    order = sorted(tasks, key=lambda task: -task[3])
    with ProcessPoolExecutor(initializer=_set_threads) as pool:
        futures = [
            pool.submit(
                search, Problem(curves, by_name[name], portfolios[name], seed), method, num, limit_h, to_end=to_end
            )
            for name, seed, method, num, limit_h, to_end in order
        ]
        return [future.result() for future in futures]


def _set_threads() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)  # a process for each core


def mean_ratio(logs: Sequence[float]) -> tuple[float, float]:
    """Return the geometric mean, and its relative standard error."""
    error = float(np.std(logs, ddof=1) / math.sqrt(len(logs))) if len(logs) > 1 else math.nan
    return math.exp(float(np.mean(logs))), error


def print_times(found: list[Search], limits_h: dict[str, float]) -> None:
    """Print the time to the target; searches that did not reach it count with their limit, so it is a lower bound."""
    times: dict[tuple[str, int], dict[tuple[str, int], float]] = {}
    for each in found:
        reached_s = min(each.reached_s, limits_h[each.method] * HOUR_S)
        times.setdefault((each.method, each.num_workers), {})[each.dataset, each.seed] = reached_s
    missed = Counter((each.method, each.num_workers) for each in found if math.isinf(each.reached_s))
    least = {(each.dataset, each.seed): each.least_s for each in found}
    first_num = min(each.num_workers for each in found)
    methods, nums = list(dict.fromkeys(each.method for each in found)), sorted({each.num_workers for each in found})
    first = methods[0]
    print(f"\nSimulated hours to a regret of {REGRET:g}: geometric mean of {len(least)} searches, ± its standard error")
    print(f"x: speed-up over {first_num} worker(s); of {first}: time over that of {first}\n")
    print(f"{'':18}{'workers':>8}{'hours':>9}{'± %':>6}{'x':>8}{'± %':>6}{f'of {first}':>10}{'± %':>6}{'missed':>8}")
    for method in methods:
        for num in nums:
            mine = times[method, num]
            hours, hours_error = mean_ratio([math.log(seconds / HOUR_S) for seconds in mine.values()])
            gain, gain_error = mean_ratio([math.log(times[method, first_num][key] / mine[key]) for key in mine])
            ratio, ratio_error = mean_ratio([math.log(mine[key] / times[first, num][key]) for key in mine])
            print(
                f"{method:18}{num:>8}{hours:>9.3f}{100 * hours_error:>6.0f}{gain:>8.1f}{100 * gain_error:>6.0f}"
                f"{ratio:>10.2f}{100 * ratio_error:>6.0f}{missed[method, num]:>8}"
            )
    hours, error = mean_ratio([math.log(seconds / HOUR_S) for seconds in least.values()])
    print(f"{'shortest training':18}{'':8}{hours:>9.3f}{100 * error:>6.0f}   on a worker of speed 1: a bound for all")


def print_utilization(found: list[Search]) -> None:
    """Print the utilisation, and the cost of the coordinator beside the interval of reports."""
    print("\nSearches to the end of their time; a tenth of the workers join late, and a tenth leave with their job\n")
    print(f"{'':18}{'workers':>8}{'busy %':>9}{'lowest':>8}{'reports':>9}{'ms/report':>11}{'ms between':>12}")
    for method, num in dict.fromkeys((each.method, each.num_workers) for each in found):
        mine = [each for each in found if (each.method, each.num_workers) == (method, num)]
        busy = [100 * each.utilization for each in mine]
        reports, between = sum(each.num_reports for each in mine), sum(each.end_s for each in mine)
        cost_ms = sum(each.report_ms * each.num_reports for each in mine) / reports
        print(
            f"{method:18}{num:>8}{np.mean(busy):>9.1f}{min(busy):>8.1f}{reports:>9}{cost_ms:>11.2f}"
            f"{1000 * between / reports:>12.1f}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, and print the tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.cluster simulated",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--curves", type=Path, required=True, help="folder with curves.json and its tables")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--datasets", nargs="+", help="names of data sets (default: every third one)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=[name for name in METHODS if name != "auto, unaware"],
                        choices=list(METHODS))  # fmt: skip
    parser.add_argument("--auto-hours", type=float, default=16.0, help="time limit of auto, which uses it all")
    parser.add_argument("--busy-hours", type=float, default=0.5, help="time limit of the searches for utilisation")
    parser.add_argument("--busy-datasets", nargs="*", default=["FNG", "RESISC"], help="data sets for utilisation")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    start_s = time.perf_counter()
    curves = Curves.read(options.curves)
    names = options.datasets or [dataset.name for dataset in curves.datasets[::3]]
    portfolios = learned_in_folds(curves)
    limits_h = {name: options.auto_hours if name.startswith("auto") else 2000.0 for name in METHODS}
    found = search_all(
        curves,
        portfolios,
        [
            (name, seed, method, num, limits_h[method], False)
            for method in options.methods
            for num in options.workers
            for name in names
            for seed in range(options.seeds)
        ],
    )
    found.sort(key=lambda each: (options.methods.index(each.method), each.num_workers))
    print_times(found, limits_h)
    busy = search_all(
        curves,
        portfolios,
        [
            (name, 0, method, num, options.busy_hours, True)
            for method in options.methods
            for num in options.workers
            for name in options.busy_datasets
        ],
    )
    busy.sort(key=lambda each: (options.methods.index(each.method), each.num_workers))
    if busy:
        print_utilization(busy)
    print(f"\n{time.perf_counter() - start_s:.0f} s")
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in (*found, *busy)], indent=1) + "\n")
