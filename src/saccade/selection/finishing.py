"""From finished trials to a predictor on disk: collect candidates, calibrate, select, train again, save."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from saccade.data.earlier_split import EarlierSplit, Keys
from saccade.deadline import Deadline
from saccade.events import EpochDone, Event, JobDone, JobFailed, Listener, Progressed, Warned
from saccade.executor import Executor
from saccade.inference.description import WEIGHTS, Choice, Member
from saccade.inference.feature_bank import FeatureBank
from saccade.inference.pipeline import first_network, known_numerics
from saccade.inference.postprocessing import Postprocessing
from saccade.inference.saved import CHOICES_FOLDER, INTERRUPTED, MEMBERS_FOLDER, SPLIT, SavedPredictor
from saccade.inference.validation import ValidationRecord
from saccade.selection.candidates import Candidate, best_epoch, ranked, read_candidates
from saccade.selection.combination import Combination, combine
from saccade.selection.ensemble import Evaluation, evaluate
from saccade.selection.folds import CrossValidation
from saccade.selection.summary import result_summary, search_summary, trial_rows
from saccade.study.objectives import cost_names, load, pareto_front, trial_costs, within_limits
from saccade.study.study import GRACE_S, Study
from saccade.study.trial import Decision, Job, Status, Trial
from saccade.study.trial_files import LocalTrialFiles
from saccade.training.imbalance import class_priors
from saccade.training.probes.probe import cached_features
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.trainer import ImageTrainable
from saccade.training.trial_files import BEST, BEST_OUTPUTS

LEAST_FEATURES_S = 0.5
"""Seconds that must be left for features that are not known: the first batch is always computed."""


def select_networks(
    study: Study,
    task: ImageTask,
    deadline: Deadline,
    notify: Listener,
    *,
    objectives: Sequence[str] = (),
    limits: Mapping[str, float] = MappingProxyType({}),
    max_members: int = 1,
    seed: int = 0,
    cross_validation: CrossValidation | None = None,
    folds_folder: Path,
    refit_folder: Path | None = None,
) -> Combination:
    """Return the networks of the predictor: those of folds, an ensemble, the best trial, or its refit.

    All of them together are within the `limits` of costs by name; without such a trial, the nearest is the result,
    after a warning. The executor of the finished `study` trains folds and the refit, up to the `deadline`; None for
    `refit_folder` is without a refit. Raises a DataError if the weights of the best trial are missing.
    """
    num_folds = 1 if cross_validation is None else cross_validation.num_folds
    trials = within_limits(study.trials, {name: limit / num_folds for name, limit in limits.items()})
    costs, best = trial_costs(study.trials, limits), best_trials(trials, objectives)[0]
    of_best = {name: num_folds * cost for name, cost in costs[best.number].items()}
    if load(of_best, limits) > 1:
        notify(Warned(_too_slow(best, of_best, limits)))
        max_members = 1
    if cross_validation is not None:
        shutil.rmtree(folds_folder, ignore_errors=True)  # of a process that was killed
        folds = cross_validation.run(study.executor, best, folds_folder, deadline, notify)
        if folds is not None:
            return folds
    if max_members > 1 and deadline.seconds_left() > 0:
        candidates = read_candidates(trials, task)
        # Unless the best trial is a candidate, nothing can be compared with it.
        if candidates and candidates[0].trial == best.number:
            calibrated = [
                one.calibrated(task) if task.problem.has_classes and deadline.seconds_left() > 0 else one
                for one in candidates
            ]
            class_prior = _class_prior(task, candidates[0].config)
            loads = {each.number: [costs[each.number][name] / limits[name] for name in limits] for each in trials}
            left = deadline.seconds_left
            found = combine(calibrated, task, max_members, seed, left, class_prior, loads if limits else None)
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


def best_trials(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Trial]:
    """Return the trials whose weights are kept, best first: the best, or with costs those of the Pareto front."""
    return pareto_front(trials, objectives) if cost_names(objectives) else ranked(trials)[:1]


def _too_slow(best: Trial, costs: Mapping[str, float], limits: Mapping[str, float]) -> str:
    """Return the warning that no trial is within the limits."""
    figures = {"image_ms": ("min_images_per_s", "{:.3g} images/s"), "latency_ms": ("max_latency_ms", "{:.3g} ms")}
    shown = []
    for name, limit in limits.items():
        option, form = figures[name]
        given, found = (1000 / value if name == "image_ms" else value for value in (limit, costs.get(name, math.inf)))
        shown.append(f"{form.format(found)} ({option}={given:g})")
    return (
        f"No network of the search is within the limits; the nearest is the result, trial {best.number}, with "
        f"{' and '.join(shown)}. Name faster networks, or a smaller img_size, in hyperparameters"
    )


def write_predictor(
    folder: Path,
    trials: Sequence[Trial],
    task: ImageTask,
    combination: Combination,
    *,
    label: str | list[str],
    eval_metric: str | None,
    class_names: list[str] | None,
    objectives: Sequence[str] = (),
    keys: Keys,
    paths: Sequence[str] = (),
    labelled: ImageTask,
    others: np.ndarray,
    earlier: EarlierSplit | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
    seconds: Callable[[], Mapping[str, float]],
    is_interrupted: bool = False,
    compare: Callable[[SavedPredictor], Mapping[str, Any]] = lambda _: {},
) -> SavedPredictor:
    """Write the predictor of these trials into a folder; after a kill it is complete, or absent.

    With costs among the objectives, the other trials of the Pareto front are saved as well. `labelled` is the task
    without the `others`, images that have no labels of the user's. `keys` and `paths` are those of all images.
    `earlier` is the split of the network from which the trials started. With `is_interrupted` the run may be resumed:
    trials keep their files, and the summary has the entry `INTERRUPTED`. The summary also has `more` entries, and those
    that `compare` returns for the predictor.

    Raises a DataError if the weights of a trial on the Pareto front are missing.
    """
    writers: dict[str, Callable[[Path], object]] = {}
    members = []
    for number, (one, weight) in enumerate(zip(combination.members, combination.weights, strict=True)):
        name = f"{MEMBERS_FOLDER}/{number:04d}.safetensors" if number else WEIGHTS
        writers[name] = partial(one.write_weights, task=task)
        member = Member(one.trial, one.blueprint, name, weight, amp=one.config.get("amp"))
        members.append(replace(member, has_seen_val=one.has_seen_val))
    first = combination.members[0]
    best = trials[first.trial]

    front = best_trials(trials, objectives)
    costs = trial_costs(trials, cost_names(objectives)) if cost_names(objectives) else None
    selected = [one.trial for one in combination.members]
    rows = trial_rows(trials, costs, [trial.number for trial in front], selected)
    for row in rows:
        if row["status"] == Status.RUNNING.value:  # when Ctrl-C or a kill ended the search
            row["status"] = "interrupted"
    choices = []
    for trial in front if costs is not None else ():
        assert costs is not None
        single = Combination.single(best_epoch(trial, task), task)
        postprocessing, summary, _ = _finished(single, labelled, trial, rows)
        name = WEIGHTS
        if trial is not best:
            name = f"{CHOICES_FOLDER}/{trial.number:04d}.safetensors"
            writers[name] = partial(single.members[0].write_weights, task=task)
        one = single.members[0]
        choice = Choice(trial.number, costs[trial.number], one.blueprint, summary, name, postprocessing)
        choices.append(replace(choice, has_seen_val=one.has_seen_val))
    postprocessing, summary, evaluation = _finished(combination, labelled, best, rows)
    if is_interrupted:
        summary[INTERRUPTED] = True
    saved = SavedPredictor(
        folder=folder,
        label=label,
        problem=task.problem,
        metric=task.metric.name,
        eval_metric=eval_metric,
        class_names=class_names,
        summary={**search_summary(rows, task.metric.name, seconds()), **more, **summary},
        trials=rows,
        net=next((one.own_network for one in combination.members if one.own_network), None),
        choices=choices,
        members=members,
        postprocessing=postprocessing,
        numerics=known_numerics(members),
        pixel_range=task.store.pixel_range,
    )
    train, val = combination.split or (labelled.train, labelled.val)
    split = EarlierSplit.of(keys[train.indices], keys[val.indices]).fitted_also_to(keys[others])
    writers[SPLIT] = (split if earlier is None else split.fitted_also_to(earlier.fitted)).save
    saved = replace(saved, summary={**saved.summary, **compare(saved)}).write(writers)
    predictions = postprocessing.calibration.apply(combination.predictions, task.problem)
    fitted = labelled.train.joined(labelled.val) if combination.num_folds else train
    given = combination.targets, predictions, evaluation.adjusted, fitted.targets
    places = labelled.val.indices if combination.indices is None else combination.indices
    ValidationRecord.of(task.problem, *given, places, paths, keys).save(saved.folder, saved.validation_key)
    return saved


def drop_weights(trials: Sequence[Trial], combination: Combination) -> None:
    """Remove the weights of trials that the predictor was made of, except those of its first network's trial."""
    for trial in trials:
        if trial.number != combination.members[0].trial:
            assert trial.files is not None
            trial.files.drop(trial.number, BEST, BEST_OUTPUTS)


def write_features(
    saved: SavedPredictor, task: ImageTask, combination: Combination, seconds_left: Callable[[], float]
) -> None:
    """Store features of training and validation images with a predictor; fewer if `seconds_left` falls to 0.

    Those of a frozen backbone are cached; of another one there are none without time. Without a single classifier layer
    nothing is stored.
    """
    is_known = combination.members[0].probe is not None
    if not is_known and seconds_left() < LEAST_FEATURES_S:
        return
    classifier = first_network(saved, task.device)
    if classifier.head is None:
        return
    train, val = combination.split or (task.train, task.val)
    indices = train.joined(val).indices

    def features(positions: np.ndarray) -> np.ndarray:
        return cached_features(classifier, task.store, indices[positions], seconds_left)

    bank = FeatureBank.of(task.problem, train.targets, val.targets, features, train.indices)
    bank.save(saved.folder, saved.features_key)


def _finished(
    combination: Combination, task: ImageTask, first: Trial, rows: list[dict[str, Any]]
) -> tuple[Postprocessing, dict[str, Any], Evaluation]:
    """Return calibration and thresholds, fitted to predictions for held-out images, the summary, and the evaluation."""
    class_prior = _class_prior(task, combination.members[0].config)
    postprocessing, report = Postprocessing(), first.best_report
    assert report is not None
    # Without predictions, because outputs were not saved, these are the scores of the epoch.
    evaluation = Evaluation(report.score, report.metrics, combination.predictions, np.zeros(0))
    if len(combination.predictions):
        held_out = combination.predictions, combination.targets
        fitted = evaluate(*held_out, task.problem, task.metric, class_prior, combination.groups)
        postprocessing, evaluation = fitted.postprocessing, combination.evaluation or fitted
    summary = {
        **postprocessing.summary(task.problem, combination.is_refit),
        **result_summary(combination, evaluation, first, rows, task),
    }
    return postprocessing, summary, evaluation


def _class_prior(task: ImageTask, config: dict[str, Any]) -> np.ndarray | None:
    # A class has fewer training images if more of its images were held out by chance. So the class prior is that of
    # all images together.
    images = task.train.joined(task.val) if task.is_holdout else task.train
    return class_priors(Recipe.of(config), images.targets, task.problem, task.class_names, images.weights)


def refit(
    executor: Executor, task: ImageTask, best: Candidate, folder: Path, deadline: Deadline, notify: Listener
) -> Candidate | None:
    """Train a candidate's recipe on training and validation images; return None after a warning if time is short."""
    executor.trainable = ImageTrainable(replace(task, train=task.train.joined(task.val), is_refit=True))
    done: list[EpochDone] = []
    problems: list[str] = []

    def handle(event: Event) -> Decision:
        match event:
            case EpochDone():
                done.append(event)
                notify(Progressed("refit on all images", event.epoch, best.epoch))
            case JobDone(reason=reason) if reason:
                problems.append(reason)
            case JobFailed(reason=reason):
                problems.append(reason)
        return Decision.CONTINUE

    files = LocalTrialFiles(folder)
    job = Job(best.trial, best.config, best.epoch, seconds_left=deadline.seconds_left(), files=files)
    executor.submit(job)
    executor.run_within_limits(handle, lambda: {job.trial: deadline.seconds_left() + GRACE_S})
    weights = files.get(best.trial, BEST, best.epoch)
    is_done = bool(done) and done[-1].epoch == best.epoch and done[-1].metrics["train_part"] == 1.0
    if not is_done or weights is None:
        notify(
            Warned(f"no refit on all images ({'; '.join(problems) or 'it was not finished'}); the best trial is kept")
        )
        return None
    # No image is left to evaluate it, so the predictions stay those of `best`.
    return replace(best, weights=weights, probe=None, is_refit=True)
