"""What was asked of a fit, and the run folder that keeps it."""

from __future__ import annotations

import itertools
import json
import math
import platform
import shutil
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from saccade._version import __version__
from saccade.config import FIT_TOML, FitConfig
from saccade.data.examples import Examples
from saccade.errors import DataError, HyperparameterError, SpaceError
from saccade.saved import SavedPredictor
from saccade.settings import FitSettings
from saccade.space import Dict
from saccade.training.metrics import EvalMetric

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


def make_run_folder(given: Path | None) -> Path:
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


def write_request(request: FitRequest, folder: Path) -> None:
    """Write down what was asked: for programs (`RUN`), and as the file that repeats the fit (`FIT_TOML`)."""
    _write_run_file(request, folder)
    _fit_config(request).write(folder / FIT_TOML)


def _fit_config(request: FitRequest) -> FitConfig:
    settings, tuning = request.settings, request.settings.tuning
    return FitConfig.model_construct(  # not checked again: what no file can hold becomes a comment in it
        label=request.label,
        problem_type=request.problem_type,
        metric=request.eval_metric,
        time_limit="none" if request.time_limit_s is None else request.time_limit_s,
        num_trials=tuning.num_trials,
        searcher=tuning.searcher,
        searcher_options=tuning.searcher_options or None,
        scheduler=tuning.scheduler,
        max_reward=tuning.max_reward,
        holdout_frac=settings.holdout_frac,
        seed=settings.random_state,
        refit_full=settings.refit_full,
        weights=None if settings.weights is None else str(Path(settings.weights).absolute()),
        threads=settings.nthreads_per_trial,
        gpus=settings.ngpus_per_trial,
        executor=settings.executor,
        verbosity=request.verbosity,
        hyperparameters=dict(request.space.data),
    )


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
