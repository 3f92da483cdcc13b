from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from saccade.data import ImageDataset
from saccade.data.decoding import read_image
from saccade.errors import DataError


class ClassLabel:
    """Stands in for `datasets.ClassLabel`."""

    def __init__(self, names):
        self.names = names


class HubDataset:
    """Stands in for `datasets.Dataset`, including the decoding of images unless it is switched off."""

    def __init__(self, rows, features):
        self.rows, self.features, self.column_names = rows, features, list(features)

    def cast_column(self, column, feature):
        return HubDataset(self.rows, {**self.features, column: feature})

    def __iter__(self):
        for row in self.rows:
            yield {
                name: Image.open(io.BytesIO(value["bytes"])) if getattr(self.features[name], "decode", False) else value
                for name, value in row.items()
            }


def image_feature(decode=True):
    class Image:
        """Stands in for `datasets.Image`."""

        def __init__(self, decode=True):
            self.decode = decode

    return Image(decode)


def encoded(color="red", file_format="jpeg"):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(file, file_format)
    return file.getvalue()


@pytest.fixture
def pets():
    rows = [
        {"id": 1, "photo_of_pet": {"bytes": encoded("red"), "path": None}, "species": 1},
        {"id": 2, "photo_of_pet": {"bytes": encoded("blue"), "path": "x.jpg"}, "species": 0},
    ]
    features = {"id": object(), "photo_of_pet": image_feature(), "species": ClassLabel(["cat", "dog"])}
    return HubDataset(rows, features)


def test_columns_are_chosen_by_their_types_and_files_are_unchanged(pets):
    dataset = ImageDataset.from_huggingface(pets)
    assert list(dataset.columns) == ["image", "label"]
    assert dataset.classes == ["cat", "dog"]
    assert dataset["label"].tolist() == [1, 0]
    assert dataset["image"].tolist() == [row["photo_of_pet"]["bytes"] for row in pets.rows]
    assert pets.features["photo_of_pet"].decode  # the caller's object is unchanged


def test_a_label_may_be_any_column(pets):
    dataset = ImageDataset.from_huggingface(pets, label_column="id")
    assert dataset["label"].tolist() == [1, 2]
    assert dataset.classes is None


def test_a_dictionary_of_splits_is_refused(pets):
    with pytest.raises(DataError, match="'train', 'test'"):
        ImageDataset.from_huggingface({"train": pets, "test": pets})


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK", "I;16"])
def test_pillow_images_are_encoded_without_loss(mode):
    image = Image.new(mode, (8, 6))
    (read,) = ImageDataset.from_huggingface([{"image": image, "label": "x"}])["image"]
    assert isinstance(read, bytes)
    assert np.array_equal(read_image(read), read_image(image))


def test_arrays_and_paths():
    rows = [{"image": np.zeros((6, 8, 3), np.uint8)}, {"image": "a.jpg"}, {"image": {"bytes": None, "path": "b.jpg"}}]
    images = ImageDataset.from_huggingface(rows)["image"].tolist()
    assert read_image(images[0]).size == (8, 6)
    assert images[1:] == ["a.jpg", "b.jpg"]


def test_classes_of_string_labels_are_sorted():
    rows = [{"img": encoded(), "class": name} for name in ("dog", "cat")]
    dataset = ImageDataset.from_huggingface(rows)
    assert dataset["label"].tolist() == ["dog", "cat"]
    assert dataset.classes == ["cat", "dog"]


def test_without_a_label_there_is_no_label_column(pets):
    del pets.features["species"]
    pets.column_names.remove("species")
    for row in pets.rows:
        del row["species"]
    assert list(ImageDataset.from_huggingface(pets).columns) == ["image"]


def test_if_all_labels_are_unknown_there_is_no_label_column(pets):
    for row in pets.rows:
        row["species"] = -1
    assert list(ImageDataset.from_huggingface(pets).columns) == ["image"]


def test_a_partly_unknown_label_column_is_an_error(pets):
    pets.rows[0]["species"] = -1
    with pytest.raises(DataError, match=r"1 of 2 labels in 'species' are -1"):
        ImageDataset.from_huggingface(pets)


def test_an_ambiguous_label_column_is_an_error(pets):
    pets.features |= {"breed": ClassLabel(["a"])}
    with pytest.raises(DataError, match="species, breed"):
        ImageDataset.from_huggingface(pets)


@pytest.mark.parametrize(
    ("rows", "arguments", "words"),
    [
        ([], {}, "empty"),
        ([{"text": "a", "label": 1}], {}, "No column looks like images among text, label"),
        ([{"image": "a", "label": 1}], {"image_column": "imgae"}, "Did you mean 'image'"),
        ([{"image": "a", "label": 1}], {"label_column": "labels"}, "Did you mean 'label'"),
        ([{"image": None, "label": 1}], {}, "found NoneType"),
    ],
)
def test_unreadable_datasets_are_errors_with_the_reason(rows, arguments, words):
    with pytest.raises(DataError, match=words):
        ImageDataset.from_huggingface(rows, **arguments)
