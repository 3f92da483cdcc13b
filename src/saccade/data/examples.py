"""The forms in which people hand images to a predictor, brought into one."""

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
"""One image: a path, the bytes of a file, or a picture in memory."""


@dataclass(frozen=True)
class Examples:
    """Images in order, with the index that results are to carry.

    Attributes
    ----------
    images : list
        Paths, bytes or pictures.
    index : pandas.Index
        One entry an image.
    labels : pandas.Series or None
        The labels, when there are any; several columns of 0 and 1 are a DataFrame.
    class_names : list of str or None
        Names behind integer labels, when the data set knows them.
    weights : pandas.Series or None
        How much each image counts in training.
    """

    images: list[ImageLike]
    index: pd.Index
    labels: pd.Series | pd.DataFrame | None = None
    class_names: list[str] | None = None
    weights: pd.Series | None = None

    def __len__(self) -> int:
        return len(self.images)


def read_examples(data: Any, label: str | list[str] | None = None) -> Examples:
    """Return the images, and the labels where there are any, of whatever was handed over.

    Parameters
    ----------
    data : path, bytes, picture, sequence of these, Series, DataFrame or ImageDataset
        One image or many.
    label : str, list of str or None
        The label column's name in a plain DataFrame; several, where labels are columns of 0 and 1.

    Raises
    ------
    DataError
        When no column holds images.
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
        f"cannot take images from {type(data).__name__}; expected a path, a list of paths, a DataFrame with a "
        "column of paths, or an ImageDataset"
    )


def read_labelled_examples(data: Any, label: str | list[str], weight: str | None = None) -> Examples:
    """Return images and labels, and the column `weight`, where it is given, as their weights.

    Raises
    ------
    DataError
        When there is no label or weight column, or no image at all.
    """
    if not isinstance(data, pd.DataFrame):
        given = repr(str(data)) if isinstance(data, str | Path) else type(data).__name__
        raise DataError(
            f"labelled images are wanted as an ImageDataset or a DataFrame, and this is {given}; make a data set of a "
            "folder by ImageDataset.from_folder(…), or by from_folders(…) where it holds train/ and test/"
        )
    if not len(data):
        raise DataError("the data set holds no images")
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
    advice = f"did you mean {role}={near[0]!r}?" if near else f"name it by ImagePredictor({role}=…)"
    return DataError(f"there is no {role} column {name!r}; the columns are {columns}; {advice}")


def _is_many(array: np.ndarray) -> bool:
    """Tell an array of paths, or of pictures of shape (num, height, width, channels), from one picture."""
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
    """Return the column of images: the one a data set names, `image`, or the only one whose values can be images."""
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
    some = f", of which {candidates} could hold images" if candidates else ""
    raise DataError(
        f"there is no column {declared!r} of images; the columns are {list(map(str, frame.columns))}{some}. "
        "Rename the column of image paths to 'image'"
    )


def _could_be_image(value: Any) -> bool:
    return isinstance(value, Path | bytes | Image.Image | np.ndarray) or (
        isinstance(value, str) and Path(value).suffix != ""
    )
