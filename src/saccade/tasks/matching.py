"""Labels of one data set in the classes of another, matched by the names of the classes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from saccade.data.classes import are_numbers_of_classes
from saccade.data.examples import Examples
from saccade.errors import DataError
from saccade.tasks.labels import Label, some
from saccade.tasks.problem import Problem


def names_of_classes(classes: Sequence[Label], class_names: Sequence[str] | None) -> list[str]:
    """Return the name of each class: class numbers are looked up in `class_names`, other labels are taken as text."""
    if class_names and all(isinstance(label, int) for label in classes):
        return [class_names[int(label)] for label in classes]
    return [str(label) for label in classes]


def match_classes(
    examples: Examples, problem: Problem, class_names: Sequence[str] | None, what: str, whose: str
) -> Examples:
    """Return examples whose labels are those of `problem`; nothing is matched unless each image has exactly one class.

    Class numbers with names are matched by the names, since each data set numbers its classes differently; other labels
    by value, else as text: the folder ``3`` is the number 3 of a table. `class_names` are the names of `problem`'s
    numbers. Raises a DataError for classes that `problem` lacks; it calls the examples `what`, the owner of the classes
    `whose`.
    """
    labels, names = examples.labels, examples.class_names
    if labels is None or isinstance(labels, pd.DataFrame) or not problem.has_one_class:
        return examples
    expected = names_of_classes(problem.classes, class_names)
    class_of: dict[str, Label] = {} if class_names else {_text(label): label for label in problem.classes}
    class_of |= dict(zip(expected, problem.classes, strict=True))
    class_of = {_composed(text): label for text, label in class_of.items()} | class_of

    def key(label: Any) -> str:
        return text if (text := _text(label)) in class_of else _composed(text)

    named = labels
    if names is not None and are_numbers_of_classes(labels, names):
        named = labels.map(dict(enumerate(names)))
        are_numbers = class_names is None and not isinstance(problem.classes[0], str)
        if are_numbers and not set(named) <= class_of.keys():
            named = labels  # the expected numbers have no names, so numbers are all that can be compared
    try:
        distinct = named.dropna().unique().tolist()
    except TypeError:  # lists of labels, which `Problem.encode` refuses
        return examples
    if not set(distinct) <= set(problem.classes):
        if unknown := [label for label in distinct if key(label) not in class_of]:
            given = set(map(key, distinct))
            lacking = [name for name in expected if name not in given and _composed(name) not in given]
            raise DataError(
                f"{what} has classes that {whose} does not have: {some(unknown)}. The classes of {whose} are "
                f"{some(expected)}" + (f"; {what} lacks {some(lacking)}" if lacking else "")
            )
        named = named.map(lambda label: class_of[key(label)], na_action="ignore")
    return replace(examples, labels=named, class_names=None if class_names is None else list(class_names))


def _text(label: Any) -> str:
    """Return a label as text; whole numbers are the same as integers and as floats."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _composed(text: str) -> str:
    """Return text with composed accents: systems differ in the names of folders."""
    return unicodedata.normalize("NFC", text)


def widened(
    problem: Problem, class_names: Sequence[str] | None, examples: Examples
) -> tuple[Problem, list[str] | None]:
    """Return a problem that has the classes of further images as well, matched by name, and the names of its numbers.

    Raises a DataError if the classes are numbers without names, and the images have a class that is not a number.
    """
    names = None if class_names is None else list(class_names)
    labels = examples.labels
    if labels is None or isinstance(labels, pd.DataFrame) or not problem.has_one_class:
        return problem, names
    if examples.class_names is not None and are_numbers_of_classes(labels, examples.class_names):
        labels = labels.map(dict(enumerate(examples.class_names)))
    known = set(names_of_classes(problem.classes, names)) | {_text(label) for label in problem.classes if names is None}
    known |= set(map(_composed, known))
    new = sorted({label for label in labels.dropna() if _composed(_text(label)) not in known}, key=_text)
    if not new:
        return problem, names
    if names is not None and all(isinstance(label, int) for label in problem.classes):
        names += [text for text in map(_text, new) if text not in names]
        new = [names.index(_text(label)) for label in new]
    elif isinstance(problem.classes[0], str):
        new = [_text(label) for label in new]
    elif odd := [label for label in new if isinstance(label, str | bool)]:
        raise DataError(
            f"the classes of the predictor are numbers, such as {problem.classes[0]!r}, and the images have the label "
            f"{odd[0]!r}; pass numbers as labels"
        )
    return Problem.of(pd.Series([*problem.classes, *new]), "multiclass"), names
