"""One fit from start to end: check the arguments, decode and split, search, combine, write the predictor."""

from __future__ import annotations

import contextlib
import importlib
import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from saccade.data.checks import CheckedPart, check_dataset
from saccade.data.earlier_split import EarlierSplit
from saccade.data.examples import Examples, ImageLike
from saccade.data.store.feature_cache import FeatureCache
from saccade.deadline import Deadline
from saccade.errors import DataError, SaccadeError, WeightsNotFoundError, explained_file_errors
from saccade.events import DataChecked, Event, Listener, RunFinished, RunStarted, Warned
from saccade.executor import use_executor
from saccade.fit.preparation import PreparedData, prepare_data
from saccade.fit.reporting import FinalReport, ReportWriter
from saccade.fit.resuming import EarlierRun, check_split, most_held_out_before
from saccade.fit.run_data import absolute_path
from saccade.fit.run_folder import (
    CHECKS,
    EVENTS,
    FOLDS,
    JOURNAL,
    PSEUDO_LABELS,
    REFIT,
    REPORT,
    START,
    START_SPLIT,
    STORE,
    STUDENTS,
    TEACHER,
    TRIALS,
    FitRequest,
    WeightsKeeper,
    how_to_finish,
    is_finished,
    locked_folder,
    root_of,
    tidy_up,
)
from saccade.fit.searching import (
    executor_in_time,
    is_adapted,
    is_gpu_wanted,
    is_on_ray,
    make_image_executor,
    make_image_search,
    make_study,
    networks_to_download,
    plan,
    processes_of_trial,
    screen_networks,
)
from saccade.fit.time_budget import FinishingReserve, Phase, TimeBudget, too_short
from saccade.fit.unlabeled import with_pseudo_labels
from saccade.inference.saved import HISTORY, PREDICTOR_FOLDER, SavedPredictor
from saccade.models.downloads import Downloads
from saccade.models.weights import ask_hub_again
from saccade.numerics.device import cpu_threads, useful_threads
from saccade.selection.combination import Combination
from saccade.selection.distillation import distill, distillation_summary, loss_message
from saccade.selection.ensemble import MIN_IMAGES
from saccade.selection.finishing import drop_weights, select_networks, write_features, write_predictor
from saccade.selection.folds import CrossValidation
from saccade.space import Dict
from saccade.space.flat_form import scales
from saccade.study.display.progress import ProgressDisplay
from saccade.study.event_log import EventLog
from saccade.study.objectives import check_score_name, cost_names
from saccade.study.optuna_tracker import OptunaTracker
from saccade.study.run_folder import environment
from saccade.study.study import Study
from saccade.study.trackers import connected
from saccade.study.trial import Trial
from saccade.study.url_folder import check_url, with_urls_in
from saccade.tasks.matching import match_classes, widened
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Problem
from saccade.training.imbalance import check_imbalance
from saccade.training.recipes.building import check_methods, check_networks, stored_channels, stored_side
from saccade.training.recipes.default_space import DOWNLOADS, fall_back_to_available_models, max_held_out, max_used
from saccade.training.recipes.recipe import choices
from saccade.training.task import ImageTask
from saccade.training.trial.ranks import dismiss_ranks
from saccade.training.trial.trainer import ImageTrainable


def run_fit(
    request: FitRequest,
    deadline: Deadline,
    earlier: EarlierRun | None = None,
    *,
    report: ReportWriter,
    finish: bool = False,
) -> SavedPredictor:
    """Run a fit until its deadline, and return the predictor that it has written to the run folder.

    With the option `resume`, the caller has locked the run folder by `locked_run`, which returned `earlier`, the run to
    resume. `finish` trains nothing more, and makes the predictor of what that run has. If the fit is interrupted
    (Ctrl-C) when a trial has a score, the predictor is made of what there is, and the run can still be resumed. Raises
    a SaccadeError if the arguments or the data are invalid, or if no trial succeeds.
    """
    request, problem = _matched(request)
    if earlier is not None:
        request = earlier.merge_with_recorded(request)
        if is_finished(earlier.folder):
            tidy_up(earlier.folder)
            return earlier.load_predictor(request)
    request, warning = _checked(request, problem, deadline, may_replace_networks=earlier is None)
    metric_name = make_metric(request.eval_metric, problem).name
    settings, objectives = request.settings, request.settings.objectives
    # Workers do without the measurement: their threads sleep early instead.
    num_threads = settings.nthreads_per_trial or (useful_threads() if is_adapted(request) else None)
    check_score_name(objectives, metric_name)
    with (
        locked_folder(request, None if earlier is None else earlier.folder) as folder,
        connected(request.settings.callbacks, folder) as trackers,
        ProgressDisplay(request.verbosity, metric_name) as display,
        cpu_threads(num_threads),
        contextlib.ExitStack() as at_end,
    ):
        at_end.callback(dismiss_ranks)
        if earlier is not None and not finish:
            earlier.record_changes(request)
        root = root_of(folder)
        log = EventLog(folder / EVENTS, request.space)
        listeners: list[Listener] = [display, *trackers, partial(check_url, root)]

        def notify(event: Event) -> None:
            event = with_urls_in(event)
            log(event)
            for listener in listeners:
                listener(event)

        final_report = FinalReport(report, settings.report, folder, deadline, notify)
        budget = TimeBudget(deadline, earlier.used_s if earlier else 0.0, notify)
        advice = f"If trials have been trained, continue with: saccade resume {root}"
        with log, explained_file_errors(folder, advice=advice), _ready_to_resume(folder, root, notify):
            listeners.insert(0, budget)
            machine = environment("torch", "torchvision", "timm", "optuna", "Pillow")
            limits = request.num_trials, request.time_limit_s
            notify(RunStarted(str(root), *limits, machine, scales(request.space), deadline.elapsed_s(), metric_name))
            if warning:
                notify(Warned(warning))
            if request.start is not None and request.problem is None:
                notify(
                    Warned(
                        "train_data has new classes, so the classifier layer of warm_start is fitted anew, and "
                        "only the classes of train_data can be predicted. To keep all classes without their images, "
                        "call add_classes"
                    )
                )
            # Workers start, and weights are downloaded, while images are decoded.
            remote = [] if finish else networks_to_download(request, log)
            with (
                Downloads(remote, Deadline(DOWNLOADS * deadline.seconds_left())) as downloads,
                use_executor(settings.executor, make_image_executor(request, notify)) as executor,
            ):
                notify(plan(request, metric_name, executor))
                budget.begin("decoding")
                data = _prepare(request, folder, problem.num_outputs, budget, notify)
                start = folder / TRIALS / START
                task = ImageTask(
                    data.store,
                    data.train,
                    data.val,
                    data.problem,
                    make_metric(request.eval_metric, data.problem),
                    request.weights,
                    device="cpu" if settings.ngpus_per_trial == 0 else None,
                    num_threads=settings.nthreads_per_trial,
                    num_processes=processes_of_trial(settings),
                    is_on_ray=is_on_ray(settings),
                    start=start if start.is_file() else None,
                    start_has_head=request.problem is not None,
                    class_names=request.train.class_names,
                    costs=list(
                        dict.fromkeys([*cost_names(objectives), *settings.limits, *["latency_ms"] * settings.distill])
                    ),
                    is_holdout=request.tuning is None,
                    num_val_seen=data.num_val_seen,
                )
                cross_validation = None
                if settings.num_folds is not None:
                    cross_validation = CrossValidation(task, settings.num_folds, settings.random_state or 0)

                budget.begin("search")
                num_train = len(task.train.indices)
                budget.reserve = FinishingReserve(
                    deadline,
                    refit_ratio=(num_train + len(task.val.indices)) / num_train if settings.refit_full else 0.0,
                    objectives=objectives,
                    max_members=settings.max_members,
                    folds=None if cross_validation is None else cross_validation.costs(executor.num_workers),
                    distills=settings.distill,
                    report_s=final_report.reserve_s(),
                )
                narrowed, scores = (
                    (request, {}) if finish else screen_networks(request, task, deadline, log, notify, downloads)
                )
                labelled = task
                file = folder / PSEUDO_LABELS
                task, of_unlabeled = with_pseudo_labels(task, narrowed.space, data.unlabeled, file, deadline, notify)
                executor.trainable = ImageTrainable(task)
                study = make_study(narrowed, folder, task, executor, budget, log, listeners, scores)
                budget.reserve.recall(study)
                display.recall(study.trials)
                has_costs = bool(cost_names(objectives) or settings.limits)
                study.listeners.append(WeightsKeeper(study.trials, settings.max_members, has_costs=has_costs))
                select = partial(
                    select_networks,
                    study,
                    task,
                    notify=notify,
                    objectives=objectives,
                    limits=settings.limits,
                    max_members=settings.max_members,
                    seed=settings.random_state or 0,
                    folds_folder=folder / FOLDS,
                )
                combination = _search(
                    request,
                    folder,
                    study,
                    task,
                    select,
                    budget,
                    notify,
                    cross_validation,
                    data.unlabeled,
                    finish=finish,
                )
            is_interrupted = combination is None and not finish
            combination = combination or _select_at_once(study, select, budget, root)
            others = np.setdiff1d(task.train.indices, labelled.train.indices)
            images = [*request.train.images, *(request.tuning.images if request.tuning else ())]
            others = data.unlabeled if settings.distill and data.unlabeled is not None else others
            budget.begin("finishing")
            (folder / REPORT).unlink(missing_ok=True)  # of an earlier session
            with _first_ctrl_c_noted(deadline, is_interrupted) as seconds_left:
                write = partial(
                    write_predictor,
                    task=task,
                    labelled=labelled,
                    others=others,
                    label=request.label,
                    eval_metric=request.eval_metric if isinstance(request.eval_metric, str) else None,
                    class_names=request.train.class_names,
                    objectives=objectives,
                    keys=data.keys,
                    paths=[absolute_path(image) or "" for image in images],
                    earlier=EarlierSplit.load(folder / TRIALS / START_SPLIT),
                    more={"left_out": data.left_out, **of_unlabeled},
                    seconds=budget.seconds,
                    is_interrupted=is_interrupted,
                )
                saved = _write_result(images, folder, write, combination, task, study.trials, notify)
                write_features(saved, labelled, combination, lambda: seconds_left() - final_report.reserve_s())
                if is_interrupted:
                    notify(Warned(f"the search was interrupted; to continue it: saccade resume {root}"))
                else:
                    drop_weights(study.trials, combination)
                    tidy_up(folder)
                final_report.write(saved, images, partial(budget.begin, "report"), seconds_left)
            summary = saved.summary
            used_s = deadline.elapsed_s()
            notify(RunFinished(summary["best_trial"], summary["valid_score"], used_s, summary["result"]))
            _keep_history(folder, notify)
    return replace(saved, folder=root / PREDICTOR_FOLDER)


def _keep_history(folder: Path, notify: Listener) -> None:
    """Copy the event log to the predictor, which may be moved without its run; failing that is a warning."""
    target = folder / PREDICTOR_FOLDER / HISTORY
    part = target.with_name(f"{HISTORY}.part")
    try:
        shutil.copyfile(folder / EVENTS, part)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        notify(Warned(f"the events of the run were not copied to the predictor: {error}"))


def _write_result(
    images: Sequence[ImageLike],
    folder: Path,
    write: Callable[..., SavedPredictor],
    combination: Combination,
    task: ImageTask,
    trials: Sequence[Trial],
    notify: Listener,
) -> SavedPredictor:
    """Write the predictor; if it is a student, also its teacher, and warn if they differ by more than expected."""
    if combination.teacher is None or combination.student is None:
        return write(folder / PREDICTOR_FOLDER, trials, combination=combination)
    teacher = write(folder / TEACHER, trials, combination=combination.teacher)
    compare = partial(
        distillation_summary,
        teacher=replace(teacher, folder=root_of(folder) / TEACHER),
        combination=combination,
        task=task,
        trials=[*trials, combination.student],
        images=[images[index] for index in task.val.indices.tolist()],
    )
    saved = write(folder / PREDICTOR_FOLDER, [*trials, combination.student], combination=combination, compare=compare)
    if message := loss_message(saved.summary):
        notify(Warned(message))
    return saved


def _search(
    request: FitRequest,
    folder: Path,
    study: Study,
    task: ImageTask,
    select: Callable[..., Combination],
    budget: TimeBudget,
    notify: Listener,
    cross_validation: CrossValidation | None,
    unlabeled: np.ndarray | None,
    finish: bool,
) -> Combination | None:
    """Search, select, and train folds, refit or student; None if interrupted when a trial has a score (Ctrl-C)."""
    if finish:
        return None
    is_refit = request.settings.refit_full
    try:
        with OptunaTracker(folder / JOURNAL, study.trials, request.space) as tracker:
            study.listeners.append(tracker)
            importlib.import_module("scipy.optimize")  # for calibration, and training uses all of the time before that
            if isinstance(request.settings.executor, str):  # replace workers that start too late
                study.executor = executor_in_time(study.executor, budget.deadline, notify)
            if study.seconds_left <= 0 and study.best_trial is None:
                notify(Warned(too_short(budget.deadline)))
            study.run()
        phase: Phase = "refit" if is_refit else "folds" if cross_validation else "selection"
        budget.begin(phase)
        refit_folder = folder / REFIT if is_refit else None
        selected = select(deadline=budget.part(phase), cross_validation=cross_validation, refit_folder=refit_folder)
        if not request.settings.distill:
            return selected
        budget.begin("distillation")
        shutil.rmtree(folder / STUDENTS, ignore_errors=True)  # of a process that was killed
        student = distill(
            study.executor,
            task,
            selected,
            study.trials,
            request.space,
            folder / STUDENTS,
            budget.part("distillation"),
            notify,
            request.given,
            unlabeled,
        )
        return student or selected
    except KeyboardInterrupt:
        if study.best_trial is None:
            raise
        notify(Warned("interrupted; the predictor is made of the trials so far (Ctrl-C again to stop at once)"))
        return None


def _select_at_once(study: Study, select: Callable[..., Combination], budget: TimeBudget, root: Path) -> Combination:
    if study.best_trial is None:
        raise DataError(f"No trial of the run in {root} has a score yet. Continue it: saccade resume {root}")
    budget.begin("selection")
    return select(deadline=budget.part("selection"))


def _matched(request: FitRequest) -> tuple[FitRequest, Problem]:
    """Match the labels of all images with the classes of the problem, by name; raise a DataError for invalid ones."""
    train, tuning = request.train, request.tuning
    if (start := request.start) is not None:
        if widened(start.problem, start.class_names, train)[0] is start.problem:
            train = match_classes(train, start.problem, start.class_names, "train_data", "the predictor")
        else:  # a new class: the classes are those of train_data, and the classifier layer is fitted anew
            request = replace(request, problem=None)
    assert train.labels is not None
    problem = request.problem or Problem.of(train.labels, request.problem_type)
    if tuning is not None:
        tuning = match_classes(tuning, problem, train.class_names, "tuning_data", "train_data")
    for part in (train, tuning):
        if part is not None and part.labels is not None:
            problem.encode(part.labels)
    return replace(request, train=train, tuning=tuning), problem


def _checked(
    request: FitRequest, problem: Problem, deadline: Deadline, *, may_replace_networks: bool
) -> tuple[FitRequest, str]:
    """Check the arguments against each other; return them with the networks to search, and a warning or ""."""
    check_methods(request.space)
    ask_hub_again()
    FeatureCache.from_environment()  # raises if its limit is not a number
    weights, warning = request.weights, ""
    if weights is not None and not weights.exists():
        raise WeightsNotFoundError(f"weights={str(weights)!r} does not exist; pass a file or a folder of weights")
    if may_replace_networks and not request.is_model_named:
        space, warning = fall_back_to_available_models(
            request.space, weights, deadline.seconds_left(), is_single=request.trains_once
        )
        request = replace(request, space=space)
    if request.trains_once:  # also epochs are passes over all images, unless the user said otherwise
        fixed = {name: value for name, value in request.space.default.items() if name != "images_per_epoch"}
        request = replace(request, space=Dict({**fixed, **{name: request.space.data[name] for name in request.given}}))
    _ = request.num_trials  # raises if nothing ends the search
    make_image_search(request)  # so that invalid options are errors before any work begins
    assert request.train.labels is not None
    check_networks(
        request.space, weights, problem.num_outputs, deadline.seconds_left, finds_weights=request.is_model_named
    )
    check_imbalance(request.space, request.train.labels, problem, request.train.class_names)
    if request.unlabeled is not None:
        problem.require_one_class("unlabeled")
    if any(choices(request.space, "robust_loss")):
        problem.require_classes("robust_loss")
    return request, warning


@contextlib.contextmanager
def _first_ctrl_c_noted(deadline: Deadline, is_interrupted: bool) -> Iterator[Callable[[], float]]:
    """Complete the block despite the first Ctrl-C of the fit; yield a function of the seconds left, 0 after Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        signal.signal(signal.SIGINT, handler)

    # A program that handles Ctrl-C itself, or has its fit in another thread, gets no KeyboardInterrupt here.
    if threading.current_thread() is threading.main_thread() and handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, handler if is_interrupted else note)
    try:
        yield lambda: 0.0 if is_interrupted else deadline.seconds_left()
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _ready_to_resume(folder: Path, root: Path, notify: Listener) -> Iterator[None]:
    """Remove the decoded images if the fit fails; keep them if it is interrupted, to be used when it is resumed."""
    for unfinished in folder.glob(f".{STORE}-*.partial"):  # of a process that was killed
        shutil.rmtree(unfinished, ignore_errors=True)
    try:
        yield
    except KeyboardInterrupt:
        notify(Warned(f"interrupted. {how_to_finish(root)}"))
        raise
    except SaccadeError:
        shutil.rmtree(folder / STORE, ignore_errors=True)
        raise


def _prepare(request: FitRequest, folder: Path, num_outputs: int, budget: TimeBudget, notify: Listener) -> PreparedData:
    """Decode and split the images, and check them."""
    settings, limit_s = request.settings, request.time_limit_s
    is_gpu = is_gpu_wanted(settings)
    most = most_held_out_before(folder) or max_held_out(limit_s, is_gpu, num_outputs)
    earlier = EarlierSplit.load(folder / TRIALS / START_SPLIT)
    data = prepare_data(
        request.train,
        request.tuning,
        request.problem or request.problem_type,
        folder=folder / STORE,
        shorter_side=stored_side(request.space, num_outputs),
        channels=stored_channels(request.space),
        holdout_frac=settings.holdout_frac,
        max_held_out=most,
        most_images=math.inf if request.is_model_named else max_used(limit_s, is_gpu),
        random_state=settings.random_state,
        earlier=earlier,
        unlabeled=None if request.unlabeled is None else request.unlabeled.images,
        seconds_left=None if limit_s is None else budget.part("decoding").seconds_left,
        notify=notify,
        on_decoded=lambda: budget.begin("checking"),
    )
    num_val, message = len(data.val.indices), ""
    if data.num_val_seen:
        none_left = "No other images are left; pass tuning_data, or add images"
        message = (
            f"the network of warm_start was fitted to {data.num_val_seen} of {num_val} validation images, so that "
            f"scores are too high. {none_left if request.tuning is None else 'Pass other tuning_data'}"
        )
    elif request.start is not None and earlier is None:
        message = (
            "the predictor of warm_start is of an earlier version, which does not record its training images; if "
            "validation images are among them, scores are too high. Pass tuning_data with other images"
        )
    if message:
        notify(Warned(message))
    check_split(folder, data, most)
    _check_images(request, data, folder, budget.part("checking"), notify)
    if num_val < MIN_IMAGES and settings.num_folds is None:
        more = "increase holdout_frac" if request.tuning is None else "add images to tuning_data"
        message = (
            f"{num_val} validation images are too few to compare networks reliably: a score on them is mostly noise. "
            f"Add labelled images, {more}, or pass num_folds=5, which validates on all images"
        )
        notify(Warned(message))
    return data


def _check_images(request: FitRequest, data: PreparedData, folder: Path, deadline: Deadline, notify: Listener) -> None:
    """Check the images for problems that impair training, and write all findings to a table in the run folder."""

    def part(examples: Examples, start: int) -> CheckedPart:
        has_one_class = data.problem.has_one_class
        labels = examples.labels if has_one_class and isinstance(examples.labels, pd.Series) else None
        scan = data.store.scan.take(range(start, start + len(examples)))
        return CheckedPart(examples.images, labels, scan, None if tuning is None else examples.groups)

    tuning, has_groups = request.tuning, request.train.groups is not None
    report = check_dataset(
        part(request.train, 0),
        None if tuning is None else part(tuning, len(request.train)),
        held_out=data.val.indices.tolist() if tuning is None and not has_groups else (),
        is_regression=not data.problem.has_classes,
        deadline=deadline.seconds_left,
    )
    notify(DataChecked([finding.to_json() for finding in report.findings]))
    if report.findings:
        report.to_frame().to_csv(folder / CHECKS, index=False)
    # Unreadable images are reported by `prepare_data`. Duplicates do no harm: the split keeps them together.
    serious = [finding for finding in report.findings if finding.code not in ("IMG001", "IMG002")]
    if serious:
        lines = [f"  {finding.code} {finding.title}: {finding.message} {finding.what_to_do}" for finding in serious]
        notify(Warned("\n".join([f"Data checks found problems (see {root_of(folder) / CHECKS}):", *lines])))
