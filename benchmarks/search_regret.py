"""Replay recorded learning curves through the study, and report the regret of a search after some hours.

    python -m benchmarks.search_regret --curves DIR [--searcher auto --scheduler auto] [--hours 1 4 16]
                                       [--workers 1 8] [--seeds 20] [--peers] [--families]
                                       [--portfolios DIR] [--json OUT]

Regret at T = (best accuracy of any epoch of any configuration - best seen by T) / (best - best of the lowest
configuration); 1 when nothing has been seen. The table has the mean over data sets and seeds, and that of other
searches in the same run. The portfolio is evaluated only on data sets that it was not learned from: for each data set,
it is learned from `--learn-from` (by default the same folder) without that set. `--families` also leaves each family of
networks out of the portfolio, and lets the search choose among the networks of that family.

`--portfolios` names a folder for learned portfolios, which take most of the time of a run without peers. Use it to
compare runs while the search is changed; empty it when the learning of portfolios changes.

The other searches, on the same table of configurations with all of its columns:

- random: random configurations, each trained to its last epoch
- random + asha: promotion, rungs 1, 3, 9, 27, 50
- random + stopping: Ray Tune's ASHA, which stops trials permanently at rungs 1, 4, 16 and never pauses them
- tpe + hyperband: Optuna's TPE sampler and its HyperbandPruner, as Optuna runs them
- dehb: differential evolution with Hyperband, if it is installed (``pip install dehb``)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import regret_peers
from benchmarks.curves import Curves, CurvesDataset
from benchmarks.learn_portfolio import learn, portfolio_to_json
from benchmarks.pool import PoolSearcher, table_space
from saccade.autosearch.portfolio import Portfolio
from saccade.autosearch.search import AutoSearch
from saccade.deadline import Deadline
from saccade.errors import SearchFailedError
from saccade.events import EpochDone, Event
from saccade.scheduler import AutoScheduler, make_scheduler
from saccade.scheduler.base import Scheduler
from saccade.searcher import RandomSearcher, make_searcher
from saccade.searcher.base import Searcher
from saccade.space import Categorical
from saccade.study.study import Study
from saccade.testing import SimulatedExecutor

HOUR_S = 3600.0
_NUM_FOLDS = 3
# Of a family on a data set; among fewer there is nothing to choose.
_LEAST_RUNS = 8


@dataclass(frozen=True)
class Case:
    """One search: a data set, a time limit, a number of workers and a seed."""

    curves: Curves
    dataset: CurvesDataset
    portfolio: Portfolio
    time_limit_s: float
    num_workers: int
    seed: int


def search(case: Case, searcher: Callable[[Case], Searcher], scheduler: Callable[[], Scheduler]) -> float:
    """Return the regret of a search by Saccade's study; `AutoSearch` and "auto" are one object, as in a fit."""
    curves = case.dataset.curves
    executor = SimulatedExecutor(
        lambda config: curves[config["config_id"]].scores,
        case.num_workers,
        lambda config: curves[config["config_id"]].epoch_s,
    )
    deadline = Deadline(case.time_limit_s, executor.clock)
    made, schedules = searcher(case), scheduler()
    if isinstance(made, AutoSearch) and isinstance(schedules, AutoScheduler):
        schedules = made
    in_time: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, EpochDone) and executor.now_s <= case.time_limit_s:
            in_time.append(event.score)

    with contextlib.suppress(SearchFailedError):  # nothing was reported in time
        Study(executor, made, schedules, deadline=deadline, listeners=[note]).run()
    return case.dataset.regret(max(in_time, default=None))


def searcher_of(case: Case, name: str) -> Searcher:
    """Return one of Saccade's searchers, for the recorded configurations."""
    space = {"config_id": Categorical(*_shuffled(list(case.dataset.curves), case.seed))}
    if name == "auto":
        return AutoSearch(
            space,
            seed=case.seed,
            describe=lambda config: case.curves.describe(config["config_id"]),
            data=case.dataset.data,
            portfolio=case.portfolio,
            log_speed=0.0,
        )
    if name == "random":
        return RandomSearcher(space, seed=case.seed)
    configs = case.curves.configs.loc[list(case.dataset.curves)]
    return PoolSearcher(make_searcher(name, table_space(configs), case.seed), configs)


def _shuffled(keys: list[str], seed: int) -> list[str]:
    return [keys[index] for index in np.random.default_rng(seed).permutation(len(keys))]


def methods(options: argparse.Namespace) -> dict[str, Callable[[Case], float]]:
    """Return the methods to compare, by name."""
    ours = f"{options.searcher} + {options.scheduler}"
    found: dict[str, Callable[[Case], float]] = {
        ours: partial(
            search,
            searcher=partial(searcher_of, name=options.searcher),
            scheduler=partial(make_scheduler, options.scheduler),
        )
    }
    if options.peers:
        random = partial(searcher_of, name="random")
        found["random"] = partial(search, searcher=random, scheduler=partial(make_scheduler, "fifo"))
        asha = partial(make_scheduler, "asha", max_epochs=50)
        found["random + asha"] = partial(search, searcher=random, scheduler=asha)
        stopping = partial(make_scheduler, "asha", max_epochs=100, reduction_factor=4, type="stopping")
        found["random + stopping"] = partial(search, searcher=random, scheduler=stopping)
        found |= {name: partial(_peer, peer) for name, peer in regret_peers.available().items()}
    return found


def _peer(peer: regret_peers.Peer, case: Case) -> float:
    if case.num_workers > 1:
        return float("nan")  # its loop is for one worker
    configs = case.curves.configs.loc[list(case.dataset.curves)]
    return case.dataset.regret(peer(case.dataset, configs, case.time_limit_s, case.seed))


def portfolios(curves: Curves, teachers: Curves, kept: Path | None = None) -> dict[str, Portfolio]:
    """Return for each data set a portfolio learned without it; `kept` is a folder to load and save them."""
    learned: dict[frozenset[str], Portfolio] = {}
    found = {}
    for dataset in curves.datasets:
        others = [other for other in teachers.datasets if other.name != dataset.name]
        names = frozenset(other.name for other in others)
        file = (
            None
            if kept is None
            else kept / f"without-{dataset.name if len(others) < len(teachers.datasets) else 'none'}.json"
        )
        if names not in learned and file is not None and file.exists():
            learned[names] = Portfolio.load(file)
        if names not in learned:
            print(f"  learning for {dataset.name}", file=sys.stderr, end="\r", flush=True)
            learned[names] = learn(teachers, others)
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(portfolio_to_json(learned[names])) + "\n", encoding="utf-8")
        found[dataset.name] = learned[names]
    return found


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run all searches; return the mean regrets by method, workers and hours."""
    curves = Curves.read(options.curves)
    teachers = Curves.read(options.learn_from) if options.learn_from else curves
    if options.datasets:
        curves = replace(curves, datasets=[each for each in curves.datasets if each.name in options.datasets])
    found = portfolios(curves, teachers, options.portfolios)
    table: dict[str, Any] = {}
    for name, method in methods(options).items():
        for workers in options.workers:
            for hours in options.hours:
                start_s = time.perf_counter()
                by_dataset = {
                    dataset.name: float(
                        np.mean(
                            [
                                method(Case(curves, dataset, found[dataset.name], hours * HOUR_S, workers, seed))
                                for seed in range(options.seeds)
                            ]
                        )
                    )
                    for dataset in curves.datasets
                }
                mean = float(np.mean(list(by_dataset.values())))
                table.setdefault(name, {}).setdefault(str(workers), {})[str(hours)] = {
                    "regret": mean,
                    "by_dataset": by_dataset,
                }
                print(
                    f"  {name}, {workers} workers, {hours:g} h: {mean:.4f} ({time.perf_counter() - start_s:.0f} s)",
                    file=sys.stderr,
                    flush=True,
                )
    return table


def leave_families_out(options: argparse.Namespace) -> dict[str, Any]:
    """Return regrets of searches among networks of one family, with and without the family in the portfolio.

    Learning a portfolio for each data set and each family would take hours, so each is learned from two thirds of the
    data sets and evaluated on the others.
    """
    curves = Curves.read(options.curves)
    family = {key: curves.describe(key).network.family for key in curves.configs.index}
    table: dict[str, Any] = {}
    hours = options.hours[0]
    with_it = learned_in_folds(curves)
    for name in sorted(set(family.values())):
        regrets: dict[str, list[float]] = {}
        without_it = learned_in_folds(curves, [name])
        for dataset in curves.datasets:
            runs = {key: curve for key, curve in dataset.curves.items() if family[key] == name}
            if len(runs) < _LEAST_RUNS:
                continue
            few = replace(dataset, curves=runs)
            for method, found in {"unseen": without_it, "seen": with_it}.items():
                case = Case(curves, few, found[dataset.name], hours * HOUR_S, 1, 0)
                auto = partial(searcher_of, name="auto")
                regrets.setdefault(method, []).append(search(case, auto, partial(make_scheduler, "auto")))
            random, asha = partial(searcher_of, name="random"), partial(make_scheduler, "asha", max_epochs=50)
            several = [search(replace(case, seed=seed), random, asha) for seed in range(5)]
            regrets.setdefault("random + asha", []).append(float(np.mean(several)))
        if regrets:
            table[name] = {method: float(np.mean(values)) for method, values in regrets.items()}
            table[name]["datasets"] = len(regrets["unseen"])
            print(f"  {name}: {table[name]}", file=sys.stderr, flush=True)
    return table


def learned_in_folds(curves: Curves, skip_families: Sequence[str] = ()) -> dict[str, Portfolio]:
    """Return a portfolio for each data set that was learned from two thirds of the data sets, not its own."""
    found = {}
    for fold in range(_NUM_FOLDS):
        mine = curves.datasets[fold::_NUM_FOLDS]
        names = {dataset.name for dataset in mine}
        learned = learn(curves, [other for other in curves.datasets if other.name not in names], skip_families)
        found.update(dict.fromkeys(names, learned))
    return found


def _print_families(table: dict[str, Any], hours: float) -> None:
    print(f"\nmean regret after {hours:g} h among networks of a family whose like the portfolio has seen, or not")
    columns = ["unseen", "seen", "random + asha", "datasets"]
    print(f"{'':16}" + "".join(f"{column:>16}" for column in columns))
    for name, row in table.items():
        print(f"{name:16}" + "".join(f"{row[column]:>16.4g}" for column in columns))
    means = [float(np.mean([row[column] for row in table.values()])) for column in columns[:-1]]
    print(f"{'mean':16}" + "".join(f"{mean:>16.4g}" for mean in means))


def _print(table: dict[str, Any], options: argparse.Namespace) -> None:
    heads = [f"{hours:g} h" for hours in options.hours]
    first = next(iter(table))
    print(f"\nmean regret, {options.seeds} seeds (in brackets: times that of {first})")
    print(f"{'':24} {'workers':>7} " + "".join(f"{head:>16}" for head in heads))
    for name, by_workers in table.items():
        for workers, by_hours in by_workers.items():
            cells = []
            for hours in by_hours:
                regret, ours = by_hours[hours]["regret"], table[first][workers][hours]["regret"]
                cells.append(f"{regret:.4f} ({regret / max(ours, 1e-9):.1f})".rjust(16))
            print(f"{name:24} {workers:>7} " + "".join(cells))


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, required=True, help="folder with curves.json and its tables")
    parser.add_argument("--learn-from", type=Path, help="folder of other curves to learn the portfolio from")
    parser.add_argument("--searcher", default="auto")
    parser.add_argument("--scheduler", default="auto")
    parser.add_argument("--hours", type=float, nargs="+", default=[1.0, 4.0, 16.0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--datasets", nargs="+", help="names of data sets (default: all)")
    parser.add_argument("--peers", action="store_true", help="also run the other searches")
    parser.add_argument("--portfolios", type=Path, help="folder to save and load learned portfolios")
    parser.add_argument("--families", action="store_true", help="leave out each family of networks instead")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.families:
        table = leave_families_out(options)
        _print_families(table, options.hours[0])
    else:
        table = compare(options)
        _print(table, options)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
