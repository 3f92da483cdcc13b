"""The search of a fit: its searcher, scheduler, executor and study."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from saccade.autosearch.description import describe_recipe, score_range
from saccade.autosearch.features import DatasetDescription
from saccade.autosearch.machine_speed import forward_seconds, measure_log_speed
from saccade.autosearch.search import AutoSearch
from saccade.deadline import Deadline
from saccade.errors import count_of
from saccade.events import Listener, RunPlanned, Warned
from saccade.executor import Executor, InlineExecutor, ProcessExecutor, local_slots, make_executor
from saccade.fit.options import FitOptions
from saccade.fit.run_folder import TRIALS, FitRequest
from saccade.fit.time_budget import ADAPTED_BELOW_S, TimeBudget
from saccade.models.catalogue import resolve_name
from saccade.numerics.device import choose_device
from saccade.scheduler import SCHEDULERS, make_scheduler
from saccade.scheduler.base import Scheduler
from saccade.searcher import SEARCHERS, check_space, make_searcher
from saccade.searcher.base import Searcher
from saccade.study.event_log import EventLog
from saccade.study.registry import Registry
from saccade.study.study import Study
from saccade.study.trial_files import LocalTrialFiles
from saccade.tasks.labels import inferred_problem_type
from saccade.training.probes.probe import MAX_IMAGES, names_of_cached_networks, network_name
from saccade.training.recipes.recipe import canonical, choices
from saccade.training.task import ImageTask

# The searcher "auto" of fits; the one of `saccade.searcher` has no portfolio.
AUTO: Registry[Searcher] = Registry("searcher", Searcher, {"auto": AutoSearch})  # type: ignore[type-abstract]

PRELOAD = ("saccade.training.trial.trainer",)  # modules that workers import while images are prepared


def is_gpu_wanted(settings: FitOptions) -> bool:
    """Return whether trials use a GPU: one is available, and the options do not exclude it."""
    return settings.ngpus_per_trial != 0 and choose_device().type == "cuda"


def is_adapted(request: FitRequest) -> bool:
    """Return whether CPU threads are adapted to other programs: on a short limit, for trials on CPUs."""
    limit_s = math.inf if request.time_limit_s is None else request.time_limit_s
    return limit_s < ADAPTED_BELOW_S and not is_gpu_wanted(request.settings)


def make_image_search(request: FitRequest, described: dict[str, Any] | None = None) -> tuple[Searcher, Scheduler]:
    """Return searcher and scheduler (one `AutoSearch` for "auto"); `described` are arguments by `describe_search`."""
    if described is None:  # auto search reads it only when it is asked for a configuration
        described = {"describe": None, "data": DatasetDescription(1, 1), "portfolio": object()}
    settings = request.settings
    searcher, scheduler = settings.searcher, settings.scheduler
    if request.space.num_configurations == 1:  # there is nothing to search
        searcher = "random" if searcher == "auto" else searcher
        scheduler = "fifo" if scheduler == "auto" else scheduler
    given, seed = dict(settings.searcher_options), settings.random_state or 0
    if settings.starting_configs:
        given["starting_configs"] = [canonical(config) for config in settings.starting_configs]
    options = dict(settings.scheduler_options)
    if isinstance(scheduler, str) and "max_epochs" in inspect.signature(SCHEDULERS[scheduler]).parameters:
        options.setdefault("max_epochs", int(max(choices(request.space, "epochs"))))
    made = make_scheduler(scheduler, **options)  # checks the options for "auto" as well

    if isinstance(searcher, Searcher):
        # The space has the names of `Recipe`, the searcher those that the user has chosen.
        own = canonical({str(name): value for name, value in searcher.space.data.items()})
        check_space(searcher, own, request.space.data, "hyperparameters")
        return SEARCHERS.make(searcher, given), made
    if searcher != "auto":
        return make_searcher(searcher, request.space, seed, **given), made
    auto = AUTO.make("auto", {**described, **given}, {"space": request.space, "seed": seed})
    assert isinstance(auto, AutoSearch)
    if scheduler != "auto":
        return auto, made
    auto.max_epochs = options["max_epochs"]
    return auto, auto


def make_image_executor(request: FitRequest, notify: Listener) -> Executor:
    """Return the executor, whose workers start at once; requests beyond this machine are warnings."""
    settings, num_trials = request.settings, request.num_trials
    if request.space.num_configurations < math.inf:
        num_trials = int(min(request.space.num_configurations, num_trials or math.inf))
    slots = local_slots(
        torch.cuda.device_count(),
        settings.nthreads_per_trial,
        settings.ngpus_per_trial,
        num_trials=num_trials,
        warn=lambda text: notify(Warned(text)),
    )
    if is_adapted(request):
        slots = [replace(slot, is_wait_short=True) for slot in slots]
    return make_executor(settings.executor, PRELOAD, slots, num_trials=num_trials, time_limit_s=request.time_limit_s)


def executor_in_time(executor: Executor, deadline: Deadline, notify: Listener) -> Executor:
    """Return the executor; one in this process if no worker process is ready when half of the time is over."""
    if not isinstance(executor, ProcessExecutor) or math.isinf(deadline.limit_s):
        return executor
    while not executor.num_ready and deadline.seconds_left() > deadline.limit_s / 2:
        if executor.wait_for_start(0.1):
            return executor  # it reports workers that died
    if executor.num_ready:
        return executor
    notify(Warned("Worker processes did not start in half of the time limit, so trials run in this process"))
    executor.close()
    return InlineExecutor(executor.trainable)


def plan(request: FitRequest, metric: str, executor: Executor) -> RunPlanned:
    """Return what a fit is going to do."""
    settings, labels = request.settings, request.train.labels
    assert labels is not None
    problem_type, why = request.problem_type, "as given"
    if request.problem is not None:
        problem_type, why = request.problem.type, "of the predictor that is trained further"
    elif problem_type is None:
        problem_type, why = inferred_problem_type(labels)
    device = choose_device("cpu" if settings.ngpus_per_trial == 0 else None)
    workers = count_of(executor.num_workers, "worker process", "worker processes")
    advice = ""
    if request.num_trials is None and settings.time_limit == "auto" and request.time_limit_s is not None:
        advice = "The search uses all of its time. Pass time_limit or num_trials to end it earlier"
    elif request.trains_once:
        advice = "Nothing is searched: hyperparameters are fixed. Pass time_limit or num_trials to search the others"
    return RunPlanned(
        f"{problem_type} ({why})",
        metric,
        [str(model) for model in choices(request.space, "model")],
        f"cpu, {count_of(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else str(device),
        "in this process" if isinstance(executor, InlineExecutor) else f"in {workers}",
        advice,
    )


def make_study(
    request: FitRequest,
    folder: Path,
    task: ImageTask,
    executor: Executor,
    budget: TimeBudget,
    log: EventLog,
    listeners: Iterable[Listener],
) -> Study:
    """Return the study of a fit; it resumes where its event log ends."""
    described = describe_search(request, task, budget.part("measuring speed"))
    searcher, scheduler = make_image_search(request, described)
    return Study(
        executor,
        searcher,
        scheduler,
        num_trials=request.num_trials,
        deadline=budget.deadline,
        reserve_s=budget.reserve.seconds,
        trial_time_limit_s=request.settings.trial_time_limit,
        # A network's first epoch ends by itself when time is up, but may need this long for imports and validation.
        first_report_grace_s=60.0,
        max_score=request.settings.max_reward,
        files=LocalTrialFiles(folder / TRIALS),
        log=log,
        listeners=listeners,
    )


def describe_search(request: FitRequest, task: ImageTask, measuring: Deadline) -> dict[str, Any]:
    """Return the arguments of `AutoSearch` for networks, images, metric and machine, whose speed is measured."""
    if request.settings.searcher != "auto" or request.space.num_configurations == 1:
        return {}
    num_images, device = len(task.train.indices), choose_device(task.device)
    in_epoch = max(min(num_images, most or num_images) for most in choices(request.space, "images_per_epoch"))
    speed: dict[str, Any] = {}
    if measuring.seconds_left() > 0:  # else networks are compared by their recorded costs
        log_speed = measure_log_speed(device, task.num_threads, measuring.seconds_left())
        left_s = measuring.seconds_left()
        forward_s = forward_seconds(request.space, task.weights, device, task.num_threads, left_s)
        speed = {"log_speed": log_speed, "forward_s": forward_s}
    describe, names = partial(describe_recipe, weights=task.weights, device=device), names_of_cached_networks(task)
    cached = set()
    for model, img_size in itertools.product(choices(request.space, "model"), choices(request.space, "img_size")):
        if names and isinstance(model, str):
            network = describe({"model": model, "img_size": img_size}).network
            if network_name(resolve_name(model), network.input_size) in names:
                cached.add(network)
    return {
        "describe": describe,
        "cached": cached,
        "data": DatasetDescription(in_epoch, task.problem.num_outputs),
        "num_probed": MAX_IMAGES,
        "score_range": score_range(task.metric, task.problem, task.train.targets),
        "is_for_mean": request.settings.max_members > 1,
        **speed,
    }
