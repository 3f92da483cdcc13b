"""Predictions for the validation images, stored with a predictor: its report and its model card show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from saccade.data.splitting import stratified_order
from saccade.errors import SavedPredictorError
from saccade.tasks.problem import Problem

VALIDATION = "validation.safetensors"
"""The file in a predictor's folder."""

MAX_NUMBERS = 2**22  # predictions that are stored, 16 MB in float32; of more images a stratified sample

MAX_PATH_BYTES = 2**26  # of all paths together; longer ones are not stored

MAX_BYTES = 2**28  # of a file that is read

_TENSORS = ("targets", "predictions", "adjusted", "train_counts")


@dataclass(frozen=True, eq=False)
class ValidationRecord:
    """How a predictor did on validation images, and how many images it was fitted to."""

    targets: np.ndarray  # (num_stored,), or (num_stored, num_labels) for multilabel problems
    # (num_stored, num_outputs): calibrated, by the calibration that was fitted to these images.
    predictions: np.ndarray
    adjusted: np.ndarray  # (num_stored, num_outputs): after thresholds, which are cross-fitted, as the score is
    train_counts: np.ndarray  # int64 (num_classes,): training images with each label; empty for regression
    num_train: int
    num_val: int  # may be more than are stored
    # int64 (num_stored,): the places of the images in train_data, or after its end in tuning_data. Empty for predictors
    # of earlier versions and of `add_classes`.
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    paths: tuple[str, ...] = ()  # of these images, or their URLs; "" for an image in memory; empty if not known
    # uint64 (num_stored, 2): `image_keys` of these images, by which other runs recognise them. Empty without `rows`.
    keys: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.uint64))

    @classmethod
    def of(
        cls,
        problem: Problem,
        targets: np.ndarray,
        predictions: np.ndarray,
        adjusted: np.ndarray,
        train_targets: np.ndarray,
        rows: np.ndarray | None = None,
        paths: Sequence[str] = (),
        keys: np.ndarray | None = None,
    ) -> ValidationRecord:
        """Return the record of all validation images that have predictions, or of a sample.

        `rows` are the places of the images with `targets` among all images of the fit, which have `paths` and `keys`.
        """
        num_val = len(targets)
        if adjusted.shape != predictions.shape:  # the score is of other predictions, which are not known
            predictions = adjusted = predictions[:0]
        targets = targets[: len(predictions)]
        rows = np.zeros(0, np.int64) if rows is None else rows[: len(predictions)]
        if predictions.size > MAX_NUMBERS:
            order = stratified_order(problem.strata(targets), np.random.default_rng(0))
            kept = np.sort(order[: MAX_NUMBERS // problem.num_outputs])
            targets, predictions, adjusted = targets[kept], predictions[kept], adjusted[kept]
            rows = rows[kept] if len(rows) else rows
        named = tuple(paths[row] for row in rows.tolist()) if len(paths) else ()
        named = named if any(named) and sum(map(len, named)) <= MAX_PATH_BYTES // 4 else ()
        numbers = problem.class_counts(train_targets), len(train_targets), num_val
        record = cls(targets, predictions, adjusted, *numbers, rows.astype(np.int64), named)
        return record if keys is None else replace(record, keys=keys[rows])

    def save(self, folder: Path, key: str) -> None:
        """Write the file, for the predictor whose `key` this is."""
        part = folder / f"{VALIDATION}.part"
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in (*_TENSORS, "rows", "keys")}
        joined = "\0".join(self.paths).encode("utf-8", "surrogateescape")
        tensors["paths"] = np.frombuffer(joined, np.uint8)
        save_file(tensors, part, {"key": key, "num_train": str(self.num_train), "num_val": str(self.num_val)})
        part.replace(folder / VALIDATION)

    @classmethod
    def load(cls, folder: Path, key: str, problem: Problem) -> ValidationRecord | None:
        """Read the file; None if it does not exist, or is of another predictor. Raises a SavedPredictorError."""
        path = folder / VALIDATION
        if not path.is_file():
            return None
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != key:
                    return None
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
                paths: tuple[str, ...] = ()
                if "rows" in file.keys():  # noqa: SIM118  not in files of earlier versions
                    tensors |= {name: file.get_tensor(name) for name in ("rows", "keys")}
                    joined = file.get_tensor("paths").tobytes().decode("utf-8", "surrogateescape")
                    paths = tuple(joined.split("\0")) if joined else ()
            record = cls(**tensors, num_train=int(metadata["num_train"]), num_val=int(metadata["num_val"]), paths=paths)
            record._check(problem)
        except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            raise SavedPredictorError(f"{path} is damaged ({error}). Restore a copy, remove it, or fit again") from None
        return record

    def _check(self, problem: Problem) -> None:
        """Raise a ValueError if arrays do not fit each other, or the problem."""
        of_targets = (problem.num_outputs,) if problem.has_classes and not problem.has_one_class else ()
        expected = {
            "targets": (len(self.targets), *of_targets),
            "predictions": (len(self.targets), problem.num_outputs),
            "adjusted": (len(self.targets), problem.num_outputs),
            "train_counts": (len(problem.classes),),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype.kind not in "fi" or not np.isfinite(array).all():
                raise ValueError(f"{name} of shape {array.shape} and {array.dtype}, or values that are not finite")
        if problem.has_one_class and not np.isin(self.targets, np.arange(problem.num_outputs)).all():
            raise ValueError(f"targets outside of the {problem.num_outputs} classes")
        if self.rows.dtype != np.int64 or self.rows.shape not in ((0,), (len(self.targets),)) or (self.rows < 0).any():
            raise ValueError("rows that do not fit the images")
        if self.keys.dtype != np.uint64 or self.keys.shape not in ((0, 2), (len(self.targets), 2)):
            raise ValueError("keys that do not fit the images")
        if len(self.paths) not in (0, len(self.rows)):
            raise ValueError("paths that do not fit the images")
        if self.train_counts.dtype != np.int64 or min(self.num_train, self.num_val, *self.train_counts, 0) < 0:
            raise ValueError("numbers of images that are negative or of another type")
        if problem.has_classes and ((self.predictions < 0).any() or (self.predictions > 1).any()):
            raise ValueError("predictions that are not probabilities")
