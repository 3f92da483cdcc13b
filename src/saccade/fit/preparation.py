"""From the user's images to the task that all trials share: decode once, leave out what cannot be read, split."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saccade.data.examples import Examples, ImageLike
from saccade.data.splitting import interleave, split_holdout
from saccade.data.store.decoded_images import decoded_images
from saccade.data.store.store import ImageStore
from saccade.errors import DataError
from saccade.events import DataReady, Event, Progressed, Warned
from saccade.tasks.problem import Problem
from saccade.training.imbalance import sample_weights
from saccade.training.task import Split

HOLDOUT_FRAC = 0.1
"""The part of the images that is held out where nobody says."""

UNREADABLE = "unreadable.csv"
"""Lists the images that cannot be read, in the run folder, where they are too many to show."""

Tell = Callable[[Event], None]


@dataclass(frozen=True)
class PreparedData:
    """Decoded images, split, with the problem that their labels pose."""

    store: ImageStore
    train: Split
    val: Split
    problem: Problem


def prepare_data(
    train: Examples,
    tuning: Examples | None,
    problem_type: str | None,
    *,
    folder: Path,
    shorter_side: int,
    channels: int = 3,
    holdout_frac: float | None,
    max_held_out: int | None = None,
    most_images: float = math.inf,
    random_state: int | None,
    seconds_left: Callable[[], float] | None,
    tell: Tell,
) -> PreparedData:
    """Decode all images into a store, and split off validation images where none are given.

    A store of these images that is there already, in `folder` or in the cache that runs share, is taken as it is; see
    `saccade.data.store.decoded_images`.

    Parameters
    ----------
    train, tuning : Examples
        Labelled images to learn from, and to be judged by; without `tuning`, a part of `train` is held out.
    problem_type : str or None
        As in `Problem.of`.
    folder : Path
        Where the store goes when it is not one to share.
    shorter_side : int
        Pixels of the shorter side at which images are kept.
    channels : int
        Of each pixel: 1 for grey, 3 for RGB, 4 for RGBA.
    holdout_frac, random_state
        Part of the images to hold out, and its seed. None is `HOLDOUT_FRAC`, but no more than `max_held_out`.
    max_held_out : int or None
        None is any number.
    most_images : float
        More than so many are not decoded, unless a store has them already: a fair sample is.
    seconds_left : callable or None
        Decoding stops when it falls to 0, and the images that are left are not used.
    tell : callable
        Told of progress, and of images that are left out.

    Raises
    ------
    DataError
        When too little is left to learn from.
    """
    start_s = time.perf_counter()
    images, labels = _joined(train, tuning)
    asked = Problem.of(labels[: len(train)], problem_type)  # wrong labels are told before the long work
    weights = None if train.weights is None else _all_weights(train.weights, len(images))
    order = interleave(asked.strata(asked.encode(labels)), np.random.default_rng(random_state)).tolist()
    if most_images < len(order):
        order = order[: int(most_images)]
    store = decoded_images(
        images,
        folder,
        shorter_side=shorter_side,
        channels=channels,
        deadline=seconds_left,
        order=order,
        on_progress=lambda done, total: tell(Progressed("decoding images", done, total)),
        on_wait=lambda: tell(Progressed("waiting for a run that decodes the same images", 0, len(images))),
        warn=lambda text: tell(Warned(text)),
    )
    _warn_of_missing(store, images, folder.with_name(UNREADABLE), tell, len(order))
    usable = np.flatnonzero(store.readable)
    in_train, in_val = usable[usable < len(train)], usable[usable >= len(train)]
    if not len(in_train):
        raise DataError(f"none of the {len(train)} training images can be read")
    if tuning is not None and not len(in_val):
        raise DataError("none of the images of tuning_data can be read")
    problem = Problem.of(labels.iloc[in_train], problem_type)
    if tuning is None:
        chosen, held_out = split_holdout(
            problem.strata(problem.encode(labels.iloc[in_train])),
            _part_held_out(holdout_frac, max_held_out, len(in_train)),
            random_state,
            groups=np.asarray(store.digests)[in_train],
        )
        in_train, in_val = in_train[chosen], in_train[held_out]
    # Shuffled, so that a judgement cut short by the time limit rests on a fair sample.
    in_val = np.random.default_rng(0).permutation(in_val)
    seconds = time.perf_counter() - start_s
    tell(DataReady(len(in_train), len(in_val), len(problem.classes), len(images) - len(usable), seconds))
    train_split, val_split = (
        Split(part, problem.encode(labels.iloc[part]), None if weights is None else weights[part])
        for part in (in_train, in_val)
    )
    return PreparedData(store, train_split, val_split, problem)


def _part_held_out(asked: float | None, most: int | None, num_images: int) -> float:
    if asked is not None:
        return asked
    return HOLDOUT_FRAC if most is None else min(HOLDOUT_FRAC, most / num_images)


def _all_weights(column: pd.Series, num_images: int) -> np.ndarray:
    """Return the weights of the training images, and 1, which is their mean, for images of `tuning_data`."""
    weights = np.ones(num_images, np.float32)
    weights[: len(column)] = sample_weights(column)
    return weights


def _joined(train: Examples, tuning: Examples | None) -> tuple[list[ImageLike], pd.Series | pd.DataFrame]:
    parts = [train] if tuning is None else [train, tuning]
    images = [image for part in parts for image in part.images]
    labels: list[Any] = [part.labels for part in parts]
    return images, pd.concat(labels, ignore_index=True)


def _warn_of_missing(
    store: ImageStore, images: Sequence[ImageLike], listing: Path, tell: Tell, num_asked: int, num_shown: int = 20
) -> None:
    """Name each unreadable image once with its reason; say how many the time limit left out."""
    if store.errors:
        named = [(_name(images[index], index), reason) for index, reason in sorted(store.errors.items())]
        lines = [f"  {name}: {reason}" for name, reason in named]
        more = []
        if len(lines) > num_shown:
            pd.DataFrame(named, columns=["image", "reason"]).to_csv(listing, index=False)
            more = [f"  … and {len(lines) - num_shown} more, all of them listed in {listing}"]
        head = f"{len(lines)} of {len(images)} images cannot be read and are left out:"
        tell(Warned("\n".join([head, *lines[:num_shown], *more])))
    if not store.skipped:
        return
    if len(images) - len(store.skipped) >= num_asked:
        what = f"{len(images)} images are more than can be learned from in the time limit; {num_asked} of them are used"
    else:
        what = f"the time limit left no time to decode {len(store.skipped)} of {len(images)} images; they are not used"
    tell(Warned(f"{what}. Give a longer time_limit"))


def _name(image: ImageLike, index: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"<image {index}>"
