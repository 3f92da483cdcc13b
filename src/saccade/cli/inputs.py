"""Folders of images as people keep them: classes, or splits that hold classes."""

from __future__ import annotations

from typing import NamedTuple

from saccade.data.dataset import ImageDataset
from saccade.data.folders import descend, folder_names
from saccade.data.sources import local_path
from saccade.errors import DataError

SPLITS = ("train", "val", "test")


class Splits(NamedTuple):
    """Labelled images to learn from, to judge trials by, and to test on; None where the data has no such folder."""

    train: ImageDataset
    val: ImageDataset | None
    test: ImageDataset | None


def read_splits(source: str) -> Splits:
    """Read a folder, archive or address that holds classes, or train/ and perhaps val/ and test/ with classes in them.

    Raises
    ------
    DataError
        When there are no images in such folders.
    """
    if not _holds_splits(source):
        return Splits(ImageDataset.from_folder(source), None, None)
    train, val, test = ImageDataset.from_folders(source)
    return Splits(train, val if len(val) else None, test if len(test) else None)


def read_test_images(source: str) -> ImageDataset:
    """Read the images to test on: all of a folder of classes, or those in test/ where there are splits.

    Raises
    ------
    DataError
        When there are no images in such folders, or splits without test/.
    """
    splits = read_splits(source)
    if splits.test is not None:
        return splits.test
    if _holds_splits(source):
        raise DataError(f"{source} holds train/ but no test/; name the folder of classes to test on")
    return splits.train


def _holds_splits(source: str) -> bool:
    """Tell splits from classes, one of which may be called train: splits come in company, or alone."""
    names = folder_names(descend(local_path(source), SPLITS))
    return "train" in names and (len(names) == 1 or "val" in names or "test" in names)
