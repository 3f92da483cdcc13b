"""Sections of the report that show validation images: mistakes, uncertain predictions, suspected label errors.

The page shows the first images of each, with what time allows: thumbnails, then the nearest training images, then
saliency maps. Nothing is downloaded for them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from saccade.data.decoding import thumbnail
from saccade.data.sources.download import cached_file
from saccade.errors import ImageReadError, SaccadeError
from saccade.inference.pipeline import InferencePipeline
from saccade.insight.label_issues import probably_wrong
from saccade.remote.urls import is_url
from saccade.report.prediction_sections import as_objects, residuals_frame
from saccade.report.record import RunRecord
from saccade.report.sections import Section
from saccade.tasks.problem import Problem

if TYPE_CHECKING:
    from markupsafe import Markup

    from saccade.data.examples import ImageLike

NUM_SHOWN = 12  # images of a section in the page
NUM_NEIGHBOURS = 3  # training images beside each
NUM_SALIENCY = 4  # images at a time for which saliency maps are computed
NUM_MAPS = 6  # images of a section with a saliency map
SIDE, SMALL_SIDE = 128, 72  # pixels of the longer side of a thumbnail, and of one of a training image
LOADING_S = 1.5  # seconds that networks take to load, about
IMAGES_PER_S = 20.0  # of a network whose throughput is not known
NO_LABEL = "none"  # name of an empty set of labels
MAX_NAME = 60  # letters of a file's name in the page


# Frames


def _labels(problem: Problem, names: Sequence[str], targets: np.ndarray, adjusted: np.ndarray) -> dict[str, pd.Series]:
    """Return the names of the true and of the predicted labels of each image."""
    both = {"true": problem.perfect_predictions(targets), "predicted": adjusted}
    return {
        column: as_objects([", ".join(of_image) or NO_LABEL for of_image in problem.names(given, names)])
        for column, given in both.items()
    }


def mistakes_frame(
    problem: Problem, names: Sequence[str], targets: np.ndarray, predictions: np.ndarray, adjusted: np.ndarray
) -> pd.DataFrame | None:
    """Return the images with a wrong label, by their number, the most confident mistake first.

    The confidence is the calibrated probability of the predicted class; of several labels per image, that of the wrong
    label which is most certain, after thresholds.
    """
    if not problem.has_classes:
        return None
    if problem.has_one_class:
        confidence = problem.confidence(predictions, adjusted)
    else:
        is_given = problem.predicted_labels(adjusted) > 0
        is_wrong = is_given != (targets > 0)
        confidence = np.where(is_wrong, np.where(is_given, adjusted, 1 - adjusted), 0).max(1)
    columns = {"image": np.arange(len(targets)), **_labels(problem, names, targets, adjusted)}
    frame = pd.DataFrame({**columns, "confidence": confidence.astype(np.float64)})
    wrong = frame[~problem.are_right(adjusted, targets)]
    ordered: pd.DataFrame = wrong.sort_values("confidence", ascending=False, kind="stable", ignore_index=True)
    return ordered


def uncertain_frame(
    problem: Problem, names: Sequence[str], targets: np.ndarray, predictions: np.ndarray, adjusted: np.ndarray
) -> pd.DataFrame | None:
    """Return all images by their number, the least certain prediction first; of several labels, the least certain."""
    if not problem.has_classes:
        return None
    confidence = problem.confidence(predictions, adjusted).astype(np.float64)
    columns = {"image": np.arange(len(targets)), **_labels(problem, names, targets, adjusted)}
    is_right = problem.are_right(adjusted, targets)
    frame: pd.DataFrame = pd.DataFrame({**columns, "confidence": confidence, "is_right": is_right})
    ordered: pd.DataFrame = frame.sort_values("confidence", kind="stable", ignore_index=True)
    return ordered


def label_issues_frame(
    problem: Problem, names: Sequence[str], targets: np.ndarray, predictions: np.ndarray, _: np.ndarray
) -> pd.DataFrame | None:
    """Return the images whose label is probably wrong, by confident learning from the predictions for them.

    As `ImagePredictor.label_issues` does for training images, from out-of-fold predictions.
    """
    if not problem.has_one_class or len(np.unique(targets)) < 2:
        return None
    confidence = predictions[np.arange(len(targets)), targets].astype(np.float64)
    flagged = np.flatnonzero(probably_wrong(predictions.astype(np.float64), targets))
    flagged = flagged[np.argsort(confidence[flagged], kind="stable")]
    named = {"label": targets[flagged], "suggested_label": predictions[flagged].argmax(1)}
    columns = {column: as_objects([names[number] for number in numbers.tolist()]) for column, numbers in named.items()}
    frame: pd.DataFrame = pd.DataFrame({"image": flagged, **columns, "self_confidence": confidence[flagged]})
    return frame


def _of_record(make: Callable[..., pd.DataFrame | None]) -> Callable[[RunRecord], pd.DataFrame | None]:
    """Return the function of a record that makes this table, with the paths of its images."""

    def frame(record: RunRecord) -> pd.DataFrame | None:
        saved, found = record.saved, record.validation
        if saved is None or found is None:
            return None
        table = make(saved.problem, saved.names_of_classes, found.targets, found.predictions, found.adjusted)
        if table is not None and found.paths:
            table["path"] = as_objects([found.paths[number] for number in table["image"].tolist()])
        return table

    return frame


# Pictures


@dataclass(eq=False)
class Pictures:
    """What the page shows of validation images, by their numbers."""

    thumbnails: dict[int, str] = field(default_factory=dict)  # data URLs
    reasons: dict[int, str] = field(default_factory=dict)  # why an image has no thumbnail
    overlays: dict[int, str] = field(default_factory=dict)  # data URLs of saliency maps
    neighbours: dict[int, list[tuple[str, str, float, str]]] = field(default_factory=dict)
    """The nearest training images: path, label, similarity (a cosine) and the data URL, or "" if it is missing."""
    note: str = ""  # why saliency maps or training images are missing


_pictures: WeakKeyDictionary[RunRecord, Pictures] = WeakKeyDictionary()


def pictures_of(record: RunRecord) -> Pictures:
    """Return the pictures of all sections: they share the networks' passes, and the time that is left."""
    if record not in _pictures:
        _pictures[record] = _make_pictures(record)
    return _pictures[record]


def _make_pictures(record: RunRecord) -> Pictures:
    pictures, saved, found = Pictures(), record.saved, record.validation
    if saved is None or found is None:
        return pictures
    frames = [section.frame(record) for section in IMAGE_SECTIONS if section.html is not None]
    shown = [frame["image"].head(NUM_SHOWN).tolist() for frame in frames if frame is not None]
    sources: dict[int, ImageLike] = {}
    for number in dict.fromkeys(number for numbers in shown for number in numbers):
        path = found.paths[number] if found.paths else ""
        source = path or (record.image(int(found.rows[number])) if len(found.rows) else None)
        try:
            if record.seconds_left() <= 0:
                raise ImageReadError("the time limit left no time for it")
            sources[number] = local_source(source)
            pictures.thumbnails[number] = thumbnail(sources[number], SIDE, saved.pixel_range)
        except ImageReadError as error:
            pictures.reasons[number] = str(error)
    readable = {number: source for number, source in sources.items() if number in pictures.thumbnails}
    images_per_s = saved.summary.get("images_per_s") or IMAGES_PER_S
    if record.pipeline is None:
        pictures.note = "Saliency maps and training images require the code of the network: load(path, net=…)."
    elif readable and record.seconds_left() < LOADING_S + 2 * len(readable) / images_per_s:
        pictures.note = "The time limit left no time for saliency maps and training images: saccade report adds them."
    elif readable:
        first = dict.fromkeys(number for numbers in shown for number in numbers[:NUM_MAPS])
        with_map = {number: readable[number] for number in first if number in readable}
        try:
            _add_neighbours(pictures, record, record.pipeline, readable)
            _add_overlays(pictures, record, record.pipeline, with_map, 20 / images_per_s)
        except (SaccadeError, RuntimeError) as error:  # such as a network without a classifier layer, or memory
            pictures.note = f"Saliency maps or training images are not available: {error}."
    return pictures


def local_source(source: ImageLike | None) -> ImageLike:
    """Return an image that can be read without a network; an ImageReadError says why there is none."""
    if source is None:
        raise ImageReadError("its path is not known")
    if is_url(source):
        path = cached_file(str(source))
        if path is None:
            raise ImageReadError("it was given as a URL, and is not in the cache of downloads")
        return path
    if isinstance(source, str | os.PathLike) and not Path(source).is_file():
        raise ImageReadError("the file is not found")
    return source


def _add_neighbours(
    pictures: Pictures, record: RunRecord, pipeline: InferencePipeline, images: dict[int, ImageLike]
) -> None:
    """Find the nearest of the training images whose features are stored."""
    from saccade.insight.embeddings import nearest_rows, unit_vectors  # slow to import

    bank, saved = pipeline.stored_features(), pipeline.saved
    if bank is None or not len(bank.train):
        return
    features, _ = pipeline.features(list(images.values()))
    rows, cosines = nearest_rows(unit_vectors(features), bank.units.numpy(), NUM_NEIGHBOURS)
    problem = saved.problem
    names = problem.names(problem.perfect_predictions(bank.train_targets), saved.names_of_classes)
    for number, of_image, its_cosines in zip(images, rows.tolist(), cosines.tolist(), strict=True):
        pictures.neighbours[number] = []
        for row, cosine in zip(of_image, its_cosines, strict=True):
            if row < 0:
                continue
            source = record.image(int(bank.train_rows[row])) if len(bank.train_rows) else None
            try:
                url = thumbnail(local_source(source), SMALL_SIDE, saved.pixel_range)
            except ImageReadError:
                url = ""
            path = str(source) if isinstance(source, str | os.PathLike) else ""
            pictures.neighbours[number].append((path, ", ".join(names[row]) or NO_LABEL, cosine, url))


def _add_overlays(
    pictures: Pictures, record: RunRecord, pipeline: InferencePipeline, images: dict[int, ImageLike], image_s: float
) -> None:
    """Add saliency maps, a few at a time while time is left; the first image takes about `image_s` seconds."""
    from saccade.insight.reasons import small_overlay  # slow to import
    from saccade.insight.saliency import SaliencyMapper

    assert record.validation is not None
    for start in range(0, len(images), NUM_SALIENCY):
        if record.seconds_left() < NUM_SALIENCY * image_s:
            pictures.note = "The time limit left no time for more saliency maps: saccade report adds them."
            return
        start_s, numbers = time.monotonic(), list(images)[start : start + NUM_SALIENCY]
        decided = record.validation.adjusted[numbers].argmax(1)
        (maps,), errors = pipeline.run([images[number] for number in numbers], SaliencyMapper(decided), 1)
        for place, number in enumerate(numbers):
            overlay = small_overlay(images[number], maps[place], pipeline.saved.blueprint.input)
            if place not in errors and overlay is not None:
                pictures.overlays[number] = thumbnail(overlay, SIDE)
        image_s = (time.monotonic() - start_s) / len(numbers)


def neighbours_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return the nearest training images of the images that the page shows; None if they are not known."""
    rows = [
        (number, rank, path, label, similarity)
        for number, found in pictures_of(record).neighbours.items()
        for rank, (path, label, similarity, _) in enumerate(found, 1)
    ]
    if not rows:
        return None
    names = ("image", "rank", "path", "label", "similarity")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    frame: pd.DataFrame = pd.DataFrame(
        {name: as_objects(values) if name in ("path", "label") else list(values) for name, values in columns.items()}
    )
    return frame


# Page


def _cards(empty: str, caption: Callable[[dict[str, Any]], list[tuple[str, str]]]) -> Callable[..., Markup]:
    """Return the function that shows the first images of a table with their captions; `empty` if there are none."""

    def html(record: RunRecord, frame: pd.DataFrame) -> Markup:
        from saccade.report.page import cards, table

        pictures = pictures_of(record)
        shown = []
        for row in frame.head(NUM_SHOWN).to_dict("records"):
            number = row["image"]
            path = row.get("path", "")
            name = "/".join(Path(path).parts[-2:]) if path and not is_url(path) else path
            shown.append(
                {
                    "name": name if len(name) <= MAX_NAME else f"…{name[1 - MAX_NAME :]}",
                    "path": path,
                    "number": number,
                    "caption": caption(row),
                    "is_wrong": row.get("is_right") is False,
                    "thumbnail": pictures.thumbnails.get(number),
                    "reason": pictures.reasons.get(number, ""),
                    "overlay": pictures.overlays.get(number),
                    "neighbours": pictures.neighbours.get(number, ()),
                }
            )
        return cards(shown, empty, pictures.note) + (table(frame, "Images") if len(frame) else "")

    return html


def _caption(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [("predicted", f"{row['predicted']} ({row['confidence']:.1%})"), ("true", row["true"])]


def _residual_caption(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [("predicted", f"{row['predicted']:.4g}"), ("true", f"{row['true']:.4g}")]


def _issue_caption(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [("label", f"{row['label']} ({row['self_confidence']:.1%})"), ("rather", row["suggested_label"])]


_BESIDE = (
    "Beside an image: its saliency map, bright where it speaks for the prediction; and the most similar training "
    "images with their labels."
)

IMAGE_SECTIONS = (
    Section(
        "mistakes",
        "Most confident mistakes",
        f"Validation images whose predicted label is wrong and has a high probability. {_BESIDE}",
        _of_record(mistakes_frame),
        html=_cards("The labels of all validation images are right.", _caption),
        is_slow=True,
    ),
    Section(
        "uncertain",
        "Least certain images",
        "Validation images whose predicted label has the lowest probability, right or wrong.",
        _of_record(uncertain_frame),
        html=_cards("The run has no validation images.", _caption),
        is_slow=True,
    ),
    Section(
        "largest_errors",
        "Largest errors",
        f"Validation images whose value is farthest from the prediction. {_BESIDE}",
        _of_record(residuals_frame),
        html=_cards("The run has no validation images.", _residual_caption),
        is_slow=True,
    ),
    Section(
        "label_issues",
        "Suspected label errors",
        "Validation images whose label is probably wrong, by confident learning: another class is clearly more "
        "probable, compared with other images of their label. The percentage is the probability of the given label. "
        "predictor.label_issues() examines the training images.",
        _of_record(label_issues_frame),
        html=_cards("No label of a validation image is suspected to be wrong.", _issue_caption),
        is_slow=True,
    ),
    Section(
        "neighbours",
        "Nearest training images",
        "The training images beside the images above, with their similarity: the cosine of the features of both.",
        neighbours_frame,
        is_slow=True,
    ),
)
