"""Images as unit vectors of features, and exact nearest-neighbour search by blockwise products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from saccade.checks import whole_number
from saccade.data.examples import Examples, ImageLike, image_name

BLOCK = 4096  # vectors in a block; the product of two blocks takes 64 MB

Features = Callable[[list[ImageLike]], np.ndarray]
"""From images to float32 features of shape (num_images, num_features), NaN for unreadable images."""


@dataclass(frozen=True, eq=False)
class EmbeddedImages:
    """Images and their features."""

    examples: Examples  # the images, with their labels if known
    vectors: np.ndarray  # shape (num_images, num_features); of length 1; all 0 for an unreadable image

    @classmethod
    def of(cls, examples: Examples, features: Features) -> EmbeddedImages:
        """Return the images with their vectors."""
        return cls(examples, unit_vectors(features(examples.images)))

    @property
    def readable(self) -> np.ndarray:
        """Whether each image is readable, bool of shape (num_images,)."""
        return np.asarray((self.vectors != 0).any(1))

    def __len__(self) -> int:
        return len(self.examples)


def unit_vectors(features: np.ndarray) -> np.ndarray:
    """Return features divided by their norm, so that the product of two rows is their cosine; rows with NaN are 0."""
    rows = np.where(np.isfinite(features).all(1, keepdims=True), features, 0.0).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0))


def nearest_rows(
    queries: np.ndarray, among: np.ndarray, k: int, *, is_same: bool = False, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k rows with the largest cosine to each query, the nearest first, and the cosines.

    Both sets are unit vectors; rows of 0 are never returned, nor is a row its own neighbour with `is_same`. If there
    are fewer than k, the rest is -1 with the cosine -inf. `block` rows are multiplied at a time.
    """
    k = min(whole_number("k", k), len(among))
    rows = np.full((len(queries), k), -1, np.int64)
    cosines = np.full((len(queries), k), -np.inf, np.float32)
    for first in range(0, len(queries), block):
        some = queries[first : first + block].astype(np.float32)
        part = slice(first, first + len(some))
        for first_row in range(0, len(among), block):
            others = among[first_row : first_row + block].astype(np.float32)
            product = some @ others.T
            product[:, ~others.any(1)] = -np.inf
            if is_same:
                np.fill_diagonal(product[max(0, first_row - first) :, max(0, first - first_row) :], -np.inf)
            # Merge the block with the k nearest rows of the blocks before; ties keep the order of the rows.
            numbers = np.broadcast_to(first_row + np.arange(len(others)), product.shape)
            all_rows = np.concatenate([rows[part], numbers], axis=1)
            all_cosines = np.concatenate([cosines[part], product], axis=1)
            best = np.argsort(-all_cosines, axis=1, kind="stable")[:, :k]
            rows[part], cosines[part] = np.take_along_axis(all_rows, best, 1), np.take_along_axis(all_cosines, best, 1)
    rows[np.isneginf(cosines)] = -1
    return rows, cosines


def nearest_images(queries: EmbeddedImages, among: EmbeddedImages, k: int) -> pd.DataFrame:
    """Return a table of the k most similar images for each query, by the cosine of their features.

    Columns: ``query`` (its index entry), ``rank`` from 1, ``image``, ``label`` if known, ``similarity`` from -1 to 1.
    """
    rows, cosines = nearest_rows(queries.vectors, among.vectors, k)
    query_numbers, ranks = np.nonzero((rows >= 0) & queries.readable[:, None])
    found = rows[query_numbers, ranks]
    examples = among.examples
    columns: dict[str, object] = {
        "query": list(queries.examples.index[query_numbers]),
        "rank": ranks + 1,
        "image": [image_name(examples.images[row], row) for row in found.tolist()],
    }
    if isinstance(examples.labels, pd.Series):
        columns["label"] = [examples.labels.iloc[row] for row in found]
    elif examples.labels is not None:
        labels = examples.labels
        columns["label"] = [[name for name in labels.columns if labels[name].iloc[row]] for row in found]
    columns["similarity"] = cosines[query_numbers, ranks].astype(float)
    frame: pd.DataFrame = pd.DataFrame(columns)
    table: pd.DataFrame = frame.astype({"rank": int, "image": object})
    return table
