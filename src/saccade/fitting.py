"""The story of one fit: check, decode and split, search, and keep the best as a predictor on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from saccade.data.checks import CheckedPart, check_dataset
from saccade.data.examples import Examples
from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.events import Event, EventLog, Listener, RunFinished, RunStarted, Warned
from saccade.executor import Executor, InlineExecutor, ProcessExecutor
from saccade.refitting import refit
from saccade.report.progress import ProgressDisplay
from saccade.report.summary import fit_summary, trial_rows
from saccade.run_folder import CHECKS, EVENTS, REFIT, START, STORE, TRIALS, FitRequest, make_run_folder, write_request
from saccade.saved import PREDICTOR_FOLDER, WEIGHTS, SavedPredictor
from saccade.scheduler import make_scheduler
from saccade.scheduler.study import Study
from saccade.searcher import make_searcher
from saccade.training.classifier import Blueprint
from saccade.training.imbalance import check_imbalance
from saccade.training.metrics import Metric, make_metric
from saccade.training.networks import check_methods, check_networks, stored_channels, stored_side
from saccade.training.own_parts import OwnPart
from saccade.training.preparation import PreparedData, prepare_data
from saccade.training.problem import Problem
from saccade.training.substitutes import with_networks_at_hand
from saccade.training.task import ImageTask
from saccade.training.trainable import ImageTrainable
from saccade.training.trainer import BEST, BLUEPRINT, LAST

FINISHING_S = 0.5
"""Seconds kept free for what comes after the search: copying the best weights and writing the predictor."""

REFIT_PART = 0.55
"""The part of a time limit that the search leaves to a refit on all images, which costs as much as the best trial."""

DECODING_PART = 0.4
"""The part of a time limit after which decoding stops and training begins with the images that are ready."""

LEAST_DECODING_S = 1.0
"""Seconds that decoding has however short the limit is, so that there is always something to learn from."""


def run_fit(request: FitRequest, deadline: Deadline) -> SavedPredictor:
    """Do what was asked, and return the predictor that was written to the run folder.

    Raises
    ------
    SaccadeError
        Of many kinds, whenever no predictor can come of it.
    """
    check_methods(request.space)
    weights = Path(request.settings.weights).expanduser() if request.settings.weights else None
    told = ""
    if not request.is_model_named:
        space, told = with_networks_at_hand(request.space, weights)
        request = replace(request, space=space)
    num_trials = request.num_trials
    labels = request.train.labels
    assert labels is not None
    problem = Problem.of(labels, request.problem_type)
    check_networks(request.space, weights, problem.num_outputs)
    check_imbalance(request.space, labels, problem, request.train.class_names)
    metric_name = make_metric(request.eval_metric, problem).name
    start = None if request.start is None else _weights_to_continue(request.start)
    folder = make_run_folder(request.path)  # from here on there is something to lose
    with ProgressDisplay(request.verbosity, metric_name) as display:
        listeners: list[Listener] = [EventLog(folder / EVENTS), display]

        def tell(event: Event) -> None:
            for listener in listeners:
                listener(event)

        write_request(request, folder)
        tell(RunStarted(str(folder), num_trials, request.time_limit_s))
        if told:
            tell(Warned(told))
        executor = _make_executor(request, num_trials)
        try:
            with executor:
                data = _prepare(request, folder, problem.num_outputs, deadline, tell)
                metric = make_metric(request.eval_metric, data.problem)
                task = replace(_task(request, data, metric, weights, tell), start=_placed(start, folder))
                executor.trainable = ImageTrainable(task)
                study = _make_study(request, folder, executor, num_trials, deadline, listeners)
                study.run()
                is_refit = request.settings.refit_full and _refit(study, task, folder, deadline, tell)
            saved = _keep_best(request, folder, study, data, metric, deadline, is_refit)
        finally:
            shutil.rmtree(folder / STORE, ignore_errors=True)
        summary = saved.summary
        tell(RunFinished(summary["best_trial"], summary["valid_score"], deadline.elapsed_s()))
    return saved


def _prepare(request: FitRequest, folder: Path, num_outputs: int, deadline: Deadline, tell: Listener) -> PreparedData:
    settings = request.settings
    data = prepare_data(
        request.train,
        request.tuning,
        request.problem_type,
        folder=folder / STORE,
        shorter_side=stored_side(request.space, num_outputs),
        channels=stored_channels(request.space),
        holdout_frac=settings.holdout_frac,
        random_state=settings.random_state,
        seconds_left=None if request.time_limit_s is None else _decoding_deadline(deadline).seconds_left,
        tell=tell,
    )
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


def _task(request: FitRequest, data: PreparedData, metric: Metric, weights: Path | None, tell: Listener) -> ImageTask:
    num_gpus = request.settings.ngpus_per_trial
    if num_gpus and num_gpus > torch.cuda.device_count():
        tell(Warned(f"ngpus_per_trial={num_gpus}, and this machine has {torch.cuda.device_count()} CUDA devices"))
    elif num_gpus and num_gpus > 1:
        tell(Warned(f"ngpus_per_trial={num_gpus}: a trial trains on one device"))
    return ImageTask(
        data.store,
        data.train,
        data.val,
        data.problem,
        metric,
        weights,
        device="cpu" if num_gpus == 0 else None,
        num_threads=request.settings.nthreads_per_trial,
        class_names=request.train.class_names,
    )


def _make_executor(request: FitRequest, num_trials: int | None) -> Executor:
    """Return a worker process for a search, which a crash must not end; a lone trial needs none."""
    name = request.settings.executor
    if name == "inline" or (name == "auto" and num_trials == 1):
        return InlineExecutor()
    return ProcessExecutor(preload=("saccade.training.trainable",))


def _make_study(
    request: FitRequest,
    folder: Path,
    executor: Executor,
    num_trials: int | None,
    deadline: Deadline,
    listeners: Iterable[Listener],
) -> Study:
    tuning = request.settings.tuning
    seed = request.settings.random_state or 0
    return Study(
        executor,
        make_searcher(tuning.searcher, request.space, seed, **tuning.searcher_options),
        make_scheduler(tuning.scheduler),
        num_trials=num_trials,
        deadline=deadline,
        reserve_s=FINISHING_S + REFIT_PART * (request.time_limit_s or 0.0) * request.settings.refit_full,
        max_score=tuning.max_reward,
        folder=folder / TRIALS,
        listeners=listeners,
    )


def _weights_to_continue(start: SavedPredictor) -> bytes:
    """Return the weights of a fitted predictor; its folder may be the one that this run replaces."""
    return (start.folder / WEIGHTS).read_bytes()


def _placed(start: bytes | None, folder: Path) -> Path | None:
    if start is None:
        return None
    path = folder / TRIALS / START
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start)
    return path


def _check_continues(request: FitRequest, data: PreparedData) -> None:
    """See that a network that is trained further still has the same classes to tell apart."""
    start = request.start
    if start is not None and start.problem.classes != data.problem.classes:
        raise DataError(
            f"warm_start=True goes on with a predictor of the classes {list(start.problem.classes)}; the training "
            f"images have {list(data.problem.classes)}. Leave warm_start away to start afresh"
        )


def _refit(study: Study, task: ImageTask, folder: Path, deadline: Deadline, tell: Listener) -> bool:
    best = study.best_trial
    assert best is not None  # Study.run raises when there is none
    until = Deadline(deadline.seconds_left() - FINISHING_S)
    return refit(study.executor, task, best, folder / REFIT, until, tell)


def _keep_best(
    request: FitRequest,
    folder: Path,
    study: Study,
    data: PreparedData,
    metric: Metric,
    deadline: Deadline,
    is_refit: bool,
) -> SavedPredictor:
    best = study.best_trial
    assert best is not None  # Study.run raises when there is none
    saved = SavedPredictor(
        folder=folder / PREDICTOR_FOLDER,
        label=request.label,
        problem=data.problem,
        blueprint=Blueprint.from_json(json.loads((Path(best.folder) / BLUEPRINT).read_text())),
        metric=metric.name,
        eval_metric=request.eval_metric if isinstance(request.eval_metric, str) else None,  # code is never saved
        class_names=request.train.class_names,
        summary={**fit_summary(best, study.trials, metric.name, deadline.elapsed_s()), "refit_full": is_refit},
        trials=trial_rows(study.trials),
        net=net if isinstance(net := best.config.get("model"), OwnPart) else None,
    )
    saved.write((folder / REFIT if is_refit else Path(best.folder)) / BEST)
    shutil.rmtree(folder / REFIT, ignore_errors=True)
    (folder / TRIALS / START).unlink(missing_ok=True)
    for trial in study.trials:  # nothing is left to continue from
        (Path(trial.folder) / LAST).unlink(missing_ok=True)
    return saved
