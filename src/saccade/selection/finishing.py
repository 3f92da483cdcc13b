"""The end of a fit: choose the networks of the predictor, and write it to disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.inference.postprocessing import Postprocessing
from saccade.inference.saved import (
    CHOICES_FOLDER,
    MEMBERS_FOLDER,
    PREDICTOR_FOLDER,
    WEIGHTS,
    Choice,
    Member,
    SavedPredictor,
)
from saccade.models.custom import OwnPart
from saccade.selection.candidates import (
    Candidate,
    Combination,
    combine,
    mean_predictions,
    read_blueprint,
    read_candidates,
    read_predictions,
)
from saccade.selection.folding import Folded
from saccade.selection.members import calibrated, final_weights
from saccade.selection.summary import best_figures, combined_figures, fit_summary, trial_rows
from saccade.study.objectives import cost_names, pareto_front, trial_costs
from saccade.study.study import Study
from saccade.study.trial import Trial
from saccade.training.imbalance import learned_shares
from saccade.training.probes.final_probe import FinalProbe
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial_files import drop_files, outputs_file, probe_file, weights_file

BEST, BEST_OUTPUTS = "best.safetensors", "best.outputs.npy"
"""Names of a trial's best weights and of their raw outputs for the validation images, once the search is over."""


def best_trials(study: Study, objectives: Sequence[str]) -> list[Trial]:
    """Return the trials whose weights the predictor keeps, the best first.

    With costs among the objectives, these are the trials of the Pareto front; otherwise the best trial alone.
    """
    if cost_names(objectives):
        return pareto_front(study.trials, objectives)
    return [] if study.best_trial is None else [study.best_trial]


def choose_combination(
    study: Study,
    task: ImageTask,
    soups: Sequence[Candidate],
    deadline: Deadline,
    *,
    max_members: int,
    seed: int,
) -> Combination | None:
    """Return the best candidate, or an ensemble of candidates where that is better.

    Parameters
    ----------
    study : Study
        The finished search.
    task : ImageTask
        The task of its trials.
    soups : sequence of Candidate
        Averaged weights that score better than each of their trials.
    deadline : Deadline
        When the choice must be made.
    max_members : int
        The most networks of an ensemble.
    seed : int
        Of the cross-fitting.

    Returns
    -------
    Combination or None
        None where the outputs of the best trial were not kept, so that nothing can be compared with it.
    """
    candidates = read_candidates(study.trials, task)
    if not candidates or study.best_trial is None or candidates[0].trial != study.best_trial.number:
        return None
    candidates += soups
    members = calibrated(candidates, task)
    found = combine(members, task, max_members, seed, deadline.seconds_left)
    if len(found.members) == 1:  # Calibration matters to the weights of an ensemble only.
        (place,) = (place for place, one in enumerate(members) if one is found.members[0])
        return replace(found, members=[candidates[place]])
    return found


def write_predictor(
    folder: Path,
    study: Study,
    task: ImageTask,
    combination: Combination | None = None,
    folded: Folded | None = None,
    *,
    label: str | list[str],
    eval_metric: str | None,
    class_names: list[str] | None,
    objectives: Sequence[str] = (),
    refit_folder: Path | None = None,
    layers: Path,
    seconds: Mapping[str, float],
) -> SavedPredictor:
    """Write the predictor into the run folder; after a kill it is complete, or absent.

    Parameters
    ----------
    folder : Path
        The run folder.
    study, task
        The finished search, and the task of its trials.
    combination : Combination or None
        The networks that are kept; None is the best trial, or with costs among the objectives, the Pareto front.
    folded : Folded or None
        The result of cross-validation, if `combination` comes from there.
    label, eval_metric, class_names
        As in `SavedPredictor`.
    objectives : sequence of str
        As `saccade.study.objectives.check_objectives` returns them.
    refit_folder : Path or None
        Where the weights of the best trial's refit are; None without a refit.
    layers : Path
        Where new classifier layers are written, which are fitted to all images.
    seconds : mapping
        Seconds by phase of the run, with their ``total``.

    Raises
    ------
    DataError
        If the weights of one of the best trials are missing.
    """
    kept = best_trials(study, objectives)
    best = kept[0]
    costs = trial_costs(study.trials, objectives) if cost_names(objectives) else None
    if combination is None:
        weights = {_name_of_weights(trial, best): _last_layer_of_all(trial, task, layers) for trial in kept}
        members = [Member(best.number, read_blueprint(best), amp=best.config.get("amp"))]
        first, epoch, net = best, None, best.config.get("model")
        postprocessing = _postprocessing(best, task)
    else:
        members = _members(combination)
        weights = {
            member.weights: final_weights(one, task, layers)
            for member, one in zip(members, combination.members, strict=True)
        }
        first, epoch = study.trials[members[0].trial], combination.members[0].epoch
        net = next((one.own_network for one in combination.members if one.own_network), None)
        postprocessing = _postprocessing_of_combination(combination, task, folded)
    is_refit = refit_folder is not None
    if refit_folder is not None:
        weights[WEIGHTS] = _weights(refit_folder, best)
    summary = {
        **fit_summary(first, study.trials, task.metric.name, seconds, epoch),
        **postprocessing.summary(task.problem, is_refit),
        "refit_full": is_refit,
        **(combined_figures(combination, len(study.trials)) if folded is None else folded.figures()),
    }
    partial = folder / f".{PREDICTOR_FOLDER}"
    shutil.rmtree(partial, ignore_errors=True)
    saved = SavedPredictor(
        folder=partial,
        label=label,
        problem=task.problem,
        metric=task.metric.name,
        eval_metric=eval_metric,
        class_names=class_names,
        summary=summary,
        trials=trial_rows(study.trials, costs, [trial.number for trial in kept]),
        net=net if isinstance(net, OwnPart) else None,
        choices=[] if costs is None else [_choice(trial, costs[trial.number], best, task) for trial in kept],
        members=members,
        postprocessing=postprocessing,
    )
    saved.write(weights)
    partial.rename(folder / PREDICTOR_FOLDER)
    for trial in study.trials:
        if trial is not first:
            drop_files(Path(trial.folder), "best")  # Paused trials still have theirs; the predictor has its own copies.
    return replace(saved, folder=folder / PREDICTOR_FOLDER)


def _members(combination: Combination) -> list[Member]:
    return [
        Member(
            one.trial,
            one.blueprint,
            f"{MEMBERS_FOLDER}/{number:04d}.safetensors" if number else WEIGHTS,
            weight,
            list(one.soup),
            one.config.get("amp"),
        )
        for number, (one, weight) in enumerate(zip(combination.members, combination.weights, strict=True))
    ]


def _choice(trial: Trial, costs: dict[str, float], best: Trial, task: ImageTask) -> Choice:
    postprocessing = _postprocessing(trial, task)
    summary = best_figures(trial) if trial is best else {**best_figures(trial), "refit_full": False}
    summary |= {} if trial is best else postprocessing.summary(task.problem)
    weights = _name_of_weights(trial, best)
    return Choice(trial.number, costs, read_blueprint(trial), summary, weights, postprocessing)


def _postprocessing(trial: Trial, task: ImageTask) -> Postprocessing:
    """Fit the postprocessing of a trial; if its outputs for the held-out images are missing, it changes nothing."""
    assert trial.best_report is not None
    folder = Path(trial.folder)
    for path in (outputs_file(folder, trial.best_report.epoch), folder / BEST_OUTPUTS):
        if (predictions := read_predictions(path, task)) is not None:
            return _postprocessing_of(predictions, task.val.targets, task, trial.config)
    return Postprocessing()


def _postprocessing_of_combination(combination: Combination, task: ImageTask, folded: Folded | None) -> Postprocessing:
    """Fit the postprocessing of several networks; for those of folds, to their out-of-fold predictions."""
    config = combination.members[0].config
    if folded is None:
        return _postprocessing_of(mean_predictions(combination), task.val.targets, task, config)
    return _postprocessing_of(folded.predictions, folded.targets, task, config)


def _postprocessing_of(
    predictions: np.ndarray, targets: np.ndarray, task: ImageTask, config: dict[str, Any]
) -> Postprocessing:
    # Over training and held-out images together, as the split changes the frequencies of each by chance.
    images = task.train.joined(task.val) if task.is_holdout else task.train
    shares = learned_shares(Recipe.of(config), images.targets, task.problem, task.class_names, images.weights)
    return Postprocessing.fit(predictions, targets, task.problem, task.metric, shares)


def _last_layer_of_all(trial: Trial, task: ImageTask, layers: Path) -> Path:
    """Return the file of a trial's best weights, with a last layer of all images if it was best before any training."""
    assert trial.best_report is not None
    weights = _weights(Path(trial.folder), trial)
    probe = FinalProbe.load(probe_file(Path(trial.folder))) if trial.best_report.epoch == 0 else None
    return final_weights(
        Candidate(trial.number, trial.config, read_blueprint(trial), weights, np.zeros(0), probe=probe), task, layers
    )


def _name_of_weights(trial: Trial, best: Trial) -> str:
    return WEIGHTS if trial is best else f"{CHOICES_FOLDER}/{trial.number:04d}.safetensors"


def _weights(folder: Path, trial: Trial) -> Path:
    """Return the file in a folder that has the weights of a trial's best epoch."""
    assert trial.best_report is not None
    expected = weights_file(folder, trial.best_report.epoch)
    for path in (expected, folder / BEST):
        if path.is_file():
            return path
    raise DataError(f"{expected} is gone, the weights of trial {trial.number}, one of the best; start the run anew")
