"""Why images get their labels: what is said of them, of which it is worth asking, and what they are like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from saccade.checks import whole_number
from saccade.data.decoding import read_image
from saccade.data.examples import Examples, ImageLike
from saccade.data.labels import are_numbers_of_classes
from saccade.errors import ImageReadError
from saccade.inference.pipeline import InferencePipeline, Predictions
from saccade.inference.saved import SavedPredictor
from saccade.insight.embeddings import EmbeddedImages, nearest_rows
from saccade.insight.overlays import draw_overlay, place_in_image
from saccade.insight.saliency import SaliencyMapper
from saccade.models.network import InputSpec
from saccade.report.reasons import Neighbour, Reason

MOST_IMAGES, MOST_NEIGHBOURS = 200, 50
"""Of one picture; matplotlib draws none of more than 65,535 pixels a side."""

OVERLAY_SIDE = 256
"""Pixels of an overlay's longer side: more than a tile has, and little memory however large the photos are."""

NO_LABEL = "none"
"""What is said of an image that has none of several labels."""


def check_numbers(k: int, num_images: int) -> None:
    """Raise an error unless so many images, with so many like each, make a picture.

    Raises
    ------
    HyperparameterError
        When they do not.
    """
    for name, value, most in (("k", k, MOST_NEIGHBOURS), ("num_images", num_images, MOST_IMAGES)):
        whole_number(name, value, most=most)


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What a predictor says of images.

    Attributes
    ----------
    predicted : list of str
        The name of the label of each image; of several labels, their names; or the value.
    true : list of str or None
        The same of the true labels; None where they are not known.
    probabilities : list of float or None
        Of the label that is given; None for several labels, and values.
    targets : ndarray of int, shape (num_images,)
        The output to explain: the label that is given, or the most probable of several; 0 for values.
    weights : ndarray of float64, shape (num_images,)
        How sure the predictor is; how large the error of a value is.
    is_wrong : ndarray of bool, shape (num_images,)
        Whether the label is known to be another one; whether the error of a value is known.
    """

    predicted: list[str]
    true: list[str | None]
    probabilities: list[float | None]
    targets: np.ndarray
    weights: np.ndarray
    is_wrong: np.ndarray

    @classmethod
    def of(cls, predictions: Predictions, examples: Examples, saved: SavedPredictor) -> Verdicts:
        """Return the names of the labels that a predictor gives to images, and of their true labels."""
        true = label_names(examples.labels, examples.class_names, saved)
        true = true if examples.labels is not None else [None] * len(examples)
        if not saved.problem.has_classes:
            return cls._of_values(predictions.predictions[:, 0], true)
        predicted = [_listed(names or []) for names in predictions.names(saved.names_of_classes)]
        probabilities = predictions.label_probabilities
        confidence = saved.problem.confidence(predictions.predictions, predictions.adjusted)
        sureness = np.nan_to_num(confidence)
        is_wrong = [truth is not None and truth != name for truth, name in zip(true, predicted, strict=True)]
        return cls(
            predicted, true, probabilities, predictions.main_class, sureness.astype(np.float64),
            np.array(is_wrong, np.bool_),
        )  # fmt: skip

    @classmethod
    def _of_values(cls, values: np.ndarray, true: list[str | None]) -> Verdicts:
        is_known = np.array([truth is not None for truth in true], np.bool_)
        pairs = zip(np.nan_to_num(values).tolist(), true, strict=True)
        errors = [0.0 if truth is None else abs(value - float(truth)) for value, truth in pairs]
        names = [_value(value) for value in values]
        targets = np.zeros(len(values), np.int64)
        return cls(names, true, [None] * len(true), targets, np.array(errors, np.float64), is_known)

    def rows_to_show(self, unreadable: Iterable[int], num_images: int) -> list[int]:
        """Return the numbers of the images of which it is most worth asking why; all, and as they are, if so few.

        First come the mistakes, those of which the predictor is surest (or the largest errors of values); then those of
        which it is least sure; and last those that cannot be read.

        Examples
        --------
        >>> sure, is_wrong = np.array([0.9, 0.6, 0.8, 0.95]), np.array([False, True, False, True])
        >>> verdicts = Verdicts(list("aaaa"), list("abab"), [None] * 4, np.zeros(4, int), sure, is_wrong)
        >>> verdicts.rows_to_show([], 3), verdicts.rows_to_show([3], 3), verdicts.rows_to_show([], 4)
        ([3, 1, 2], [1, 2, 0], [0, 1, 2, 3])
        """
        if len(self.predicted) <= num_images:
            return list(range(len(self.predicted)))
        group = np.where(self.is_wrong, 0, 1)
        group[list(unreadable)] = 2
        order = np.lexsort((np.where(self.is_wrong, -self.weights, self.weights), group))
        return [int(row) for row in order[:num_images]]


def find_reasons(
    pipeline: InferencePipeline,
    examples: Examples,
    train: EmbeddedImages,
    k: int,
    num_images: int,
    embed: Callable[[Examples], EmbeddedImages],
    verbosity: int,
) -> list[Reason]:
    """Return the label, the overlay and the nearest training images of those images that are most worth explaining.

    Parameters
    ----------
    pipeline : InferencePipeline
        Predicts the images.
    examples : Examples
        The images.
    train : EmbeddedImages
        The training images.
    k, num_images : int
        Training images for each image, and the maximum number of images.
    embed : callable
        Returns images with their features.
    verbosity : int
        As in `InferencePipeline.predict`.
    """
    saved = pipeline.saved
    predictions = pipeline.predict(examples.images, verbosity=verbosity)
    verdicts = Verdicts.of(predictions, examples, saved)
    rows = verdicts.rows_to_show(predictions.errors, num_images)
    readable = [row for row in rows if row not in predictions.errors]
    asked = Examples([examples.images[row] for row in readable], pd.RangeIndex(len(readable)))
    (maps,), _ = pipeline.run(asked.images, SaliencyMapper(verdicts.targets[readable]), 1, verbosity)
    near = neighbours_of(embed(asked), train, k, saved)
    found = dict(zip(readable, zip(maps, near, strict=True), strict=True))
    reasons = []
    for row in rows:
        image, true = examples.images[row], verdicts.true[row]
        if row not in found:
            reasons.append(Reason(image, None, true=true))
            continue
        map_HW, neighbours = found[row]
        reasons.append(
            Reason(
                image,
                verdicts.predicted[row],
                verdicts.probabilities[row],
                true,
                small_overlay(image, map_HW, saved.blueprint.input),
                neighbours,
                is_number=not saved.problem.has_classes,
            )
        )
    return reasons


def label_names(
    labels: pd.Series | pd.DataFrame | None, class_names: Sequence[str] | None, saved: SavedPredictor
) -> list[str | None]:
    """Return labels as people read them: the names of classes, several names, or a value; None where one is missing.

    Data sets number their classes each in its own way, so labels are compared by these.

    Parameters
    ----------
    labels : Series, DataFrame of 0 and 1, or None
        As `saccade.data.examples.Examples` has them; no labels have no names.
    class_names : sequence of str or None
        Those of the same images.
    saved : SavedPredictor
        Its problem says what labels are, and its names of classes are those of numbers without names.
    """
    if labels is None:
        return []
    problem = saved.problem
    name_of: dict[Any, str] = dict(zip(problem.classes, saved.names_of_classes, strict=True))
    if isinstance(labels, pd.DataFrame):
        columns = [str(name) for name in labels.columns]
        rows = zip((labels == 1).to_numpy(bool), labels.isna().any(axis=1), strict=True)
        return [None if lacks else _listed([columns[number] for number in np.flatnonzero(row)]) for row, lacks in rows]
    if not problem.has_classes:
        return [None if pd.isna(value) else _value(value) for value in pd.to_numeric(labels, errors="coerce")]
    if not problem.has_one_class:
        return [_listed_labels(value, name_of) for value in labels]
    if class_names is not None and are_numbers_of_classes(labels, class_names):
        name_of = dict(enumerate(class_names))
    return [_name(value, name_of) for value in labels]


def neighbours_of(
    queries: EmbeddedImages, among: EmbeddedImages, k: int, saved: SavedPredictor
) -> list[tuple[Neighbour, ...]]:
    """Return the images that are most like each of some others, the nearest first."""
    rows, cosines = nearest_rows(queries.vectors, among.vectors, k)
    labels = among.examples.labels
    found = np.unique(rows[rows >= 0])
    names = label_names(None if labels is None else labels.iloc[found], among.examples.class_names, saved)
    name_of: dict[int, str | None] = dict(zip(found.tolist(), names, strict=False))
    images = among.examples.images
    return [
        tuple(
            Neighbour(images[row], name_of.get(row), cosine)
            for row, cosine in zip(of_query, its_cosines, strict=True)
            if row >= 0
        )
        for of_query, its_cosines in zip(rows.tolist(), cosines.tolist(), strict=True)
    ]


def small_overlay(image: ImageLike, map_HW: np.ndarray, spec: InputSpec) -> Image.Image | None:
    """Return a saliency map over its image, of `OVERLAY_SIDE` pixels at most; None where there is nothing to be seen.

    That is where no place speaks for the label, or the image cannot be read.

    Parameters
    ----------
    image : path, bytes, Pillow image or array
        The image.
    map_HW : ndarray of float32, shape (height, width)
        Of what the network saw of it.
    spec : InputSpec
        How the network's input is cut from the image.
    """
    if not map_HW.any():
        return None
    try:
        picture = read_image(image, min_shorter_side=OVERLAY_SIDE).copy()
    except ImageReadError:
        return None
    picture.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
    return draw_overlay(picture, place_in_image(map_HW, picture.size, spec))


def _name(label: Any, name_of: dict[Any, str]) -> str | None:
    """Return the name of a label; one that is no class is called as it is."""
    if not pd.api.types.is_scalar(label):
        return str(label)
    return None if pd.isna(label) else name_of.get(label, str(label))


def _listed_labels(labels: Any, name_of: dict[Any, str]) -> str | None:
    """Return the names of an image's labels in the order of the classes."""
    if pd.api.types.is_scalar(labels):
        return _name(labels, name_of)
    order = list(name_of.values())
    names = {name_of.get(label, str(label)) for label in labels}
    return _listed(sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name)))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or NO_LABEL


def _value(value: float) -> str:
    return f"{value:.6g}"
