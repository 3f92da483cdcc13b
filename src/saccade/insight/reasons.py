"""Explain predictions: select images, and find their saliency overlays and most similar training images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from saccade.checks import whole_number
from saccade.data.classes import are_numbers_of_classes
from saccade.data.decoding import read_image
from saccade.data.examples import Examples, ImageLike
from saccade.errors import ImageReadError
from saccade.inference.pipeline import InferencePipeline, Predictions
from saccade.inference.saved import SavedPredictor
from saccade.insight.embeddings import EmbeddedImages, nearest_rows
from saccade.insight.figures import Neighbour, Reason
from saccade.insight.saliency import SaliencyMapper, draw_overlay, place_in_image
from saccade.models.network import InputSpec

MAX_IMAGES, MAX_NEIGHBOURS = 200, 50  # maximum numbers in one figure; the limit of matplotlib is 65,535 pixels a side
OVERLAY_SIDE = 256  # longer side of an overlay in pixels: more than a tile, and little memory even for large photos
NO_LABEL = "none"  # name of an empty set of labels


def check_numbers(k: int, num_images: int) -> None:
    """Raise a HyperparameterError unless a figure can have `num_images` images with `k` neighbours each."""
    whole_number("k", k, most=MAX_NEIGHBOURS)
    whole_number("num_images", num_images, most=MAX_IMAGES)


@dataclass(frozen=True, eq=False)
class NamedPredictions:
    """Predictions with the names of labels."""

    predicted: list[str]  # predicted class name, names of the predicted labels, or predicted value of each image
    true: list[str | None]  # true class name, names of the true labels, or true value; None if unknown
    probabilities: list[float | None]  # probability of the predicted class; None for multilabel problems and regression
    # shape (num_images,); output to explain: the predicted class, or the most probable label; 0 for regression
    targets: np.ndarray
    weights: np.ndarray  # shape (num_images,); confidence; for regression the absolute error
    # shape (num_images,); whether the true label is known and another one; for regression whether it is known
    is_wrong: np.ndarray

    @classmethod
    def of(cls, predictions: Predictions, examples: Examples, saved: SavedPredictor) -> NamedPredictions:
        """Return the names of the predicted and of the true labels."""
        true = label_names(examples.labels, examples.class_names, saved)
        true = true if examples.labels is not None else [None] * len(examples)
        if not saved.problem.has_classes:
            values = predictions.predictions[:, 0]
            pairs = zip(np.nan_to_num(values).tolist(), true, strict=True)
            errors = [0.0 if truth is None else abs(value - float(truth)) for value, truth in pairs]
            is_known = np.array([truth is not None for truth in true], np.bool_)
            first, names = np.zeros(len(values), np.int64), [_value(value) for value in values]
            return cls(names, true, [None] * len(true), first, np.array(errors, np.float64), is_known)
        predicted = [_joined(names or []) for names in predictions.names(saved.names_of_classes)]
        probabilities = predictions.label_probabilities
        confidence = np.nan_to_num(saved.problem.confidence(predictions.predictions, predictions.adjusted))
        is_wrong = [truth is not None and truth != name for truth, name in zip(true, predicted, strict=True)]
        return cls(
            predicted, true, probabilities, predictions.main_class, confidence.astype(np.float64),
            np.array(is_wrong, np.bool_),
        )  # fmt: skip

    def rows_to_show(self, unreadable: Iterable[int], num_images: int) -> list[int]:
        """Return the numbers of the most interesting images; all in their order if there are at most `num_images`.

        First mistakes with the highest confidence (or the largest errors), then low confidence, then unreadable images.
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
    """Return label, overlay and nearest training images of the most interesting images."""
    saved = pipeline.saved
    predictions = pipeline.predict(examples.images, verbosity=verbosity)
    named = NamedPredictions.of(predictions, examples, saved)
    rows = named.rows_to_show(predictions.errors, num_images)
    readable = [row for row in rows if row not in predictions.errors]
    asked = Examples([examples.images[row] for row in readable], pd.RangeIndex(len(readable)))
    (maps,), _ = pipeline.run(asked.images, SaliencyMapper(named.targets[readable]), 1, verbosity)
    near = neighbours_of(embed(asked), train, k, saved)
    found = dict(zip(readable, zip(maps, near, strict=True), strict=True))
    reasons = []
    for row in rows:
        image, true = examples.images[row], named.true[row]
        if row not in found:
            reasons.append(Reason(image, None, true=true))
            continue
        map_HW, neighbours = found[row]
        reasons.append(
            Reason(
                image,
                named.predicted[row],
                named.probabilities[row],
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
    """Return the class name, names or value of each label, by which data sets are compared; None if missing."""
    if labels is None:
        return []
    problem = saved.problem
    name_of: dict[Any, str] = dict(zip(problem.classes, saved.names_of_classes, strict=True))
    if isinstance(labels, pd.DataFrame):
        columns = [str(name) for name in labels.columns]
        rows = zip((labels == 1).to_numpy(bool), labels.isna().any(axis=1), strict=True)
        return [
            None if is_missing else _joined([columns[number] for number in np.flatnonzero(row)])
            for row, is_missing in rows
        ]
    if not problem.has_classes:
        return [None if pd.isna(value) else _value(value) for value in pd.to_numeric(labels, errors="coerce")]
    if not problem.has_one_class:
        return [_joined_labels(value, name_of) for value in labels]
    if class_names is not None and are_numbers_of_classes(labels, class_names):
        name_of = dict(enumerate(class_names))
    return [_name(value, name_of) for value in labels]


def neighbours_of(
    queries: EmbeddedImages, among: EmbeddedImages, k: int, saved: SavedPredictor
) -> list[tuple[Neighbour, ...]]:
    """Return the most similar images of each query, the nearest first."""
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
    """Return an overlay of at most `OVERLAY_SIDE` pixels; None for an empty map or an unreadable image."""
    if not map_HW.any():
        return None
    try:
        picture = read_image(image, min_shorter_side=OVERLAY_SIDE).copy()
    except ImageReadError:
        return None
    picture.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
    return draw_overlay(picture, place_in_image(map_HW, picture.size, spec))


def _name(label: Any, name_of: dict[Any, str]) -> str | None:
    """Return the name of a label, or the label itself if it is not a class."""
    if not pd.api.types.is_scalar(label):
        return str(label)
    return None if pd.isna(label) else name_of.get(label, str(label))


def _joined_labels(labels: Any, name_of: dict[Any, str]) -> str | None:
    """Return the names of the labels of an image in the order of the classes."""
    if pd.api.types.is_scalar(labels):
        return _name(labels, name_of)
    order = list(name_of.values())
    names = {name_of.get(label, str(label)) for label in labels}
    return _joined(sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name)))


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names) or NO_LABEL


def _value(value: float) -> str:
    return f"{value:.6g}"
