"""Several objectives: the score and the costs of a network, and the Pareto front of trials."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.study.trial import Status, Trial

COSTS = {"latency": "latency_ms", "params": "num_params", "bytes": "num_bytes"}
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


def trial_costs(trials: Sequence[Trial], objectives: Sequence[str]) -> dict[int, dict[str, float]]:
    """Return the value of each of `cost_names` for each trial that has reported; lower is better.

    The latency of a network does not depend on its weights, and other load only increases it. So the shortest one that
    was measured for a network counts for all of its trials.
    """
    names = cost_names(objectives)
    least: dict[Hashable, dict[str, float]] = {}
    for trial in trials:
        lowest = least.setdefault(same_costs(trial.config), {})
        for report in trial.reports:
            for name in names:
                if name in report.metrics:
                    lowest[name] = min(report.metrics[name], lowest.get(name, float("inf")))
    return {trial.number: least[same_costs(trial.config)] for trial in trials if trial.reports}


def pareto_front(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Trial]:
    """Return the trials that no other one dominates (is better in one objective, and not worse in any), the best first.

    Of trials with equal objectives only the earliest is returned; trials that failed or have no report are left out.
    """
    costs = trial_costs(trials, objectives)

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
