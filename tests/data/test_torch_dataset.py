from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data import ImageDataset
from saccade.errors import DataError, ImageReadError


@pytest.fixture
def pets(make_class_folders, tmp_path):
    return ImageDataset.from_folder(make_class_folders(tmp_path / "pets", {"cat": 2, "dog": 3}))


def test_items_are_uint8_tensors_and_integer_labels(pets):
    items = list(pets.to_torch())
    assert [label for _, label in items] == [0, 0, 1, 1, 1]
    assert all(type(label) is int for _, label in items)
    x_CHW = items[1][0]
    assert x_CHW.dtype == torch.uint8
    pixels = np.asarray(Image.open(pets["image"].iloc[1]).convert("RGB"))
    assert np.array_equal(x_CHW.permute(1, 2, 0).numpy(), pixels)


def test_a_transform_gets_the_pillow_image(pets):
    sizes = [size for size, _ in pets.to_torch(lambda image: (image.mode, image.size))]
    assert sizes == [("RGB", (24, 16))] * 5


def test_names_become_their_positions_among_the_classes(pets):
    dataset = ImageDataset(pets.assign(label=pets.label_names()))
    assert [label for _, label in dataset.to_torch()] == [0, 0, 1, 1, 1]
    # A part of the classes keeps the numbers of all.
    assert [label for _, label in dataset[dataset["label"] == "dog"].to_torch()] == [1, 1, 1]


def test_fractions_stay_floats(pets):
    dataset = ImageDataset(pets.assign(label=[0.5, 1.5, 2.5, 3.5, 4.5]))
    assert [label for _, label in dataset.to_torch()] == [0.5, 1.5, 2.5, 3.5, 4.5]


def test_without_labels_the_items_are_images(pets):
    dataset = ImageDataset(pets, no_class=True)
    assert dataset.to_torch()[0].shape == (3, 16, 24)


def test_it_works_with_a_data_loader_and_can_be_pickled(pets):
    copied = pickle.loads(pickle.dumps(pets.to_torch()))
    x_BCHW, labels = next(iter(torch.utils.data.DataLoader(copied, batch_size=5)))
    assert x_BCHW.shape == (5, 3, 16, 24)
    assert labels.tolist() == [0, 0, 1, 1, 1]


def test_a_label_that_is_no_class_is_an_error(pets):
    renamed = pets.assign(label="bird")
    with pytest.raises(DataError, match="'bird' is not among the classes"):
        renamed.to_torch()


def test_an_unreadable_image_raises_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ImageReadError):
        ImageDataset([tmp_path / "a.jpg"], no_class=True).to_torch()[0]
