"""Images as unit vectors, and the search among these: exact, by products of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from saccade.checks import whole_number
from saccade.data.examples import Examples, ImageLike

BLOCK = 4096
"""Vectors of a block; a product of two blocks takes 64 MB."""

Features = Callable[[list[ImageLike]], np.ndarray]
"""From images to float32 of shape (num_images, num_features), NaN for those that cannot be read."""


@dataclass(frozen=True, eq=False)
class EmbeddedImages:
    """Images, and what a network makes of them.

    Attributes
    ----------
    examples : Examples
        The images with their labels, where these are known.
    vectors : ndarray of float16 or float32, shape (num_images, num_features)
        Of length 1; all 0 for an image that cannot be read.
    """

    examples: Examples
    vectors: np.ndarray

    @classmethod
    def of(cls, examples: Examples, features: Features) -> EmbeddedImages:
        """Return the images with their vectors."""
        return cls(examples, unit_vectors(features(examples.images)))

    @property
    def readable(self) -> np.ndarray:
        """Whether each image could be read, bool of shape (num_images,)."""
        readable: np.ndarray = (self.vectors != 0).any(1)
        return readable

    def __len__(self) -> int:
        return len(self.examples)


def unit_vectors(features: np.ndarray) -> np.ndarray:
    """Return features divided by their length, so that a product of two rows is the cosine between them.

    Parameters
    ----------
    features : ndarray, shape (num_images, num_features)
        Rows with NaN become 0.

    Examples
    --------
    >>> unit_vectors(np.array([[3.0, 4.0], [np.nan, 1.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    rows = np.where(np.isfinite(features).all(1, keepdims=True), features, 0.0).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: np.ndarray = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return units


def nearest_rows(
    queries: np.ndarray, among: np.ndarray, k: int, *, is_same: bool = False, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows with the largest cosine to each query.

    Parameters
    ----------
    queries : ndarray, shape (num_queries, num_features)
        Unit vectors.
    among : ndarray, shape (num_rows, num_features)
        Unit vectors to find; rows of 0 are never found.
    k : int
        How many of them for each query, at least 1; there may be fewer rows.
    is_same : bool
        Both are the same rows, of which none is to be found near itself.
    block : int
        How many rows of each are multiplied at a time.

    Returns
    -------
    rows : ndarray of int64, shape (num_queries, k)
        The nearest first; -1 where there are no more.
    cosines : ndarray of float32, shape (num_queries, k)
        Of the same; -inf where there are no more.

    Raises
    ------
    HyperparameterError
        When `k` is no whole number of at least 1.

    Examples
    --------
    >>> rows, cosines = nearest_rows(np.eye(2)[:1], np.eye(2)[[1, 0, 0]], k=2)
    >>> rows.tolist(), cosines.tolist()
    ([[1, 2]], [[1.0, 1.0]])
    """
    k = min(whole_number("k", k), len(among))
    rows = np.full((len(queries), k), -1, np.int64)
    cosines = np.full((len(queries), k), -np.inf, np.float32)
    for first, first_row, product in _products(queries, among, block):
        if is_same:
            np.fill_diagonal(product[max(0, first_row - first) :, max(0, first - first_row) :], -np.inf)
        part = slice(first, first + len(product))
        numbers = np.broadcast_to(first_row + np.arange(product.shape[1]), product.shape)
        all_rows = np.concatenate([rows[part], numbers], axis=1)
        all_cosines = np.concatenate([cosines[part], product], axis=1)
        best = np.argsort(-all_cosines, axis=1, kind="stable")[:, :k]
        rows[part], cosines[part] = np.take_along_axis(all_rows, best, 1), np.take_along_axis(all_cosines, best, 1)
    rows[np.isneginf(cosines)] = -1
    return rows, cosines


def _products(queries: np.ndarray, among: np.ndarray, block: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the cosines of a block of queries with a block of rows, and the first number of each."""
    for first in range(0, len(queries), block):
        some = queries[first : first + block].astype(np.float32)
        for first_row in range(0, len(among), block):
            others = among[first_row : first_row + block].astype(np.float32)
            product = some @ others.T
            product[:, ~others.any(1)] = -np.inf
            yield first, first_row, product
