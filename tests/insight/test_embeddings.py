from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.data.examples import Examples
from saccade.errors import HyperparameterError
from saccade.insight.embeddings import EmbeddedImages, nearest_images, nearest_rows, unit_vectors


@settings(max_examples=60, deadline=None)
@given(
    num_queries=st.integers(1, 12),
    num_rows=st.integers(1, 25),
    k=st.integers(1, 8),
    block=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_blocks_give_the_same_result_as_the_whole_product(
    num_queries: int, num_rows: int, k: int, block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    queries, among = (unit_vectors(rng.normal(size=(num, 5))) for num in (num_queries, num_rows))
    rows, cosines = nearest_rows(queries, among, k, block=block)
    product = queries @ among.T
    expected = np.sort(product, axis=1)[:, ::-1][:, :k]
    assert np.allclose(cosines, expected, atol=1e-6)
    assert np.allclose(np.take_along_axis(product, rows, 1), cosines, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(num=st.integers(2, 20), block=st.integers(1, 25), seed=st.integers(0, 1000))
def test_a_row_is_not_its_own_neighbour(num: int, block: int, seed: int) -> None:
    vectors = unit_vectors(np.random.default_rng(seed).normal(size=(num, 4)))
    rows, _ = nearest_rows(vectors, vectors, 3, is_same=True, block=block)
    assert not (rows == np.arange(num)[:, None]).any()
    assert (rows[:, : min(3, num - 1)] >= 0).all()


def test_unreadable_images_are_not_found() -> None:
    vectors = unit_vectors(np.array([[1.0, 0.0], [np.nan, 1.0], [0.0, 2.0]]))
    embedded = EmbeddedImages(Examples(["a", "b", "c"], pd.RangeIndex(3)), vectors)
    assert embedded.readable.tolist() == [True, False, True]
    rows, cosines = nearest_rows(vectors, vectors, 3)
    assert 1 not in rows[[0, 2]]
    assert rows[0].tolist() == [0, 2, -1]
    assert cosines[0, 2] == -np.inf


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "5"])
def test_k_is_a_whole_number_of_at_least_1(k: object) -> None:
    with pytest.raises(HyperparameterError, match=r"k was given .*; expected a whole number, 1 or more"):
        nearest_rows(np.eye(2), np.eye(2), k)  # type: ignore[arg-type]


def embedded(
    images: list[str], vectors: list[list[float]], labels: pd.Series | pd.DataFrame | None = None
) -> EmbeddedImages:
    index = pd.Index([f"row {number}" for number in range(len(images))])
    return EmbeddedImages(Examples(list(images), index, labels), unit_vectors(np.array(vectors)))


def test_nearest_images_are_sorted_and_have_labels() -> None:
    among = embedded(["a.png", "b.png", "c.png"], [[1, 0], [1, 1], [0, 1]], labels=pd.Series([7, 8, 9]))
    queries = embedded(["x.png", "broken.png"], [[1, 0.1], [np.nan, 0]])
    found = nearest_images(queries, among, 2)
    assert found[["query", "rank", "image", "label"]].to_numpy().tolist() == [
        ["row 0", 1, "a.png", 7],
        ["row 0", 2, "b.png", 8],
    ]
    assert found["similarity"].is_monotonic_decreasing
    assert len(nearest_images(queries, among, 50)) == 3


def test_several_columns_of_labels_become_lists() -> None:
    labels = pd.DataFrame({"cat": [1, 0], "dog": [1, 1]})
    among = embedded(["a.png", "b.png"], [[1, 0], [0, 1]], labels=labels)
    assert nearest_images(among, among, 1)["label"].tolist() == [["cat", "dog"], ["dog"]]
