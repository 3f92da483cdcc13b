"""The schema of a saved predictor's description, which may come from a stranger, and its weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open

from saccade.errors import SavedPredictorError
from saccade.inference.classifier import Blueprint
from saccade.inference.postprocessing import Postprocessing
from saccade.models.weights import read_weights
from saccade.tasks.problem import Problem

MAX_BYTES, MAX_MEMBERS, MAX_SIDE, MAX_NUMBER = 2**28, 1000, 8192, 2**31
"""Limits of a description: its size, its networks, the side of an image in pixels, and whole numbers."""

_Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
_Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Channels = Annotated[list[_Finite], Field(min_length=1, max_length=64)]
_File = Annotated[str, Field(pattern=r"^(weights|members/\d{1,9}|choices/\d{1,9})(-\d{1,9})?\.safetensors$")]
_Text = Annotated[str, Field(max_length=10_000)]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Input(_Model):
    img_size: _Side
    crop_pct: Annotated[float, Field(gt=0, le=16)]
    interpolation: Literal["bicubic", "bilinear"]
    mean: _Channels
    std: Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=1, max_length=64)]


class _Blueprint(_Model):
    architecture: _Text | None
    input: _Input
    img_size: _Side | None = None
    tta: bool = False
    own: _Text | None = None


class _Member(_Model):
    trial: _Count = 0
    blueprint: _Blueprint
    weights: _File = "weights.safetensors"
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    soup: list[_Count] = []
    amp: bool | None = None
    has_seen_val: bool = False


class _Summary(_Model):
    """The entries that are read again."""

    best_config: dict[str, Any] = {}
    best_trial: _Count | None = None
    valid_score: float | None = None
    result: _Text = ""
    interrupted: bool = False
    seconds: dict[str, _Finite] = {}


class _Choice(_Model):
    trial: _Count
    costs: dict[str, _Finite]
    blueprint: _Blueprint
    summary: _Summary
    weights: _File = "weights.safetensors"
    has_seen_val: bool = False


class _Row(_Model):
    """A row of the leaderboard."""

    trial: _Count
    status: _Text
    score_val: float | None
    images_per_s: _Finite | None = None
    epochs_done: _Count
    best_epoch: _Count | None
    fit_time_s: float
    config: dict[str, Any]
    reason: str
    costs: dict[str, float] = {}
    on_front: bool = False


class _Problem(_Model):
    type: Literal["binary", "multiclass", "multilabel", "regression"]
    classes: list[bool | int | float | str] = []


class _Numerics(_Model):
    dtype: Literal["float32", "bfloat16", "float16"]
    channels_last: bool
    folds_batch_norm: bool = True


class _Description(_Model):
    label: str | int | list[str | int]
    problem: _Problem
    metric: _Text
    eval_metric: _Text | None
    class_names: list[str] | None
    summary: _Summary
    trials: list[_Row]
    members: Annotated[list[_Member], Field(max_length=MAX_MEMBERS)] = []
    choices: Annotated[list[_Choice], Field(max_length=MAX_MEMBERS)] = []
    numerics: dict[str, list[_Numerics]] = {}


def read_description(path: Path, newest_format: int) -> dict[str, Any]:
    """Return the checked description in a file; a SavedPredictorError if it is damaged, too large, or newer."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise SavedPredictorError(f"{path} has {size:,} bytes; a description has at most {MAX_BYTES:,}")
        record = from_json(path.read_bytes())
        if not isinstance(record, dict) or type(record.get("format")) is not int:
            raise SavedPredictorError(f"{path} is damaged: it has no format number. Restore a copy, or save again")
        if record["format"] > newest_format:
            raise SavedPredictorError(
                f"{path.parent} was saved by saccade {str(record.get('saccade'))[:40]} in a newer format "
                f"({str(record['format'])[:20]}; this version reads up to {newest_format}); update saccade"
            )
        _Description.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SavedPredictorError(
            f"{path} is damaged ({where}: {first['msg']}). Restore a copy, or save again"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, SavedPredictorError):
            raise
        raise SavedPredictorError(f"{path} is damaged ({str(error)[:200]}). Restore a copy, or save again") from None
    return record


def read_blueprint(record: Any) -> Blueprint:
    """Return the blueprint of a record; raise a ValueError or TypeError if values have wrong types or sizes."""
    _Blueprint.model_validate(record)
    return Blueprint.from_json(record)


def check_postprocessing(postprocessing: Postprocessing, problem: Problem) -> None:
    """Raise a ValueError if numbers have wrong types, are not finite, or do not fit the number of classes."""
    calibration, thresholds = postprocessing.calibration, postprocessing.thresholds
    for part in (calibration, thresholds):
        TypeAdapter(type(part)).validate_python(asdict(part))
    numbers = [calibration.temperature, calibration.logit_adjustment]
    for values in (calibration.class_prior, thresholds.class_prior, thresholds.values):
        if len(values) not in (0, len(problem.classes), len(problem.threshold_classes)):
            raise ValueError(f"{len(values)} numbers for {len(problem.classes)} classes")
        numbers += values
    numbers += postprocessing.conformal.scores
    if not (torch.tensor(numbers).isfinite().all() and calibration.temperature > 0):
        raise ValueError("calibration, thresholds or scores are not finite")


def load_weights(network: torch.nn.Module, path: Path) -> None:
    """Load a file of weights; a SavedPredictorError if it is damaged, of another network, or not finite."""
    state, _ = read_weights_of(network, path)
    network.load_state_dict(state)
    if damaged := next((name for name, part in state.items() if not part.isfinite().all()), None):
        raise SavedPredictorError(f"{path} cannot be loaded: {damaged} has values that are not finite (NaN or inf)")


def read_weights_of(network: torch.nn.Module, path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file of this network's weights; raise errors as `load_weights` does."""
    try:
        if not path.is_file():
            raise SavedPredictorError(f"{path} cannot be loaded: there is no such file, or it is not a regular file")
        expected = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        with safe_open(path, framework="pt") as file:  # nothing is read before names and shapes are known
            found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (it is not a dict)
        if found != expected:
            names = [name for name in [*found, *expected] if found.get(name) != expected.get(name)]
            raise SavedPredictorError(f"{path} cannot be loaded: it is of another network ({names[0][:200]})")
        return read_weights(path)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise SavedPredictorError(f"{path} cannot be loaded: {error}") from None
