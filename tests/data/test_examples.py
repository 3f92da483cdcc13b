from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saccade import ImageDataset
from saccade.data.examples import read_examples, read_labelled_examples
from saccade.errors import DataError


@pytest.mark.parametrize(
    ("data", "num"),
    [
        ("a.png", 1),
        (Path("a.png"), 1),
        (b"bytes", 1),
        (Image.new("RGB", (4, 4)), 1),
        (np.zeros((4, 4, 3), np.uint8), 1),
        (np.zeros((5, 4, 4, 3), np.uint8), 5),
        (["a.png", Path("b.png"), b"c"], 3),
        (("a.png",), 1),
        (np.array(["a.png", "b.png"]), 2),
        (pd.Series(["a.png", "b.png"], index=[7, 9]), 2),
        ([], 0),
    ],
)
def test_all_forms_of_images_are_taken(data: object, num: int) -> None:
    examples = read_examples(data)
    assert len(examples) == len(examples.index) == num
    assert examples.labels is None


def test_the_index_of_the_input_is_kept() -> None:
    frame = pd.DataFrame({"image": ["a.png", "b.png"], "label": [1, 0]}, index=["x", "y"])
    examples = read_labelled_examples(frame, "label")
    assert list(examples.index) == ["x", "y"]
    assert list(examples.labels) == [1, 0]


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(DataError, match="cannot read images from int"):
        read_examples(3)


def test_a_column_of_images_under_another_name_is_found_when_it_is_the_only_one() -> None:
    assert read_examples(pd.DataFrame({"IMG": ["a.png"], "y": [1]}), "y").images == ["a.png"]
    with pytest.raises(DataError, match=r"\['one', 'two'\] may contain images"):
        read_examples(pd.DataFrame({"one": ["a.png"], "two": ["b.png"]}))


def test_a_missing_label_column_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(DataError, match="did you mean label='labels'"):
        read_labelled_examples(pd.DataFrame({"image": ["a.png"], "labels": [1]}), "label")


def test_a_path_in_place_of_a_data_set_says_how_to_make_one() -> None:
    with pytest.raises(DataError, match="from_folder"):
        read_labelled_examples("photos", "label")


def test_a_data_set_brings_its_own_columns_and_classes() -> None:
    data = ImageDataset(
        {"photo": ["a.png"], "kind": [0]}, classes=["cat", "dog"], image_column="photo", label_column="kind"
    )
    examples = read_labelled_examples(data, "label")
    assert examples.images == ["a.png"]
    assert examples.class_names == ["cat", "dog"]


@pytest.mark.parametrize("kind", [pd.DataFrame, functools.partial(ImageDataset, label_column="red")])
def test_several_columns_of_labels_are_a_plain_frame(kind: Callable[..., pd.DataFrame]) -> None:
    frame = kind({"image": ["a.png", "b.png"], "red": [0, 1], "round": [1, 1]})
    examples = read_labelled_examples(frame, ["red", "round"])
    assert type(examples.labels) is pd.DataFrame
    assert examples.labels.to_numpy().tolist() == [[0, 1], [1, 1]]
    assert examples.class_names is None
    assert read_examples(frame[["image"]], ["red", "round"]).labels is None
    with pytest.raises(DataError, match=r"no label column 'rund'.*did you mean label='round'"):
        read_labelled_examples(frame, ["red", "rund"])


def test_a_column_of_weights_is_read_when_it_is_named() -> None:
    frame = pd.DataFrame({"image": ["a.png", "b.png"], "label": [1, 0], "weight": [0.5, 2]})
    assert read_labelled_examples(frame, "label").weights is None
    weights = read_labelled_examples(frame, "label", "weight").weights
    assert weights is not None
    assert weights.tolist() == [0.5, 2]
    with pytest.raises(DataError, match=r"no sample_weight column 'wight'.*did you mean sample_weight='weight'"):
        read_labelled_examples(frame, "label", "wight")
