"""Images and labels from all accepted types of input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from saccade.data.dataset import ImageDataset
from saccade.errors import DataError, near_names

ImageLike = str | Path | bytes | Image.Image | np.ndarray
"""One image: a path, the bytes of a file, a Pillow image or an array."""


@dataclass(frozen=True)
class Examples:
    """Images in order, with the index of the results.

    Attributes
    ----------
    images : list
        Paths, bytes, Pillow images or arrays.
    index : pandas.Index
        One entry per image.
    labels : pandas.Series, DataFrame or None
        The labels, if given; several columns of 0 and 1 are a DataFrame.
    class_names : list of str or None
        Names of integer labels, if the data set has them.
    weights : pandas.Series or None
        Weight of each image in training.
    """

    images: list[ImageLike]
    index: pd.Index
    labels: pd.Series | pd.DataFrame | None = None
    class_names: list[str] | None = None
    weights: pd.Series | None = None

    def __len__(self) -> int:
        return len(self.images)


def read_examples(data: Any, label: str | list[str] | None = None) -> Examples:
    """Return the images, and the labels if there are any.

    Parameters
    ----------
    data : path, bytes, picture, sequence of these, Series, DataFrame or ImageDataset
        One image or many.
    label : str, list of str or None
        Name of the label column of a plain DataFrame; several names if labels are columns of 0 and 1.

    Raises
    ------
    DataError
        If there is no column of images, or the input is of another type.
    """
    if isinstance(data, pd.DataFrame):
        return _from_frame(data, label)
    if isinstance(data, pd.Series):
        return Examples(list(data), data.index)
    if isinstance(data, ImageLike) and not (isinstance(data, np.ndarray) and _is_many(data)):
        return Examples([data], pd.RangeIndex(1))
    if isinstance(data, Sequence | np.ndarray | pd.Index):
        return Examples(list(data), pd.RangeIndex(len(data)))
    raise DataError(
        f"cannot read images from {type(data).__name__}; expected a path, a list of paths, a DataFrame with a "
        "column of paths, or an ImageDataset"
    )


def read_labelled_examples(data: Any, label: str | list[str], weight: str | None = None) -> Examples:
    """Return images and labels, and the column `weight` as their weights if it is given.

    Raises
    ------
    DataError
        If there is no label or weight column, or there are no images.
    """
    if not isinstance(data, pd.DataFrame):
        given = repr(str(data)) if isinstance(data, str | Path) else type(data).__name__
        raise DataError(
            f"labelled images must be an ImageDataset or a DataFrame, not {given}; read a folder with "
            "ImageDataset.from_folder(…), or with from_folders(…) if it contains train/ and test/"
        )
    if not len(data):
        raise DataError("the data set contains no images")
    examples = read_examples(data, label)
    if examples.labels is None:
        lacking = next(name for name in ([label] if isinstance(label, str) else label) if name not in data.columns)
        raise _no_column("label", lacking, data)
    if weight is None:
        return examples
    if weight not in data.columns:
        raise _no_column("sample_weight", weight, data)
    return replace(examples, weights=data[weight])


def _no_column(role: str, name: str, frame: pd.DataFrame) -> DataError:
    columns = [str(column) for column in frame.columns]
    near = near_names(str(name), columns)
    advice = f"did you mean {role}={near[0]!r}?" if near else f"name it with ImagePredictor({role}=…)"
    return DataError(f"there is no {role} column {name!r}; the columns are {columns}; {advice}")


def _is_many(array: np.ndarray) -> bool:
    """Return whether an array holds paths, or images of shape (num, height, width, channels), not one image."""
    return array.dtype == object or array.dtype.kind in "US" or array.ndim == 4


def _from_frame(frame: pd.DataFrame, label: str | list[str] | None) -> Examples:
    if isinstance(label, list):
        labels = pd.DataFrame(frame[label]) if set(label) <= set(frame.columns) else None
        return Examples(list(frame[_image_column(frame, label)]), frame.index, labels)
    label_column, class_names = label, None
    if isinstance(frame, ImageDataset):
        class_names = frame.classes
        if label not in frame.columns:
            label_column = frame.label_column
    labels = frame[label_column] if label_column is not None and label_column in frame.columns else None
    image_column = _image_column(frame, [] if label_column is None else [label_column])
    return Examples(list(frame[image_column]), frame.index, labels, class_names)


def _image_column(frame: pd.DataFrame, label_columns: list[str]) -> str:
    """Return the column of images: that of a data set, `image`, or the only one whose values may be images."""
    declared = frame.image_column if isinstance(frame, ImageDataset) else "image"
    if declared in frame.columns:
        return declared
    candidates = [
        column
        for column in frame.columns
        if column not in label_columns and len(frame) and _could_be_image(frame[column].iloc[0])
    ]
    if len(candidates) == 1:
        return str(candidates[0])
    some = f", of which {candidates} may contain images" if candidates else ""
    raise DataError(
        f"there is no column {declared!r} of images; the columns are {list(map(str, frame.columns))}{some}. "
        "Rename the column of image paths to 'image'"
    )


def _could_be_image(value: Any) -> bool:
    return isinstance(value, Path | bytes | Image.Image | np.ndarray) or (
        isinstance(value, str) and Path(value).suffix != ""
    )
