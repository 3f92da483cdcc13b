"""What was asked of a fit, and the run folder that keeps it."""

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
from saccade.inference.saved import SavedPredictor
from saccade.selection.candidates import BEST, BEST_OUTPUTS
from saccade.space import Dict
from saccade.study.json_values import to_json_value
from saccade.study.objectives import cost_names, same_costs
from saccade.study.run_folder import STARTING, CheckpointKeeper, is_vacant, other_entries, write_json_atomically
from saccade.study.trial import Status, Trial
from saccade.tasks.metrics import EvalMetric
from saccade.training.trial_files import drop_files, probe_file

RUNS_FOLDER = "saccade_runs"
"""Where runs go that are given no path."""

RUN, DATA, SPLIT, EVENTS, JOURNAL, TRIALS, STORE, CHECKS, REFIT, FOLDS, START = (
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
)
"""What a run folder holds besides the predictor."""

MAY_CHANGE = (
    "time_limit",
    "verbosity",
    *(name for name, option in options_of(FitOptions) if option.may_change and option.is_in_record),
)
"""Recorded arguments that may differ when a run is resumed: how long, and where, trials are trained."""


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
    settings : FitOptions
        All other arguments.
    start : SavedPredictor or None
        The predictor whose network is to be trained further.
    is_model_named : bool
        Whether the user chose the networks; if not, others may stand in where weights are missing.
    given : frozenset of str
        The hyperparameters that the user has given.
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
    is_model_named: bool = True
    given: frozenset[str] = frozenset()

    @property
    def weights(self) -> Path | None:
        """The folder or file of pretrained weights; None for downloads."""
        return Path(self.settings.weights).expanduser() if self.settings.weights else None

    @property
    def num_trials(self) -> int | None:
        """How many trials at most; None leaves it to the clock.

        Raises
        ------
        HyperparameterError
            When nothing would ever end the search.
        """
        num_trials = self.settings.num_trials
        limits = (num_trials, self.time_limit_s)
        if limits == (None, None) and self.space.num_configurations == math.inf:
            raise HyperparameterError(
                "the search would never end: time_limit is None, there is no num_trials, and the space has infinitely "
                "many configurations. Give time_limit=…, or hyperparameter_tune_kwargs={'num_trials': …}"
            )
        return 1 if self.space.num_configurations == 1 else num_trials


def make_run_folder(given: Path | None) -> Path:
    """Make the run folder, or see that the given one has nothing but an earlier run in it.

    Raises
    ------
    DataError
        When the folder holds something that is no run.
    """
    if given is None:
        return _folder_of_its_own(datetime.now().strftime("%Y-%m-%d_%H%M%S"))
    if given.exists() and not is_run(given) and not is_vacant(given):
        raise DataError(f"path={str(given)!r} exists and is no run folder; name an empty or a new folder")
    given.mkdir(parents=True, exist_ok=True)
    return given


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a run's, even one that was killed while it was beginning."""
    return (folder / RUN).is_file() or (folder / STARTING).is_dir()


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


def begin_run(request: FitRequest, folder: Path) -> None:
    """Put what was asked into a run folder, in place of an earlier run; after a kill it is there, or there is no run.

    It is there for programs (`RUN`), with images and labels (`DATA`), and as the file that repeats the fit
    (`FIT_TOML`).
    """
    start = None if request.start is None else request.start.weights_path.read_bytes()  # it may be in the way
    starting = folder / STARTING
    starting.mkdir(exist_ok=True)
    (folder / RUN).unlink(missing_ok=True)
    for entry in [*other_entries(folder), *starting.iterdir()]:
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    if start is not None:
        (folder / TRIALS).mkdir()
        (folder / TRIALS / START).write_bytes(start)
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
        if keep == "all":
            return
        folder = Path(trial.folder)
        drop_files(folder, "last")
        if keep == "nothing":
            drop_files(folder, "best")
            drop_files(folder, "end")
        if trial.status is Status.FAILED:
            return
        if self._probed.setdefault(same_costs(trial.config), trial.number) != trial.number:
            probe_file(folder).unlink(missing_ok=True)


def tidy_up(folder: Path) -> None:
    """Remove the files that only the run itself needed; calling it twice does no harm."""
    for name in (STORE, REFIT, FOLDS):
        shutil.rmtree(folder / name, ignore_errors=True)
    trials = folder / TRIALS
    (trials / START).unlink(missing_ok=True)
    for pattern in ("last-*", "end-*", "*.part", "probe.npz"):
        for path in trials.glob(f"*/{pattern}"):
            path.unlink(missing_ok=True)
    for name in (BEST, BEST_OUTPUTS):
        for path in trials.glob(f"*/best-*{name.removeprefix('best')}"):
            path.replace(path.with_name(name))


def recorded_arguments(request: FitRequest) -> dict[str, Any]:
    """Return what was asked, under the names of `ImagePredictor`'s arguments, as JSON.

    Hyperparameters are in the language of `saccade.fit.values`. Of what no file can hold there is the `repr`, as
    `saccade.study.json_values` writes it.
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
    """Return JSON without the places in memory that a `repr` may tell, which differ from process to process."""
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
    return FitConfig.model_construct(**given)  # not checked again: what no file can hold becomes a comment in it


def _space_to_json(space: Dict) -> Any:
    """Return the space's JSON form, or its print-out, where objects of the user's own have none."""
    try:
        return space.to_json()
    except SpaceError:
        return repr(space)


def _run_record(request: FitRequest) -> dict[str, Any]:
    """Return what was asked, by whom (which versions), and when."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"saccade": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "platform": platform.platform(),
        "num_images": len(request.train) + len(request.tuning or ()),
        "data": fingerprint(request.train, request.tuning),
        "time_limit_s": request.time_limit_s,
        "space": _space_to_json(request.space),
        "arguments": recorded_arguments(request),
    }
