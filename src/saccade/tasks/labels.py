"""Labels of any dtype as plain Python values, and the problem type that follows from them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from saccade.errors import DataError

ProblemType = Literal["binary", "multiclass", "regression", "multilabel"]

Label: TypeAlias = str | int | float | bool  # one class, as it was given

Labels: TypeAlias = "Sequence[Any] | np.ndarray | pd.Index | pd.Series | pd.DataFrame"
"""A column of labels, or of lists of labels; or several columns of 0 and 1, one for each label."""

MAX_NUMBERED_CLASSES = 20  # up to this many different whole numbers are always classes
MIN_IMAGES_PER_CLASS = 2  # more numbers are still classes if each has at least this many images on average

_NUMBER_AS_TEXT = re.compile(r"-?[0-9]+[.][0-9]+")


def infer_problem_type(labels: Labels) -> ProblemType:
    """Infer the problem type from labels.

    ===========================================================  ==============
    Labels                                                       Problem
    ===========================================================  ==============
    lists of labels, or several columns of 0 and 1               ``multilabel``
    two different values, of any kind                            ``binary``
    numbers, some of them with a fractional part                 ``regression``
    more than 20 different whole numbers, and less than two
    images for each on average                                   ``regression``
    text, truth values, all other whole numbers                  ``multiclass``
    ===========================================================  ==============

    Whole numbers are classes wherever possible, since folders of images number their classes, often with five images
    each. Pass ``problem_type="regression"`` for ages or counts.

    Examples
    --------
    >>> infer_problem_type(["cat", "dog", "cow"]), infer_problem_type([0.5, 2.25, 3.0])
    ('multiclass', 'regression')
    """
    return inferred_problem_type(labels)[0]


def inferred_problem_type(labels: Labels) -> tuple[ProblemType, str]:
    """Return what `infer_problem_type` does, and the reason; for numbers also the argument that overrides it."""
    if isinstance(labels, pd.DataFrame):
        return "multilabel", "labels are several columns"
    if are_label_lists(labels):
        return "multilabel", "labels are lists"
    plain = plain_labels(labels)
    distinct = set(plain)
    num = len(distinct)
    are_numbers = all(isinstance(label, int | float) and not isinstance(label, bool) for label in distinct)
    as_classes = "; problem_type='multiclass' takes them as classes"
    as_quantities = "; problem_type='regression' takes them as quantities" if are_numbers else ""
    if num == 2:
        return "binary", f"2 different {'numbers' if are_numbers else 'labels'}{as_quantities}"
    if not are_numbers:
        if all(isinstance(label, str) and _NUMBER_AS_TEXT.fullmatch(label) for label in distinct):
            text = f"{num} different texts, such as {plain[0]!r}"
            return "multiclass", f"{text}; problem_type='regression' takes them as quantities"
        return "multiclass", f"{num} different labels, not numbers"
    if any(label % 1 for label in distinct if isinstance(label, float)):
        return "regression", f"labels are numbers with fractions{as_classes}"
    if num > MAX_NUMBERED_CLASSES and len(plain) < MIN_IMAGES_PER_CLASS * num:
        return "regression", f"{num} different whole numbers, nearly as many as images{as_classes}"
    return "multiclass", f"{num} different whole numbers{as_quantities}"


def are_label_lists(labels: Labels) -> bool:
    """Return whether these labels are lists (or tuples, sets, arrays) of labels."""
    return any(_is_list(value) for value in _values(labels))


def plain_labels(labels: Labels) -> list[Label]:
    """Return a column of labels as plain Python values; a DataError if they are missing, mixed or of other types."""
    plain = _values(labels)
    if num_missing := sum(map(_is_missing, plain)):
        raise DataError(f"{num_missing} of {len(plain)} labels are missing; leave those rows out")
    _check_kinds(plain)
    return plain


def plain_label_lists(labels: Labels) -> list[list[Label]]:
    """Return a column of lists of labels as plain lists; [] is an image without labels. Raises as `plain_labels`."""
    rows = _values(labels)
    if num_missing := sum(map(_is_missing, rows)):
        raise DataError(
            f"{num_missing} of {len(rows)} labels are missing; leave those rows out, or pass [] for no labels"
        )
    for row in rows:
        if not _is_list(row):
            hint = "; make lists of text by data[label].str.split(…)" if isinstance(row, str) else ""
            raise DataError(
                f"problem_type='multilabel' requires a list of labels for each image; one has {row!r}{hint}"
            )
    plain = [_values(list(row)) for row in rows]
    everything = [label for row in plain for label in row]
    if any(map(_is_missing, everything)):
        raise DataError("some lists of labels contain a missing value; remove it")
    _check_kinds(everything)
    return plain


def indicators(frame: pd.DataFrame) -> np.ndarray:
    """Return several columns of 0 and 1 as float32 of shape (num_images, num_columns); raise a DataError for others."""
    lacking = [column for column in frame.columns if frame[column].isna().any()]
    if lacking:
        raise DataError(f"labels are missing in the columns {some(lacking)}; leave those rows out")
    try:
        numbers = frame.to_numpy(np.float32, copy=True)  # pandas returns arrays that are not writable
    except (TypeError, ValueError) as error:
        raise DataError(f"several columns of labels must hold 0 and 1; {error}") from None
    wrong = [
        column for column, values in zip(frame.columns, numbers.T, strict=True) if not np.isin(values, (0, 1)).all()
    ]
    if wrong:
        raise DataError(f"several columns of labels must hold 0 and 1; the columns {some(wrong)} hold other values")
    return numbers


def class_array(classes: Sequence[Label]) -> np.ndarray:
    """Return classes as an array of the dtype that holds them exactly: bool, int64, float64, or else object."""
    array = np.empty(len(classes), object)
    array[:] = classes
    if not classes or isinstance(classes[0], str):
        return array
    try:
        exact = np.array(classes, bool if isinstance(classes[0], bool) else None)
    except OverflowError:
        return array
    are_floats_of_int = exact.dtype.kind == "f" and all(isinstance(label, int) for label in classes)  # 0 and 2**63
    return exact if exact.tolist() == list(classes) and not are_floats_of_int else array


def some(labels: Sequence[Any]) -> str:
    """Return the first few of many labels, for a message."""
    return f"[{', '.join(map(repr, labels[:8]))}{', …' if len(labels) > 8 else ''}]"


def _values(labels: Labels) -> list[Any]:
    """Return the values of a column, with NumPy scalars as Python ones."""
    values = labels.tolist() if isinstance(labels, np.ndarray | pd.Series | pd.Index) else list(labels)
    return [value.item() if isinstance(value, np.bool_ | np.number | np.str_) else value for value in values]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset | np.ndarray)


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):  # blank text is how tables and forms write a missing label
        return not value.strip()
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _check_kinds(plain: Sequence[Any]) -> None:
    """Raise a DataError for labels that are not text, numbers or bools, and for mixtures: True equals 1."""
    for kind in {type(label): label for label in plain}.values():
        if _is_list(kind):
            raise DataError(
                f"a label is {kind!r}, a list of labels; pass a list for every image (problem_type='multilabel'), "
                "or one label for each"
            )
        if not isinstance(kind, str | int | float | bool):
            given = f"a label is {kind!r} of type {type(kind).__name__}"
            raise DataError(f"{given}; expected text, a number or a bool. Convert the column: data[label].astype(str)")
    if infinite := [label for label in plain if isinstance(label, float) and math.isinf(label)]:
        raise DataError(f"{len(infinite)} of {len(plain)} labels are infinite; leave those rows out")
    kinds = {"text" if isinstance(label, str) else "bools" if isinstance(label, bool) else "numbers" for label in plain}
    if len(kinds) > 1:
        distinct = list(dict.fromkeys(plain))
        raise DataError(f"the labels mix {' and '.join(sorted(kinds))}: {some(distinct)}; convert them to one type")
