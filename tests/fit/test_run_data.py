"""Images and labels of a run, as stored in its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade.data.examples import Examples
from saccade.errors import DataError
from saccade.fit.run_data import fingerprint, read_run_data, write_run_data

LABELS: dict[str, Any] = {
    "text": pd.Series(["dog", "cat", "None"]),
    "whole numbers": pd.Series([1, 2, 3], dtype="int32"),
    "yes or no": pd.Series([True, False, True]),
    "numbers": pd.Series([0.1, 1 / 3, -1e300]),
    "categories": pd.Series(["b", "a", "b"], dtype="category"),
    "mixed": pd.Series([1, "1", (1, 2)], dtype=object),
    "lists": pd.Series([["a", "b"], [], ["c"]]),
    "columns": pd.DataFrame({"cat": [0, 1, 1], 7: [True, False, True]}),
}


def examples(labels: Any, images: Any = ("a.png", "b.png", "c.png"), **more: Any) -> Examples:
    return Examples(list(images), pd.Index([5, 3, 9]), labels, **more)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_are_read_back_equal(tmp_path: Path, labels: Any) -> None:
    given_ = examples(
        labels, class_names=["x", "y"], weights=pd.Series([0.5, 1.0, 2.0]), groups=["a", "", "a"], times=[1.0, 2.0, 0.5]
    )
    write_run_data(tmp_path / "data.json", given_, examples(labels[:3]))
    train, tuning = read_run_data(tmp_path / "data.json")
    assert train.images == [str(Path(name).absolute()) for name in given_.images]
    assert train.class_names == ["x", "y"]
    assert train.weights is not None
    assert train.weights.tolist() == [0.5, 1.0, 2.0]
    assert (train.groups, train.times) == (["a", "", "a"], [1.0, 2.0, 0.5])
    assert tuning is not None
    assert tuning.weights is None
    for part in (train, tuning):
        if isinstance(labels, pd.DataFrame):
            pd.testing.assert_frame_equal(part.labels, labels)
        else:
            assert part.labels is not None
            assert part.labels.dtype == labels.dtype
            assert [(type(label), label) for label in part.labels] == [(type(label), label) for label in labels]
    assert fingerprint(train, None) == fingerprint(given_, None)
    assert fingerprint(train, tuning) != fingerprint(given_, None)


@given(st.lists(st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.booleans()), min_size=1))
def test_different_labels_have_different_fingerprints(labels: list[Any]) -> None:
    images = [f"{number}.png" for number in range(len(labels))]
    one = Examples(list(images), pd.RangeIndex(len(labels)), pd.Series(labels, dtype=object))
    same = Examples([Path(name) for name in images], pd.RangeIndex(len(labels)), pd.Series(labels, dtype=object))
    assert fingerprint(one, None) == fingerprint(same, None)
    other = pd.Series([*labels[:-1], (labels[-1],)], dtype=object)
    assert fingerprint(Examples(list(images), one.index, other), None) != fingerprint(one, None)


def test_file_names_that_are_not_unicode(tmp_path: Path) -> None:
    odd = os.fsdecode(b"/photos/caf\xe9.jpg")
    write_run_data(tmp_path / "data.json", examples(LABELS["text"], [odd, "b", "c"]), None)
    train, _ = read_run_data(tmp_path / "data.json")
    assert train.images[0] == odd
    assert fingerprint(train, None)


@pytest.mark.parametrize(
    "image", [b"bytes", np.zeros((4, 4, 3), np.uint8), Image.new("RGB", (4, 4))], ids=["bytes", "array", "picture"]
)
def test_images_in_memory_are_an_error_when_read(tmp_path: Path, image: Any) -> None:
    some = examples(LABELS["text"], ["a.png", image, "c.png"])
    write_run_data(tmp_path / "data.json", some, None)
    with pytest.raises(DataError, match=r"1 images were given as \w+.*resume=True"):
        read_run_data(tmp_path / "data.json")
    assert fingerprint(some, None) == fingerprint(examples(LABELS["text"], ["a.png", image, "c.png"]), None)
    other = np.ones((4, 4, 3), np.uint8)
    assert fingerprint(some, None) != fingerprint(examples(LABELS["text"], ["a.png", other, "c.png"]), None)


def test_labels_that_are_objects_and_damaged_files_are_errors(tmp_path: Path) -> None:
    write_run_data(tmp_path / "data.json", examples(pd.Series([object(), "a", "b"], dtype=object)), None)
    with pytest.raises(DataError, match=r"data\.json does not contain the labels"):
        read_run_data(tmp_path / "data.json")
    for text in ("{", "[]", "{}"):
        (tmp_path / "data.json").write_text(text)
        with pytest.raises(DataError, match="is damaged"):
            read_run_data(tmp_path / "data.json")
    with pytest.raises(DataError, match="is damaged"):
        read_run_data(tmp_path / "nowhere.json")
