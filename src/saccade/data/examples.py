"""Images and labels from all accepted types of input."""

from __future__ import annotations

import glob
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from saccade.data.dataset import ImageDataset
from saccade.data.decoding import local_path_of
from saccade.data.sources.folders import IMAGE_EXTENSIONS
from saccade.data.sources.sources import ARCHIVE_NAME, existing_spelling, list_image_paths, local_file
from saccade.data.sources.tables import is_table
from saccade.errors import DataError, DataWarning, near_names
from saccade.remote.urls import UrlFile, is_remote, is_url

ImageLike = str | Path | bytes | Image.Image | np.ndarray
"""One image: a path, the bytes of a file, a Pillow image or an array."""


@dataclass(frozen=True)
class Examples:
    """Images in order, with the index of the results."""

    images: list[ImageLike]
    index: pd.Index  # one entry per image
    labels: pd.Series | pd.DataFrame | None = None  # several columns of 0 and 1 are a DataFrame
    class_names: list[str] | None = None  # names of integer labels, if the data set has them
    weights: pd.Series | None = None  # weight of each image in training
    empty_classes: Sequence[str] = ()  # folders of classes without images
    groups: list[str] | None = None  # images with equal keys stay on one side of every split; "" is a group of its own
    times: list[float] | None = None  # the latest images validate

    def __len__(self) -> int:
        return len(self.images)


def read_examples(data: Any, label: str | list[str] | None = None) -> Examples:
    """Return the images, and the labels if there are any; a DataError for a table without images, or other input.

    `data` is an image, several images, a folder, an archive, a glob pattern (also their URLs), a table or an
    ImageDataset.
    An image is a path, a URL, the bytes of a file (or a bytearray, a memoryview, or a file object opened in binary
    mode), a Pillow image, an array, or a tensor (channels first or last). Several images are a sequence, an iterator, a
    Series, or a four-dimensional array or tensor. A row of a table, such as ``data.iloc[0]``, is
    one image. Those of a folder, an archive or a pattern are sorted by path, which is the index.

    `label` is the label column of a plain DataFrame; several names if labels are columns of 0 and 1.
    """
    if isinstance(data, pd.Series):
        columns = {"image", *([label] if isinstance(label, str) else label or [])}
        if not columns.isdisjoint(data.index):
            data = pd.DataFrame([data])
    if isinstance(data, pd.DataFrame):
        return _from_frame(data, label)
    if isinstance(data, pd.Series):
        return Examples([as_image(one) for one in data], data.index)
    if isinstance(data, os.PathLike):
        data = Path(data)
    if isinstance(data, str | Path) and (paths := _paths_in(data)) is not None:
        return Examples(paths, pd.Index([str(path) for path in paths], dtype=object))
    one_image = str | Path | bytes | bytearray | memoryview | Image.Image
    if isinstance(data, one_image) or hasattr(data, "read") or _num_axes(data) in (2, 3):
        data = [data]
    elif not isinstance(data, Sequence | Iterator | pd.Index) and _num_axes(data) not in (1, 4):
        raise DataError(
            f"cannot read images from {type(data).__name__}; expected a path, a list of paths, a DataFrame with a "
            "column of paths, or an ImageDataset"
        )
    images = [as_image(one) for one in data]
    return Examples(images, pd.RangeIndex(len(images)))


def as_image(value: Any) -> Any:
    """Return an image in one of the forms of `ImageLike`; values of other types are returned unchanged."""
    if isinstance(value, str | Path):
        return existing_spelling(value)
    if isinstance(value, bytes | Image.Image | np.ndarray | np.generic):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, io.TextIOBase):
        return value
    if hasattr(value, "read"):
        try:
            if getattr(value, "seekable", bool)():
                value.seek(0)
            return value.read()
        except (TypeError, ValueError, OSError):  # closed, not opened for reading, or not a file
            return value
    if hasattr(value, "detach"):  # a tensor of torch
        value = value.detach().cpu()
        array = np.asarray(value.float() if value.is_floating_point() else value)
    elif hasattr(value, "__array__"):
        array = np.asarray(value)
    else:
        return value
    is_channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
    return array.transpose(1, 2, 0) if is_channels_first else array


def image_name(image: Any, number: int) -> str:
    """Return the path of an image, or a placeholder with its number for an image in memory."""
    if isinstance(image, bytes):
        return f"<bytes #{number}>"
    return str(image) if isinstance(image, str) or hasattr(image, "__fspath__") else f"<image #{number}>"


def _num_axes(data: Any) -> int:
    """Return the number of axes of an array or a tensor; 1 for an array of paths or objects, 0 for anything else."""
    if isinstance(data, Image.Image) or not hasattr(data, "__array__"):
        return 0
    are_numbers = getattr(getattr(data, "dtype", None), "kind", "") not in ("O", "U", "S")
    return int(data.ndim) if are_numbers else min(1, int(data.ndim))


def _paths_in(place: str | Path) -> list[ImageLike] | None:
    """Return the images of a folder, an archive or a glob pattern; None for the path or the URL of one image."""
    text = str(place)
    if not text.strip():
        return None
    if is_url(text):
        is_many = ARCHIVE_NAME.search(text) is not None
        if text.lower().startswith(("file:", "local:")):
            is_many = is_many or local_file(text).is_dir()
        elif is_remote(text) and not is_many:
            is_many = glob.has_magic(text) or not text.lower().endswith(IMAGE_EXTENSIONS)
            is_many = is_many and UrlFile(text).kind() != "file"
    else:
        path, is_archive = local_path_of(text), ARCHIVE_NAME.search(text) is not None
        try:
            is_many = path.is_dir() or (path.is_file() and is_archive) or (glob.has_magic(text) and not path.exists())
        except OSError:  # a name that is too long
            return None
    return list(list_image_paths(place, None)) if is_many else None


def labelled_table(data: Any, label: str | list[str]) -> Any:
    """Return the data set in a folder of classes, an archive or a CSV file; anything but a path is returned as is."""
    if not isinstance(data, str | Path):
        return data
    if not is_table(str(data)):
        return ImageDataset.from_folder(data)
    root: str | Path | None = None if is_url(str(data)) else local_path_of(data).parent
    if is_remote(str(data)):
        root = str(data).rpartition("/")[0]
    return ImageDataset.from_csv(data, root, label_column=label if isinstance(label, str) else label[0])


def read_labelled_examples(
    data: Any, label: str | list[str], weight: str | None = None, what: str = "the data set"
) -> Examples:
    """Return images with their labels, and weights from column `weight`; a DataError calls the set `what`."""
    data = labelled_table(data, label)
    if not isinstance(data, pd.DataFrame):
        raise DataError(
            f"labelled images must be an ImageDataset, a DataFrame or a path, not {type(data).__name__}; make a table: "
            "pandas.DataFrame({'image': paths, 'label': labels})"
        )
    if not len(data):
        raise DataError(f"{what} contains no images; check the folder or table that it was read from")
    examples = read_examples(data, label)
    if examples.labels is None:
        lacking = next(name for name in ([label] if isinstance(label, str) else label) if name not in data.columns)
        raise no_column("label", lacking, data, what=what)
    if weight is None:
        return examples
    if weight not in data.columns:
        raise no_column("sample_weight", weight, data)
    return replace(examples, weights=data[weight])


def no_column(role: str, name: str, frame: pd.DataFrame, advice: str = "", what: str = "the data set") -> DataError:
    """Return the error for a column that a table does not have, with the `advice` if no other name is similar."""
    columns = [str(column) for column in frame.columns]
    near = near_names(str(name), columns)
    if not near and isinstance(frame, ImageDataset) and role == "label" and frame.label_column in frame.columns:
        near = [frame.label_column]
    advice = f"did you mean {role}={near[0]!r}?" if near else advice or f"name it with ImagePredictor({role}=…)"
    return DataError(f"{what} has no {role} column {name!r}; its columns are {columns}; {advice}")


def check_label_column(data: Any, label: str | list[str]) -> None:
    """Raise a DataError if column `label` is missing; in place of the default, that of the data set is used."""
    if not isinstance(data, ImageDataset) or not isinstance(label, str) or label in data.columns:
        return
    if label != "label":
        raise no_column("label", label, data)
    if data.label_column in data.columns:
        column = data.label_column
        text = f"Column 'label' not found; using column {column!r}. To name it, pass ImagePredictor(label={column!r})"
        warnings.warn(DataWarning(text), stacklevel=4)


def _from_frame(frame: pd.DataFrame, label: str | list[str] | None) -> Examples:
    columns = [label] if isinstance(label, str) else label or []
    image_column = _image_column(frame, columns)
    for name in {*columns, image_column}:
        if list(frame.columns).count(name) > 1:
            raise DataError(f"the table has several columns {name!r}; give each column a name of its own")
    if image_column in columns:
        raise DataError(f"label={image_column!r} is the column of images; pass the name of the column of labels")
    if isinstance(label, list):
        labels = pd.DataFrame(frame[label]) if set(label) <= set(frame.columns) else None
        return Examples([as_image(one) for one in frame[image_column]], frame.index, labels)
    label_column, class_names = label, None
    empty_classes: Sequence[str] = ()
    if isinstance(frame, ImageDataset):
        class_names, empty_classes = frame.classes, frame.empty_classes
        if label not in frame.columns:
            label_column = frame.label_column
    labels = frame[label_column] if label_column is not None and label_column in frame.columns else None
    images = [as_image(one) for one in frame[image_column]]
    return Examples(images, frame.index, labels, class_names, empty_classes=empty_classes)


def _image_column(frame: pd.DataFrame, label_columns: list[str]) -> Any:
    """Return the column of images: that of a data set, `image`, or the only one whose values may be images."""
    declared = frame.image_column if isinstance(frame, ImageDataset) else "image"
    if declared in frame.columns:
        return declared
    candidates = []
    for column in frame.columns if len(frame) else ():
        value = frame[column].iloc[0]
        is_file = isinstance(value, str) and Path(value).suffix != ""
        if column not in label_columns and (is_file or isinstance(value, Path | bytes | Image.Image | np.ndarray)):
            candidates.append(column)
    if len(candidates) == 1:
        return candidates[0]
    some = f", of which {candidates} may contain images" if candidates else ""
    raise DataError(
        f"there is no column {declared!r} of images; the columns are {list(map(str, frame.columns))}{some}. "
        "Rename the column of image paths to 'image'"
    )
