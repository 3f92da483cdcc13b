from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saccade.data.examples import Examples
from saccade.errors import DataError, HyperparameterError
from saccade.insight.embeddings import EmbeddedImages, unit_vectors
from saccade.insight.near_duplicates import near_duplicates


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.uniform(0, 255, (16, 16, 3)).astype(np.uint8)).resize((96, 96), 3)


def embedded(images: list[Image.Image | str], vectors: list[list[float]], **more: object) -> EmbeddedImages:
    index = pd.Index([f"row {number}" for number in range(len(images))])
    return EmbeddedImages(Examples(list(images), index, **more), unit_vectors(np.array(vectors)))  # type: ignore[arg-type]


def test_a_pair_requires_similar_features_and_similar_pixels() -> None:
    images = embedded(
        [picture(0), picture(1), picture(0).resize((60, 60)), picture(0).resize((50, 70))],
        [[1, 0], [1, 0.01], [1, 0.02], [0, 1]],
        labels=pd.Series(["cat", "cat", "dog", "cat"]),
    )
    found = near_duplicates(images)
    assert found[["index", "other_index", "label", "other_label"]].to_numpy().tolist() == [
        ["row 0", "row 2", "cat", "dog"]
    ]
    assert found["image"].tolist() == ["<image #0>"]
    assert found["pixel_similarity"].item() > 0.9
    assert not found["is_mirrored"].item()
    everything = near_duplicates(images, threshold=-1)
    assert len(everything) == 3


def test_with_among_copies_are_searched_in_these_images_only() -> None:
    train = embedded([picture(0), picture(1)], [[1, 0], [0, 1]])
    test = embedded([picture(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT), picture(2), picture(2)], [[0, 1]] * 3)
    found = near_duplicates(test, train)
    assert found[["index", "other_index", "is_mirrored"]].to_numpy().tolist() == [["row 0", "row 1", True]]
    none = near_duplicates(embedded([picture(3)], [[1, 1]]), train)
    assert len(none) == 0
    assert list(none.columns) == list(found.columns)


def test_missing_images_and_invalid_thresholds_are_errors() -> None:
    gone = embedded(["gone.jpg"], [[1, 0]])
    with pytest.raises(DataError, match="has become unreadable"):
        near_duplicates(embedded([picture(0)], [[1, 0]]), gone)
    for threshold in (2, "0.9", True):
        with pytest.raises(HyperparameterError, match="expected a cosine, from -1 to 1"):
            near_duplicates(gone, threshold=threshold)  # type: ignore[arg-type]
