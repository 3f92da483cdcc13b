"""Find images whose label is probably wrong, by confident learning.

Out-of-fold probabilities of a classifier on a network's features are compared with the labels. They are out of fold for
the classifier alone: the network itself may have been fine-tuned on the same images and labels. An image is assigned to
a class if its probability is at least the mean probability of that class among the images with this label. The number
of images of each label assigned to another class estimates the number of wrong labels; they are those for which another
class has the largest margin (Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset
labels", Journal of Artificial Intelligence Research, 2021; the method "prune by class").
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from saccade.data.examples import image_name
from saccade.errors import DataError
from saccade.insight.embeddings import EmbeddedImages
from saccade.tasks.problem import Problem

NUM_FOLDS = 5

INVERSE_PENALTIES = (0.003, 0.03, 0.3)
"""Values of scikit-learn's C, for features scaled to a mean square of 1; the one with the lowest loss is used."""


def out_of_fold_probabilities(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return out-of-fold probabilities, (num_images, num_classes), 0 for classes that a training part lacks."""
    from sklearn.exceptions import ConvergenceWarning  # a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    scaled = features / (np.sqrt(np.mean(np.square(features))) or 1.0)
    known, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    probabilities = np.zeros((len(labels), num_classes))
    folds = StratifiedKFold(max(2, min(NUM_FOLDS, int(counts.max()))), shuffle=True, random_state=0)
    losses = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)  # classes with fewer images than folds
        warnings.simplefilter("ignore", RuntimeWarning)
        for inverse_penalty in INVERSE_PENALTIES:
            model = LogisticRegression(C=inverse_penalty, max_iter=200)
            found = cross_val_predict(model, scaled, numbers, cv=folds, method="predict_proba")
            losses.append(-np.log(np.maximum(found[np.arange(len(numbers)), numbers], 1e-12)).mean())
            if losses[-1] == min(losses):
                probabilities[:, known] = found
    return probabilities


def confident_joint(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Estimate the number of images with each label (rows) that belong to each class (columns).

    Rows sum to the number of images with that label; the module describes the estimate.
    """
    num_classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=num_classes)
    # Threshold of each class: the mean probability of the class over the images labelled with it.
    sums = np.bincount(labels, probabilities[np.arange(len(labels)), labels], num_classes)
    thresholds = np.divide(sums, counts, out=np.full(num_classes, np.inf), where=counts > 0)
    above = np.where(probabilities >= thresholds, probabilities, -1.0)
    is_assigned = above.max(1) >= 0
    joint = np.zeros((num_classes, num_classes))
    np.add.at(joint, (labels[is_assigned], above[is_assigned].argmax(1)), 1)
    # Calibrate the rows to the number of images; a label without assigned images counts as correct.
    num_assigned = joint.sum(1)
    joint[np.diag_indices(num_classes)] += num_assigned == 0
    return np.asarray(joint * (counts / np.maximum(num_assigned, 1))[:, None])


def probably_wrong(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which labels are probably wrong: as many of each label as `confident_joint` assigns to other classes.

    Never the only image of a class, which has no out-of-fold prediction of its class.
    """
    joint = confident_joint(probabilities, labels)
    num_wrong = np.rint(joint.sum(1) - joint.diagonal()).astype(int)
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    margin = others.max(1) - probabilities[rows, labels]
    is_wrong = np.zeros(len(labels), np.bool_)
    for given in np.flatnonzero(np.bincount(labels) > 1):
        of_label = np.flatnonzero(labels == given)
        is_wrong[of_label[np.argsort(-margin[of_label], kind="stable")[: num_wrong[given]]]] = True
    return np.asarray(is_wrong & (margin > 0))


def check_has_classes(problem: Problem) -> None:
    """Raise a DataError unless each image has one class."""
    if not problem.has_one_class:
        raise DataError(
            f"label issues require one class for each image (binary or multiclass); this is a {problem.type} problem"
        )


def label_issues(images: EmbeddedImages, labels: pd.Series | pd.DataFrame, problem: Problem) -> pd.DataFrame:
    """Return a table of the images whose label is probably wrong, with their index, by ascending confidence.

    Its columns are ``image``, ``label``, ``suggested_label``, ``self_confidence`` (the out-of-fold probability of the
    label) and ``rank`` from 1. Unreadable images are skipped. A DataError without two or more classes, one per image.
    """
    check_has_classes(problem)
    rows = np.flatnonzero(images.readable)
    given = problem.encode(labels.iloc[rows])
    if len(np.unique(given)) < 2:
        raise DataError("label issues require images of two classes or more; these images have less than two classes")
    probabilities = out_of_fold_probabilities(images.vectors[rows].astype(np.float32), given, problem.num_outputs)
    confidence = probabilities[np.arange(len(given)), given]
    flagged = np.flatnonzero(probably_wrong(probabilities, given))
    flagged = flagged[np.argsort(confidence[flagged], kind="stable")]
    classes = problem.class_array
    table: pd.DataFrame = pd.DataFrame(
        {
            "image": [image_name(images.examples.images[row], row) for row in rows[flagged].tolist()],
            "label": classes[given[flagged]],
            "suggested_label": classes[probabilities[flagged].argmax(1)],
            "self_confidence": confidence[flagged],
            "rank": np.arange(1, len(flagged) + 1),
        },
        index=images.examples.index[rows[flagged]],
    )
    return table
