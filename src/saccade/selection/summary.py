"""Reports of a search and its result: the leaderboard, and the summary that `ImagePredictor.fit_summary` returns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from saccade.study.objectives import trial_costs
from saccade.study.trial import Trial
from saccade.tasks.metrics import Metric

if TYPE_CHECKING:
    from saccade.selection.combination import Combination
    from saccade.selection.ensemble import Evaluation
    from saccade.training.task import ImageTask

_COLUMNS = ("trial", "status", "score_val", "weight", "images_per_s", "epochs_done", "best_epoch", "fit_time_s")


def trial_rows(
    trials: Sequence[Trial],
    costs: Mapping[int, Mapping[str, float]] | None = None,
    on_front: Collection[int] = (),
    selected: Collection[int] = (),
) -> list[dict[str, Any]]:
    """Return a row of JSON values for each trial, best first, failed last; `costs` and Pareto front by trial number.

    Of trials with equal scores, those that were `selected` for the predictor come first.
    """
    rows = []
    speeds = trial_costs(trials, ["image_ms"])
    for trial in trials:
        best, image_ms = trial.best_report, speeds.get(trial.number, {}).get("image_ms")
        row = {
            "trial": trial.number,
            "status": trial.status.value,
            "score_val": best.score if best else None,
            "images_per_s": image_ms and _rounded(1000 / image_ms),
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
        score, number = row["score_val"], row["trial"]
        return (score is None, -(score or 0.0), not row.get("on_front"), number not in selected, number)

    return sorted(rows, key=place)


def leaderboard(rows: Sequence[dict[str, Any]], weights: Mapping[int, float]) -> pd.DataFrame:
    """Return the rows of `trial_rows` as a table, each hyperparameter in a column of its own.

    Columns are ``trial``, ``status``, ``score_val`` (higher is better), ``weight`` (of the trial's networks in the
    predictor; they sum to 1), ``images_per_s`` (throughput of the network on this machine, decoding excluded),
    ``epochs_done``, ``best_epoch`` (0 is the linear probe), ``fit_time_s``, the hyperparameters, and ``reason`` (why a
    trial failed, or stopped early). With several objectives, also the costs among them (``latency_ms`` of an image,
    ``num_params``, ``num_bytes``) and ``on_front``: whether the trial is on the Pareto front.
    """
    flat = []
    for each in rows:
        row = {"images_per_s": None, **each, "weight": weights.get(each["trial"], 0.0)}
        costs = {**row["costs"], "on_front": row["on_front"]} if "costs" in row else {}
        costs.pop("image_ms", None)  # the column images_per_s has it
        flat.append({**{key: row[key] for key in _COLUMNS}, **costs, **row["config"], "reason": row["reason"]})
    table: pd.DataFrame = pd.DataFrame(flat)
    return table


def search_summary(rows: Sequence[dict[str, Any]], metric: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return what `ImagePredictor.fit_summary` returns about the search; the best trial is the first row."""
    best = rows[0]
    return {
        "best_trial": best["trial"],
        "best_config": best["config"],
        "best_epoch": best["best_epoch"],
        "eval_metric": metric,
        "total_time": seconds["total"],
        "seconds": dict(seconds),
        "num_trials": len(rows),
        "fit_history": {
            "best_reward": best["score_val"],
            "best_config": best["config"],
            "total_time": seconds["total"],
            "reward_attr": "valid_reward",
            "config_history": {str(row["trial"]): row["config"] for row in sorted(rows, key=lambda row: row["trial"])},
        },
    }


def result_summary(
    combination: Combination, evaluation: Evaluation, first: Trial, rows: Sequence[dict[str, Any]], task: ImageTask
) -> dict[str, Any]:
    """Return what `ImagePredictor.fit_summary` returns about the predictor itself, which is described there.

    `first` is the trial of its first network. Regression has ``train_loss`` and ``valid_rmse``, multilabel problems
    have subset accuracies and ``valid_f1_micro``. Folds have ``num_folds``, ``calibrated_on`` and the ``fold`` of each
    member.
    """
    members, best, metric = combination.members, rows[0], task.metric
    report = next((each for each in first.reports if each.epoch == members[0].epoch), first.best_report)
    assert report is not None
    of_training = "train_acc" if {"subset_accuracy", "top1"} & evaluation.metrics.keys() else "train_loss"
    listed = [
        {"trial": one.trial, "model": one.config.get("model"), "weight": weight}
        for one, weight in zip(members, combination.weights, strict=True)
    ]
    speeds = {row["trial"]: row["images_per_s"] for row in rows}
    speed = None
    if all(speeds[one.trial] for one in members):
        speed = _rounded(1 / sum(1 / speeds[one.trial] for one in members))
    metrics: dict[str, Any] = {"valid_rmse": evaluation.metrics.get("rmse")}
    if "subset_accuracy" in evaluation.metrics:
        metrics = {"valid_acc": evaluation.metrics["subset_accuracy"], "valid_f1_micro": evaluation.metrics["f1_micro"]}
    elif "top1" in evaluation.metrics:
        metrics = {"valid_acc": evaluation.metrics["top1"]}
    summary: dict[str, Any] = {
        of_training: report.metrics.get(of_training),
        **metrics,
        "valid_score": evaluation.score,
        "valid_score_how": _how(combination, len(rows), task.num_val_seen),
        "images_per_s": speed,
        "result": _result_line(combination, evaluation.score, best, metric)
        + (f", {speed:g} images/s without decoding" if speed else ""),
        "why_not_best_trial": _why_not(combination, evaluation.score, best, metric),
        "ensemble": listed if len(members) > 1 else [],
        "cross_fitted_scores": combination.cross_fitted_scores or {},
        "refit_full": combination.is_refit,
    }
    if combination.num_folds:
        summary["ensemble"] = [{**row, "fold": fold} for fold, row in enumerate(listed)]
        summary["num_folds"] = combination.num_folds
        summary["calibrated_on"] = f"{len(combination.targets)} images, out of fold"
    return summary


def _result_line(combination: Combination, score: float, best: dict[str, Any], metric: Metric) -> str:
    numbers = list(dict.fromkeys(one.trial for one in combination.members))
    names = " and ".join([", ".join(map(str, numbers[:-1])), str(numbers[-1])]) if len(numbers) > 1 else str(numbers[0])
    what, num = f"trial{'s' if len(numbers) > 1 else ''} {names}", len(combination.members)
    if combination.num_folds:
        what = f"{combination.num_folds} folds of {what}"
    elif num > 1:
        what = f"ensemble of {what if len(numbers) == num else f'{num} networks of {what}'}"
    elif combination.is_refit:
        what = f"refit of {what}"
    line = f"{what}, {metric.name} {_shown(score, metric)}"
    if combination.is_refit:
        line += " before the refit"
    of_best = _shown(best["score_val"], metric)
    if numbers != [best["trial"]] or num > 1:
        line += f" (best single: trial {best['trial']}, {of_best})"
    elif _shown(score, metric) != of_best:
        line += f" ({of_best} without calibration and thresholds)"
    return line


def _how(combination: Combination, num_trials: int, num_val_seen: int) -> str:
    how = combination.score_how
    if not how:
        of_trials = f"the best of {num_trials} trials and its epoch were" if num_trials > 1 else "the epoch was"
        how = f"on the validation images, by which {of_trials} chosen"
    if combination.is_refit:
        how += "; before the refit, which leaves no validation images"
    elif any(one.has_seen_val for one in combination.members):
        how += "; before the linear probe was fitted to all images, which leaves no validation images"
    if num_val_seen:
        how += f"; too high, as the network of warm_start was fitted to {num_val_seen} of these images"
    return how


def _why_not(combination: Combination, score: float, best: dict[str, Any], metric: Metric) -> str:
    """Return why the best trial alone is not the predictor although its score is higher; "" if it is not."""
    if score >= best["score_val"]:
        return ""
    trial = f"trial {best['trial']}"
    if len(combination.members) == 1 and not combination.num_folds:
        if combination.members[0].trial == best["trial"]:
            return f"{trial} is the predictor; its score on the leaderboard is without calibration and thresholds"
        return f"the predictor was chosen within limits of its costs, and {trial} is not within them, or another choice"
    reason = f"{trial} was selected for its score on the validation images, so that this score is too high"
    if combination.num_folds:
        return f"{reason}; out-of-fold scores are independent of the selection"
    if scores := combination.cross_fitted_scores:
        single, ensemble = (_shown(scores[name], metric) for name in ("single", "ensemble"))
        close = ", a difference within two standard errors" if scores["single"] > scores["ensemble"] else ""
        return f"{reason}: cross-fitted, the best single network scores {single} and the ensemble {ensemble}{close}"
    return f"{reason}; the mean of several networks is usually better on new images"


def _rounded(speed: float) -> float:
    return float(f"{speed:.3g}")


def _shown(score: float, metric: Metric) -> str:
    return f"{metric.score(score):.4g}"  # of an error, the score is the negative
