"""Several objectives at once: what a network may cost besides its score, and which trials are worth choosing from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.study.trial import Status, Trial

COSTS = {"latency": "latency_ms", "params": "num_params", "bytes": "num_bytes"}
"""What may be asked to be small, and the figure of a trial's reports that tells it."""

SCORE = "score"
"""The figure that chooses, whatever it is; its own name, such as ``accuracy``, says the same."""

_SHAPING = ("model", "img_size", "in_chans", "tta", "amp")
"""Hyperparameters on which a network's costs depend; all others only decide what its weights are."""


def check_objectives(given: Any) -> list[str]:
    """Return the objectives, seen to be a list of names, that of the score once among them.

    Raises
    ------
    HyperparameterError, UnknownNameError
        When they are not.

    Examples
    --------
    >>> check_objectives(["accuracy", "latency"])
    ['accuracy', 'latency']
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
            f"objectives was given {given!r}, which is all about costs; name the score too: "
            f"{['accuracy', *names]} or {[SCORE, *names]}"
        )
    if len(scores) > 1:
        raise HyperparameterError(
            f"objectives was given {given!r}; expected one score, and besides any of {list(COSTS)}, but there are "
            f"{scores}"
        )
    return names


def check_score_name(objectives: Sequence[str], metric: str) -> None:
    """See that the objective which is no cost is the figure that judges trials.

    Raises
    ------
    UnknownNameError
        When it is another one, or none at all.
    """
    for name in objectives:
        if name not in (*COSTS, SCORE, metric):
            error = UnknownNameError.of("objective", name, [metric, SCORE, *COSTS])
            raise UnknownNameError(f"{error} Trials are judged by eval_metric, which is {metric!r} here")


def cost_names(objectives: Sequence[str]) -> list[str]:
    """Return the figures that are to be small.

    Examples
    --------
    >>> cost_names(["accuracy", "latency", "bytes"])
    ['latency_ms', 'num_bytes']
    """
    return [COSTS[name] for name in objectives if name in COSTS]


def same_costs(config: Mapping[str, Any]) -> Hashable:
    """Return a key that configurations have in common whose networks cost the same."""
    return tuple(repr(config.get(name)) for name in _SHAPING)


def trial_costs(trials: Sequence[Trial], objectives: Sequence[str]) -> dict[int, dict[str, float]]:
    """Return the costs of each trial that has reported.

    A network takes as long whatever its weights are, and what else a machine does can only make a measurement longer.
    So the shortest time that was measured of a network counts for all trials that have it.

    Returns
    -------
    dict
        By trial number: a figure for each of `cost_names`, less of which is better.
    """
    names = cost_names(objectives)
    least: dict[Hashable, dict[str, float]] = {}
    for trial in trials:
        known = least.setdefault(same_costs(trial.config), {})
        for report in trial.reports:
            for name in names:
                if name in report.metrics:
                    known[name] = min(report.metrics[name], known.get(name, float("inf")))
    return {trial.number: least[same_costs(trial.config)] for trial in trials if trial.reports}


def pareto_front(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Trial]:
    """Return the trials than which no other is better in one objective and at least as good in all.

    Returns
    -------
    list of Trial
        The highest score first. Of trials that are equal in everything there is the earliest. Failed ones, and those
        without a report, are never among them.

    Examples
    --------
    >>> from saccade.events import EpochDone
    >>> scores, sizes = [0.9, 0.8, 0.7], [50.0, 90.0, 20.0]
    >>> trials = [
    ...     Trial(i, {"model": f"net{i}"}, reports=[EpochDone(i, 1, scores[i], metrics={"num_params": sizes[i]})])
    ...     for i in range(3)
    ... ]
    >>> [trial.number for trial in pareto_front(trials, ["accuracy", "params"])]
    [0, 2]
    """
    costs = trial_costs(trials, objectives)

    def by_worth(trial: Trial) -> tuple[float, ...]:
        assert trial.best_report is not None
        return (-trial.best_report.score, *costs[trial.number].values(), trial.number)

    usable = [trial for trial in trials if trial.best_report is not None and trial.status is not Status.FAILED]
    front: list[Trial] = []
    for trial in sorted(usable, key=by_worth):  # those before it have at least its score, so only costs can tell
        own = costs[trial.number]
        if not any(all(costs[other.number][name] <= own[name] for name in own) for other in front):
            front.append(trial)
    return front
