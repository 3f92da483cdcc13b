"""Features of training and validation images that are stored with a predictor, and novelty scores by them.

The novelty of an image is its distance to the training images in the features of the first network: one minus the
cosine to the k-th nearest of them (Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022).
`benchmarks.open_world` compares it with Mahalanobis++ (Müller and Hein, ICML 2025), which requires more images than
features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from saccade.checks import fraction
from saccade.data.splitting import stratified_order
from saccade.errors import DataError, SavedPredictorError
from saccade.tasks.problem import Problem

FEATURES = "features.safetensors"
"""The file in a predictor's folder."""

MAX_TRAIN, MAX_VAL = 4000, 1000
"""Images whose features are stored, in float16: 13 MB if there are 1280 features."""

MAX_BYTES = 2**28  # of a file that is read
MAX_IMAGES = 10**8  # of a training set, as a check of files

NUM_NEIGHBOURS = 5
"""The neighbour whose distance counts."""

FALSE_ALARM_RATE = 0.05
"""The part of known images that are called unknown, unless another one is given."""

_TENSORS = ("train", "train_targets", "val", "val_targets", "class_counts")
_ROWS = "train_rows"  # not in files of earlier versions


@dataclass(frozen=True, eq=False)
class FeatureBank:
    """Inputs of the first network's classifier layer for training and validation images, with their targets."""

    train: np.ndarray  # float16, (num_train, num_features): a stratified sample
    train_targets: np.ndarray  # as from `Problem.encode`
    val: np.ndarray  # float16, (num_val, num_features)
    val_targets: np.ndarray
    class_counts: np.ndarray  # int64, training images of each class in all; empty without one class per image
    is_complete: bool = True  # whether time sufficed for all images
    # int64 (num_train,): the places of `train` in train_data, or after its end in tuning_data; empty if not known.
    train_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(
        cls,
        problem: Problem,
        train_targets: np.ndarray,
        val_targets: np.ndarray,
        features: Callable[[np.ndarray], np.ndarray],
        train_rows: np.ndarray | None = None,
    ) -> FeatureBank:
        """Return the features of a sample of images, given the targets and the `train_rows` of all.

        `features` returns those of some positions, of which training images come first. It may return only the first
        ones; rows with NaN are left out.
        """
        num_train = len(train_targets)
        some_train = stratified_order(problem.strata(train_targets), np.random.default_rng(0))[:MAX_TRAIN]
        some_val = stratified_order(problem.strata(val_targets), np.random.default_rng(0))[:MAX_VAL]
        # In proportion, so that each beginning has images of both.
        order = np.argsort(
            np.concatenate([np.linspace(0, 1, len(part)) for part in (some_train, some_val)]), kind="stable"
        )
        positions = np.concatenate([some_train, num_train + some_val])[order]
        found = features(positions)
        largest = np.finfo(np.float16).max
        is_read = np.isfinite(found).all(1)
        rows, found = positions[: len(found)][is_read], np.clip(found[is_read], -largest, largest).astype(np.float16)
        in_train = rows < num_train
        counts = np.bincount(train_targets, minlength=len(problem.classes)) if problem.has_one_class else np.zeros(0)
        of_val = rows[~in_train] - num_train
        parts = found[in_train], train_targets[rows[in_train]], found[~in_train], val_targets[of_val]
        of_train = np.zeros(0, np.int64) if train_rows is None else train_rows[rows[in_train]].astype(np.int64)
        return cls(*parts, counts.astype(np.int64), len(is_read) == len(positions), of_train)

    def save(self, folder: Path, key: str) -> None:
        """Write the file, for the network whose `key` this is."""
        part = folder / f"{FEATURES}.part"
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in (*_TENSORS, _ROWS)}
        save_file(tensors, part, {"key": key, "is_complete": str(self.is_complete)})
        part.replace(folder / FEATURES)

    @classmethod
    def load(cls, folder: Path, key: str, problem: Problem) -> FeatureBank | None:
        """Read the file; None if it does not exist, or is of another network. Raises a SavedPredictorError."""
        path = folder / FEATURES
        if not path.is_file():
            return None
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != key:
                    return None
                names = [*_TENSORS, *({_ROWS} & set(file.keys()))]
                tensors = {name: file.get_tensor(name) for name in names}
                bank = cls(**tensors, is_complete=metadata.get("is_complete") == "True")
            bank._check(problem)
        except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            raise SavedPredictorError(f"{path} is damaged ({error}). Restore a copy, remove it, or fit again") from None
        return bank

    def _check(self, problem: Problem) -> None:
        """Raise a ValueError, IndexError or TypeError if arrays do not fit each other, or the problem."""
        of_targets = (problem.num_outputs,) if problem.has_classes and not problem.has_one_class else ()
        for features, targets in ((self.train, self.train_targets), (self.val, self.val_targets)):
            if features.dtype != np.float16 or features.shape != (len(targets), self.train.shape[1]):
                raise ValueError(f"features of shape {features.shape} and {features.dtype}, {len(targets)} targets")
            if targets.shape[1:] != of_targets or not (np.isfinite(features).all() and np.isfinite(targets).all()):
                raise ValueError(f"targets of shape {targets.shape}, or values that are not finite")
            if problem.has_one_class and not np.isin(targets, np.arange(problem.num_outputs)).all():
                raise ValueError(f"targets outside of the {problem.num_outputs} classes")
        if self.train_rows.dtype != np.int64 or self.train_rows.shape not in ((0,), (len(self.train),)):
            raise ValueError(f"rows of shape {self.train_rows.shape}")
        if (self.train_rows < 0).any():
            raise ValueError("rows that are negative")
        counts = self.class_counts
        if counts.shape != (len(problem.classes) if problem.has_one_class else 0,) or counts.dtype != np.int64:
            raise ValueError(f"class counts of shape {counts.shape}")
        if (counts < 0).any() or counts.sum() > MAX_IMAGES:
            raise ValueError("class counts that are out of range")

    def check_width(self, num_features: int) -> None:
        """Raise a SavedPredictorError if the network has another number of features."""
        if self.train.shape[1] != num_features:
            raise SavedPredictorError(f"{FEATURES} has features of another network. Restore a copy, or fit again")

    @cached_property
    def units(self) -> torch.Tensor:
        """The features of the training images divided by their norm, float32 (num_train, num_features)."""
        return torch.nn.functional.normalize(torch.from_numpy(self.train).float(), dim=1)

    def novelty(self, features: torch.Tensor) -> torch.Tensor:
        """Return how unlike the training images each image is, float32 of shape (num_images,), from 0 to 2.

        Examples
        --------
        >>> bank = FeatureBank(np.eye(2, dtype=np.float16), np.arange(2), np.eye(2), np.arange(2), np.ones(2))
        >>> print(bank.novelty(torch.tensor([[1.0, 1.0], [-1.0, -1.0]])).numpy().round(2))
        [0.29 1.71]
        """
        self.check_width(features.shape[1])
        return distance_to_known(features, self.units.to(features.device))

    def threshold(self, false_alarm_rate: float) -> float:
        """Return the novelty above which an image is unknown: at most this part of images like the validation images.

        Raises a HyperparameterError for an invalid rate, and a DataError if there are too few validation images.
        """
        fraction("false_alarm_rate", false_alarm_rate)
        num = len(self.val)
        rank = math.ceil((num + 1) * (1 - false_alarm_rate) - 1e-9)
        if rank > num:
            raise DataError(
                f"false_alarm_rate={false_alarm_rate:g} requires at least {math.ceil(1 / false_alarm_rate - 1 - 1e-9)} "
                f"validation images; this predictor has the features of {num}. Fit with more of them (tuning_data, "
                "holdout_frac), or pass a larger rate"
            )
        return float(self._sorted_val_novelty[rank - 1])

    @cached_property
    def _sorted_val_novelty(self) -> np.ndarray:
        return np.sort(self.novelty(torch.from_numpy(self.val)).numpy())


def distance_to_known(features: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    """Return one minus the cosine to the `NUM_NEIGHBOURS`-th nearest unit vector, of shape (num_images,)."""
    cosines = torch.nn.functional.normalize(features.float(), dim=1) @ units.T
    return (1 - cosines.topk(min(NUM_NEIGHBOURS, len(units)), dim=1).values[:, -1]).clamp(min=0)
