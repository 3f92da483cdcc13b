"""The story of one fit: check, decode and split, search, and keep the best as a predictor on disk."""

from __future__ import annotations

import itertools
import json
import math
import platform
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from saccade._version import __version__
from saccade.data.checks import CheckedPart, check_dataset
from saccade.data.examples import Examples
from saccade.deadline import Deadline
from saccade.errors import DataError, HyperparameterError, SpaceError
from saccade.events import Event, EventLog, Listener, RunFinished, RunStarted, Warned
from saccade.executor import Executor, InlineExecutor, ProcessExecutor
from saccade.refitting import refit
from saccade.report.progress import ProgressDisplay
from saccade.report.summary import fit_summary, trial_rows
from saccade.saved import PREDICTOR_FOLDER, WEIGHTS, SavedPredictor
from saccade.scheduler import make_scheduler
from saccade.scheduler.study import Study
from saccade.searcher import make_searcher
from saccade.settings import FitSettings
from saccade.space import Dict
from saccade.training.classifier import Blueprint
from saccade.training.imbalance import check_imbalance
from saccade.training.metrics import EvalMetric, Metric, make_metric
from saccade.training.networks import check_methods, check_networks, stored_channels, stored_side
from saccade.training.own_parts import OwnPart
from saccade.training.preparation import PreparedData, prepare_data
from saccade.training.problem import Problem
from saccade.training.substitutes import with_networks_at_hand
from saccade.training.task import ImageTask
from saccade.training.trainable import ImageTrainable
from saccade.training.trainer import BEST, BLUEPRINT, LAST

RUNS_FOLDER = "saccade_runs"
"""Where runs go that are given no path."""

RUN, EVENTS, TRIALS, STORE, CHECKS, REFIT, START = (
    "run.json",
    "events.jsonl",
    "trials",
    "store",
    "checks.csv",
    "refit",
    "start.safetensors",
)
"""What a run folder holds besides the predictor."""

FINISHING_S = 0.5
"""Seconds kept free for what comes after the search: copying the best weights and writing the predictor."""

REFIT_PART = 0.55
"""The part of a time limit that the search leaves to a refit on all images, which costs as much as the best trial."""

DECODING_PART = 0.4
"""The part of a time limit after which decoding stops and training begins with the images that are ready."""

LEAST_DECODING_S = 1.0
"""Seconds that decoding has however short the limit is, so that there is always something to learn from."""


@dataclass(frozen=True)
class FitRequest:
    """All that was asked of a fit, checked.

    Attributes
    ----------
    path : Path or None
        The run folder; None makes a new one in `RUNS_FOLDER`.
    label, problem_type, eval_metric, verbosity
        As in `ImagePredictor`.
    train, tuning : Examples
        Labelled images.
    space : Dict
        The hyperparameters.
    time_limit_s : float or None
        For everything.
    settings : FitSettings
        All other arguments.
    start : SavedPredictor or None
        The predictor whose network is to be trained further.
    is_model_named : bool
        Whether the user chose the networks; if not, others may stand in where weights are missing.
    """

    path: Path | None
    label: str | list[str]
    problem_type: str | None
    eval_metric: EvalMetric
    verbosity: int
    train: Examples
    tuning: Examples | None
    space: Dict
    time_limit_s: float | None
    settings: FitSettings
    start: SavedPredictor | None = None
    is_model_named: bool = True

    @property
    def num_trials(self) -> int | None:
        """How many trials at most; None leaves it to the clock.

        Raises
        ------
        HyperparameterError
            When nothing would ever end the search.
        """
        num_trials = self.settings.tuning.num_trials
        limits = (num_trials, self.time_limit_s)
        if limits == (None, None) and self.space.num_configurations == math.inf:
            raise HyperparameterError(
                "the search would never end: time_limit is None, there is no num_trials, and the space has infinitely "
                "many configurations. Give time_limit=…, or hyperparameter_tune_kwargs={'num_trials': …}"
            )
        return 1 if self.space.num_configurations == 1 else num_trials


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
    folder = _new_folder(request.path)  # from here on there is something to lose
    with ProgressDisplay(request.verbosity, metric_name) as display:
        listeners: list[Listener] = [EventLog(folder / EVENTS), display]

        def tell(event: Event) -> None:
            for listener in listeners:
                listener(event)

        _write_run_file(request, folder)
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


def _new_folder(given: Path | None) -> Path:
    """Make the run folder; an earlier run in the given one is replaced, anything else there is left alone.

    Raises
    ------
    DataError
        When the folder holds something that is no run.
    """
    if given is None:
        return _folder_of_its_own(datetime.now().strftime("%Y-%m-%d_%H%M%S"))
    if (given / RUN).is_file():
        shutil.rmtree(given)
    elif given.exists() and (not given.is_dir() or any(given.iterdir())):
        raise DataError(f"path={str(given)!r} exists and is no run folder; name an empty or a new folder")
    given.mkdir(parents=True, exist_ok=True)
    return given


def _folder_of_its_own(stamp: str) -> Path:
    """Make a folder that no other run has, even one that starts in the same second."""
    for number in itertools.count():
        folder = Path(RUNS_FOLDER) / (f"{stamp}_{number}" if number else stamp)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable")


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


def _space_to_json(space: Dict) -> Any:
    """Return the space's JSON form, or its print-out, where objects of the user's own have none."""
    try:
        return space.to_json()
    except SpaceError:
        return repr(space)


def _write_run_file(request: FitRequest, folder: Path) -> None:
    """Write down what was asked, by whom (which versions), and when."""
    record: dict[str, Any] = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"saccade": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "platform": platform.platform(),
        "label": request.label,
        "problem_type": request.problem_type,
        "eval_metric": request.eval_metric,
        "num_images": len(request.train) + len(request.tuning or ()),
        "time_limit_s": request.time_limit_s,
        "space": _space_to_json(request.space),
        "settings": vars(request.settings),
    }
    text = json.dumps(record, indent=2, default=repr) + "\n"
    (folder / RUN).write_text(text, encoding="utf-8")
