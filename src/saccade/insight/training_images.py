"""Features of the training images of a predictor: computed once, and stored next to its weights if small."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from saccade.data.examples import Examples
from saccade.errors import DataError
from saccade.fit.run_data import read_run_data
from saccade.fit.run_folder import DATA
from saccade.inference.saved import SavedPredictor
from saccade.insight.embeddings import EmbeddedImages, Features

EMBEDDINGS = "embeddings.safetensors"
"""File in the predictor's folder: a float16 vector for each training image, with its path and label."""

MAX_BYTES = 64 * 2**20  # maximum size of the stored vectors; larger ones are computed again in each process

_MAX_IN_MEMORY = 2
_recent: OrderedDict[tuple[str, str], EmbeddedImages] = OrderedDict()
_lock = threading.Lock()


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
    if not file.is_file():
        return None
    try:
        with safe_open(file, "numpy") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("key") != key:
                return None
            record, vectors = json.loads(metadata["examples"]), opened.get_tensor("vectors")
    except (SafetensorError, OSError, ValueError, KeyError):
        return None  # damaged: compute them again
    images = record["images"]
    labels = None if record["labels"] is None else pd.Series(record["labels"])
    return EmbeddedImages(Examples(images, pd.RangeIndex(len(images)), labels, record["class_names"]), vectors)
