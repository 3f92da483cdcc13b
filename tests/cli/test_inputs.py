"""Folders of classes and folders of splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from saccade.cli.inputs import read_splits, read_test_images
from saccade.errors import DataError


def make_images(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / folder / "0.png")
    return root


def test_a_folder_of_classes_is_all_for_training(tmp_path):
    train, val, test = read_splits(str(make_images(tmp_path, "cat", "dog")))
    assert train.classes == ["cat", "dog"]
    assert val is None
    assert test is None


def test_splits_that_are_missing_are_none(tmp_path):
    train, val, test = read_splits(str(make_images(tmp_path, "train/cat", "train/dog", "test/cat")))
    assert (len(train), val, len(test)) == (2, None, 1)
    assert test.classes == ["cat", "dog"]


def test_train_may_be_the_only_split(tmp_path):
    assert read_splits(str(make_images(tmp_path, "train/cat", "train/dog"))).train.classes == ["cat", "dog"]


def test_a_class_may_be_called_train(tmp_path):
    assert read_splits(str(make_images(tmp_path, "bus", "car", "train"))).train.classes == ["bus", "car", "train"]


def test_the_test_images_of_a_folder_of_classes_are_all_of_it(tmp_path):
    assert len(read_test_images(str(make_images(tmp_path, "cat", "dog")))) == 2


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError):
        read_splits(str(tmp_path))
