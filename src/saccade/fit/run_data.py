"""The images and labels of a run, stored in its folder as paths, so that the run can be resumed without its caller."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel

from saccade.data.examples import Examples, ImageLike
from saccade.errors import DataError
from saccade.remote.urls import is_url
from saccade.study.event_log import LostObjectError, from_json_value, to_json_value
from saccade.study.run_folder import reading

_PARTS = ("train", "tuning")
_SAMPLE_BYTES = 65_536


class _Column(BaseModel):
    dtype: str
    values: list[Any]


class _Columns(BaseModel):
    columns: list[tuple[Any, _Column]]


class _Part(BaseModel):
    images: list[str | None]
    labels: _Column | _Columns
    class_names: list[str] | None
    weights: _Column | None
    empty_classes: tuple[str, ...]
    groups: list[str] | None
    times: list[float] | None


class _RunData(BaseModel):
    """The file that `write_run_data` writes."""

    not_kept: str = ""
    train: _Part | None = None
    tuning: _Part | None = None
    unlabeled: list[str | None] | None = None


def write_run_data(path: Path, train: Examples, tuning: Examples | None, unlabeled: Examples | None = None) -> None:
    """Write paths and labels to a JSON file; for images in memory, only how many there are."""
    parts = dict(zip(_PARTS, (train, tuning), strict=True))
    every = [image for part in (*parts.values(), unlabeled) if part is not None for image in part.images]
    odd = [image for image in every if _is_in_memory(image)]
    record: dict[str, Any]
    if odd:
        record = {"not_kept": f"{len(odd)} images were given as {type(odd[0]).__name__}, not as paths"}
    else:
        record = {name: None if part is None else _part_to_json(part) for name, part in parts.items()}
        if unlabeled is not None:
            record["unlabeled"] = [absolute_path(image) for image in unlabeled.images]
    path.write_text(json.dumps(record), encoding="ascii")


def read_run_data(path: Path) -> tuple[Examples, Examples | None]:
    """Return what was given to `write_run_data`, with absolute paths; without the images that have no labels."""
    advice = "Resume the run in Python: ImagePredictor(path=…).fit(…, resume=True) with the same arguments"
    try:
        with reading(path):
            record = _RunData.model_validate(json.loads(path.read_bytes()))  # pydantic reads no surrogates
            if record.not_kept:
                raise DataError(f"{path} does not contain the images ({record.not_kept}). {advice}")
            if record.train is None:
                raise ValueError("it has no training images")
            return _examples_of(record.train), None if record.tuning is None else _examples_of(record.tuning)
    except LostObjectError as lost:
        raise DataError(f"{path} does not contain the labels (one is {lost}). {advice}") from None


def read_unlabeled(path: Path) -> Examples | None:
    """Return the images without labels that were given to `write_run_data`, with absolute paths."""
    with reading(path):
        images: Any = _RunData.model_validate(json.loads(path.read_bytes())).unlabeled
    return None if images is None else Examples(images, pd.RangeIndex(len(images)))


def fingerprint(train: Examples, tuning: Examples | None, unlabeled: Examples | None = None) -> str:
    """Return a digest of paths, labels, weights, groups and times in order; images in memory are sampled."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (train, tuning, *([] if unlabeled is None else [unlabeled])):
        if part is None:
            digest.update(b"none")
            continue
        for image in part.images:
            for piece in _image_bytes(image):
                digest.update(piece)
            digest.update(b"\0")
        rest = [_labels_to_json(part.labels), part.class_names, _labels_to_json(part.weights)]
        rest += [values for values in (part.groups, part.times) if values is not None]
        digest.update(json.dumps(rest).encode("ascii"))
    return digest.hexdigest()


def _is_in_memory(image: object) -> bool:
    return isinstance(image, bytes | Image.Image | np.ndarray)


def _image_bytes(image: ImageLike) -> Iterator[bytes]:
    if isinstance(image, bytes):
        yield from (str(len(image)).encode(), image[:_SAMPLE_BYTES], image[-_SAMPLE_BYTES:])
    elif not isinstance(image, Image.Image | np.ndarray):  # a path, or a row without an image
        yield str(absolute_path(image)).encode("utf-8", "surrogatepass")
    else:
        shape = image.size if isinstance(image, Image.Image) else image.shape
        flat = np.asarray(image).reshape(-1)
        yield repr(shape).encode()
        yield flat[:: max(1, len(flat) // _SAMPLE_BYTES)].tobytes()


def absolute_path(image: object) -> str | None:
    """Return the absolute path or the URL of an image; None if it is in memory or missing."""
    if not isinstance(image, str | Path) or not str(image).strip():
        return None
    return str(image) if is_url(image) else str(Path(image).absolute())


def _part_to_json(part: Examples) -> dict[str, Any]:
    return {
        "images": [absolute_path(image) for image in part.images],
        "labels": _labels_to_json(part.labels),
        "class_names": part.class_names,
        "weights": _labels_to_json(part.weights),
        "empty_classes": list(part.empty_classes),
        "groups": part.groups,
        "times": part.times,
    }


def _examples_of(part: _Part) -> Examples:
    index, weights = pd.RangeIndex(len(part.images)), None if part.weights is None else _series_of(part.weights)
    labels: pd.Series | pd.DataFrame
    if isinstance(part.labels, _Columns):
        labels = pd.DataFrame({from_json_value(name): _series_of(column) for name, column in part.labels.columns})
    else:
        labels = _series_of(part.labels)
    images: list[Any] = list(part.images)
    more = part.empty_classes, part.groups, part.times
    return Examples(images, index, labels, part.class_names, weights, *more)


def _labels_to_json(labels: pd.Series | pd.DataFrame | None) -> Any:
    if labels is None:
        return None
    if isinstance(labels, pd.DataFrame):
        return {"columns": [[to_json_value(name), _labels_to_json(column)] for name, column in labels.items()]}
    return {"dtype": str(labels.dtype), "values": to_json_value(labels.tolist())}


def _series_of(column: _Column) -> Any:
    values = from_json_value(column.values)
    try:
        return pd.Series(values, dtype=column.dtype)
    except TypeError:  # a dtype that cannot be made from its name; the values are the same
        return pd.Series(values, dtype=object)
