"""The story of one fit: check, decode and split, search, and keep the best as a predictor on disk."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from saccade.data.checks import CheckedPart, check_dataset
from saccade.data.examples import Examples
from saccade.deadline import Deadline
from saccade.errors import DataError, SaccadeError
from saccade.events import Event, EventLog, Listener, RunFinished, RunStarted, Warned
from saccade.executor import use_executor
from saccade.fit.preparation import PreparedData, prepare_data
from saccade.fit.reserve import FinishingReserve, superseded_weights
from saccade.fit.resuming import EarlierRun, check_split, most_held_out_before
from saccade.fit.run_folder import (
    CHECKS,
    EVENTS,
    FOLDS,
    JOURNAL,
    REFIT,
    START,
    STORE,
    TRIALS,
    FitRequest,
    begin_run,
    locked,
    make_run_folder,
    tidy_up,
)
from saccade.fit.searching import check_search, is_gpu_wanted, make_image_executor, make_study
from saccade.inference.saved import SavedPredictor
from saccade.selection.finishing import select_networks, write_predictor
from saccade.selection.folds import CrossValidation
from saccade.study.journal import Journal
from saccade.study.objectives import check_score_name, cost_names
from saccade.study.progress import ProgressDisplay
from saccade.study.trackers import connected
from saccade.tasks.metrics import Metric, make_metric
from saccade.tasks.problem import Problem
from saccade.training.imbalance import check_imbalance
from saccade.training.probes.robust import check_robust_loss
from saccade.training.recipes.data_budget import most_held_out, most_used
from saccade.training.recipes.fallback_models import with_networks_at_hand
from saccade.training.recipes.networks import check_methods, check_networks, stored_channels, stored_side
from saccade.training.task import ImageTask
from saccade.training.trial.trainable import ImageTrainable

DECODING_PART = 0.2
"""The part of a time limit after which decoding stops and training begins with the images that are ready."""

LEAST_DECODING_S = 1.0
"""Seconds that decoding has however short the limit is, so that there is always something to learn from."""


def run_fit(request: FitRequest, deadline: Deadline, earlier: EarlierRun | None = None) -> SavedPredictor:
    """Do what was asked, and return the predictor that was written to the run folder.

    Parameters
    ----------
    request : FitRequest
        What was asked.
    deadline : Deadline
        When it must be done.
    earlier : EarlierRun or None
        The run to go on with; None begins one.

    Raises
    ------
    SaccadeError
        Of many kinds, whenever no predictor can come of it.
    """
    if earlier is not None:
        request = earlier.taken_up(request)
        if earlier.is_finished:
            tidy_up(earlier.folder)
            return earlier.saved(request)
    check_methods(request.space)
    weights = Path(request.settings.weights).expanduser() if request.settings.weights else None
    told = ""
    if not request.is_model_named and earlier is None:
        space, told = with_networks_at_hand(
            request.space,
            weights,
            given=request.given,
            num_images=len(request.train),
            is_gpu=is_gpu_wanted(request.settings),
        )
        request = replace(request, space=space)
    num_trials, objectives = request.num_trials, request.settings.tuning.objectives
    check_search(request)
    labels = request.train.labels
    assert labels is not None
    problem = Problem.of(labels, request.problem_type)
    check_networks(request.space, weights, problem.num_outputs)
    check_imbalance(request.space, labels, problem, request.train.class_names)
    check_robust_loss(request.space, problem)
    metric_name = make_metric(request.eval_metric, problem).name
    check_score_name(objectives, metric_name)
    folder = make_run_folder(request.path) if earlier is None else earlier.folder
    with (
        locked(folder),
        connected(request.settings.callbacks or ()) as trackers,
        ProgressDisplay(request.verbosity, metric_name) as display,
    ):
        if earlier is None:
            begin_run(request, folder)  # from here on there is something to lose
        else:
            earlier.note(request)
        log = EventLog(folder / EVENTS)
        listeners: list[Listener] = [log, display, *trackers]

        def tell(event: Event) -> None:
            for listener in listeners:
                listener(event)

        with contextlib.closing(log), _ready_to_resume(folder, tell):
            tell(RunStarted(str(folder), num_trials, request.time_limit_s))
            if told:
                tell(Warned(told))
            with use_executor(request.settings.executor, make_image_executor(request, tell)) as executor:
                data = _prepare(request, folder, problem.num_outputs, deadline, tell)
                metric = make_metric(request.eval_metric, data.problem)
                task = _task(request, folder, data, metric, weights)
                executor.trainable = ImageTrainable(task)
                settings = request.settings
                cross_validation = None
                if settings.num_folds is not None:  # too few images are an error before the search
                    cross_validation = CrossValidation(task, settings.num_folds, settings.random_state or 0)
                fold_costs = None if cross_validation is None else cross_validation.costs(executor.num_workers)
                ratio = _refit_ratio(request, data)
                reserve = FinishingReserve(deadline, ratio, objectives, settings.max_members, fold_costs)
                listeners.append(reserve)
                with Journal(folder / JOURNAL, request.space) as journal:
                    study = make_study(request, folder, task, executor, deadline, reserve.seconds, journal, listeners)
                    reserve.recall(study)
                    display.recall(study.trials)
                    study.listeners.append(superseded_weights(study, settings))
                    study.run()
                until = Deadline(deadline.seconds_left() - reserve.finishing_s)
                combination = select_networks(
                    study,
                    task,
                    until,
                    tell,
                    objectives=objectives,
                    max_members=settings.max_members,
                    seed=settings.random_state or 0,
                    cross_validation=cross_validation,
                    folds_folder=folder / FOLDS,
                    refit_folder=folder / REFIT if settings.refit_full else None,
                )
            saved = write_predictor(
                folder,
                study,
                task,
                combination,
                label=request.label,
                eval_metric=request.eval_metric if isinstance(request.eval_metric, str) else None,
                class_names=request.train.class_names,
                objectives=objectives,
                seconds={"total": deadline.elapsed_s()},
            )
            tidy_up(folder)
            summary = saved.summary
            tell(RunFinished(summary["best_trial"], summary["valid_score"], deadline.elapsed_s()))
    return saved


@contextlib.contextmanager
def _ready_to_resume(folder: Path, tell: Listener) -> Iterator[None]:
    """Remove the decoded images when a run cannot be done; one that is interrupted will want them again."""
    for partial in folder.glob(f".{STORE}-*.partial"):  # of a process that was killed
        shutil.rmtree(partial, ignore_errors=True)
    try:
        yield
    except KeyboardInterrupt:
        tell(Warned(f"interrupted; to go on: saccade resume {folder}"))
        raise
    except SaccadeError:
        shutil.rmtree(folder / STORE, ignore_errors=True)
        raise


def _prepare(request: FitRequest, folder: Path, num_outputs: int, deadline: Deadline, tell: Listener) -> PreparedData:
    settings = request.settings
    is_gpu = is_gpu_wanted(settings)
    most = most_held_out_before(folder) or most_held_out(request.time_limit_s, is_gpu, num_outputs)
    data = prepare_data(
        request.train,
        request.tuning,
        request.problem_type,
        folder=folder / STORE,
        shorter_side=stored_side(request.space, num_outputs),
        channels=stored_channels(request.space),
        holdout_frac=settings.holdout_frac,
        most_held_out=most,
        most_images=math.inf if request.is_model_named else most_used(request.time_limit_s, is_gpu),
        random_state=settings.random_state,
        seconds_left=None if request.time_limit_s is None else _decoding_deadline(deadline).seconds_left,
        tell=tell,
    )
    check_split(folder, data, most)
    _check_continues(request, data)
    _check_data(request, data, folder, tell)
    return data


def _check_data(request: FitRequest, data: PreparedData, folder: Path, tell: Listener) -> None:
    """Check the images for what could spoil the result; a table of all findings goes into the run folder."""

    def part(examples: Examples, start: int) -> CheckedPart:
        has_classes = data.problem.type in ("binary", "multiclass")
        labels = examples.labels if has_classes and isinstance(examples.labels, pd.Series) else None
        return CheckedPart(examples.images, labels, data.store.scan.take(range(start, start + len(examples))))

    tuning = None if request.tuning is None else part(request.tuning, len(request.train))
    report = check_dataset(part(request.train, 0), tuning, is_regression=data.problem.type == "regression")
    if report.findings:
        report.to_frame().to_csv(folder / CHECKS, index=False)
    # Unreadable images have been named already, and duplicates do no harm: the split keeps them together.
    serious = [finding for finding in report.findings if finding.code not in ("IMG001", "IMG002")]
    if serious:
        lines = [f"  {finding.code} {finding.title}: {finding.message} {finding.what_to_do}" for finding in serious]
        tell(Warned("\n".join([f"the images want a look (all findings are in {folder / CHECKS}):", *lines])))


def _decoding_deadline(deadline: Deadline) -> Deadline:
    """Return when decoding must stop: a part of the limit, but never so early that nothing could be decoded."""
    left_s = DECODING_PART * deadline.limit_s - deadline.elapsed_s()
    return Deadline(max(left_s, LEAST_DECODING_S))


def _task(request: FitRequest, folder: Path, data: PreparedData, metric: Metric, weights: Path | None) -> ImageTask:
    start = folder / TRIALS / START
    return ImageTask(
        data.store,
        data.train,
        data.val,
        data.problem,
        metric,
        weights,
        device="cpu" if request.settings.ngpus_per_trial == 0 else None,
        num_threads=request.settings.nthreads_per_trial,
        start=start if start.is_file() else None,
        class_names=request.train.class_names,
        costs=cost_names(request.settings.tuning.objectives),
        is_holdout=request.tuning is None,
    )


def _refit_ratio(request: FitRequest, data: PreparedData) -> float:
    """Return how many times as many images a refit has as a trial; 0 when none is asked for."""
    num_train = len(data.train.indices)
    return (num_train + len(data.val.indices)) / num_train if request.settings.refit_full else 0.0


def _check_continues(request: FitRequest, data: PreparedData) -> None:
    """See that a network that is trained further still has the same classes to tell apart."""
    start = request.start
    if start is not None and start.problem.classes != data.problem.classes:
        raise DataError(
            f"warm_start=True goes on with a predictor of the classes {list(start.problem.classes)}; the training "
            f"images have {list(data.problem.classes)}. Leave warm_start away to start afresh"
        )
