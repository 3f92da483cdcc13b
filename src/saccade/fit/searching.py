"""The search of a fit: who proposes, who decides, on which workers, and for how long."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from saccade.autosearch.features import DatasetDescription
from saccade.autosearch.network_speed import forward_seconds
from saccade.autosearch.task_description import describe_recipe, measure_log_speed, score_range
from saccade.deadline import Deadline
from saccade.events import Listener, Warned
from saccade.executor import Executor, local_slots, make_executor
from saccade.fit.run_folder import TRIALS, FitRequest
from saccade.fit.settings import FitSettings
from saccade.fit.time_budget import speed_limit_s
from saccade.numerics.device import choose_device
from saccade.scheduler import SCHEDULERS, make_scheduler
from saccade.scheduler.base import Scheduler
from saccade.searcher import make_searcher
from saccade.searcher.base import Searcher
from saccade.space import Dict
from saccade.study.budget import Reserve
from saccade.study.journal import Journal
from saccade.study.study import Study
from saccade.training.probes.probe import MAX_IMAGES
from saccade.training.recipes.recipe import canonical, choices
from saccade.training.task import ImageTask

PRELOAD = ("saccade.training.trial.trainer",)
"""What workers import while the images are prepared."""


def is_gpu_wanted(settings: FitSettings) -> bool:
    """Tell whether trials are to be trained on a GPU, and there is one."""
    return settings.ngpus_per_trial != 0 and choose_device().type == "cuda"


def check_search(request: FitRequest) -> None:
    """See that searcher and scheduler can be made as they are asked for, before any work begins.

    Raises
    ------
    HyperparameterError
        For an option that does not exist or cannot be.
    SpaceError, UnknownNameError
        For a starting configuration that is not in the space.
    """
    make_image_scheduler(request)
    # What is made here for a look is never asked for anything, so it need not know networks, images or recorded runs.
    unknown = {"describe": None, "data": DatasetDescription(1, 1), "portfolio": object()}
    _make_searcher(request, unknown if _searcher_name(request) == "auto" else {})


def make_image_scheduler(request: FitRequest) -> Scheduler:
    """Return the scheduler that was asked for; it knows of the longest training unless the user says otherwise."""
    tuning = request.settings.tuning
    name, options = tuning.scheduler, dict(tuning.scheduler_options)
    if name == "auto" and request.space.num_configurations == 1:
        name = "fifo"
    if isinstance(name, str) and "max_epochs" in inspect.signature(SCHEDULERS[name]).parameters:
        options.setdefault("max_epochs", longest_training(request.space))
    return make_scheduler(name, **options)


def longest_training(space: Dict) -> int:
    """Return the most epochs that a configuration of the space may ask for."""
    return int(max(choices(space, "epochs")))


def make_image_searcher(request: FitRequest, task: ImageTask) -> Searcher:
    """Return the searcher that was asked for; ``auto`` gets to know networks and images."""
    return _make_searcher(request, _known_of_images(request, task))


def make_image_executor(request: FitRequest, tell: Listener) -> Executor:
    """Return the workers of a search, which begin to start; what is asked of the machine in vain is told."""
    settings, num_trials = request.settings, request.num_trials
    num_configurations = request.space.num_configurations
    if num_configurations < math.inf:
        num_trials = int(min(num_configurations, num_trials or math.inf))
    slots = local_slots(
        torch.cuda.device_count(),
        settings.nthreads_per_trial,
        settings.ngpus_per_trial,
        num_trials=num_trials,
        warn=lambda text: tell(Warned(text)),
    )
    return make_executor(settings.executor, PRELOAD, slots, num_trials=num_trials, time_limit_s=request.time_limit_s)


def make_study(
    request: FitRequest,
    folder: Path,
    task: ImageTask,
    executor: Executor,
    deadline: Deadline,
    reserve_s: Reserve,
    journal: Journal,
    listeners: Iterable[Listener],
) -> Study:
    """Return the study of a fit; it goes on where its journal ends."""
    return Study(
        executor,
        make_image_searcher(request, task),
        make_image_scheduler(request),
        num_trials=request.num_trials,
        deadline=deadline,
        reserve_s=reserve_s,
        trial_time_limit_s=request.settings.tuning.trial_time_limit_s,
        # A network's first epoch ends by itself when time is up, but may need this long for imports and validation.
        first_report_grace_s=max(60.0, request.time_limit_s or 0.0),
        max_score=request.settings.tuning.max_reward,
        folder=folder / TRIALS,
        journal=journal,
        listeners=listeners,
    )


def _searcher_name(request: FitRequest) -> str | Searcher:
    name = request.settings.tuning.searcher
    return "random" if name == "auto" and request.space.num_configurations == 1 else name


def _make_searcher(request: FitRequest, known: dict[str, Any]) -> Searcher:
    tuning = request.settings.tuning
    options = {**known, **tuning.searcher_options}
    if tuning.starting_configs:
        options["starting_configs"] = [canonical(config) for config in tuning.starting_configs]
    seed = request.settings.random_state or 0
    return make_searcher(_searcher_name(request), request.space, seed, **options)


def _known_of_images(request: FitRequest, task: ImageTask) -> dict[str, Any]:
    """Return what the learned portfolio is told, where the search goes by it."""
    if _searcher_name(request) != "auto":
        return {}
    device = choose_device(task.device)
    limit_s = math.inf if request.time_limit_s is None else request.time_limit_s
    longest_s = speed_limit_s(limit_s)
    return {
        "describe": partial(describe_recipe, weights=task.weights, device=device),
        "data": DatasetDescription(_images_per_epoch(request, task), task.problem.num_outputs),
        "num_probed": MAX_IMAGES,
        "score_range": score_range(task.metric, task.problem, task.train.targets),
        "log_speed": measure_log_speed(device, task.num_threads),
        "forward_s": forward_seconds(request.space, task.weights, device, task.num_threads, longest_s),
        "is_for_mean": request.settings.max_members > 1,
    }


def _images_per_epoch(request: FitRequest, task: ImageTask) -> int:
    """Return how many images an epoch has, in which costs are reckoned."""
    num_images = len(task.train.indices)
    return max(min(num_images, most or num_images) for most in choices(request.space, "images_per_epoch"))
