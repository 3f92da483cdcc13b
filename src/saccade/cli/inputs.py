"""Labelled images of the command line: folders of classes, folders of splits, and tables of paths."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from saccade.data.dataset import ImageDataset
from saccade.data.decoding import is_url
from saccade.data.sources.folders import descend, find_images, folder_names
from saccade.data.sources.sources import local_file, local_path
from saccade.errors import DataError, UnknownNameError

TRAIN, TEST = "train", "test"
VAL_NAMES = ("val", "valid", "validation", "dev")
"""Names of the folder of validation images."""


class Splits(NamedTuple):
    """Training, validation and test images; None if the data has no such folder."""

    train: ImageDataset
    val: ImageDataset | None
    test: ImageDataset | None


@dataclass(frozen=True)
class TableColumns:
    """The columns of a CSV file.

    Attributes
    ----------
    image, label : str
        Names of the columns.
    root : str or None
        Folder, archive or URL of relative paths; None is the folder of the file.
    """

    image: str = "image"
    label: str = "label"
    root: str | None = None


def read_splits(source: str, columns: TableColumns | None = None) -> Splits:
    """Read a CSV file, or a folder, archive or URL of classes, or of train/ and optionally val/ and test/.

    Raises
    ------
    DataError
        If there are no images in such folders, or no such column in the CSV file.
    """
    if is_table(source):
        return Splits(_read_table(source, columns or TableColumns()), None, None)
    if not _holds_splits(source):
        return Splits(ImageDataset.from_folder(source), None, None)
    names = folder_names(_inside(source))
    val_name = next((name for name in VAL_NAMES if name in names), None)
    train, val, test = ImageDataset.from_folders(source, TRAIN, val_name, TEST)
    return Splits(train, val if len(val) else None, test if len(test) else None)


def read_test_images(source: str, columns: TableColumns | None = None) -> ImageDataset:
    """Read test images: those in test/ if the data has splits, else all images.

    Raises
    ------
    DataError
        If there are no images in such folders, or splits without test/.
    """
    splits = read_splits(source, columns)
    if splits.test is not None:
        return splits.test
    if not is_table(source) and _holds_splits(source):
        raise DataError(f"{source} contains train/ but no test/; pass the folder of classes to test on")
    return splits.train


def read_files(sources: list[str]) -> list[str]:
    """Return the given files, and all images below the given folders.

    Raises
    ------
    DataError
        If a folder has no images.
    """
    files: list[str] = []
    for source in sources:
        if not Path(source).is_dir():
            files.append(source)
        elif found := find_images(Path(source)):
            files += found
        else:
            raise DataError(f"There are no images in {source} or its subfolders.")
    return files


def is_table(source: str) -> bool:
    """Return whether the source is a CSV or TSV file, or the URL of one.

    Examples
    --------
    >>> is_table("https://host/labels.csv?raw=1"), is_table("pets.zip")
    (True, False)
    """
    name = source.split("?")[0].split("#")[0] if is_url(source) else source
    return name.lower().endswith((".csv", ".tsv")) and not Path(source).is_dir()


def _read_table(source: str, columns: TableColumns) -> ImageDataset:
    file = local_file(source)
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        header = next(csv.reader(lines, delimiter="\t" if file.suffix.lower() == ".tsv" else ","), [])
    for column, option in ((columns.image, "--image-column"), (columns.label, "--label")):
        if header and column not in header:
            raise DataError(str(UnknownNameError.of(f"column of {file.name}", column, header, f"Pass it as {option}.")))
    root = columns.root if columns.root is not None else Path.cwd() if is_url(source) else file.parent
    return ImageDataset.from_csv(file, root=root, image_column=columns.image, label_column=columns.label)


def _inside(source: str) -> Path:
    return descend(local_path(source), (TRAIN, *VAL_NAMES, TEST))


def _holds_splits(source: str) -> bool:
    """Return whether the folders are splits. A class may be called train as well: then there are other classes."""
    names = folder_names(_inside(source))
    return TRAIN in names and (len(names) == 1 or not {*VAL_NAMES, TEST}.isdisjoint(names))
