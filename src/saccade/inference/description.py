"""What the file of a saved predictor's description contains; pydantic checks it, since strangers may have made it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    with_config,
)
from typing_extensions import NotRequired, Required, TypedDict

from saccade._version import __version__
from saccade.checks import real_number
from saccade.errors import HyperparameterError, SavedPredictorError
from saccade.inference.classifier import Blueprint, Text
from saccade.inference.postprocessing import Postprocessing
from saccade.study.objectives import COSTS, load
from saccade.tasks.base import type_adapter
from saccade.tasks.matching import names_of_classes
from saccade.tasks.problem import Problem

WEIGHTS = "weights.safetensors"  # the file of the first network

FORMAT = 5
"""Version of `DESCRIPTION`; no release has written earlier ones."""

MAX_BYTES = 2**25
"""Size of the largest description that is read."""

_Count = Annotated[int, Field(ge=0, le=2**31)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_File = Annotated[str, Field(pattern=r"^(weights|members/\d{1,9}|choices/\d{1,9})(-\d{1,9})?\.safetensors$")]
_Postprocessing = Annotated[
    Postprocessing, PlainValidator(Postprocessing.from_json), PlainSerializer(Postprocessing.to_json)
]


@with_config(ConfigDict(extra="allow"))
class _Summary(TypedDict, total=False):
    """The entries of a summary that are read again."""

    best_config: dict[str, Any]
    best_trial: _Count | None
    valid_score: float | None
    result: Required[Text]
    interrupted: bool
    seconds: dict[str, _Finite]


@with_config(ConfigDict(extra="allow"))
class _ChoiceSummary(TypedDict):
    valid_score: _Finite
    result: NotRequired[Text]


@with_config(ConfigDict(extra="allow"))
class _Row(TypedDict):
    """A row of the leaderboard."""

    trial: _Count
    status: Text
    score_val: float | None
    images_per_s: NotRequired[_Finite | None]
    epochs_done: _Count
    best_epoch: _Count | None
    fit_time_s: float
    config: dict[str, Any]
    reason: str
    costs: NotRequired[dict[str, float]]
    on_front: NotRequired[bool]


class _Numerics(TypedDict):
    dtype: Literal["float32", "bfloat16", "float16"]
    channels_last: bool
    folds_batch_norm: NotRequired[bool]
    engine: NotRequired[Literal["torch", "onnxruntime"]]


def _of(kind: Any) -> Any:
    """Return the validator of a dict that has entries of these types."""
    check = type_adapter(kind).validate_python

    def checked(record: dict[str, Any]) -> dict[str, Any]:
        check(record, strict=True)
        return record

    return AfterValidator(checked)


# Objects of the user are written as their `repr`; pydantic would write the fields of dataclasses.
_BY_REPR = PlainSerializer(lambda value: json.loads(json.dumps(value, default=repr)))


@dataclass(frozen=True)
class Member:
    """A network of a predictor."""

    trial: _Count  # that trained it
    blueprint: Blueprint
    weights: _File = WEIGHTS  # the file of its weights, relative to the predictor's folder
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0  # of its predictions; those of all members sum to 1
    amp: bool | None = None  # as in `saccade.training.recipes.recipe.Recipe`
    has_seen_val: bool = False  # whether it was fitted to the validation images as well, after the search
    checksum: Text | None = None  # of its weights; None before they are written


@dataclass(frozen=True)
class Choice:
    """A trial on the Pareto front of a search with several objectives; `weights` and others are as in `Member`."""

    trial: _Count
    costs: dict[str, _Finite]  # of its network by name, as in `saccade.study.objectives.COSTS`
    blueprint: Blueprint
    # The entries of `ImagePredictor.fit_summary` that differ for this trial.
    summary: Annotated[dict[str, Any], _of(_ChoiceSummary), _BY_REPR]
    weights: _File = WEIGHTS
    postprocessing: _Postprocessing = field(default_factory=Postprocessing)
    has_seen_val: bool = False
    checksum: Text | None = None


def choose(choices: Sequence[Choice], limits: Mapping[str, float], min_score: float | None = None) -> Choice:
    """Return the choice with the highest score within the maximum `limits` of costs by name.

    With `min_score`, return the cheapest choice of at least this score instead. Raises a HyperparameterError if a limit
    is not a number, its cost is not an objective of the search, or no choice is within the limits.
    """
    for name, limit in [*limits.items(), *([] if min_score is None else [("min_score", min_score)])]:
        real_number(name, limit)
    known = list(choices[0].costs) if choices else []
    if missing := [name for name in limits if name not in known]:
        objective_of = {cost: objective for objective, cost in COSTS.items()}
        raise HyperparameterError(
            f"{', '.join(missing)} is not an objective of this search. Search with "
            f"objectives={['accuracy', *[objective_of[name] for name in (*known, *missing)]]}"
        )
    if not choices:
        raise HyperparameterError(
            "there is nothing to choose from: the search had one objective. Search with "
            "objectives=['accuracy', 'latency']"
        )
    fitting = [
        choice
        for choice in choices
        if load(choice.costs, limits) <= 1 and (min_score is None or choice.summary["valid_score"] >= min_score)
    ]
    if not fitting:
        listed = "\n".join(
            f"  trial {choice.trial}: score {choice.summary['valid_score']:.4f}, "
            + ", ".join(f"{name} {cost:,.4g}" for name, cost in choice.costs.items())
            for choice in choices
        )
        raise HyperparameterError(f"no trial is within these limits; the choices are:\n{listed}")
    if min_score is not None:
        return min(fitting, key=lambda choice: tuple(choice.costs.values()))
    return max(fitting, key=lambda choice: choice.summary["valid_score"])


class _Format(BaseModel):
    format: Annotated[int, Field(strict=True)]
    saccade: Any = ""  # the version that wrote it


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the file `DESCRIPTION` contains. Strangers may have made it, so pydantic checks it by these types."""

    label: str | list[str]  # the label column's name, or the names of several columns of 0 and 1
    problem: Annotated[Problem, PlainValidator(Problem.from_json), PlainSerializer(Problem.to_json)]
    metric: Text  # used for model selection
    eval_metric: Text | None  # its name as the user gave it; None for the default, and for a function
    class_names: list[str] | None  # names of integer labels, as the training data had them
    summary: Annotated[dict[str, Any], _of(_Summary), _BY_REPR]  # what `ImagePredictor.fit_summary` returns
    trials: list[Annotated[dict[str, Any], _of(_Row), _BY_REPR]]  # rows of the leaderboard
    # The networks whose predictions are averaged, the one with the highest score first. Features and explanations are
    # those of the first one.
    members: Annotated[list[Member], Field(min_length=1, max_length=200)]
    # The Pareto front for `ImagePredictor.choose`, the highest score first; empty for searches with one objective.
    choices: Annotated[list[Choice], Field(max_length=1000)] = field(default_factory=list)
    postprocessing: _Postprocessing = field(default_factory=Postprocessing)
    # The numerics of each member, for each kind of device (``"cpu"``, ``"cuda"``, ``"mps"``) that was warmed up.
    numerics: dict[str, list[Annotated[dict[str, Any], _of(_Numerics)]]] = field(default_factory=dict)
    # Of training images of more than 8 bits: see `saccade.data.pixel_range`.
    pixel_range: tuple[_Finite, _Finite] | None = None

    @classmethod
    def read(cls, path: Path) -> Description:
        """Return the description in a file; a SavedPredictorError if it is damaged, too large, newer or too old."""
        try:
            if (size := path.stat().st_size) > MAX_BYTES:
                raise ValueError(f"it has {size:,} bytes, more than {MAX_BYTES:,}")
            content = path.read_bytes()
            found = _Format.model_validate_json(content)
            if found.format > FORMAT:
                raise SavedPredictorError(
                    f"{path.parent} was saved by saccade {str(found.saccade)[:40]} in a newer format "
                    f"({str(found.format)[:20]}; this version reads up to {FORMAT}). Update saccade"
                )
            if found.format < FORMAT:
                raise SavedPredictorError(
                    f"{path.parent} was saved before the first release of saccade, in format {str(found.format)[:20]}; "
                    f"this version reads format {FORMAT}. Fit again"
                )
            description: Description = type_adapter(cls).validate_json(content, strict=True)
            description._check()
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            if isinstance(error, SavedPredictorError):
                raise
            reason = str(error)
            if isinstance(error, ValidationError):
                first = error.errors(include_url=False, include_input=False)[0]
                reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise SavedPredictorError(f"{path} is damaged ({reason[:200]}). Restore a copy, or save again") from None
        return description

    def _check(self) -> None:
        """Raise a ValueError if parts do not fit each other."""
        for part in (self.postprocessing, *(choice.postprocessing for choice in self.choices)):
            part.check(self.problem)
        if abs(sum(member.weight for member in self.members) - 1) > 1e-3:
            raise ValueError("the weights of the members do not sum to 1")
        if any(len(records) != len(self.members) for records in self.numerics.values()):
            raise ValueError("numerics and members do not match")
        known = self.choices[0].costs.keys() if self.choices else set()
        if known - set(COSTS.values()) or any(choice.costs.keys() != known for choice in self.choices):
            raise ValueError("the choices have unknown costs, or different ones")
        blueprints = [one.blueprint for one in self.members] + [one.blueprint for one in self.choices]
        if not all(blueprint.name for blueprint in blueprints):
            raise ValueError("a network has no name")
        if self.pixel_range is not None and self.pixel_range[0] >= self.pixel_range[1]:
            raise ValueError("the range of pixels is empty")
        _ = self.names_of_classes

    @property
    def names_of_classes(self) -> list[str]:
        """The name of each class: its folder's name for numbered classes, else the label as text."""
        return names_of_classes(self.problem.classes, self.class_names)

    def to_json(self) -> dict[str, Any]:
        """Return what `read` reads; objects of the user are their `repr`."""
        return {"format": FORMAT, "saccade": __version__, **type_adapter(Description).dump_python(self)}
