"""Summaries of a search: the rows of the leaderboard, and what `ImagePredictor.fit_summary` returns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from saccade.study.trial import Trial

if TYPE_CHECKING:
    from saccade.selection.combination import Combination

_COLUMNS = ("trial", "status", "score_val", "epochs_done", "best_epoch", "fit_time_s")


def trial_rows(
    trials: Sequence[Trial],
    costs: Mapping[int, Mapping[str, float]] | None = None,
    on_front: Collection[int] = (),
) -> list[dict[str, Any]]:
    """Return a row of JSON values for each trial, the best first, failed ones last.

    Parameters
    ----------
    trials : sequence of Trial
        All trials of a search.
    costs : mapping or None
        With several objectives, the costs of each trial's network, by the trial's number.
    on_front : collection of int
        The numbers of the trials on the Pareto front.
    """
    rows = []
    for trial in trials:
        best = trial.best_report
        row = {
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
        if costs is not None:
            row |= {"costs": dict(costs.get(trial.number, {})), "on_front": trial.number in on_front}
        rows.append(row)

    def place(row: dict[str, Any]) -> tuple[float, ...]:
        return (row["score_val"] is None, -(row["score_val"] or 0.0), not row.get("on_front"), row["trial"])

    return sorted(rows, key=place)


def leaderboard(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table, each hyperparameter in a column of its own.

    Returns
    -------
    DataFrame
        Columns ``trial``, ``status``, ``score_val`` (higher is better), ``epochs_done``, ``best_epoch`` (0 is the
        linear probe), ``fit_time_s``, the hyperparameters, and ``reason`` (why a trial failed, or stopped early). With
        several objectives, also the costs among them (``latency_ms`` of an image, ``num_params``, ``num_bytes``) and
        ``on_front``: whether the trial is on the Pareto front.
    """
    flat = []
    for row in rows:
        costs = {**row["costs"], "on_front": row["on_front"]} if "costs" in row else {}
        flat.append({**{key: row[key] for key in _COLUMNS}, **costs, **row["config"], "reason": row["reason"]})
    table: pd.DataFrame = pd.DataFrame(flat)
    return table


def fit_summary(
    best: Trial, trials: Sequence[Trial], metric: str, seconds: Mapping[str, float], epoch: int | None = None
) -> dict[str, Any]:
    """Return the summary of a search, with the metrics of one epoch of the best trial (None is its best epoch).

    Returns
    -------
    dict
        The items of `trial_summary`, ``eval_metric``, ``total_time``, ``seconds`` (by phase, with their ``total``),
        ``num_trials`` and ``fit_history``.
    """
    summary = trial_summary(best, epoch)
    history = {
        "best_reward": summary["valid_score"],
        "best_config": best.config,
        "total_time": seconds["total"],
        "reward_attr": "valid_reward",
        "config_history": {str(trial.number): trial.config for trial in trials},
    }
    return {
        **summary,
        "eval_metric": metric,
        "total_time": seconds["total"],
        "seconds": dict(seconds),
        "num_trials": len(trials),
        "fit_history": history,
    }


def trial_summary(trial: Trial, epoch: int | None = None) -> dict[str, Any]:
    """Return the metrics of one epoch of a trial; None is its best epoch.

    Returns
    -------
    dict
        ``train_acc`` and ``valid_acc`` (for multilabel problems the subset accuracy, and ``valid_f1_micro``; for
        regression ``train_loss`` and ``valid_rmse``), ``valid_score``, ``best_config``, ``best_trial``, ``best_epoch``.
    """
    report = next((each for each in trial.reports if each.epoch == epoch), trial.best_report)
    assert report is not None
    of_training = "train_acc" if {"subset_accuracy", "top1"} & report.metrics.keys() else "train_loss"
    return {
        of_training: report.metrics.get(of_training),
        **_validation_metrics(report.metrics),
        "valid_score": report.score,
        "best_config": trial.config,
        "best_trial": trial.number,
        "best_epoch": report.epoch,
    }


def selection_summary(combination: Combination, num_trials: int) -> dict[str, Any]:
    """Return how a predictor was selected from `num_trials` trials, and how its scores were measured.

    Returns
    -------
    dict
        ``ensemble`` (a dict with ``trial``, ``model`` and ``weight`` for each member; empty for a single network),
        ``valid_score_how``, ``cross_fitted_scores`` of the ``ensemble`` and the ``single`` network, if they were
        compared, and ``refit_full``. For an ensemble also ``valid_score`` and its validation metrics. For folds also
        the ``fold`` of each member, ``num_folds`` and ``calibrated_on``.
    """
    how = "on the validation images, by which the epoch was chosen"
    if num_trials > 1:
        how = f"on the validation images, by which the best of {num_trials} trials and its epoch were chosen"
    summary: dict[str, Any] = {
        "ensemble": [],
        "valid_score_how": combination.score_how or how,
        "cross_fitted_scores": combination.cross_fitted_scores or {},
        "refit_full": combination.is_refit,
    }
    if combination.evaluation is not None:
        members = zip(combination.members, combination.weights, strict=True)
        summary["ensemble"] = [
            {"trial": one.trial, "model": one.config.get("model"), "weight": weight} for one, weight in members
        ]
        summary["valid_score"] = combination.evaluation.score
        summary |= _validation_metrics(combination.evaluation.metrics)
    if combination.num_folds:
        summary["ensemble"] = [{**row, "fold": fold} for fold, row in enumerate(summary["ensemble"])]
        summary["num_folds"] = combination.num_folds
        summary["calibrated_on"] = f"{len(combination.targets)} images, out of fold"
    return summary


def _validation_metrics(metrics: Mapping[str, float]) -> dict[str, Any]:
    if "subset_accuracy" in metrics:
        return {"valid_acc": metrics["subset_accuracy"], "valid_f1_micro": metrics["f1_micro"]}
    if "top1" in metrics:
        return {"valid_acc": metrics["top1"]}
    return {"valid_rmse": metrics.get("rmse")}
