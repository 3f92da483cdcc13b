"""Resume an interrupted run: read it from its folder, and check that arguments, images and split are the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from saccade.errors import DataError, HyperparameterError, SpaceError, UnknownNameError, WeightsNotFoundError
from saccade.fit.options import FitOptions
from saccade.fit.preparation import PreparedData
from saccade.fit.run_data import fingerprint, read_run_data, read_unlabeled
from saccade.fit.run_folder import (
    DATA,
    EVENTS,
    MAY_CHANGE,
    RUN,
    SPLIT,
    FitRequest,
    new_folder,
    open_run,
    recorded_arguments,
)
from saccade.fit.values import from_toml
from saccade.inference.saved import SavedPredictor
from saccade.models.network import CustomObject
from saccade.space import Dict
from saccade.study.event_log import EventLog, LostObjectError, from_json_value
from saccade.study.run_folder import locked, reading, write_json_atomically
from saccade.tasks.problem import Problem
from saccade.training.recipes.recipe import choices, recipe_space

_Count = Annotated[int, Field(ge=0, le=2**53)]


class _Arguments(BaseModel):
    """The arguments that `FitOptions` does not have, and does not check."""

    model_config = ConfigDict(extra="allow", strict=True)
    hyperparameters: dict[str, Any]
    label: str | int | list[str | int] = "label"
    problem_type: str | None = None
    eval_metric: str | dict[str, Any] | None = None
    time_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    verbosity: Annotated[int, Field(ge=0, le=3)] = 2


class _RunRecord(BaseModel):
    """The fields of ``run.json`` that are read again."""

    model_config = ConfigDict(extra="allow")
    arguments: _Arguments
    data: str
    num_images: _Count


class _SplitRecord(BaseModel):
    """The split of a run, which must be the same whenever the run is resumed."""

    num_train: _Count
    num_val: _Count
    digest: str
    max_held_out: _Count | None = None


@dataclass(frozen=True)
class EarlierRun:
    """The run in a run folder."""

    folder: Path
    record: dict[str, Any]  # what `saccade.fit.run_folder` wrote
    used_s: float = 0.0  # seconds that its sessions have used, each up to its last event

    @classmethod
    def find(cls, folder: Path) -> EarlierRun | None:
        """Return the run in a locked folder, or None; raise a DataError if ``run.json`` is damaged."""
        folder = open_run(folder)
        if not (folder / RUN).is_file():
            return None
        with reading(folder / RUN):
            record = _RunRecord.model_validate_json((folder / RUN).read_bytes()).model_dump()
        return cls(folder, record, EventLog(folder / EVENTS).seconds_used())

    @property
    def problem(self) -> Problem | None:
        """The problem of the predictor that the run trains further, if it does."""
        record = self.record.get("problem")
        with reading(self.folder / RUN):
            return None if record is None else Problem.from_json(record)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the run, as `recorded_arguments` returns them."""
        arguments: dict[str, Any] = self.record["arguments"]
        return arguments

    def request(self, time_limit_s: float | str | None, verbosity: int | None) -> FitRequest:
        """Return the request that continues the run, made from its folder alone.

        The time limit is in seconds for the whole run, earlier sessions included; "auto" is the run's own, as is None
        for `verbosity`. Raises a DataError if the folder has no paths of images because they were in memory, and a
        HyperparameterError if an argument was an object that a file cannot hold.
        """
        known = self.arguments

        def space_of(value: Any) -> Any:
            if isinstance(value, dict):
                raise LostObjectError(value["!lost"])
            return from_toml(value)

        try:
            with reading(self.folder / RUN):
                arguments = {name: from_json_value(value) for name, value in known.items() if name != "hyperparameters"}
                space = recipe_space({name: space_of(value) for name, value in known["hyperparameters"].items()})
                own = {name: arguments.pop(name) for name in ("label", "problem_type", "eval_metric")}
                limit_s, own_verbosity = arguments.pop("time_limit"), arguments.pop("verbosity")
        except LostObjectError as lost:
            raise HyperparameterError(
                f"An argument of the run in {self.folder} was an object that a file cannot hold, {lost}. Resume the "
                "run in Python: ImagePredictor(path=…).fit(…, resume=True) with the same arguments"
            ) from None
        train, tuning = read_run_data(self.folder / DATA)
        unlabeled = read_unlabeled(self.folder / DATA)
        with reading(self.folder / DATA):
            if fingerprint(train, tuning, unlabeled) != self.record["data"]:
                raise ValueError(f"it has other images or labels than {RUN}, or that is damaged")
        return FitRequest(
            path=self.folder,
            **own,
            verbosity=own_verbosity if verbosity is None else verbosity,
            train=train,
            tuning=tuning,
            unlabeled=unlabeled,
            space=space,
            time_limit_s=limit_s if isinstance(time_limit_s, str) else time_limit_s,
            settings=FitOptions.of({**arguments, "resume": True}),
            problem=self.problem,
        )

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Name the file of the arguments in errors about them."""
        try:
            yield
        except (HyperparameterError, UnknownNameError, SpaceError, WeightsNotFoundError) as error:
            advice = f"The arguments are those in {self.folder / RUN}; if it is damaged, restore a copy"
            raise type(error)(f"{str(error).rstrip('.')}. {advice}") from error

    def merge_with_recorded(self, request: FitRequest) -> FitRequest:
        """Return the request with the run's default hyperparameters; raise an error that names what else differs."""
        if not request.is_model_named:
            # Defaults may have changed since the run was started, such as by newly available weights.
            known = self.arguments["hyperparameters"].items()
            chosen = {name: from_toml(value) for name, value in known if name not in request.given}
            request = replace(request, space=Dict({**request.space.data, **chosen}))
        now = json.loads(json.dumps(recorded_arguments(request)))
        before = {**self.arguments, **{name: now[name] for name in MAY_CHANGE}}
        absent = object()
        differing = [
            f"{name} was {_shown(old, name)} and is {_shown(new, name)}"
            for old, new in ((before["hyperparameters"], now["hyperparameters"]), (before, now))
            for name in sorted(old.keys() | new.keys())
            if name != "hyperparameters" and old.get(name, absent) != new.get(name, absent)
        ]
        if differing:
            raise HyperparameterError(
                f"resume=True continues the run in {self.folder}, which has other arguments: {'; '.join(differing)}. "
                f"Pass the same arguments (only {', '.join(MAY_CHANGE)} may differ), or overwrite=True "
                "instead of resume=True to replace the run"
            )
        if fingerprint(request.train, request.tuning, request.unlabeled) != self.record["data"]:
            num = len(request.train) + len(request.tuning or ())
            raise DataError(
                f"resume=True continues the run in {self.folder}, which has other images, labels, groups or times "
                f"({self.record['num_images']} images; now there are {num}). Pass the same ones in the same order, or "
                "overwrite=True instead of resume=True to replace the run"
            )
        return request

    def record_changes(self, request: FitRequest) -> None:
        """Record the arguments that may differ from the run's, for the next time that it is resumed."""
        arguments = {**self.arguments, **{name: recorded_arguments(request)[name] for name in MAY_CHANGE}}
        write_json_atomically(
            self.folder / RUN, {**self.record, "arguments": arguments, "time_limit_s": request.time_limit_s}
        )

    def load_predictor(self, request: FitRequest) -> SavedPredictor:
        """Return the predictor of a finished run."""
        saved = SavedPredictor.read(self.folder)
        if saved.own_network is None:
            return saved
        own = [each for each in choices(request.space, "model") if isinstance(each, CustomObject)]
        return saved.with_network(next((each.value for each in own if repr(each) == saved.own_network), None))


@contextlib.contextmanager
def locked_run(folder: Path) -> Iterator[EarlierRun | None]:
    """Lock a run folder, which is made if necessary, and return the run in it; None if there is none.

    The lock is taken before anything in the folder is read, so no other process can change the run in between. Raises a
    DataError if the folder contains something else than a run, or if ``run.json`` is damaged, and a RunInUseError if
    another run uses the folder.
    """
    with new_folder(folder) as root, locked(root):
        yield EarlierRun.find(root)


def most_held_out_before(folder: Path) -> int | None:
    """Return the limit on validation images under which an earlier process split the data; None if there was none."""
    split = _read_split(folder / SPLIT)
    return None if split is None else split.max_held_out


def check_split(folder: Path, data: PreparedData, max_held_out: int) -> None:
    """Record the split of a new run; for a resumed run check that it is the same, so that scores can be compared.

    `max_held_out` is recorded for `most_held_out_before`. Raises a DataError if the split differs from the recorded
    one, or if the record is damaged.
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
            f"validation images, and now others ({now.num_train} and {now.num_val}). Either other images can be read: "
            f"bring the files back. Or the arguments in {RUN} or the split in {SPLIT} were changed: start a new run"
        )


def _read_split(path: Path) -> _SplitRecord | None:
    if not path.is_file():
        return None
    with reading(path):
        return _SplitRecord.model_validate_json(path.read_bytes())


def _shown(record: dict[str, Any], name: str) -> str:
    if name not in record:
        return "not given"
    value = record[name]
    return str(value["!lost"]) if isinstance(value, dict) and "!lost" in value else repr(value)
