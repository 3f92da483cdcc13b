"""Read images and labels of a Hugging Face `datasets.Dataset`, without importing that package.

Only its ``features``, ``column_names``, ``cast_column`` and iteration are used.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from saccade.errors import DataError, near_names

_LABEL_NAMES = ("label", "labels", "class", "target", "category", "fine_label")
_IMAGE_NAMES = ("image", "img", "images", "picture", "photo")


def read_rows(
    dataset: Any, image_column: str | None, label_column: str | None
) -> tuple[list[Any], list[Any] | None, list[str] | None]:
    """Return the images (paths if available, else bytes), the labels and the names of the classes.

    Columns that are None are chosen by their types, then by their names. Labels are None without a label column, or if
    all are -1, which means "unknown" there. Raises a DataError if the dataset is a dictionary of splits, is empty, has
    no such column, or some of its labels are unknown.
    """
    if isinstance(dataset, Mapping):
        splits = ", ".join(repr(name) for name in dataset)
        raise DataError(f"This is a dictionary of datasets. Pass one of them, such as dataset[name]: {splits}.")
    features = getattr(dataset, "features", None) or {}
    columns = list(getattr(dataset, "column_names", None) or features or next(iter(dataset), ()))
    if not columns:
        raise DataError("The dataset is empty.")
    image_column = _image_column(image_column, columns, features)
    label_column = _label_column(label_column, columns, features)
    images, labels = [], []
    feature: Any = features.get(image_column)
    if type(feature).__name__ == "Image" and hasattr(dataset, "cast_column"):
        # Encoded images take less memory, and are lossless.
        dataset = dataset.cast_column(image_column, type(feature)(decode=False))
    for row in dataset:
        images.append(_image(row[image_column]))
        if label_column is not None:
            labels.append(row[label_column])
    if not images:
        raise DataError("The dataset is empty.")
    if label_column is None:
        return images, None, None
    names = getattr(features.get(label_column), "names", None)
    num_unknown = sum(label == -1 for label in labels) if names else 0
    if num_unknown == len(labels):
        return images, None, None
    if num_unknown:
        raise DataError(f"{num_unknown} of {len(labels)} labels in {label_column!r} are -1, which means unknown.")
    return images, labels, [str(name) for name in names] if names else None


def _of_type(features: Mapping[str, Any], type_name: str) -> list[str]:
    return [name for name, feature in features.items() if type(feature).__name__ == type_name]


def _image_column(given: str | None, columns: list[str], features: Mapping[str, Any]) -> str:
    if given is not None:
        return _known(given, columns)
    candidates = _of_type(features, "Image") or [name for name in _IMAGE_NAMES if name in columns]
    if not candidates:
        raise DataError(f"No column looks like images among {', '.join(columns)}. Name it with image_column=...")
    return candidates[0]


def _label_column(given: str | None, columns: list[str], features: Mapping[str, Any]) -> str | None:
    if given is not None:
        return _known(given, columns)
    candidates = _of_type(features, "ClassLabel")
    by_name = [name for name in _LABEL_NAMES if name in (candidates or columns)]
    if by_name:
        return by_name[0]
    if len(candidates) > 1:
        raise DataError(f"Several columns may be the label: {', '.join(candidates)}. Name it with label_column=...")
    return candidates[0] if candidates else None


def _known(column: str, columns: list[str]) -> str:
    if column not in columns:
        near = " or ".join(map(repr, near_names(column, columns)))
        guess = f" Did you mean {near}?" if near else ""
        raise DataError(f"No column {column!r}.{guess} Columns: {', '.join(columns)}.")
    return column


def _image(value: Any) -> str | bytes:
    """Return a path or the bytes of an image file for the image of a row."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, np.ndarray):
        value = Image.fromarray(value)
    if isinstance(value, Image.Image):
        if value.mode not in ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"):
            value = value.convert("RGB")
        file = io.BytesIO()
        value.save(file, "png")
        return file.getvalue()
    if isinstance(value, (str, bytes)) and value:
        return value
    raise DataError(f"Expected a path, bytes or a Pillow image as an image; found {type(value).__name__}.")
