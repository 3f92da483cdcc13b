"""From finished trials to a predictor on disk: collect candidates, calibrate, select, train again, save."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.deadline import Deadline
from saccade.events import Listener
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
from saccade.selection.candidates import best_epoch, read_candidates
from saccade.selection.combination import Combination, combine
from saccade.selection.folds import CrossValidation
from saccade.selection.refit import refit
from saccade.selection.summary import fit_summary, selection_summary, trial_rows, trial_summary
from saccade.study.objectives import cost_names, pareto_front, trial_costs
from saccade.study.study import Study
from saccade.study.trial import Trial
from saccade.training.imbalance import class_priors
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial_files import BEST, BEST_OUTPUTS


def select_networks(
    study: Study,
    task: ImageTask,
    deadline: Deadline,
    notify: Listener,
    *,
    objectives: Sequence[str] = (),
    max_members: int = 1,
    seed: int = 0,
    cross_validation: CrossValidation | None = None,
    folds_folder: Path,
    refit_folder: Path | None = None,
) -> Combination:
    """Return the networks of the predictor.

    Parameters
    ----------
    study : Study
        The finished search. Its executor trains folds and the refit.
    task : ImageTask
        The task of its trials.
    deadline : Deadline
        The end of training and of cross-fitting.
    notify : callable
        Receives progress and warnings.
    objectives : sequence of str
        As `saccade.study.objectives.check_objectives` returns them.
    max_members : int
        The most networks of an ensemble; 1 is the best trial alone.
    seed : int
        Seed of cross-fitting.
    cross_validation : CrossValidation or None
        Trains the best recipe on folds; their networks replace those of trials.
    folds_folder : Path
        For the files of the folds.
    refit_folder : Path or None
        For the files of a refit on all images, which replaces the best trial; None is without a refit.

    Raises
    ------
    DataError
        If the weights of the best trial are missing.
    """
    best = best_trials(study, objectives)[0]
    if cross_validation is not None:
        shutil.rmtree(folds_folder, ignore_errors=True)  # of a process that was killed
        folds = cross_validation.run(study.executor, best, folds_folder, deadline, notify)
        if folds is not None:
            return folds
    if max_members > 1:
        candidates = read_candidates(study.trials, task)
        # Unless the best trial is a candidate, nothing can be compared with it.
        if candidates and study.best_trial is not None and candidates[0].trial == study.best_trial.number:
            calibrated = [one.calibrated(task) for one in candidates] if task.problem.has_classes else candidates
            found = combine(calibrated, task, max_members, seed, deadline.seconds_left)
            if len(found.members) > 1:
                return found
            # The predictor calibrates a single network itself.
            (index,) = (index for index, one in enumerate(calibrated) if one is found.members[0])
            alone = Combination.single(candidates[index], task)
            return replace(alone, cross_fitted_scores=found.cross_fitted_scores)
    alone = Combination.single(best_epoch(best, task), task)
    if refit_folder is not None:
        shutil.rmtree(refit_folder, ignore_errors=True)
        refitted = refit(study.executor, task, alone.members[0], refit_folder, deadline, notify)
        if refitted is not None:
            return replace(alone, members=[refitted], is_refit=True)
    return alone


def best_trials(study: Study, objectives: Sequence[str]) -> list[Trial]:
    """Return the trials whose weights the predictor keeps, the best first.

    With costs among the objectives, these are the trials of the Pareto front; otherwise the best trial alone.
    """
    if cost_names(objectives):
        return pareto_front(study.trials, objectives)
    return [] if study.best_trial is None else [study.best_trial]


def write_predictor(
    folder: Path,
    study: Study,
    task: ImageTask,
    combination: Combination,
    *,
    label: str | list[str],
    eval_metric: str | None,
    class_names: list[str] | None,
    objectives: Sequence[str] = (),
    seconds: Callable[[], Mapping[str, float]],
) -> SavedPredictor:
    """Write the predictor into the run folder; after a kill it is complete, or absent.

    Parameters
    ----------
    folder : Path
        The run folder.
    study, task
        The finished search, and the task of its trials.
    combination : Combination
        As `select_networks` returns it.
    label, eval_metric, class_names
        As in `SavedPredictor`.
    objectives : sequence of str
        With costs among them, the other trials of the Pareto front are saved as well.
    seconds : callable
        Returns the seconds of each phase of the run so far, with their ``total``.

    Raises
    ------
    DataError
        If the weights of a trial on the Pareto front are missing.
    """
    partial = folder / f".{PREDICTOR_FOLDER}"
    shutil.rmtree(partial, ignore_errors=True)
    members = []
    for number, (one, weight) in enumerate(zip(combination.members, combination.weights, strict=True)):
        name = f"{MEMBERS_FOLDER}/{number:04d}.safetensors" if number else WEIGHTS
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        one.write_weights(partial / name, task)
        members.append(Member(one.trial, one.blueprint, name, weight, amp=one.config.get("amp")))
    first = combination.members[0]
    best = study.trials[first.trial]

    costs, choices = None, []
    front = best_trials(study, objectives)
    if cost_names(objectives):
        costs = trial_costs(study.trials, objectives)
        for trial in front:
            choices.append(_choice(trial, costs[trial.number], task, partial, is_best=trial is best))

    postprocessing = _postprocessing(combination.predictions, combination.targets, task, first.config)
    saved = SavedPredictor(
        folder=partial,
        label=label,
        problem=task.problem,
        metric=task.metric.name,
        eval_metric=eval_metric,
        class_names=class_names,
        summary={
            **fit_summary(best, study.trials, task.metric.name, seconds(), first.epoch),
            **postprocessing.summary(task.problem, combination.is_refit),
            **selection_summary(combination, len(study.trials)),
        },
        trials=trial_rows(study.trials, costs, [trial.number for trial in front]),
        net=next((one.own_network for one in combination.members if one.own_network), None),
        choices=choices,
        members=members,
        postprocessing=postprocessing,
    )
    saved.write({})
    partial.rename(folder / PREDICTOR_FOLDER)
    for trial in study.trials:
        if trial is not best:
            assert trial.files is not None
            trial.files.drop(trial.number, BEST, BEST_OUTPUTS)  # of paused trials, and of members that were copied
    return replace(saved, folder=folder / PREDICTOR_FOLDER)


def _choice(trial: Trial, costs: dict[str, float], task: ImageTask, folder: Path, *, is_best: bool) -> Choice:
    """Return a trial of the Pareto front as a choice; its weights are written unless they are the predictor's."""
    candidate = best_epoch(trial, task)
    postprocessing = _postprocessing(candidate.predictions, task.val.targets, task, trial.config)
    summary, name = trial_summary(trial), WEIGHTS
    if not is_best:
        summary |= {"refit_full": False, **postprocessing.summary(task.problem)}
        name = f"{CHOICES_FOLDER}/{trial.number:04d}.safetensors"
        (folder / name).parent.mkdir(exist_ok=True)
        candidate.write_weights(folder / name, task)
    return Choice(trial.number, costs, candidate.blueprint, summary, name, postprocessing)


def _postprocessing(
    predictions: np.ndarray, targets: np.ndarray, task: ImageTask, config: dict[str, Any]
) -> Postprocessing:
    """Return calibration and thresholds, fitted to predictions for held-out images; none without predictions."""
    # A class has fewer training images if more of its images were held out by chance. So the class prior is that of
    # all images together.
    images = task.train.joined(task.val) if task.is_holdout else task.train
    class_prior = class_priors(Recipe.of(config), images.targets, task.problem, task.class_names, images.weights)
    return Postprocessing.fit(predictions, targets, task.problem, task.metric, class_prior)
