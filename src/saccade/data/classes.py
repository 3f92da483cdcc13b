"""The classes of a data set: their names, and whether labels are numbers of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from saccade.errors import DataError

if TYPE_CHECKING:
    from saccade.data.dataset import ImageDataset


def are_numbers_of_classes(labels: pd.Series[Any], classes: Sequence[str] | None) -> bool:
    """Return whether labels are integers, so that label ``i`` is the class ``classes[i]``."""
    return classes is not None and bool(pd.api.types.is_integer_dtype(labels))


def whole_numbers(labels: pd.Series[Any]) -> pd.Series[Any]:
    """Return whole numbers that are stored as floats as integers, and other labels as they are."""
    if not pd.api.types.is_float_dtype(labels) or are_values(labels):
        return labels
    return labels.astype("Int64" if labels.isna().any() else "int64")


def are_values(labels: pd.Series[Any]) -> bool:
    """Return whether labels are fractional numbers (regression) rather than classes."""
    return bool(pd.api.types.is_float_dtype(labels)) and bool((labels.dropna() % 1 != 0).any())


def checked_classes(classes: Sequence[str] | None, labels: pd.Series[Any]) -> list[str] | None:
    """Return the class names: the given ones, or the distinct labels if text; a DataError if they do not fit."""
    known = labels.dropna().astype(object)
    are_strings = bool(known.map(lambda label: isinstance(label, str)).all())
    if classes is None:
        return sorted(set(known)) if are_strings and len(known) else None
    if isinstance(classes, str):
        raise DataError(f"classes is the string {classes!r}; expected a list of names.")
    names = [str(name) for name in classes]
    if twice := sorted(name for name, num in Counter(names).items() if num > 1):
        raise DataError(f"Classes are named twice: {', '.join(map(repr, twice))}. Expected distinct names.")
    if are_strings:
        for label in known.unique():
            if label not in names:
                raise DataError(f"The label {label!r} is not among the classes {names}.")
    elif are_numbers_of_classes(labels, names) and len(known) and not 0 <= known.min() <= known.max() < len(names):
        raise DataError(
            f"Labels range from {known.min()} to {known.max()}, but there are {len(names)} classes: "
            f"expected labels from 0 to {len(names) - 1}."
        )
    return names


def common_classes(datasets: Sequence[ImageDataset]) -> list[str] | None:
    """Return the classes of concatenated datasets; a DataError if a number is a different class in two of them."""
    labelled = [part for part in datasets if part.classes is not None and len(part) and part.label_column in part]
    if not labelled:
        return next((list(part.classes) for part in datasets if part.classes is not None), None)
    first = labelled[0].classes
    are_numbers = {are_numbers_of_classes(part[part.label_column], part.classes) for part in labelled}
    if len(are_numbers) > 1 or (True in are_numbers and any(part.classes != first for part in labelled)):
        different = next((part.classes for part in labelled if part.classes != first), first)
        raise DataError(
            f"These datasets number their classes differently ({first} and {different}), so their labels "
            "cannot be put into one column. Convert the numbers to names first: "
            "dataset.assign(label=dataset.label_names())."
        )
    if are_numbers == {True}:
        return list(first or ())
    return sorted({name for part in labelled for name in part.classes or ()})
