"""Search on synthetic learning curves, unrelated to images: a guard against overfitting the search to recorded curves.

    python -m benchmarks.synthetic_regret [--seeds 20] [--workers 1] [--json OUT]

Multi-fidelity Hartmann functions of 3 and 6 dimensions (Kandasamy et al., Multi-fidelity Gaussian process bandit
optimisation, JAIR 2019): an epoch is a fidelity, and every epoch costs the same. "good" curves rank configurations
early as they do late; "bad" ones have three times the bias at first, and noise. Simple regret (the difference between
the optimum and the best score, as a part of the optimum) after the epochs of 4, 16 and 64 full trainings a worker.

With several workers, "unaware" searchers do not see running trials when they propose the next one.
"""

from __future__ import annotations

import argparse
import json
import warnings
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from saccade.deadline import Deadline
from saccade.scheduler import make_scheduler
from saccade.searcher import make_searcher
from saccade.space import Real
from saccade.study.study import Study
from saccade.testing import SimulatedExecutor

NUM_EPOCHS = 27
BUDGETS = (4, 16, 64)
UNAWARE = ", unaware"
_A3 = np.array([[3, 10, 30], [0.1, 10, 35]] * 2, dtype=float)
_P3 = np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]) / 1e4
_A6 = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_P6 = (
    np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )
    / 1e4
)
_HEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
_SHAPES = {3: (_A3, _P3, 3.86278), 6: (_A6, _P6, 3.32237)}


def curve(config: dict[str, float], dimensions: int, is_good: bool, seed: int) -> np.ndarray:
    """Return the scores of a configuration's epochs, as parts of the optimum."""
    widths, places, optimum = _SHAPES[dimensions]
    x = np.array([config[f"x{index}"] for index in range(dimensions)])
    bumps = np.exp(-(widths * (x - places) ** 2).sum(axis=1))
    missing = 1 - np.arange(1, NUM_EPOCHS + 1) / NUM_EPOCHS
    bias = 0.5 if is_good else 1.5
    scores = (_HEIGHTS - bias * missing[:, None]) @ bumps / optimum
    if not is_good:
        # Each configuration has noise of its own, the same whenever it is trained.
        rng = np.random.default_rng([seed, zlib.crc32(repr(sorted(config.items())).encode())])
        scores = scores + 0.1 * missing * rng.normal(size=NUM_EPOCHS)
    return scores


def ours(
    searcher: str,
    scheduler: str,
    problem: Callable[..., np.ndarray],
    dimensions: int,
    budget: int,
    seed: int,
    num_workers: int = 1,
) -> float:
    """Return the regret of a search by Saccade's study."""
    executor = SimulatedExecutor(partial(problem, seed=seed), num_workers)
    space = {f"x{index}": Real(0, 1) for index in range(dimensions)}
    options = {} if scheduler == "fifo" else {"max_epochs": NUM_EPOCHS}
    made = make_searcher(searcher.removesuffix(UNAWARE), space, seed)
    if searcher.endswith(UNAWARE):
        shown = made._shown
        made._shown = lambda: [trial for trial in shown() or () if trial.state.is_finished()] or None
    study = Study(
        executor,
        made,
        make_scheduler(scheduler, **options),
        deadline=Deadline(budget * NUM_EPOCHS, executor.clock),
    )
    study.run()
    return 1 - max(trial.reports[-1].score for trial in study.trials if trial.num_epochs == NUM_EPOCHS)


def tpe_hyperband(problem: Callable[..., np.ndarray], dimensions: int, budget: int, seed: int) -> float:
    """Return the regret of Optuna's TPE with its HyperbandPruner."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    left = budget * NUM_EPOCHS
    best = -np.inf

    def objective(trial: optuna.Trial) -> float:
        nonlocal left, best
        config = {f"x{index}": trial.suggest_float(f"x{index}", 0, 1) for index in range(dimensions)}
        scores = problem(config, seed=seed)
        for epoch, score in enumerate(scores, start=1):
            if left <= 0:
                trial.study.stop()
                raise optuna.TrialPruned
            left -= 1
            trial.report(float(score), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        best = max(best, float(scores[-1]))
        return float(scores[-1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(multivariate=True, seed=seed)
        study = optuna.create_study(
            direction="maximize", sampler=sampler, pruner=optuna.pruners.HyperbandPruner(1, NUM_EPOCHS, 3)
        )
        study.optimize(objective)
    return 1 - max(best, 0.0)


def compare(num_seeds: int, num_workers: int = 1) -> dict[str, Any]:
    """Return the mean regrets by method, problem and budget."""
    methods: dict[str, Callable[..., float]] = {
        "auto + auto": partial(ours, "auto", "auto"),
        "tpe + asha": partial(ours, "tpe", "asha"),
        "random": partial(ours, "random", "fifo"),
        "random + asha": partial(ours, "random", "asha"),
        "Optuna tpe + hyperband": tpe_hyperband,
    }
    if num_workers > 1:
        searchers = ("random", "tpe", f"tpe{UNAWARE}", "gp", f"gp{UNAWARE}")
        methods = {f"asha, {name}": partial(ours, name, "asha", num_workers=num_workers) for name in searchers}
    table: dict[str, Any] = {}
    for name, method in methods.items():
        for dimensions in (3, 6):
            for is_good in (True, False):
                problem = partial(curve, dimensions=dimensions, is_good=is_good)
                row = [
                    float(np.mean([_regret(method, problem, dimensions, budget, seed) for seed in range(num_seeds)]))
                    for budget in BUDGETS
                ]
                label = f"hartmann{dimensions} {'good' if is_good else 'bad'}"
                table.setdefault(name, {})[label] = dict(zip(map(str, BUDGETS), row, strict=True))
    return table


def _regret(method: Callable[..., float], problem: Any, dimensions: int, budget: int, seed: int) -> float:
    try:
        return method(problem=problem, dimensions=dimensions, budget=budget, seed=seed)
    except ValueError:  # no trial was trained to its end
        return 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    table = compare(options.seeds, options.workers)
    labels = list(next(iter(table.values())))
    print(f"mean simple regret after {', '.join(map(str, BUDGETS))} whole trainings, {options.seeds} seeds")
    print(" " * 24 + "".join(f"{label:>22}" for label in labels))
    for name, row in table.items():
        cells = [" / ".join(f"{value:.3f}" for value in row[label].values()) for label in labels]
        print(f"{name:24}" + "".join(f"{cell:>22}" for cell in cells))
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
