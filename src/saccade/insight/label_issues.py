"""Labels that images do not seem to deserve, by confident learning.

Each image is judged by a model that has not learned from it. A class is believed of an image when it is as likely as it
usually is for images with that label; how often images with one label are believed to be of another class says how many
labels are wrong, and these are looked for where the model is surest (Northcutt, Jiang and Chuang, "Confident learning:
estimating uncertainty in dataset labels", Journal of Artificial Intelligence Research, 2021; theirs is the pruning by
class).
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from saccade.errors import DataError
from saccade.insight.embeddings import EmbeddedImages
from saccade.insight.near_duplicates import shown
from saccade.tasks.problem import Problem

NUM_FOLDS = 5

INVERSE_PENALTIES = (0.003, 0.03, 0.3)
"""Of scikit-learn's C, for features scaled to a mean square of 1; the one that judges best is taken."""


def out_of_fold_probabilities(
    features: np.ndarray, labels: np.ndarray, num_classes: int, num_folds: int = NUM_FOLDS, seed: int = 0
) -> np.ndarray:
    """Return what logistic regressions say of images that they have not learned from.

    Parameters
    ----------
    features : ndarray, shape (num_images, num_features)
        Finite numbers.
    labels : ndarray of int, shape (num_images,)
        Class numbers.
    num_classes : int
        How many classes there are.
    num_folds : int
        The images are judged in so many parts, each by a model of all the other parts.
    seed : int
        Draws the parts, which have the same share of each class.

    Returns
    -------
    ndarray of float64, shape (num_images, num_classes)
        Probabilities; 0 for classes that the model of a part has not seen.

    Examples
    --------
    >>> features = np.repeat([[1.0, 0.0], [0.0, 1.0]], 10, axis=0)
    >>> out_of_fold_probabilities(features, np.repeat([0, 1], 10), 2).argmax(1).tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    """
    from sklearn.exceptions import ConvergenceWarning  # a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    scaled = features / (np.sqrt(np.mean(np.square(features))) or 1.0)
    known, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    probabilities = np.zeros((len(labels), num_classes))
    folds = StratifiedKFold(max(2, min(num_folds, int(counts.max()))), shuffle=True, random_state=seed)
    losses = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer images than folds: they have 0 there
        warnings.simplefilter("ignore", RuntimeWarning)
        for inverse_penalty in INVERSE_PENALTIES:
            model = LogisticRegression(C=inverse_penalty, max_iter=200)
            found = cross_val_predict(model, scaled, numbers, cv=folds, method="predict_proba")
            losses.append(-np.log(np.maximum(found[np.arange(len(numbers)), numbers], 1e-12)).mean())
            if losses[-1] == min(losses):
                probabilities[:, known] = found
    return probabilities


def confident_joint(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Estimate how many images with each label are of each class.

    A class is believed of an image when its probability is at least the mean that it has among the images labelled with
    it; of several, the likeliest.

    Parameters
    ----------
    probabilities : ndarray, shape (num_images, num_classes)
        By models that have not learned from the image.
    labels : ndarray of int, shape (num_images,)
        The given class numbers.

    Returns
    -------
    ndarray of float64, shape (num_classes, num_classes)
        Rows are given labels, and sum up to the number of images with that label; columns are believed classes.

    Examples
    --------
    >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.95, 0.05], [0.2, 0.8]])
    >>> confident_joint(probabilities, np.array([0, 0, 1, 1, 1])).tolist()
    [[2.0, 0.0], [1.0, 2.0]]
    """
    num_classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, probabilities[np.arange(len(labels)), labels], num_classes)
    thresholds = np.divide(sums, counts, out=np.full(num_classes, np.inf), where=counts > 0)
    believed = np.where(probabilities >= thresholds, probabilities, -1.0)
    is_sure = believed.max(1) >= 0
    joint = np.zeros((num_classes, num_classes))
    np.add.at(joint, (labels[is_sure], believed[is_sure].argmax(1)), 1)
    of_label = joint.sum(1)
    joint[np.diag_indices(num_classes)] += of_label == 0
    calibrated: np.ndarray = joint * (counts / np.maximum(of_label, 1))[:, None]
    return calibrated


def doubtful(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Say which labels are probably wrong.

    Of the images with one label, as many as `confident_joint` estimates to be of other classes: those for which another
    class leads most.

    Parameters
    ----------
    probabilities, labels
        As for `confident_joint`.

    Returns
    -------
    ndarray of bool, shape (num_images,)
        False for the only image of a class, which nobody could judge.
    """
    joint = confident_joint(probabilities, labels)
    num_wrong = np.rint(joint.sum(1) - joint.diagonal()).astype(int)
    of_given = probabilities[np.arange(len(labels)), labels]
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    lead = others.max(1) - of_given
    is_doubtful = np.zeros(len(labels), np.bool_)
    for given in np.flatnonzero(np.bincount(labels) > 1):
        rows = np.flatnonzero(labels == given)
        is_doubtful[rows[np.argsort(-lead[rows], kind="stable")[: num_wrong[given]]]] = True
    answer: np.ndarray = is_doubtful & (lead > 0)
    return answer


def check_has_classes(problem: Problem) -> None:
    """Raise an error unless each image has one class.

    Raises
    ------
    DataError
        When images may have several labels, or labels are numbers.
    """
    if not problem.has_one_class:
        raise DataError(f"label issues are found where each image has one class; this is a {problem.type} problem")


def label_issues(images: EmbeddedImages, labels: pd.Series | pd.DataFrame, problem: Problem) -> pd.DataFrame:
    """Return a table of the images whose label is not believed.

    Parameters
    ----------
    images : EmbeddedImages
        The images; those that cannot be read are left out.
    labels : Series
        The label of each, as the problem has its classes.
    problem : Problem
        With classes of which an image has one.

    Returns
    -------
    DataFrame
        The least believed first, with the index of the images: ``image``, ``label`` (the given one),
        ``suggested_label``, ``self_confidence`` (the probability of the given label, by a model that has not seen
        this image) and ``rank`` from 1.

    Raises
    ------
    DataError
        When images may have several labels, or labels are numbers; or these images have less than two classes.
    """
    check_has_classes(problem)
    rows = np.flatnonzero(images.readable)
    given = problem.encode(labels.iloc[rows])
    if len(np.unique(given)) < 2:
        raise DataError("label issues are found by telling classes apart; these images have less than two classes")
    probabilities = out_of_fold_probabilities(images.vectors[rows].astype(np.float32), given, problem.num_outputs)
    believed = probabilities.argmax(1)
    confidence = probabilities[np.arange(len(given)), given]
    flagged = np.flatnonzero(doubtful(probabilities, given))
    flagged = flagged[np.argsort(confidence[flagged], kind="stable")]
    classes = problem.class_array
    table: pd.DataFrame = pd.DataFrame(
        {
            "image": [shown(images.examples.images[row], row) for row in rows[flagged].tolist()],
            "label": classes[given[flagged]],
            "suggested_label": classes[believed[flagged]],
            "self_confidence": confidence[flagged],
            "rank": np.arange(1, len(flagged) + 1),
        },
        index=images.examples.index[rows[flagged]],
    )
    return table
