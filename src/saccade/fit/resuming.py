"""Going on with a run that was interrupted: what its folder tells of it, and whether it is the run that is meant."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
    write_anew,
)
from saccade.fit.values import from_toml
from saccade.inference.saved import DESCRIPTION, PREDICTOR_FOLDER, SavedPredictor
from saccade.models.custom import CustomObject
from saccade.space import Dict
from saccade.study.event_log import EventLog
from saccade.study.json_values import LostObjectError, from_json_value
from saccade.training.recipes.recipe import canonical, choices


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
            record = json.loads((folder / RUN).read_text(encoding="utf-8"))
            _ = record["arguments"], record["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / RUN} cannot be read ({type(error).__name__}: {error}); start anew") from None
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
        write_anew(self.folder / RUN, {**self.record, "arguments": arguments, "time_limit_s": request.time_limit_s})

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
    """Return how many images might judge when a run was split, which was by its time limit then; None is unknown."""
    path = folder / SPLIT
    return json.loads(path.read_text(encoding="utf-8")).get("max_held_out") if path.is_file() else None


def check_split(folder: Path, data: PreparedData, max_held_out: int) -> None:
    """Write down which images judge and which teach; or see that these are the same as when the run began.

    Parameters
    ----------
    folder : Path
        Of the run.
    data : PreparedData
        Its split.
    max_held_out : int
        Written down for `most_held_out_before`.

    Raises
    ------
    DataError
        When they are not: scores could not be compared.
    """
    digest = hashlib.blake2b(data.train.indices.tobytes(), digest_size=16)
    digest.update(b"|" + data.val.indices.tobytes())
    now = {"num_train": len(data.train.indices), "num_val": len(data.val.indices), "digest": digest.hexdigest()}
    path = folder / SPLIT
    if not path.is_file():
        write_anew(path, {**now, "max_held_out": max_held_out})
    elif {**(before := json.loads(path.read_text(encoding="utf-8"))), **now} != before:
        raise DataError(
            f"the run in {folder} cannot go on: it had {before['num_train']} images to learn from and "
            f"{before['num_val']} to be judged by, and now others, or in another order, can be read "
            f"({now['num_train']} and {now['num_val']}). Bring the files back, or start anew"
        )


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
