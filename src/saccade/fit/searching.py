"""The search of a fit: its searcher, scheduler, executor and study."""

from __future__ import annotations

import inspect
import itertools
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from saccade.autosearch import machine_speed
from saccade.autosearch.description import describe_recipe, score_range
from saccade.autosearch.features import DatasetDescription
from saccade.autosearch.search import AutoSearch
from saccade.deadline import Deadline
from saccade.errors import HyperparameterError, count_of
from saccade.events import Event, Listener, NetworksScreened, RunPlanned, TrialCreated, Warned, WorkerLost
from saccade.executor import Executor, InlineExecutor, WorkerSlot, local_slots, make_executor
from saccade.fit.options import FitOptions
from saccade.fit.run_folder import TRIALS, FitRequest
from saccade.fit.time_budget import ADAPTED_BELOW_S, TimeBudget
from saccade.models.catalogue import resolve_name
from saccade.models.downloads import Downloads
from saccade.models.ranking import ranked_networks
from saccade.models.weights import weights_place
from saccade.numerics.device import choose_device
from saccade.scheduler import SCHEDULERS, make_scheduler
from saccade.scheduler.base import Scheduler
from saccade.searcher import SEARCHERS, check_space, make_searcher
from saccade.searcher.base import Searcher
from saccade.space import Categorical, Dict
from saccade.study.event_log import EventLog
from saccade.study.registry import Registry
from saccade.study.study import Study
from saccade.study.trial_files import LocalTrialFiles
from saccade.tasks.labels import inferred_problem_type
from saccade.training.probes.probe import MAX_IMAGES, names_of_cached_networks, network_name
from saccade.training.recipes.recipe import Recipe, canonical, choices
from saccade.training.task import ImageTask
from saccade.training.trial.ranks import launched_ranks
from saccade.training.trial.screening import LEAST_KEPT, Screening

# The searcher "auto" of fits; the one of `saccade.searcher` has no portfolio.
AUTO: Registry[Searcher] = Registry("searcher", Searcher, {"auto": AutoSearch})  # type: ignore[type-abstract]

SHORTEST_S = 10.0  # time that short probes are worth

PRELOAD = ("saccade.training.trial.trainer",)  # modules that workers import while images are prepared


def is_gpu_wanted(settings: FitOptions) -> bool:
    """Return whether trials use a GPU: one is available, and the options do not exclude it."""
    return settings.ngpus_per_trial != 0 and choose_device().type == "cuda"


def is_on_ray(settings: FitOptions) -> bool:
    """Return whether trials run on a Ray cluster by the options; a given `RayExecutor` has its own."""
    return settings.executor == "ray" or (settings.executor == "auto" and settings.address is not None)


def processes_of_trial(settings: FitOptions) -> int:
    """Return the number of processes that train a trial together; each needs a GPU of its own, if trials use GPUs."""
    if (launched := launched_ranks()) is not None:
        return launched.size
    if is_on_ray(settings):  # whose nodes may have GPUs that this machine has not
        return settings.nprocs_per_trial or max(1, int(settings.ngpus_per_trial or 1))
    if not is_gpu_wanted(settings):
        return settings.nprocs_per_trial or 1
    return min(settings.nprocs_per_trial or max(1, int(settings.ngpus_per_trial or 1)), torch.cuda.device_count())


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
    if launched_ranks() is not None:
        if settings.executor not in ("auto", "inline"):
            raise HyperparameterError(
                f"torchrun has started the processes that train, so executor={settings.executor!r} cannot start "
                "others. Leave out executor, or start the program without torchrun"
            )
        return InlineExecutor()
    num_processes = processes_of_trial(settings)
    nthreads, ngpus = settings.nthreads_per_trial, settings.ngpus_per_trial
    if ngpus is None and num_processes > 1 and is_gpu_wanted(settings):
        ngpus = num_processes
    if is_on_ray(settings) and num_processes > 1:  # a worker has the resources of one of them
        nthreads = max(1, (nthreads or 0) // num_processes)
        ngpus = ngpus and min(1, ngpus)
    elif nthreads is not None:
        nthreads = max(nthreads, num_processes)

    def slots() -> list[WorkerSlot]:
        made = local_slots(
            torch.cuda.device_count(),
            nthreads,
            ngpus,
            num_trials=num_trials,
            warn=lambda text: notify(Warned(text)),
        )
        return [replace(slot, is_wait_short=True) for slot in made] if is_adapted(request) else made

    return make_executor(
        settings.executor,
        PRELOAD,
        slots,
        address=settings.address,
        max_workers=settings.max_workers,
        num_trials=num_trials,
        time_limit_s=request.time_limit_s,
        num_cpus=nthreads,
        num_gpus=ngpus,
        num_ranks=num_processes,
        measure_speed=f"{machine_speed.__name__}:{machine_speed.worker_speed.__name__}",
    )


def executor_in_time(executor: Executor, deadline: Deadline, notify: Listener) -> Executor:
    """Return the executor; one in this process if no worker is ready when half of the time is over."""
    if math.isinf(deadline.limit_s):
        return executor
    while not executor.num_ready and deadline.seconds_left() > deadline.limit_s / 2:
        if executor.wait_for_start(0.1):
            return executor  # it reports workers that died
    if executor.num_ready:
        return executor
    where = executor.describe()
    notify(Warned(f"No worker started in half of the time limit, so trials run in this process, not {where}"))
    executor.close()
    notify(WorkerLost(0))
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
    table = ranked_networks()
    downloads = [name for name in networks_to_download(request) if name in table]
    sizes = {name: f" (download, {table[name].num_bytes / 1e6:.0f} MB)" for name in downloads}
    num_processes = processes_of_trial(settings)
    together = f", {num_processes} processes train each together" if num_processes > 1 else ""
    advice = ""
    if request.num_trials is None and settings.time_limit == "auto" and request.time_limit_s is not None:
        advice = "The search uses all of its time. Pass time_limit or num_trials to end it earlier"
    elif request.trains_once:
        advice = "Nothing is searched: hyperparameters are fixed. Pass time_limit or num_trials to search the others"
    return RunPlanned(
        f"{problem_type} ({why})",
        metric,
        [name + sizes.get(name, "") for name in map(str, choices(request.space, "model"))],
        f"cpu, {count_of(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else str(device),
        executor.describe() + together,
        advice,
        0 if isinstance(executor, InlineExecutor) else executor.num_workers,
    )


def make_study(
    request: FitRequest,
    folder: Path,
    task: ImageTask,
    executor: Executor,
    budget: TimeBudget,
    log: EventLog,
    listeners: Iterable[Listener],
    scores: Mapping[str, float] | None = None,
) -> Study:
    """Return the study of a fit, which resumes where its event log ends; `scores` are those of `screen_networks`."""
    # Workers on other machines measure their own speed.
    measuring = Deadline(0) if executor.measures_speed else budget.part("measuring speed")
    described = describe_search(request, task, measuring, scores or {})
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


def networks_to_download(request: FitRequest, log: Iterable[Event] = ()) -> list[str]:
    """Return the default networks whose weights are only on the hub; none if an earlier process has compared them."""
    networks = choices(request.space, "model")
    folder = request.weights
    is_given = request.is_model_named or (folder is not None and folder.is_file())
    if is_given or len(networks) == 1 or True not in choices(request.space, "pretrained"):
        return []
    if any(isinstance(event, NetworksScreened) for event in log):
        return []
    return [name for name in networks if isinstance(name, str) and weights_place(name, folder) == "hub"]


def screen_networks(
    request: FitRequest, task: ImageTask, deadline: Deadline, log: EventLog, notify: Listener, downloads: Downloads
) -> tuple[FitRequest, Mapping[str, float]]:
    """Return the request with those networks that successive probing leaves, and the scores of their short probes.

    An earlier process of the run has recorded its result in the log. Few networks, and those without linear probes, are
    left to the search.
    """
    space, networks = request.space, choices(request.space, "model")
    scores: Mapping[str, float] | None = None
    given = map(canonical, request.settings.starting_configs or ())
    always = [config["model"] for config in given if "model" in config]
    for event in log:
        match event:
            case NetworksScreened():
                scores = event.scores
            case TrialCreated():
                always.append(event.config.get("model"))
    is_auto = request.settings.searcher == "auto" or not request.is_model_named
    recipe = Recipe.of(space.default)
    is_probed = recipe.starts_pretrained and recipe.linear_probe and task.start is None
    if scores is None:
        has_time = len(networks) > LEAST_KEPT and deadline.seconds_left() >= SHORTEST_S
        is_long = has_time or bool(downloads.networks)
        if is_auto and is_probed and is_long and all(isinstance(name, str) for name in networks):
            start_s = time.perf_counter()
            screening = Screening(space, task, deadline, notify, request.settings.limits)
            found = screening.run(networks, downloads, always)
            scores = {name: network.score for name, network in found.items()}
            notify(NetworksScreened(dict(scores), len(networks), time.perf_counter() - start_s, screening.left_out))
        else:
            downloads.wait()
        downloads.close()
    kept = [name for name in networks if scores and (name in scores or name in always)]
    if not scores:  # there were no probes, or none was complete in time
        if not downloads.networks:
            return request, {}
        kept = [name for name in networks if downloads.has(name)] or list(networks)
    order = list(scores or ())
    kept.sort(key=lambda name: order.index(name) if name in order else len(order))
    model = kept[0] if len(kept) == 1 else Categorical(*kept)
    return replace(request, space=Dict({**space.data, "model": model})), scores or {}


def describe_search(
    request: FitRequest, task: ImageTask, measuring: Deadline, scores: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return the arguments of `AutoSearch` for networks, images, metric and machine, whose speed is measured."""
    if request.settings.searcher != "auto" or request.space.num_configurations == 1:
        return {}
    num_images, device = len(task.train.indices), choose_device(task.device)
    in_epoch = max(min(num_images, most or num_images) for most in choices(request.space, "images_per_epoch"))
    speed: dict[str, Any] = {}
    if measuring.seconds_left() > 0:  # else networks are compared by their recorded costs
        log_speed = machine_speed.measure_log_speed(device, task.num_threads, measuring.seconds_left())
        left_s = measuring.seconds_left()
        forward_s = machine_speed.forward_seconds(request.space, task.weights, device, task.num_threads, left_s)
        speed = {"log_speed": log_speed, "forward_s": forward_s}
    describe, names = partial(describe_recipe, weights=task.weights, device=device), names_of_cached_networks(task)
    cached, screened = set(), {}
    for model, img_size in itertools.product(choices(request.space, "model"), choices(request.space, "img_size")):
        if isinstance(model, str) and (names or scores):
            network = describe({"model": model, "img_size": img_size}).network
            if network_name(resolve_name(model), network.input_size) in names:
                cached.add(network)
            if scores and model in scores:
                screened[network] = scores[model]
    return {
        "describe": describe,
        "screened": screened,
        "cached": cached,
        "data": DatasetDescription(in_epoch, task.problem.num_outputs),
        "num_probed": MAX_IMAGES,
        "score_range": score_range(task.metric, task.problem, task.train.targets),
        "is_for_mean": request.settings.max_members > 1,
        "limits": request.settings.limits,
        **speed,
    }
