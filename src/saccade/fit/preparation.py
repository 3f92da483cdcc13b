"""Prepare the data that all trials share: decode images once, leave out unreadable ones, split."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saccade.data.earlier_split import FITTED, EarlierSplit, Keys, image_keys
from saccade.data.examples import Examples, ImageLike
from saccade.data.scanning import measure_pixel_range
from saccade.data.sources.sources import MAX_LISTED, describe_unreadable, name_of
from saccade.data.splitting import Positions, joined_groups, split_by_time, split_holdout, stratified_order
from saccade.data.store.decoded_images import decoded_images
from saccade.data.store.store import ImageStore
from saccade.errors import DataError, count_of
from saccade.events import DataReady, Listener, Progressed, Warned
from saccade.tasks.labels import some
from saccade.tasks.matching import names_of_classes
from saccade.tasks.problem import Problem
from saccade.training.imbalance import sample_weights
from saccade.training.task import Split

HOLDOUT_FRAC = 0.1  # default fraction of the training images that is held out for validation
MAX_UNLABELED = 4000  # images without labels that are used
MAX_SIZES = 2000  # different sizes of images that are recorded
UNREADABLE = "unreadable.csv"  # file in the run folder with all unreadable images, if they are too many to print


@dataclass(frozen=True)
class PreparedData:
    """Decoded images, their split, and the problem type of their labels."""

    store: ImageStore
    train: Split
    val: Split
    problem: Problem
    keys: Keys  # of the images of the store, see `saccade.data.earlier_split`
    num_val_seen: int = 0  # validation images that the network of warm_start was fitted to
    left_out: dict[str, Any] = field(default_factory=dict)  # for the summary: unreadable images, and lost classes
    unlabeled: np.ndarray | None = None  # images without labels, as positions in the store; None if none were given


def prepare_data(
    train: Examples,
    tuning: Examples | None,
    problem_type: str | Problem | None,
    *,
    folder: Path,
    shorter_side: int,
    channels: int = 3,
    holdout_frac: float | None,
    max_held_out: int | None = None,
    most_images: float = math.inf,
    random_state: int | None,
    earlier: EarlierSplit | None = None,
    unlabeled: Sequence[ImageLike] | None = None,
    seconds_left: Callable[[], float] | None,
    notify: Listener,
    on_decoded: Callable[[], None] = lambda: None,
) -> PreparedData:
    """Decode all images into a store, and hold out validation images unless they are given.

    An existing store of the same images, in `folder` or in the shared cache, is reused. Raises a DataError if the
    labels are invalid, or if no training or no validation image can be read.

    Without `holdout_frac` the validation set is `HOLDOUT_FRAC` of the images, but at most `max_held_out`. `most_images`
    are decoded, a stratified sample, unless a store has more of them already; when `seconds_left` falls to 0, the
    remaining images are not used. `on_decoded` is called before they are split. Of the `unlabeled` images, copies of
    others are left out, so that none is trained on that validates.
    """
    start_s = time.perf_counter()
    parts = [train] if tuning is None else [train, tuning]
    images = [image for part in parts for image in part.images]
    num_labelled, more = len(images), list(unlabeled or ())
    drawn = np.random.default_rng(random_state).permutation(len(more))[:MAX_UNLABELED]
    images += [more[row] for row in np.sort(drawn)]
    given_labels: list[Any] = [part.labels for part in parts]
    labels = pd.concat(given_labels, ignore_index=True)
    # Invalid labels are an error before images are decoded.
    given = problem_type if isinstance(problem_type, Problem) else Problem.of(labels[: len(train)], problem_type)
    weights = None
    if train.weights is not None:
        weights = np.ones(len(images), np.float32)  # images of tuning_data have the mean of the weights, which is 1
        weights[: len(train)] = sample_weights(train.weights)
    order = stratified_order(given.strata(given.encode(labels)), np.random.default_rng(random_state)).tolist()
    if most_images < len(order):
        order = order[: int(most_images)]
    order += range(num_labelled, len(images))
    store = decoded_images(
        images,
        folder,
        shorter_side=shorter_side,
        channels=channels,
        pixel_range=measure_pixel_range(train.images),
        deadline=seconds_left,
        order=order,
        on_progress=lambda done, total: notify(Progressed("decoding images", done, total)),
        on_wait=lambda: notify(Progressed("waiting for a run that decodes the same images", 0, len(images))),
        warn=lambda text: notify(Warned(text)),
    )
    on_decoded()
    usable = np.flatnonzero(store.readable)
    is_unlabeled = usable >= num_labelled
    in_train, in_val = usable[usable < len(train)], usable[(usable >= len(train)) & ~is_unlabeled]
    digests = np.array(store.digests)
    if not len(in_train):
        text = describe_unreadable(
            train.images, {row: store.errors[row] for row in range(len(train)) if row in store.errors}
        )
        raise DataError(f"none of the {len(train)} training images can be read. {text}")
    _warn_of_missing(store, images, folder.with_name(UNREADABLE), notify, len(order))
    problem = given if isinstance(problem_type, Problem) else Problem.of(labels.iloc[in_train], problem_type)
    lost = [label for label in given.classes if label not in problem.classes]
    if lost:
        is_single = given.has_one_class
        val_labels = labels.iloc[in_val].tolist()
        in_val = in_val[[set(lost).isdisjoint([label] if is_single else label) for label in val_labels]]
        text = f"no training image of {count_of(len(lost), 'class', 'classes')} can be read: {some(lost)}"
        notify(Warned(f"{text}. The predictor does not have these classes"))
    if tuning is not None and not len(in_val):
        errors = {row - len(train): why for row, why in store.errors.items() if len(train) <= row < num_labelled}
        raise DataError(f"none of the images of tuning_data can be used. {describe_unreadable(tuning.images, errors)}")
    keys = image_keys(images, store.digests)
    own_groups = None
    if train.groups is not None:
        own_groups = [key for each in parts for key in each.groups or [""] * len(each)]
        own_groups += [""] * (len(images) - num_labelled)
    groups = joined_groups(len(images), store.digests, own_groups)
    if tuning is None:
        strata = problem.strata(problem.encode(labels.iloc[in_train]))
        of_train = groups[in_train]
        frac = min(HOLDOUT_FRAC, (max_held_out or math.inf) / len(in_train)) if holdout_frac is None else holdout_frac
        times = None if train.times is None else np.asarray(train.times)[in_train]
        has_groups = own_groups is not None
        own = strata, frac, random_state, of_train, has_groups, times
        chosen, held_out = _divided(*own, keys[in_train], earlier, notify)
        in_train, in_val = in_train[chosen], in_train[held_out]
        _warn_of_classes_without_validation(train, labels, in_train, in_val, problem, notify)
    num_val_seen = 0 if earlier is None else int((earlier.sides(keys[in_val]) == FITTED).sum())
    # A validation that the time limit cuts short uses a stratified sample.
    val_strata = problem.strata(problem.encode(labels.iloc[in_val]))
    in_val = in_val[stratified_order(val_strata, np.random.default_rng(0))]
    seconds = time.perf_counter() - start_s
    train_split, val_split = (
        Split(
            part,
            problem.encode(labels.iloc[part]),
            None if weights is None else weights[part],
            groups[part] if len(np.unique(groups)) < len(groups) else None,
        )
        for part in (in_train, in_val)
    )
    names = names_of_classes(problem.classes, train.class_names)
    of_train, of_val = (problem.class_counts(split.targets).tolist() for split in (train_split, val_split))
    reasons = Counter(store.errors.values()).most_common(MAX_LISTED)
    notify(
        DataReady(
            len(in_train),
            len(in_val),
            len(problem.classes),
            len(images) - len(usable),
            seconds,
            [list(row) for row in zip(names, of_train, of_val, strict=True)],
            _image_sizes(store.scan.sizes),
            dict(reasons),
        )
    )
    # One of each picture, and none that has a label.
    free = usable[is_unlabeled]
    free = free[np.sort(np.unique(digests[free], return_index=True)[1])]
    free = free[~np.isin(digests[free], digests[usable[~is_unlabeled]])]
    left_out = {
        "num_unreadable": len(store.errors),
        "reasons": dict(reasons),
        "classes": [*lost, *train.empty_classes],
    }
    prepared = PreparedData(store, train_split, val_split, problem, keys, num_val_seen, left_out)
    return prepared if unlabeled is None else replace(prepared, unlabeled=free)


def _image_sizes(sizes: np.ndarray) -> list[list[int]]:
    """Return the distinct sizes of the images and how often each occurs; of more, those of images evenly by area."""
    sizes = sizes[(sizes > 0).all(1)].astype(np.int64)
    found, counts = np.unique(sizes, axis=0, return_counts=True)
    if len(found) > MAX_SIZES:
        order = np.argsort(sizes.prod(1), kind="stable")
        rows = order[np.linspace(0, len(order) - 1, MAX_SIZES).round().astype(np.int64)]
        found, counts = np.unique(sizes[rows], axis=0, return_counts=True)
    return np.column_stack([found, counts]).tolist()  # type: ignore[no-any-return]


def _divided(
    strata: np.ndarray,
    frac: float,
    random_state: int | None,
    groups: Positions,
    has_groups: bool,
    times: np.ndarray | None,
    keys: Keys,
    earlier: EarlierSplit | None,
    notify: Listener,
) -> tuple[Positions, Positions]:
    """Return the positions of training and validation images; `has_groups` if the user gave any."""

    def split(rows: Positions, part: float) -> tuple[Positions, Positions]:
        if times is not None:
            return split_by_time(strata[rows], times[rows], part, groups[rows])
        return split_holdout(strata[rows], part, random_state, groups[rows], moves_mixed_groups=has_groups)

    every = np.arange(len(strata))
    if not has_groups and times is None and 1 < len(strata) == len(np.unique(strata)):
        text = (
            "each class has a single image, so that none is left for validation: the scores are those of the training"
        )
        notify(
            Warned(f"{text} images, and probabilities are not calibrated on others. Add images, or pass tuning_data")
        )
        return every, every
    if earlier is None:
        return split(every, frac)
    return earlier.hold_out(keys, frac, split, groups if has_groups else None)


def _warn_of_classes_without_validation(
    train: Examples,
    labels: pd.Series | pd.DataFrame,
    in_train: np.ndarray,
    in_val: np.ndarray,
    problem: Problem,
    notify: Listener,
) -> None:
    is_plain = train.groups is None and train.times is None
    if is_plain or not problem.has_one_class or not isinstance(labels, pd.Series):
        return
    lacking = [label for label in labels.iloc[in_train].unique() if label not in set(labels.iloc[in_val])]
    if lacking:
        why = "their images are all in one group, or groups are few" if train.times is None else "none is late enough"
        classes = count_of(len(lacking), "class", "classes")
        notify(Warned(f"no validation image of {classes}: {some(lacking)} ({why}). Scores do not include them"))


def _warn_of_missing(
    store: ImageStore, images: Sequence[ImageLike], listing: Path, notify: Listener, num_selected: int
) -> None:
    """Warn about unreadable images with their reasons, and about images that the time limit left out."""
    if store.errors:
        text = f"{describe_unreadable(images, store.errors)}\n  They are left out"
        if len(store.errors) > MAX_LISTED:
            named = [(name_of(images[index], index), reason) for index, reason in sorted(store.errors.items())]
            pd.DataFrame(named, columns=["image", "reason"]).to_csv(listing, index=False, errors="surrogateescape")
            text += f", and all of them are listed in {listing}"
        notify(Warned(text))
    if not store.skipped:
        return
    if len(images) - len(store.skipped) >= num_selected:
        what = f"{len(images)} images are too many for the time limit; {num_selected} of them are used"
    else:
        what = f"the time limit left no time to decode {len(store.skipped)} of {len(images)} images; they are not used"
    notify(Warned(f"{what}. Increase time_limit to use more"))
