"""Labelled images of the command line: folders of classes, folders of splits, and tables of paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from saccade.data.dataset import ImageDataset
from saccade.data.examples import read_examples
from saccade.data.sources.folders import find_images
from saccade.data.sources.sources import folder_of, local_file
from saccade.data.sources.splits import class_folder, descend_to_splits, find_splits
from saccade.data.sources.tables import is_table, read_table
from saccade.errors import DataError, UnknownNameError
from saccade.remote.urls import is_remote, is_url


class Splits(NamedTuple):
    """Training, validation and test images; None if the data has no such folder."""

    train: ImageDataset
    val: ImageDataset | None
    test: ImageDataset | None


@dataclass(frozen=True)
class TableColumns:
    """The columns of a CSV file."""

    image: str = "image"  # of images
    label: str | list[str] = "label"  # of labels, or several columns of 0 and 1
    root: str | None = None  # folder, archive or URL of relative paths; None is the folder of the file
    label_sep: str | None = None  # separates several labels in one field
    encoding: str | None = None  # as in `ImageDataset.from_csv`
    others: Mapping[str, str] = field(default_factory=dict)  # further required ones, by the option that names them


def label_columns(label: str) -> str | list[str]:
    """Return the value of ``--label``: one column, or several that are separated by commas."""
    names = [name.strip() for name in label.split(",")]
    return names if len(names) > 1 else label


def read_splits(source: str, columns: TableColumns | None = None) -> Splits:
    """Read a CSV file, or a folder, archive or URL of classes, or of training, validation and test images.

    Raises a DataError if the folders hold no images, or the CSV file lacks a column.
    """
    if is_table(source):
        return Splits(_read_table(source, columns or TableColumns()), None, None)
    if not find_splits(descend_to_splits(folder_of(source))):
        return Splits(ImageDataset.from_folder(source), None, None)
    train, val, test = ImageDataset.from_folders(source)
    return Splits(train, val if len(val) else None, test if len(test) else None)


def read_test_images(source: str, columns: TableColumns | None = None) -> ImageDataset:
    """Read test images: those in test/ if the data has splits, else all images.

    Raises a DataError if the folders hold no images, or test/ is missing beside other splits.
    """
    if is_table(source):
        return _read_table(source, columns or TableColumns())
    folder = descend_to_splits(folder_of(source))
    splits = find_splits(folder)
    if not splits:
        return ImageDataset.from_folder(source)
    if "test" not in splits:
        raise DataError(
            f"{source} contains {', '.join(splits.values())} but no test images; pass the folder of classes to test on"
        )
    test = class_folder(folder / splits["test"])
    return ImageDataset.from_folder(test if isinstance(test, Path) else str(test))


def read_files(sources: list[str]) -> list[str]:
    """Return the given files, and all images of given folders, archives and patterns; a DataError if one has none."""
    files: list[str] = []
    for source in sources:
        if is_url(source) or not Path(source).is_dir():
            files += map(str, read_examples(source).images)
        elif found := find_images(Path(source)):
            files += found
        else:
            raise DataError(f"There are no images in {source} or its subfolders.")
    return files


def _read_table(source: str, columns: TableColumns) -> ImageDataset:
    file = local_file(source)
    frame = read_table(file, columns.image, encoding=columns.encoding)
    labels = [columns.label] if isinstance(columns.label, str) else columns.label
    asked = [(columns.image, "--image-column"), *((label, "--label") for label in labels)]
    asked += [(column, option) for option, column in columns.others.items()]
    for column, option in asked:
        if column not in frame.columns:
            hint = f"Pass it as {option}."
            raise DataError(str(UnknownNameError.of(f"column of {file.name}", column, frame.columns, hint)))
    if columns.label_sep is not None:
        texts = frame[labels[0]].map(lambda value: "" if value is None else str(value))
        frame[labels[0]] = [[part.strip() for part in text.split(columns.label_sep) if part.strip()] for text in texts]
    if columns.root is not None:
        root: str | Path = columns.root
    elif is_remote(source):
        root = source.rpartition("/")[0]
    else:
        root = Path.cwd() if is_url(source) else file.parent
    return ImageDataset(frame, image_column=columns.image, label_column=labels[0], root=root)
