"""What labels mean: numbers that count through the names of classes, or values that stand for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from saccade.errors import DataError

if TYPE_CHECKING:
    from saccade.data.table import ImageTable


def are_numbers_of_classes(labels: pd.Series[Any], classes: Sequence[str] | None) -> bool:
    """Tell whether label ``i`` means the class ``classes[i]``.

    Examples
    --------
    >>> are_numbers_of_classes(pd.Series([1, 0]), ["cat", "dog"])
    True
    >>> are_numbers_of_classes(pd.Series(["dog", "cat"]), ["cat", "dog"])
    False
    """
    return classes is not None and bool(pd.api.types.is_integer_dtype(labels))


def are_values(labels: pd.Series[Any]) -> bool:
    """Tell whether labels are fractional numbers, to be predicted as such, rather than classes.

    Examples
    --------
    >>> are_values(pd.Series([0.5, 1.25])), are_values(pd.Series([1.0, 2.0])), are_values(pd.Series([1, 2]))
    (True, False, False)
    """
    return bool(pd.api.types.is_float_dtype(labels)) and bool((labels.dropna() % 1 != 0).any())


def checked_classes(classes: Sequence[str] | None, labels: pd.Series[Any]) -> list[str] | None:
    """Return the names of the classes, given or, where labels are strings, found among these.

    Raises
    ------
    DataError
        If names are given twice, or there is a label that has no name among them.

    Examples
    --------
    >>> checked_classes(None, pd.Series(["dog", "cat", "dog"]))
    ['cat', 'dog']
    """
    known = labels.dropna()
    are_strings = bool(known.map(lambda label: isinstance(label, str)).all())
    if classes is None:
        return sorted(set(known)) if are_strings and len(known) else None
    names = _distinct(classes)
    if are_strings:
        for label in known.unique():
            if label not in names:
                raise DataError(f"The label {label!r} is not among the classes {names}.")
    elif are_numbers_of_classes(known, names) and len(known) and not 0 <= known.min() <= known.max() < len(names):
        raise DataError(
            f"Labels go from {known.min()} to {known.max()}, but {len(names)} classes are named: "
            f"expected labels from 0 to {len(names) - 1}."
        )
    return names


def _distinct(classes: Sequence[str]) -> list[str]:
    if isinstance(classes, str):
        raise DataError(f"classes is the string {classes!r}; expected a list of names.")
    names = [str(name) for name in classes]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DataError(f"Classes are named twice: {', '.join(map(repr, twice))}. Expected distinct names.")
    return names


def common_classes(datasets: Sequence[ImageTable]) -> list[str] | None:
    """Return the classes of datasets put together: the same for all, or every name where labels are names.

    Raises
    ------
    DataError
        If labels are numbers that mean different classes in these datasets.
    """
    labelled = [part for part in datasets if part.classes is not None and len(part) and part.label_column in part]
    if not labelled:
        return next((list(part.classes) for part in datasets if part.classes is not None), None)
    first = labelled[0].classes
    are_numbers = {are_numbers_of_classes(part[part.label_column], part.classes) for part in labelled}
    if len(are_numbers) > 1 or (True in are_numbers and any(part.classes != first for part in labelled)):
        different = next((part.classes for part in labelled if part.classes != first), first)
        raise DataError(
            f"These datasets number their classes differently ({first} and {different}), so their labels "
            "cannot be put into one column. First make names of the numbers, with "
            "dataset.assign(label=dataset.label_names())."
        )
    return (
        list(first or ())
        if are_numbers == {True}
        else sorted({name for part in labelled for name in part.classes or ()})
    )
