"""From images to predictions of a fitted network, and from these to what a user gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from saccade.data.examples import Examples
from saccade.data.labels import are_numbers_of_classes
from saccade.data.store.on_demand import OnDemandImages
from saccade.errors import DataError, ImageReadError
from saccade.events import Progressed, Warned
from saccade.inference.abstention import Doubt
from saccade.inference.classifier import Classifier
from saccade.inference.saved import SavedPredictor
from saccade.models.network import InputSpec
from saccade.study.progress import ProgressDisplay

Compute = Callable[..., np.ndarray]
"""``compute(classifier, batches)``, or ``compute(classifier, batches, on_batch=…)``: a row for each image."""

BATCH_SIZE = 32
"""Images that a network sees at once: enough for the arithmetic to be at its best, few enough to fit any memory."""


def compute_in_batches(
    classifiers: Sequence[Classifier], examples: Examples, compute: Compute, verbosity: int
) -> tuple[list[np.ndarray], dict[int, str]]:
    """Decode the images as they are needed, and return what `compute` makes of them with each network.

    Threads decode the images that come next while the networks work on those before, and nothing but the results is
    kept. Networks that want images of one size see each as it was decoded for the first of them; of several such
    networks, all do a batch before the next one. Each computes in the numerics that were measured to be its fastest.

    Parameters
    ----------
    classifiers : sequence of Classifier
        The fitted networks, at least one.
    examples : Examples
        At least one image.
    compute : callable
        What is wanted of each image. For several networks it is called batch by batch, so it may not depend on what
        else is in a batch.
    verbosity : int
        2 shows progress on a terminal, 1 names unreadable images, 0 is silent.

    Returns
    -------
    rows : list of ndarray, each of shape (num_images, ...)
        Of each network. The rows of unreadable images mean nothing.
    errors : dict
        Why an image cannot be read, by its number.

    Raises
    ------
    ImageReadError
        When not a single image can be read.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for number, classifier in enumerate(classifiers):
        spec = classifier.blueprint.input
        decoded_as = round(spec.img_size / spec.crop_pct), classifier.blueprint.in_chans
        groups.setdefault(decoded_as, []).append(number)
    rows: dict[int, np.ndarray] = {}
    errors: dict[int, str] = {}
    num_done = 0
    with ProgressDisplay(verbosity, "") as display:

        def on_batch(num_images: int) -> None:
            nonlocal num_done
            num_done += num_images
            display(Progressed("predicting", num_done, len(groups) * len(examples)))

        for (shorter_side, channels), numbers in groups.items():
            group = [classifiers[number] for number in numbers]
            images = OnDemandImages(examples.images, shorter_side, channels, len(_inputs(group)))
            rows |= zip(numbers, _rows_of_group(group, images, len(examples), compute, on_batch), strict=True)
            errors = {**images.errors, **errors}
        if errors:
            _report_unreadable(examples, errors, display)
    return [rows[number] for number in range(len(classifiers))], errors


def _inputs(classifiers: Sequence[Classifier]) -> list[InputSpec]:
    """Return the different ways in which networks see an image."""
    return list(dict.fromkeys(classifier.blueprint.input for classifier in classifiers))


def _rows_of_group(
    classifiers: Sequence[Classifier],
    images: OnDemandImages,
    num_images: int,
    compute: Compute,
    on_batch: Callable[[int], None],
) -> list[np.ndarray]:
    """Return what `compute` makes of images that are decoded alike for all these networks."""
    indices = np.arange(num_images)
    batches_of = {
        classifier.blueprint.input: classifier.batches(images, indices, batch_size=BATCH_SIZE)
        for classifier in classifiers
    }
    for classifier in classifiers:
        classifier.choose_inference(-(-num_images // BATCH_SIZE), BATCH_SIZE)
        classifier.fuse()  # for one image as for many, so that it gets the same numbers
    if len(classifiers) == 1:
        return [compute(classifiers[0], *batches_of.values(), on_batch=on_batch)]
    rows: list[np.ndarray] = []
    first = 0
    for together in zip(*(batches.in_order() for batches in batches_of.values()), strict=True):
        batch_of = dict(zip(batches_of, map(_OneBatch, together), strict=True))
        parts = [compute(classifier, batch_of[classifier.blueprint.input]) for classifier in classifiers]
        rows = rows or [np.empty((num_images, *part.shape[1:]), part.dtype) for part in parts]
        for all_rows, part in zip(rows, parts, strict=True):
            all_rows[first : first + len(part)] = part
        first += len(parts[0])
        on_batch(len(parts[0]))
    return rows


class _OneBatch:
    """Stands for `Batches` of which there is only one."""

    def __init__(self, batch: tuple[torch.Tensor, ...]) -> None:
        self._batch = batch

    def in_order(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """One pass."""
        yield self._batch


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
        As in `saccade.inference.conformal.Conformal.threshold`.
    """
    conformal, problem = saved.trust.conformal, saved.problem
    sets = np.empty(len(predictions), object)
    for row, one in enumerate(problem.prediction_sets(predictions, conformal.threshold(coverage))):
        sets[row] = one
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
    if isinstance(labels, pd.DataFrame) or not saved.problem.has_one_class:
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
