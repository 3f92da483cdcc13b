"""Several objectives: the score and the costs of a network, and the Pareto front of trials."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.study.trial import Status, Trial

COSTS = {"latency": "latency_ms", "throughput": "image_ms", "params": "num_params", "bytes": "num_bytes"}
"""The costs that can be objectives, and their metrics in the reports of a trial."""

SCORE = "score"
"""The objective that is the metric for model selection; the name of the metric, such as ``accuracy``, is a synonym."""

_SHAPING = ("model", "img_size", "in_chans", "tta", "amp")
"""Hyperparameters on which the costs of a network depend; all others only affect its weights."""


def check_objectives(given: Any) -> list[str]:
    """Return the objectives, a list or a string with commas, as a list of names; raise a HyperparameterError.

    At most one of them is a score, and not all are costs.
    """
    names = given.split(",") if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise HyperparameterError(f"objectives was given {given!r}; expected a list such as ['accuracy', 'latency']")
    names = [name.strip() for name in names]
    if len(set(names)) < len(names):
        raise HyperparameterError(f"objectives was given {given!r}; expected each name once")
    scores = [name for name in names if name not in COSTS]
    if names and not scores:
        raise HyperparameterError(
            f"objectives was given {given!r}, which has only costs; add the score: "
            f"{['accuracy', *names]} or {[SCORE, *names]}"
        )
    if len(scores) > 1:
        raise HyperparameterError(
            f"objectives was given {given!r}; expected one score and any of {list(COSTS)}, but there are the scores "
            f"{scores}"
        )
    return names


def check_score_name(objectives: Sequence[str], metric: str) -> None:
    """Raise an UnknownNameError if the objective that is not a cost is not the metric for model selection."""
    for name in objectives:
        if name not in (*COSTS, SCORE, metric):
            error = UnknownNameError.of("objective", name, [metric, SCORE, *COSTS])
            raise UnknownNameError(f"{error} Trials are selected by eval_metric, which is {metric!r}")


def cost_names(objectives: Sequence[str]) -> list[str]:
    """Return the metrics of the costs among the objectives, such as ``latency_ms`` for ``latency``."""
    return [COSTS[name] for name in objectives if name in COSTS]


def same_costs(config: Mapping[str, Any]) -> Hashable:
    """Return a key that is equal for configurations whose networks have the same costs."""
    return tuple(repr(config.get(name)) for name in _SHAPING)


def trial_costs(trials: Sequence[Trial], names: Collection[str]) -> dict[int, dict[str, float]]:
    """Return, for each trial that has reported, its costs of these names that were measured; lower is better.

    The time of a network does not depend on its weights, and other load of the machine only increases it. So the
    shortest time that was measured for a network counts for all trials with that network.
    """
    least: dict[Hashable, dict[str, float]] = {}
    for trial in trials:
        lowest = least.setdefault(same_costs(trial.config), {})
        for report in trial.reports:
            for name in names:
                if name in report.metrics:
                    lowest[name] = min(report.metrics[name], lowest.get(name, float("inf")))
    return {trial.number: least[same_costs(trial.config)] for trial in trials if trial.reports}


def speed_limits(min_images_per_s: float | None, max_latency_ms: float | None) -> dict[str, float]:
    """Return the given limits of costs by name, without those that are None."""
    limits = {"image_ms": min_images_per_s and 1000 / min_images_per_s, "latency_ms": max_latency_ms}
    return {name: limit for name, limit in limits.items() if limit is not None}


def load(costs: Mapping[str, float], limits: Mapping[str, float]) -> float:
    """Return the largest part of a limit that the costs use: above 1 they exceed it; inf if one was not measured."""
    parts = [costs.get(name, math.inf) / limit if limit > 0 else math.inf for name, limit in limits.items()]
    return max(parts, default=0.0)


def within_limits(trials: Sequence[Trial], limits: Mapping[str, float]) -> list[Trial]:
    """Return the trials that have reported and whose costs are within limits, or else those that come nearest."""
    loads = {number: load(costs, limits) for number, costs in trial_costs(trials, limits).items()}
    most = max(1.0, min(loads.values(), default=1.0))
    return [trial for trial in trials if trial.number in loads and loads[trial.number] <= most]


def pareto_front(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Trial]:
    """Return the trials that no other one dominates (is better in one objective, and not worse in any), the best first.

    Of trials with equal objectives only the earliest is returned; trials that failed or have no report are left out.
    """
    costs = trial_costs(trials, cost_names(objectives))

    def sort_key(trial: Trial) -> tuple[float, ...]:
        assert trial.best_report is not None
        return (-trial.best_report.score, *costs[trial.number].values(), trial.number)

    usable = [trial for trial in trials if trial.best_report is not None and trial.status is not Status.FAILED]
    front: list[Trial] = []
    for trial in sorted(usable, key=sort_key):  # earlier ones have at least its score, so only costs are compared
        own = costs[trial.number]
        if not any(all(costs[other.number][name] <= cost for name, cost in own.items()) for other in front):
            front.append(trial)
    return front
