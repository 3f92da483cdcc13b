"""The arguments of a fit, and its run folder: which files it has, and which of them are kept."""

from __future__ import annotations

import itertools
import json
import math
import platform
import re
import shutil
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import torch

from saccade._version import __version__
from saccade.data.examples import Examples
from saccade.errors import DataError, HyperparameterError, SpaceError
from saccade.fit.config_file import FIT_TOML, FitConfig
from saccade.fit.options import FitOptions, options_of
from saccade.fit.run_data import fingerprint, write_run_data
from saccade.fit.values import to_toml
from saccade.inference.saved import DESCRIPTION, PREDICTOR_FOLDER, SavedPredictor
from saccade.space import Dict
from saccade.study.json_values import to_json_value
from saccade.study.objectives import cost_names, same_costs
from saccade.study.run_folder import STARTING, CheckpointKeeper, is_vacant, other_entries, write_json_atomically
from saccade.study.trial import Status, Trial
from saccade.study.trial_files import parse_name
from saccade.tasks.metrics import EvalMetric
from saccade.tasks.problem import Problem
from saccade.training.trial_files import BEST, BEST_OUTPUTS, END, END_OUTPUTS, LAST, PROBE

RUNS_FOLDER = "saccade_runs"
"""Parent of the run folders of fits without a path."""

RUN, DATA, SPLIT, EVENTS, JOURNAL, TRIALS, STORE, CHECKS, REFIT, FOLDS, START, START_SPLIT = (
    "run.json",
    "data.json",
    "split.json",
    "events.jsonl",
    "study/journal.log",
    "trials",
    "store",
    "checks.csv",
    "refit",
    "folds",
    "start.safetensors",
    "start-split.safetensors",
)
"""Files and folders in a run folder, besides the predictor."""

MAY_CHANGE = (
    "time_limit",
    "verbosity",
    *(name for name, option in options_of(FitOptions) if option.may_change and option.is_in_record),
)
"""Recorded arguments that may differ when a run is resumed: how long, and where, trials are trained."""


@dataclass(frozen=True)
class FitRequest:
    """The checked arguments of a fit.

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
        Limit for the whole fit.
    settings : FitOptions
        All other arguments.
    start : SavedPredictor or None
        The predictor whose network is trained further (``warm_start=True``).
    problem : Problem or None
        Its problem, whose classes the network has; None derives the problem from the training labels.
    is_model_named : bool
        Whether the user chose the networks; if not, networks without weights are replaced by fallback networks.
    given : frozenset of str
        Names of the hyperparameters that the user has given.
    trains_once : bool
        Whether one trial is trained, with the defaults of spaces that the user has not given.
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
    settings: FitOptions
    start: SavedPredictor | None = None
    problem: Problem | None = None
    is_model_named: bool = True
    given: frozenset[str] = frozenset()
    trains_once: bool = False

    @property
    def weights(self) -> Path | None:
        """The folder or file of pretrained weights; None for downloads."""
        return Path(self.settings.weights).expanduser() if self.settings.weights else None

    @property
    def num_trials(self) -> int | None:
        """The maximum number of trials; None is no maximum.

        Raises
        ------
        HyperparameterError
            If nothing would end the search.
        """
        num_trials = self.settings.num_trials
        limits = (num_trials, self.time_limit_s)
        if limits == (None, None) and self.space.num_configurations == math.inf:
            raise HyperparameterError(
                "the search would never end: time_limit is None, there is no num_trials, and the space has infinitely "
                "many configurations. Pass time_limit=… or num_trials=…"
            )
        return 1 if self.space.num_configurations == 1 else num_trials


def make_run_folder(given: Path | None) -> Path:
    """Make the run folder, or check that the given one is empty or contains a run.

    Raises
    ------
    DataError
        If the folder contains something else.
    """
    if given is None:
        return _folder_of_its_own(datetime.now().strftime("%Y-%m-%d_%H%M%S"))
    if given.exists() and not is_run(given) and not is_vacant(given):
        raise DataError(f"path={str(given)!r} exists and is not a run folder. Pass an empty or a new folder")
    given.mkdir(parents=True, exist_ok=True)
    return given


def is_run(folder: Path) -> bool:
    """Return whether a folder contains a run, even one that was killed while it started."""
    return (folder / RUN).is_file() or (folder / STARTING).is_dir()


def is_finished(folder: Path) -> bool:
    """Return whether the run in a folder has its predictor."""
    return (folder / PREDICTOR_FOLDER / DESCRIPTION).is_file()


def _folder_of_its_own(stamp: str) -> Path:
    """Make a new folder, also if another run starts in the same second."""
    for number in itertools.count():
        folder = Path(RUNS_FOLDER).absolute() / (f"{stamp}_{number}" if number else stamp)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable")


def begin_run(request: FitRequest, folder: Path) -> None:
    """Write the arguments of a fit to its run folder, and remove an earlier run; after a kill, all is written or none.

    The files are the record (`RUN`), images and labels (`DATA`), and a configuration that repeats the fit (`FIT_TOML`).
    """
    start, start_split = None, None
    if request.start is not None:  # read before the run that has it is removed
        start, start_split = request.start.weights_path.read_bytes(), request.start.earlier_split
    starting = folder / STARTING
    starting.mkdir(exist_ok=True)
    (folder / RUN).unlink(missing_ok=True)
    for entry in [*other_entries(folder), *starting.iterdir()]:
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    if start is not None:
        (folder / TRIALS).mkdir()
        (folder / TRIALS / START).write_bytes(start)
        if start_split is not None:
            start_split.save(folder / TRIALS / START_SPLIT)
    write_run_data(starting / DATA, request.train, request.tuning)
    _fit_config(request).write(starting / FIT_TOML)
    write_json_atomically(starting / RUN, _run_record(request))
    for name in (DATA, FIT_TOML, RUN):
        (starting / name).replace(folder / name)
    starting.rmdir()


class WeightsKeeper(CheckpointKeeper):
    """Removes the weights, states and linear probes of trials that neither the search nor the predictor needs.

    Ended trials are grouped by network. The best one is kept; for an ensemble, the best trial of each of the best
    ``max_members + 1`` networks; with costs as objectives, the best trial of every network, since only another network
    can have lower costs. One linear probe is kept per network.

    Parameters
    ----------
    trials : sequence of Trial
        The trials of the study by number.
    objectives : sequence of str
        As `saccade.study.objectives.check_objectives` returns them.
    max_members : int
        The largest number of networks whose predictions are averaged.
    """

    def __init__(self, trials: Sequence[Trial], objectives: Sequence[str] = (), max_members: int = 1) -> None:
        self._probed: dict[Hashable, int] = {}  # the trial whose probe is kept, by network
        num_networks = max_members + 1 if max_members > 1 else 1
        self._is_by_network = num_networks > 1 or bool(cost_names(objectives))
        super().__init__(trials, math.inf if cost_names(objectives) else num_networks)

    def group(self, trial: Trial) -> Hashable:
        """Return a key for the network; one key for all if only the best trial is kept."""
        return same_costs(trial.config) if self._is_by_network else None

    def prune(self, trial: Trial, keep: Literal["all", "best", "nothing"]) -> None:
        """Remove files; those of earlier epochs are removed by the trial itself."""
        if keep == "all" or trial.files is None:
            return
        trial.files.drop(trial.number, LAST)
        if keep == "nothing":
            trial.files.drop(trial.number, BEST, BEST_OUTPUTS, END, END_OUTPUTS)
        if trial.status is Status.FAILED:
            return
        if self._probed.setdefault(same_costs(trial.config), trial.number) != trial.number:
            trial.files.delete(trial.number, PROBE)


def tidy_up(folder: Path) -> None:
    """Remove the files that only the search needed; calling it twice is harmless."""
    for name in (STORE, REFIT, FOLDS):
        shutil.rmtree(folder / name, ignore_errors=True)
    trials = folder / TRIALS
    for name in (START, START_SPLIT):
        (trials / name).unlink(missing_ok=True)
    for pattern in ("last-*", "end-*", "*.part", "probe.npz"):
        for path in trials.glob(f"*/{pattern}"):
            path.unlink(missing_ok=True)
    for path in trials.glob("*/best-*"):
        path.replace(path.with_name(parse_name(path.name)[0]))


def recorded_arguments(request: FitRequest) -> dict[str, Any]:
    """Return the arguments as JSON, under the names of `ImagePredictor`'s arguments.

    Hyperparameters are written as `saccade.fit.values` describes. Objects without a JSON form are recorded by their
    `repr`, as in `saccade.study.json_values`.
    """
    arguments = {
        "label": request.label,
        "problem_type": request.problem_type,
        "eval_metric": request.eval_metric,
        "time_limit": request.time_limit_s,
        "verbosity": request.verbosity,
    }
    record = {name: to_json_value(value) for name, value in arguments.items()}
    record = _without_addresses({**record, **request.settings.to_json()})
    return {**record, "hyperparameters": {name: _in_toml(value) for name, value in request.space.data.items()}}


def _in_toml(value: Any) -> Any:
    try:
        return to_toml(value)
    except HyperparameterError:
        return _without_addresses({"!lost": repr(value)})


def _without_addresses(value: Any) -> Any:
    """Return JSON without the memory addresses in a `repr`, which differ between processes."""
    return json.loads(re.sub(r" at 0x[0-9a-fA-F]+", "", json.dumps(value)))


def _fit_config(request: FitRequest) -> FitConfig:
    values = {
        **{name: getattr(request.settings, name) for name in FitOptions.model_fields},
        "label": request.label,
        "problem_type": request.problem_type,
        "eval_metric": request.eval_metric,
        "time_limit": request.time_limit_s,
        "verbosity": request.verbosity,
        "hyperparameters": dict(request.space.data),
    }
    given = {name: value for name, value in values.items() if value not in (None, [], {}) or name == "time_limit"}
    return FitConfig.model_construct(**given)  # not validated again: what TOML cannot hold becomes a comment in it


def _space_to_json(space: Dict) -> Any:
    """Return the space as JSON, or its `repr` if it contains objects without a JSON form."""
    try:
        return space.to_json()
    except SpaceError:
        return repr(space)


def _run_record(request: FitRequest) -> dict[str, Any]:
    """Return the arguments, the versions of the software, and the time."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"saccade": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "platform": platform.platform(),
        "num_images": len(request.train) + len(request.tuning or ()),
        "data": fingerprint(request.train, request.tuning),
        "time_limit_s": request.time_limit_s,
        "space": _space_to_json(request.space),
        "arguments": recorded_arguments(request),
        "problem": None if request.problem is None else request.problem.to_json(),
    }
