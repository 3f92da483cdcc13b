"""Going on with a run that was interrupted: what its folder tells of it, and whether it is the run that is meant."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from saccade.errors import DataError, HyperparameterError
from saccade.fit.options import REMOVED, FitOptions
from saccade.fit.preparation import PreparedData
from saccade.fit.run_data import fingerprint, read_run_data
from saccade.fit.run_folder import (
    DATA,
    EVENTS,
    MAY_CHANGE,
    RUN,
    SPLIT,
    FitRequest,
    is_run,
    recorded_arguments,
)
from saccade.fit.values import from_toml
from saccade.inference.saved import DESCRIPTION, PREDICTOR_FOLDER, SavedPredictor
from saccade.models.custom import CustomObject
from saccade.space import Dict
from saccade.study.event_log import EventLog
from saccade.study.json_values import LostObjectError, from_json_value
from saccade.study.run_folder import write_json_atomically
from saccade.training.recipes.recipe import canonical, choices


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="allow")
    hyperparameters: dict[str, Any]


class _RunRecord(BaseModel):
    """What `saccade.fit.run_folder.begin_run` writes, as far as it is read again."""

    model_config = ConfigDict(extra="allow")
    arguments: _Arguments
    data: str
    num_images: int


class _SplitRecord(BaseModel):
    """The split of a run, which must be the same whenever the run is resumed."""

    num_train: int
    num_val: int
    digest: str
    max_held_out: int | None = None


@dataclass(frozen=True)
class EarlierRun:
    """A run as its folder has it.

    Attributes
    ----------
    folder : Path
        The run folder.
    record : dict
        What `saccade.fit.run_folder.begin_run` wrote.
    used_s : float
        Seconds that it has taken, each time up to the last thing that it told.
    """

    folder: Path
    record: dict[str, Any]
    used_s: float = 0.0

    @classmethod
    def find(cls, folder: Path) -> EarlierRun | None:
        """Return the run in a folder; None when none has begun there.

        Raises
        ------
        DataError
            When the folder's file is damaged, or of a version without resuming.
        """
        if not (folder / RUN).is_file():
            return None
        try:
            record = _RunRecord.model_validate_json((folder / RUN).read_bytes()).model_dump()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(
                f"{folder / RUN} is invalid ({where + ': ' if where else ''}{first['msg']}). Restore a copy, or "
                "start a new run"
            ) from None
        return cls(folder, record, EventLog(folder / EVENTS).seconds_used())

    @property
    def arguments(self) -> dict[str, Any]:
        """What was asked, as `recorded_arguments` has it."""
        recorded = {name: value for name, value in self.record["arguments"].items() if name not in REMOVED}
        return {**FitOptions().to_json(), **recorded}

    @property
    def is_finished(self) -> bool:
        """Whether it has its predictor."""
        return (self.folder / PREDICTOR_FOLDER / DESCRIPTION).is_file()

    def taken_up(self, request: FitRequest) -> FitRequest:
        """Return the request in the terms of this run, once it is seen to be the same.

        Raises
        ------
        HyperparameterError
            When arguments differ; the message names them.
        DataError
            When the images or their labels differ.
        """
        if not request.is_model_named:
            # What was chosen for the user when the run began holds still, whatever would be chosen now.
            known = self.arguments["hyperparameters"].items()
            chosen = {name: from_toml(value) for name, value in known if name not in request.given}
            request = replace(request, space=Dict({**request.space.data, **chosen}))
        now = json.loads(json.dumps(recorded_arguments(request)))
        before = {**self.arguments, **{name: now[name] for name in MAY_CHANGE}}
        if differing := _differences(before, now):
            raise HyperparameterError(
                f"resume=True goes on with the run in {self.folder}, which was asked for something else: "
                f"{'; '.join(differing)}. Give the same arguments (only {', '.join(MAY_CHANGE)} may differ), or leave "
                "resume=True away, and a new run replaces it"
            )
        if fingerprint(request.train, request.tuning) != self.record["data"]:
            num = len(request.train) + len(request.tuning or ())
            raise DataError(
                f"resume=True goes on with the run in {self.folder}, which learns from other images or labels "
                f"({self.record['num_images']} images; now there are {num}). Give the same ones in the same order, or "
                "leave resume=True away, and a new run replaces it"
            )
        return request

    def note(self, request: FitRequest) -> None:
        """Write down what is asked otherwise than before, so that a further resume has it."""
        arguments = {**self.arguments, **{name: recorded_arguments(request)[name] for name in MAY_CHANGE}}
        write_json_atomically(
            self.folder / RUN, {**self.record, "arguments": arguments, "time_limit_s": request.time_limit_s}
        )

    def saved(self, request: FitRequest) -> SavedPredictor:
        """Return the predictor of a run that is finished."""
        saved = SavedPredictor.read(self.folder)
        name = saved.own_network
        if name is None:
            return saved
        own = [
            part for part in choices(request.space, "model") if isinstance(part, CustomObject) and repr(part) == name
        ]
        return saved.with_network(own[0].value if own else None)


def read_request(folder: Path, time_limit_s: float | str | None, verbosity: int | None) -> FitRequest:
    """Return what a run was asked, from nothing but its folder.

    Parameters
    ----------
    folder : Path
        The run folder.
    time_limit_s : float, "auto" or None
        Seconds for the whole run, those that it has had included; "auto" is the run's own limit.
    verbosity : int or None
        None is the run's own.

    Raises
    ------
    DataError
        When there is no run, or it has images that are no files.
    HyperparameterError
        When it has objects of a program's own, which no file can hold.
    """
    run = EarlierRun.find(folder)
    if run is None:
        what = "was ended before it began; start it again" if is_run(folder) else "is no run folder"
        raise DataError(f"{folder} {what}")
    known = run.arguments
    try:
        arguments = {name: from_json_value(value) for name, value in known.items() if name != "hyperparameters"}
        space = Dict(canonical({name: _from_toml(value) for name, value in known["hyperparameters"].items()}))
    except LostObjectError as lost:
        raise HyperparameterError(
            f"{folder} was asked with an object of a program's own, {lost}, which no file can hold; continue the run "
            "in Python by ImagePredictor(path=…).fit(…, resume=True) with the same arguments"
        ) from None
    own = {name: arguments.pop(name) for name in ("label", "problem_type", "eval_metric")}
    limit_s, own_verbosity = arguments.pop("time_limit"), arguments.pop("verbosity")
    train, tuning = read_run_data(folder / DATA)
    return FitRequest(
        path=folder,
        **own,
        verbosity=own_verbosity if verbosity is None else verbosity,
        train=train,
        tuning=tuning,
        space=space,
        time_limit_s=limit_s if isinstance(time_limit_s, str) else time_limit_s,
        settings=FitOptions.of({**arguments, "resume": True}),
    )


def most_held_out_before(folder: Path) -> int | None:
    """Return the limit on validation images under which an earlier process split the data; None if there was none."""
    split = _read_split(folder / SPLIT)
    return None if split is None else split.max_held_out


def check_split(folder: Path, data: PreparedData, max_held_out: int) -> None:
    """Record the split of a new run; for a resumed run check that it is the same, so that scores can be compared.

    Parameters
    ----------
    folder : Path
        The run folder.
    data : PreparedData
        Its training and validation images.
    max_held_out : int
        Recorded for `most_held_out_before`.

    Raises
    ------
    DataError
        If the split differs from the recorded one, or if the record is damaged.
    """
    digest = hashlib.blake2b(data.train.indices.tobytes(), digest_size=16)
    digest.update(b"|" + data.val.indices.tobytes())
    now = _SplitRecord(
        num_train=len(data.train.indices),
        num_val=len(data.val.indices),
        digest=digest.hexdigest(),
        max_held_out=max_held_out,
    )
    before = _read_split(folder / SPLIT)
    if before is None:
        write_json_atomically(folder / SPLIT, now.model_dump())
    elif (before.num_train, before.num_val, before.digest) != (now.num_train, now.num_val, now.digest):
        raise DataError(
            f"The run in {folder} cannot be resumed: it had {before.num_train} training and {before.num_val} "
            f"validation images; now other images can be read ({now.num_train} and {now.num_val}). "
            "Bring the files back, or start a new run"
        )


def _read_split(path: Path) -> _SplitRecord | None:
    if not path.is_file():
        return None
    try:
        return _SplitRecord.model_validate_json(path.read_bytes())
    except ValidationError:
        raise DataError(f"{path} is damaged. Restore a copy, or start a new run") from None


def _from_toml(value: Any) -> Any:
    if isinstance(value, dict):
        raise LostObjectError(value["!lost"])
    return from_toml(value)


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs, each with what it was and what it is."""
    rooms = [(before["hyperparameters"], now["hyperparameters"]), (before, now)]
    return [
        f"{name} was {_shown(old, name)} and is {_shown(new, name)}"
        for old, new in rooms
        for name in sorted(old.keys() | new.keys())
        if name != "hyperparameters" and old.get(name, _ABSENT) != new.get(name, _ABSENT)
    ]


_ABSENT = object()


def _shown(record: dict[str, Any], name: str) -> str:
    if name not in record:
        return "not given"
    value = record[name]
    return str(value["!lost"]) if isinstance(value, dict) and "!lost" in value else repr(value)
