"""Images as unit vectors of features, and their nearest neighbours; vectors of training images are stored."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from saccade.checks import whole_number
from saccade.data.earlier_split import FITTED, HELD_OUT, EarlierSplit, image_keys
from saccade.data.examples import Examples, ImageLike, image_name
from saccade.errors import DataError, DataWarning
from saccade.fit.run_data import read_run_data
from saccade.fit.run_folder import DATA
from saccade.inference.feature_bank import FeatureBank
from saccade.inference.pipeline import InferencePipeline
from saccade.inference.saved import SPLIT, SavedPredictor

BLOCK = 4096  # vectors in a block; the product of two blocks takes 64 MB

Features = Callable[[list[ImageLike]], np.ndarray]
"""From images to float32 features of shape (num_images, num_features), NaN for unreadable images."""

EMBEDDINGS = "embeddings.safetensors"
"""File in the predictor's folder: a float16 vector for each training image, with its path and label."""

MAX_BYTES = 64 * 2**20  # maximum size of the stored vectors; larger ones are computed again in each process

_MAX_IN_MEMORY = 2
_recent: OrderedDict[tuple[str, str], EmbeddedImages] = OrderedDict()
_lock = threading.Lock()


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


def embedded_training_images(saved: SavedPredictor, features: Features) -> EmbeddedImages:
    """Return the training images with their vectors: from memory, the predictor's folder, or the run's images."""
    file, key = saved.folder / EMBEDDINGS, _key(saved)
    memory = (str(saved.folder.absolute()), key)
    with _lock:  # threads may share a predictor; the first one computes the vectors
        if memory in _recent:
            _recent.move_to_end(memory)
            return _recent[memory]
        embedded = _read(file, key)
        if embedded is None:
            vectors = EmbeddedImages.of(_training_examples(saved), features)
            embedded = EmbeddedImages(vectors.examples, vectors.vectors.astype(np.float16))
            if embedded.vectors.nbytes <= MAX_BYTES:
                _write(file, key, embedded)
        _recent[memory] = embedded
        while len(_recent) > _MAX_IN_MEMORY:
            _recent.popitem(last=False)
    return embedded


def complete_features(pipeline: InferencePipeline, verbosity: int) -> None:
    """Complete the features that a fit stored with its predictor, if time was short, from the images of the run folder.

    A DataWarning says so if the images are not found.
    """
    with _lock:  # threads may share a predictor; the first one completes them
        _complete(pipeline, verbosity)


def _complete(pipeline: InferencePipeline, verbosity: int) -> None:
    saved, bank = pipeline.saved, pipeline.stored_features()
    split = EarlierSplit.load(saved.folder / SPLIT)
    if (bank is not None and bank.is_complete) or split is None:
        return
    try:
        parts = [saved.match_classes(part) for part in read_run_data(saved.folder.parent / DATA) if part is not None]
    except (DataError, OSError):
        if bank is not None:
            text = (
                f"novelty compares images with only {len(bank.train)} training images, since the time limit of the fit"
            )
            warnings.warn(DataWarning(f"{text} left no time; load the predictor from its run folder"), stacklevel=3)
        return
    images = [image for part in parts for image in part.images]
    sides = split.sides(image_keys(images, [""] * len(images)))
    targets = np.concatenate([saved.problem.encode(part.labels) for part in parts if part.labels is not None])
    train, val = np.flatnonzero(sides == FITTED), np.flatnonzero(sides == HELD_OUT)
    rows = np.concatenate([train, val])

    def features(positions: np.ndarray) -> np.ndarray:
        return pipeline.features([images[row] for row in rows[positions]], verbosity)[0]

    found = FeatureBank.of(saved.problem, targets[train], targets[val], features, train)
    pipeline.stored_features(found)
    with contextlib.suppress(OSError):  # a folder that cannot be written
        found.save(saved.folder, saved.features_key)


def copy_embeddings(source: Path, folder: Path) -> None:
    """Copy the file of vectors from one predictor's folder to another, if it exists."""
    if (source / EMBEDDINGS).is_file() and source.resolve() != folder.resolve():
        shutil.copyfile(source / EMBEDDINGS, folder / EMBEDDINGS)


def _training_examples(saved: SavedPredictor) -> Examples:
    data = saved.folder.parent / DATA
    if not data.is_file():
        raise DataError(
            f"{saved.folder} does not list its training images, and it is not in a run folder; pass them: among=train"
        )
    try:
        return read_run_data(data)[0]
    except DataError as error:
        reason = str(error).split(";")[0]
        raise DataError(f"the training images are not found: {reason}; pass them: among=train") from None


def _key(saved: SavedPredictor) -> str:
    """Return a digest of blueprint and weights, which determine the vectors."""
    digest = hashlib.blake2b(json.dumps(saved.blueprint.to_json(), default=repr).encode(), digest_size=16)
    with saved.weights_path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _write(file: Path, key: str, embedded: EmbeddedImages) -> None:
    """Write the vectors; skip it if the folder is not writable."""
    examples, labels = embedded.examples, embedded.examples.labels
    record: dict[str, Any] = {"images": [str(image) for image in examples.images], "class_names": examples.class_names}
    if isinstance(labels, pd.DataFrame):  # the names of the columns that are 1
        rows = labels.to_dict("records")
        record["labels"] = [[str(name) for name, has in row.items() if has] for row in rows]
    else:
        record["labels"] = None if labels is None else labels.tolist()
    partial = file.with_name(f"{file.name}.part")
    try:
        save_file(
            {"vectors": np.ascontiguousarray(embedded.vectors)},
            partial,
            {"key": key, "examples": json.dumps(record, default=str)},
        )
        partial.replace(file)
    except OSError:
        partial.unlink(missing_ok=True)


def _read(file: Path, key: str) -> EmbeddedImages | None:
    """Return the vectors in a file; None if it is missing, damaged, or of another network."""
    if not file.is_file() or file.stat().st_size > 2 * MAX_BYTES:
        return None
    try:
        with safe_open(file, "numpy") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("key") != key:
                return None
            record, vectors = json.loads(metadata["examples"]), opened.get_tensor("vectors")
            images, labels = record["images"], record["labels"]
            if len(images) != len(vectors) or len(images) != len(images if labels is None else labels):
                return None
            examples = Examples(
                images,
                pd.RangeIndex(len(images)),
                None if labels is None else pd.Series(labels),
                record["class_names"],
            )
            return EmbeddedImages(examples, vectors)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError):
        return None  # damaged: compute them again
