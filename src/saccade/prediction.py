"""From images to predictions of a fitted network, and from these to what a user gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from saccade.data.examples import Examples
from saccade.data.labels import are_numbers_of_classes
from saccade.data.on_demand import OnDemandImages
from saccade.errors import DataError, ImageReadError
from saccade.events import Progressed, Warned
from saccade.report.progress import ProgressDisplay
from saccade.saved import SavedPredictor
from saccade.training.classifier import Classifier
from saccade.training.doubt import Doubt

Compute = Callable[..., np.ndarray]
"""``compute(classifier, batches, on_batch=…)``: a row for each image."""


def compute_in_batches(
    classifier: Classifier, examples: Examples, compute: Compute, verbosity: int
) -> tuple[np.ndarray, dict[int, str]]:
    """Decode the images as they are needed, and return what `compute` makes of them.

    Parameters
    ----------
    classifier : Classifier
        The fitted network.
    examples : Examples
        At least one image.
    compute : callable
        What is wanted of each image.
    verbosity : int
        2 shows progress on a terminal, 1 names unreadable images, 0 is silent.

    Returns
    -------
    rows : ndarray, shape (num_images, ...)
        The rows of unreadable images mean nothing.
    errors : dict
        Why an image cannot be read, by its number.

    Raises
    ------
    ImageReadError
        When not a single image can be read.
    """
    blueprint = classifier.blueprint
    images = OnDemandImages(
        examples.images, round(blueprint.input.img_size / blueprint.input.crop_pct), blueprint.in_chans
    )
    with ProgressDisplay(verbosity, "") as display:
        num_done = 0

        def on_batch(num_images: int) -> None:
            nonlocal num_done
            num_done += num_images
            display(Progressed("predicting", num_done, len(examples)))

        batches = classifier.batches(images, np.arange(len(examples)))
        classifier.choose_inference(len(batches), batches.batch_size)
        rows = compute(classifier, batches, on_batch=on_batch)
        if images.errors:
            _report_unreadable(examples, images.errors, display)
    return rows, images.errors


def decoded(
    saved: SavedPredictor,
    predictions: np.ndarray,
    errors: dict[int, str],
    index: pd.Index | None,
    doubt: Doubt | None = None,
) -> pd.Series | pd.DataFrame | np.ndarray:
    """Return predictions as labels as they were given, None where an image could not be read.

    Parameters
    ----------
    saved : SavedPredictor
        Whose predictions they are.
    predictions : ndarray, shape (num_images, num_outputs)
        Probabilities, or numbers.
    errors : dict
        As `compute_in_batches` returns them.
    index : pandas.Index or None
        The index of the result; None returns an array.
    doubt : Doubt or None
        When there is to be another value in the place of a label; None is never.
    """
    labels = saved.problem.decode(saved.trust.thresholds.decided(predictions))
    if doubt is not None:
        labels = doubt.mark(labels, predictions, saved.trust.conformal)
    if errors:
        labels = labels.astype(object)
        labels[list(errors)] = None
    if index is None:
        return labels
    if labels.ndim == 2:
        columns: pd.DataFrame = pd.DataFrame(labels, index, columns=list(saved.problem.classes))
        return columns
    series: pd.Series = pd.Series(labels, index, name=str(saved.label))
    return series


def decoded_sets(
    saved: SavedPredictor, predictions: np.ndarray, coverage: float, errors: dict[int, str], index: pd.Index | None
) -> pd.Series | np.ndarray:
    """Return a list of labels, or for regression an interval, for each image, None where it could not be read.

    Parameters
    ----------
    saved, predictions, errors, index
        As in `decoded`.
    coverage : float
        As in `saccade.training.conformal.Conformal.threshold`.
    """
    conformal, problem = saved.trust.conformal, saved.problem
    sets = np.empty(len(predictions), object)
    if problem.type == "regression":
        sets[:] = conformal.intervals(predictions, coverage)
    else:
        for row, numbers in enumerate(conformal.label_sets(predictions, coverage)):
            sets[row] = [problem.classes[number] for number in numbers]
    sets[list(errors)] = None
    if index is None:
        return sets
    series: pd.Series = pd.Series(sets, index, name=str(saved.label))
    return series


def labels_by_name(examples: Examples, saved: SavedPredictor) -> pd.Series | pd.DataFrame:
    """Return labels as the predictor knows them: classes are the same when their names are.

    A data set of folders numbers its classes, and another one may count them otherwise; a table has the names, or
    values, themselves. What has no names among those that were trained is compared as it is.

    Raises
    ------
    DataError
        When a data set names classes that were not trained, and the training data had names too.
    """
    labels, names = examples.labels, examples.class_names
    assert labels is not None
    if isinstance(labels, pd.DataFrame) or saved.problem.type not in ("binary", "multiclass"):
        return labels
    label_of = dict(zip(saved.names_of_classes, saved.problem.classes, strict=True))
    is_numbered = bool(names) and are_numbers_of_classes(labels, names)
    named = labels.map(dict(enumerate(names or ()))) if is_numbered else labels
    if is_numbered and saved.class_names:
        strangers = [name for name in dict.fromkeys(named) if name not in label_of]
        if strangers:
            raise DataError(f"classes {strangers} are not among those that were trained: {list(label_of)}")
    is_known = named.map(lambda name: isinstance(name, str) and name in label_of)
    return named.map(label_of) if is_known.all() else labels


def _report_unreadable(examples: Examples, errors: dict[int, str], display: ProgressDisplay) -> None:
    named = [
        f"{image if isinstance(image := examples.images[index], str | Path) else f'image {index}'}: {reason}"
        for index, reason in sorted(errors.items())
    ]
    if len(errors) == len(examples):
        more = f"; nor can the {len(errors) - 1} others" if len(errors) > 1 else ""
        raise ImageReadError(f"{named[0]}{more}")
    display(Warned("\n  ".join([f"{len(errors)} of {len(examples)} images cannot be read:", *named])))
