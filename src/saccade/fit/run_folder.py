"""The arguments of a fit, and its run folder: which files it has, and which of them are kept."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import platform
import re
import shutil
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import torch

from saccade._version import __version__
from saccade.data.examples import Examples
from saccade.errors import DataError, HyperparameterError, SpaceError, explained_file_errors
from saccade.fit.config_file import FIT_TOML, FitConfig
from saccade.fit.options import FitOptions, options_of
from saccade.fit.preparation import UNREADABLE
from saccade.fit.run_data import fingerprint, write_run_data
from saccade.fit.values import to_toml
from saccade.inference.saved import (
    CHOICES_FOLDER,
    DESCRIPTION,
    HISTORY,
    INTERRUPTED,
    MEMBERS_FOLDER,
    PREDICTOR_FOLDER,
    SavedPredictor,
)
from saccade.space import Dict
from saccade.study.event_log import EventLog, to_json_value
from saccade.study.life import StudyRecord
from saccade.study.objectives import same_costs
from saccade.study.run_folder import EVENTS as EVENTS
from saccade.study.run_folder import LOCK, STARTING, CheckpointKeeper, is_vacant, locked, write_json_atomically
from saccade.study.run_folder import NEW as NEW
from saccade.study.trackers import EPOCHS, TRACKED
from saccade.study.trial import Status, Trial
from saccade.study.trial_files import parse_name
from saccade.tasks.metrics import EvalMetric
from saccade.tasks.problem import Problem
from saccade.training.trial_files import BEST, BEST_OUTPUTS, END, END_OUTPUTS, LAST, PROBE

SOURCE = "saccade_source"  # attribute of a table: where it was read from

RUNS_FOLDER = "saccade_runs"  # parent of the run folders of fits without a path

# Files and folders in a run folder, besides the predictor.
RUN, DATA, SPLIT, REPORT = "run.json", "data.json", "split.json", "report.html"
JOURNAL, TRIALS, STORE, CHECKS = "study/journal.log", "trials", "store", "checks.csv"
REFIT, FOLDS, START, START_SPLIT = "refit", "folds", "start.safetensors", "start-split.safetensors"
PSEUDO_LABELS = "pseudo_labels.npz"  # of the images without labels that train
STUDENTS, TEACHER = "students", "teacher"  # trainings of a distillation, and the predictor that it started from

MOVING = ".moving"  # name of the subfolder `NEW` while its run takes the place of the earlier one

_PREDICTORS = PREDICTOR_FOLDER, TEACHER

# Patterns of the files that a run writes outside of the folders that it has for itself.
_FILES = (
    *(RUN, DATA, SPLIT, REPORT, FIT_TOML, CHECKS, UNREADABLE, f"{PSEUDO_LABELS}*", f"{EVENTS}*", f"{JOURNAL}*"),
    *("*.json.part", f".{STORE}-*.partial", f".{PREDICTOR_FOLDER}", f"{TRIALS}/start*.safetensors"),
    *(EPOCHS, TRACKED, "tensorboard/**/events.out.tfevents.*", "wandb/*run-*", "wandb/latest-run", "wandb/debug*.log"),
    *(f"{TRIALS}/[0-9]*/{name}" for name in ("*.json", "*.safetensors", "*.npy", "*.npz", "*.part")),
    *(f"{folder}/{name}" for folder in _PREDICTORS for name in (DESCRIPTION, HISTORY, "*.safetensors", "*.part")),
    *(f"{folder}/{name}/*.safetensors*" for folder in _PREDICTORS for name in (MEMBERS_FOLDER, CHOICES_FOLDER)),
)

# Recorded arguments that may differ when a run is resumed: how long, and where, trials are trained.
MAY_CHANGE = (
    "time_limit",
    "verbosity",
    *(name for name, option in options_of(FitOptions) if option.may_change and option.is_in_record),
)


_ADDRESS = r" at 0x[0-9a-fA-F]+"  # in a `repr`; it differs between processes


@dataclass(frozen=True)
class FitRequest:
    """The checked arguments of a fit; those without a comment are as in `ImagePredictor`."""

    path: Path | None  # the run folder; None makes a new one in `RUNS_FOLDER`
    label: str | list[str]
    problem_type: str | None
    eval_metric: EvalMetric
    verbosity: int
    train: Examples  # labelled images
    tuning: Examples | None
    space: Dict  # the hyperparameters
    time_limit_s: float | None  # for the whole fit
    settings: FitOptions  # all other arguments
    start: SavedPredictor | None = None  # whose network is trained further (``warm_start=True``)
    problem: Problem | None = None  # of `start`, with the classes of its network; None derives it from the labels
    is_model_named: bool = True  # the user chose the networks; others are replaced where weights are not available
    given: frozenset[str] = frozenset()  # names of the hyperparameters that the user has given
    trains_once: bool = False  # one trial is trained, with the defaults of spaces that the user has not given
    unlabeled: Examples | None = None
    source: str | None = None  # path or URL that the images with labels were read from; None for a table in memory

    @property
    def weights(self) -> Path | None:
        """The folder or file of pretrained weights; None for downloads."""
        return Path(self.settings.weights).expanduser() if self.settings.weights else None

    @property
    def num_trials(self) -> int | None:
        """The maximum number of trials; None means no maximum. A HyperparameterError if nothing ends the search."""
        num_trials = self.settings.num_trials
        limits = (num_trials, self.time_limit_s)
        if limits == (None, None) and self.space.num_configurations == math.inf:
            raise HyperparameterError(
                "the search would never end: time_limit is None, there is no num_trials, and the space has infinitely "
                "many configurations. Pass time_limit=… or num_trials=…"
            )
        return 1 if self.space.num_configurations == 1 else num_trials


@contextlib.contextmanager
def locked_folder(request: FitRequest, earlier: Path | None) -> Iterator[Path]:
    """Yield the folder that a fit works in, with the first files of a new run; the run folder is locked.

    Over an earlier run, a new one is made in `NEW`, and takes its place when it has a predictor. A new run that fails
    removes what it has written, unless a trial has results. `earlier` is the run to resume; with the option `resume`,
    the caller has the lock. Raises a DataError if the folder has something else, or a run that may not be overwritten.
    """
    if earlier is not None:
        yield earlier
        _replace_earlier_run(earlier)
        return
    with new_folder(request.path) as root, contextlib.nullcontext() if request.settings.resume else locked(root):
        folder = root
        if (open_run(root) / RUN).is_file():
            if not request.settings.overwrite:
                state = "a finished run" if is_finished(root) else "a run that has not finished"
                raise DataError(
                    f"{root} contains {state}. Pass overwrite=True to replace it as soon as the new run has a "
                    "predictor, resume=True to continue it, or another path"
                )
            folder = root / NEW
        try:
            with explained_file_errors(folder):
                _begin_run(request, folder)
            yield folder
        except Exception:
            record = StudyRecord.load(EventLog(folder / EVENTS, request.space))
            # Results are the reports of trials, and trials that can still be continued.
            if not any(trial.reports or trial.number in record.jobs for trial in record.trials):
                remove_run(folder)
                if folder.name == NEW:
                    folder.rmdir()
            raise
        _replace_earlier_run(folder)


@contextlib.contextmanager
def new_folder(given: Path | None) -> Iterator[Path]:
    """Make the run folder unless it is one, or raise a DataError; if it was made and stays empty, remove it."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H%M%S")
    for number in itertools.count():  # another run may start in the same second
        name = f"{RUNS_FOLDER}/{stamp}_{number}" if number else f"{RUNS_FOLDER}/{stamp}"
        try:
            folder = Path(name).absolute() if given is None else given
            made = [each for each in (folder, *folder.parents) if not each.exists()]
            if not made and not is_run(folder) and not is_vacant(folder):
                raise DataError(f"path={str(given)!r} exists and is not a run folder. Pass an empty or a new folder")
            folder.mkdir(parents=True, exist_ok=given is not None)
        except OSError as error:
            if given is None and isinstance(error, FileExistsError):
                continue
            what = f"{RUNS_FOLDER} in the working directory" if given is None else f"path={str(given)!r}"
            raise DataError(
                f"{what} cannot be made ({error.strerror}). Pass a folder that can be written: "
                "ImagePredictor(path=…), or --out"
            ) from None
        break
    try:
        yield folder
    finally:
        if made and is_vacant(folder):
            (folder / LOCK).unlink(missing_ok=True)
            for each in made:  # the innermost first
                with contextlib.suppress(OSError):  # other runs are in it
                    each.rmdir()


def is_run(folder: Path) -> bool:
    """Return whether a folder contains a run, even one that was killed while it started."""
    return (folder / RUN).is_file() or any((folder / name).is_dir() for name in (STARTING, NEW, MOVING))


def open_run(root: Path) -> Path:
    """Return the folder of the latest run in a run folder whose lock the caller has."""
    _replace_earlier_run(root / NEW)
    if (root / MOVING).is_dir():
        _move_up(root)
    return root / NEW if (root / NEW / RUN).is_file() else root


def root_of(folder: Path) -> Path:
    """Return the run folder that the user knows, for the folder of one of its runs."""
    return folder.parent if folder.name == NEW else folder


def is_finished(folder: Path) -> bool:
    """Return whether the run in a folder has its predictor, and neither it nor a newer run there was interrupted."""
    if (folder / NEW / RUN).is_file() or (folder / MOVING).is_dir() or not has_predictor(folder):
        return False
    try:
        record = json.loads((folder / PREDICTOR_FOLDER / DESCRIPTION).read_bytes())
        return not record["summary"].get(INTERRUPTED, False)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return True  # damaged, which is reported when the predictor is read


def read_trials(folder: Path) -> list[Trial]:
    """Return the trials of a run, also while it runs; objects of the user in their configurations are text."""
    return StudyRecord.load(EventLog(folder / EVENTS, as_text=True)).trials


def has_predictor(folder: Path) -> bool:
    """Return whether the run in a folder has a predictor."""
    return (folder / PREDICTOR_FOLDER / DESCRIPTION).is_file()


def how_to_finish(folder: Path) -> str:
    """Return what to do with a run without a predictor; "" if a folder contains no run."""
    if not is_run(folder):
        is_damaged = any((folder / name).exists() for name in (EVENTS, DATA))
        advice = "Restore a copy, or start a new run in another folder"
        return f"{folder / RUN} is missing, or not a regular file. {advice}" if is_damaged else ""
    return (
        f"{folder} is a run that has not finished. Continue it: saccade resume {folder}. Or make a predictor of the "
        f"trials that it has: saccade resume {folder} --finish. (In Python: ImagePredictor.resume(path), with "
        "finish=True for the latter.)"
    )


def remove_run(folder: Path) -> None:
    """Remove the files of a run, and the folders that are empty then; other files are not touched."""
    for name in (STARTING, STORE, REFIT, FOLDS, STUDENTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for pattern in _FILES:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    contents = (f"{name}/*" for name in (TRIALS, *_PREDICTORS))
    for pattern in (*contents, TRIALS, JOURNAL.split("/")[0], "tensorboard/*", "tensorboard", "wandb", *_PREDICTORS):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):  # it is a file, or not empty
                path.rmdir()


def _begin_run(request: FitRequest, folder: Path) -> None:
    """Write record, images with labels, and a TOML file of a fit to its folder; after a kill, all or none are there."""
    remove_run(folder)  # of a process that was killed
    starting = folder / STARTING
    starting.mkdir(parents=True)
    if request.start is not None:
        (folder / TRIALS).mkdir()
        shutil.copyfile(request.start.weights_path, folder / TRIALS / START)
        if (split := request.start.earlier_split) is not None:
            split.save(folder / TRIALS / START_SPLIT)
    write_run_data(starting / DATA, request.train, request.tuning, request.unlabeled)
    values = {
        **{name: getattr(request.settings, name) for name in FitOptions.model_fields},
        "data": request.source,
        "label": request.label,
        "problem_type": request.problem_type,
        "eval_metric": request.eval_metric,
        "time_limit": request.time_limit_s,
        "verbosity": request.verbosity,
        "hyperparameters": dict(request.space.data),
    }
    given = {name: value for name, value in values.items() if value not in (None, [], {}) or name == "time_limit"}
    # Not validated again: what TOML cannot hold becomes a comment in it.
    FitConfig.model_construct(**given).write(starting / FIT_TOML)
    try:
        space: Any = request.space.to_json()
    except SpaceError:  # it contains objects without a JSON form
        space = repr(request.space)
    record = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"saccade": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "platform": platform.platform(),
        "num_images": len(request.train) + len(request.tuning or ()),
        "data": fingerprint(request.train, request.tuning, request.unlabeled),
        "time_limit_s": request.time_limit_s,
        "space": space,
        "arguments": recorded_arguments(request),
        "problem": None if request.problem is None else request.problem.to_json(),
    }
    write_json_atomically(starting / RUN, record)
    for name in (DATA, FIT_TOML, RUN):
        (starting / name).replace(folder / name)
    starting.rmdir()


def _replace_earlier_run(folder: Path) -> None:
    """Let a run in `NEW` with a predictor replace the earlier run; after a kill, `open_run` continues."""
    if folder.name == NEW and has_predictor(folder):
        remove_run(folder.parent)
        folder.rename(folder.with_name(MOVING))
        _move_up(folder.parent)


def _move_up(root: Path) -> None:
    files = [path for path in (root / MOVING).rglob("*") if not path.is_dir()]
    for path in sorted(files, key=lambda path: path.name == DESCRIPTION):  # this makes the predictor complete
        target = root / path.relative_to(root / MOVING)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(root / MOVING)


class WeightsKeeper(CheckpointKeeper):
    """Removes the weights, states and linear probes of trials that neither the search nor the predictor needs.

    The best trial is kept; for an ensemble, the best of each of the best ``max_members + 1`` networks; if costs count,
    the best of every network, since only another network can have lower costs. One linear probe is kept per network.
    """

    def __init__(self, trials: Sequence[Trial], max_members: int = 1, *, has_costs: bool = False) -> None:
        self._probed: dict[Hashable, int] = {}  # the trial whose probe is kept, by network
        num_networks = max_members + 1 if max_members > 1 else 1
        self._is_by_network = num_networks > 1 or has_costs
        super().__init__(trials, math.inf if has_costs else num_networks)

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
    for name in (STORE, REFIT, FOLDS, STUDENTS):
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
    """Return the arguments as JSON by the names of `ImagePredictor`; the user's own objects by their `repr`."""
    arguments = {
        "label": request.label,
        "problem_type": request.problem_type,
        "eval_metric": request.eval_metric,
        "time_limit": request.time_limit_s,
        "verbosity": request.verbosity,
    }
    hyperparameters = {}
    for name, value in request.space.data.items():
        try:
            hyperparameters[name] = to_toml(value)
        except HyperparameterError:
            hyperparameters[name] = {"!lost": re.sub(_ADDRESS, "", repr(value))}
    record = {**{name: to_json_value(value) for name, value in arguments.items()}, **request.settings.to_json()}
    return {**json.loads(re.sub(_ADDRESS, "", json.dumps(record))), "hyperparameters": hyperparameters}
