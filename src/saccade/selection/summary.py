"""Tables and dictionaries of a search: the leaderboard's rows, and the summary of the best trial."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from saccade.study.trial import Trial

if TYPE_CHECKING:
    from saccade.selection.candidates import Combination


def trial_rows(
    trials: Sequence[Trial],
    costs: Mapping[int, Mapping[str, float]] | None = None,
    on_front: Collection[int] = (),
) -> list[dict[str, Any]]:
    """Return a row of JSON-able values for each trial, the best first, failed ones last.

    Parameters
    ----------
    trials : sequence of Trial
        All trials of a search.
    costs : mapping or None
        Where there are several objectives, what the network of each trial costs, by the trial's number.
    on_front : collection of int
        The trials than which no other is better in every objective.
    """
    rows = [_row(trial) for trial in trials]
    if costs is not None:
        for row in rows:
            row["costs"] = dict(costs.get(row["trial"], {}))
            row["on_front"] = row["trial"] in on_front

    def place(row: dict[str, Any]) -> tuple[float, ...]:
        return (row["score_val"] is None, -(row["score_val"] or 0.0), not row.get("on_front"), row["trial"])

    return sorted(rows, key=place)


def leaderboard(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table, each hyperparameter in a column of its own.

    Returns
    -------
    DataFrame
        Columns ``trial``, ``status``, ``score_val`` (higher is better), ``epochs_done``, ``best_epoch`` (0 is the
        linear probe), ``fit_time_s``, the hyperparameters, and ``reason`` (why a trial failed, or stopped early). Where
        there are several objectives, also those of ``latency_ms`` (of an image), ``num_params`` and ``num_bytes`` that
        were asked for, and ``on_front``: whether no other trial is better in one and at least as good in all.
    """
    flat = [
        {**{key: row[key] for key in _COLUMNS}, **_objectives(row), **row["config"], "reason": row["reason"]}
        for row in rows
    ]
    table: pd.DataFrame = pd.DataFrame(flat)
    return table


def fit_summary(
    best: Trial, trials: Sequence[Trial], metric: str, seconds: Mapping[str, float], epoch: int | None = None
) -> dict[str, Any]:
    """Return the summary of a search, its figures those of the best trial's best epoch, or of another one.

    Returns
    -------
    dict
        ``train_acc`` and ``valid_acc`` (for multilabel problems of images whose labels are all right, and
        ``valid_f1_micro``; for regression ``train_loss`` and ``valid_rmse``), ``valid_score``,
        ``eval_metric``, ``total_time``, ``seconds`` (by phase, with their ``total``),
        ``best_config``, ``best_trial``, ``best_epoch``, ``num_trials``,
        ``fit_history``.
    """
    figures = best_figures(best, epoch)
    history = {
        "best_reward": figures["valid_score"],
        "best_config": best.config,
        "total_time": seconds["total"],
        "reward_attr": "valid_reward",
        "config_history": {str(trial.number): trial.config for trial in trials},
    }
    return {
        **figures,
        "eval_metric": metric,
        "total_time": seconds["total"],
        "seconds": dict(seconds),
        "num_trials": len(trials),
        "fit_history": history,
    }


def best_figures(trial: Trial, epoch: int | None = None) -> dict[str, Any]:
    """Return what a summary says of the trial that it is about: of its best epoch, unless another one is named."""
    report = next((each for each in trial.reports if each.epoch == epoch), trial.best_report)
    assert report is not None
    figures = report.metrics
    of_training = "train_acc" if {"subset_accuracy", "top1"} & figures.keys() else "train_loss"
    return {
        of_training: figures.get(of_training),
        **_held_out(figures),
        "valid_score": report.score,
        "best_config": trial.config,
        "best_trial": trial.number,
        "best_epoch": report.epoch,
    }


def combined_figures(combination: Combination | None, num_trials: int) -> dict[str, Any]:
    """Return what a summary says of how a predictor was put together, and of what its validation figures are worth.

    Parameters
    ----------
    combination : Combination or None
        None is the best trial alone, without a look at what else there might have been.
    num_trials : int
        Of the search.

    Returns
    -------
    dict
        ``ensemble`` (a dict with ``trial``, ``model``, ``weight`` and ``soup`` for each member; empty for a single
        network), ``soup`` (the trials whose weights a single network's are the mean of, or empty),
        ``valid_score_how``, and ``cross_fitted_scores`` of the ``ensemble`` and the ``single`` network, where these
        were compared. For an ensemble, or a soup, also its own validation figures.
    """
    how = f"on the validation images, by which the best of {num_trials} trials and its epoch were chosen"
    if num_trials == 1:
        how = "on the validation images, by which the epoch was chosen"
    if combination is None:
        return {"ensemble": [], "soup": [], "valid_score_how": how}
    members, judgement = combination.members, combination.judgement
    judged = {"valid_score": judgement.score, **_held_out(judgement.figures)}
    ensemble, single = combination.ensemble, combination.single
    scores = {} if not ensemble or not single else {"ensemble": ensemble.score, "single": single.score}
    if len(members) == 1:
        soup = list(members[0].soup)
        if soup:
            how = f"on the validation images, by which a soup of {len(soup)} trials was chosen"
        return {
            **(judged if soup else {}),
            "ensemble": [],
            "soup": soup,
            "valid_score_how": how,
            "cross_fitted_scores": scores,
        }
    rows = [
        {"trial": one.trial, "model": one.config.get("model"), "weight": weight, "soup": list(one.soup)}
        for one, weight in zip(members, combination.weights, strict=True)
    ]
    how = "cross-fitted: of ensembles that were chosen on four fifths of the validation images, on the last fifth"
    if combination.is_judged_by_choice:
        how = "on the validation images, by which the ensemble was chosen; there was no time to cross-fit it"
    elif ensemble is None:
        how = "on the validation images, which had no part in the choice of the ensemble"
    return {**judged, "ensemble": rows, "soup": [], "valid_score_how": how, "cross_fitted_scores": scores}


def _held_out(figures: Mapping[str, float]) -> dict[str, Any]:
    if "subset_accuracy" in figures:
        return {"valid_acc": figures["subset_accuracy"], "valid_f1_micro": figures["f1_micro"]}
    if "top1" in figures:
        return {"valid_acc": figures["top1"]}
    return {"valid_rmse": figures.get("rmse")}


def _objectives(row: dict[str, Any]) -> dict[str, Any]:
    return {**row["costs"], "on_front": row["on_front"]} if "costs" in row else {}


_COLUMNS = ("trial", "status", "score_val", "epochs_done", "best_epoch", "fit_time_s")


def _row(trial: Trial) -> dict[str, Any]:
    best = trial.best_report
    return {
        "trial": trial.number,
        "status": trial.status.value,
        "score_val": best.score if best else None,
        "epochs_done": trial.num_epochs,
        "best_epoch": best.epoch if best else None,
        "fit_time_s": round(trial.seconds, 3),
        "config": trial.config,
        "reason": trial.failure.reason if trial.failure else trial.note,
        "traceback": trial.failure.traceback if trial.failure else "",
    }
