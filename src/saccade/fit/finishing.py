"""The end of a fit: the predictor that comes of a search."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.fit.run_folder import FOLDS, REFIT, SOUPS, START, STORE, TRIALS, FitRequest
from saccade.fit.options import FitOptions
from saccade.inference.postprocessing import Trust
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

BEST = "best.safetensors"
"""What the best weights of a trial are called once the search is over."""

BEST_OUTPUTS = "best.outputs.npy"
"""And what the network said of the validation images; see `saccade.training.trial_files.outputs_file`."""


def best_trials(study: Study, objectives: Sequence[str]) -> list[Trial]:
    """Return the trials whose weights a predictor is to have, the best one first: more than one if costs count."""
    if cost_names(objectives):
        return pareto_front(study.trials, objectives)
    return [] if study.best_trial is None else [study.best_trial]


def keep_best(
    request: FitRequest,
    folder: Path,
    study: Study,
    task: ImageTask,
    deadline: Deadline,
    is_refit: bool,
    soups: Sequence[Candidate] = (),
    until: Deadline | None = None,
    folded: Folded | None = None,
) -> SavedPredictor:
    """Write the predictor of the best trial into the run folder; after a kill it is whole, or not there.

    It may also be a soup, or an ensemble of trials and soups, where that is better.

    Parameters
    ----------
    request, folder, study, task, deadline
        What was asked, and what has come of it.
    is_refit : bool
        Whether the best trial's recipe was trained once more, on all images.
    soups : sequence of Candidate
        Means of weights that are better than each of their trials.
    until : Deadline or None
        When there must be no more thought of ensembles.
    folded : Folded or None
        What came of folds; it takes the place of all else.

    Raises
    ------
    DataError
        When somebody has removed its weights.
    """
    objectives, metric = request.settings.objectives, task.metric
    kept = best_trials(study, objectives)
    best = kept[0]
    costs = trial_costs(study.trials, objectives) if cost_names(objectives) else None
    combination = _combination(request.settings, study, task, soups, until or deadline, folded)
    layers = folder / REFIT / "layers"
    if combination is None:
        weights = {_name_of_weights(trial, best): _last_layer_of_all(trial, task, layers) for trial in kept}
        members: list[Member] = []
        first, epoch, net = best, None, best.config.get("model")
    else:
        members = _members(combination)
        weights = {
            member.weights: final_weights(one, task, layers)
            for member, one in zip(members, combination.members, strict=True)
        }
        first, epoch = study.trials[members[0].trial], combination.members[0].epoch
        net = next((one.own_network for one in combination.members if one.own_network), None)
    trust = _trust(best, task) if combination is None else _trust_of_combination(combination, task, folded)
    if is_refit:
        weights[WEIGHTS] = _weights(folder / REFIT, best)
    partial = folder / f".{PREDICTOR_FOLDER}"
    shutil.rmtree(partial, ignore_errors=True)
    summary = fit_summary(first, study.trials, metric.name, deadline.elapsed_s(), epoch)
    summary |= {**trust.summary(task.problem, is_refit), "refit_full": is_refit}
    summary |= combined_figures(combination, len(study.trials)) if folded is None else folded.figures()
    saved = SavedPredictor(
        folder=partial,
        label=request.label,
        problem=task.problem,
        blueprint=read_blueprint(first),
        metric=metric.name,
        eval_metric=request.eval_metric if isinstance(request.eval_metric, str) else None,  # code is never saved
        class_names=request.train.class_names,
        summary=summary,
        trials=trial_rows(study.trials, costs, [trial.number for trial in kept]),
        net=net if isinstance(net, OwnPart) else None,
        choices=[] if costs is None else [_choice(trial, costs[trial.number], best, task) for trial in kept],
        members=members,
        trust=trust,
    )
    saved.write(weights)
    partial.rename(folder / PREDICTOR_FOLDER)
    for trial in study.trials:
        if trial is not first:
            drop_files(Path(trial.folder), "best")  # of those that are paused; or the predictor has them now
    return replace(saved, folder=folder / PREDICTOR_FOLDER)


def _combination(
    settings: FitOptions,
    study: Study,
    task: ImageTask,
    soups: Sequence[Candidate],
    until: Deadline,
    folded: Folded | None,
) -> Combination | None:
    """Return the best candidate or an ensemble; None where only the best trial is asked for, or can be judged."""
    if folded is not None:
        return folded.combination
    if settings.max_members == 1 and not settings.makes_soups:
        return None
    candidates = read_candidates(study.trials, task)
    if not candidates or study.best_trial is None or candidates[0].trial != study.best_trial.number:
        return None
    seed = settings.random_state or 0
    candidates += soups
    of_members = calibrated(candidates, task)
    found = combine(of_members, task, settings.max_members, seed, until.seconds_left)
    if len(found.members) == 1:  # there is nothing that it is to be weighed against
        (place,) = (place for place, one in enumerate(of_members) if one is found.members[0])
        return replace(found, members=[candidates[place]])
    return found


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
    trust = _trust(trial, task)
    summary = best_figures(trial) if trial is best else {**best_figures(trial), "refit_full": False}
    summary |= {} if trial is best else trust.summary(task.problem)
    return Choice(trial.number, costs, read_blueprint(trial), summary, _name_of_weights(trial, best), trust)


def _trust(trial: Trial, task: ImageTask) -> Trust:
    """Return what is known of a trial's certainty: nothing, where what it said of the held-out images was not kept."""
    assert trial.best_report is not None
    folder = Path(trial.folder)
    for path in (outputs_file(folder, trial.best_report.epoch), folder / BEST_OUTPUTS):
        if (predictions := read_predictions(path, task)) is not None:
            return _trust_of(predictions, task.val.targets, task, trial.config)
    return Trust()


def _trust_of_combination(combination: Combination, task: ImageTask, folded: Folded | None) -> Trust:
    """Return what is known of several networks; of those of folds, what each of them did on what was new to it."""
    config = combination.members[0].config
    if folded is None:
        return _trust_of(mean_predictions(combination), task.val.targets, task, config)
    return _trust_of(folded.predictions, folded.targets, task, config)


def _trust_of(predictions: np.ndarray, targets: np.ndarray, task: ImageTask, config: dict[str, Any]) -> Trust:
    # A class with more held-out images has fewer training images by chance: of all together, shares owe it nothing.
    images = task.train.joined(task.val) if task.is_holdout else task.train
    shares = learned_shares(Recipe.of(config), images.targets, task.problem, task.class_names, images.weights)
    return Trust.of(predictions, targets, task.problem, task.metric, shares)


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


def tidy_up(folder: Path) -> None:
    """Remove what a finished run leaves behind in its folder besides results; doing it twice does no harm."""
    for name in (STORE, REFIT, SOUPS, FOLDS):
        shutil.rmtree(folder / name, ignore_errors=True)
    trials = folder / TRIALS
    (trials / START).unlink(missing_ok=True)
    for pattern in ("last-*", "end-*", "*.part", "probe.npz"):
        for path in trials.glob(f"*/{pattern}"):
            path.unlink(missing_ok=True)
    for name in (BEST, BEST_OUTPUTS):
        for path in trials.glob(f"*/best-*{name.removeprefix('best')}"):
            path.replace(path.with_name(name))
