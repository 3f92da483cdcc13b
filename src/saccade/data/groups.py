"""Groups and times of images: given by the user, or suggested by file names and by EXIF data."""

from __future__ import annotations

import datetime
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import ExifTags, Image

from saccade.data.examples import Examples, no_column
from saccade.errors import DataError

Given = str | Mapping[Any, Any] | Sequence[Any] | Callable[[Path], Any]
"""A column's name; values by path or index, or in the order of the images; or a function of an image's path."""

MIN_COVERAGE = 0.8  # part of the images whose names must fit the form of a group's
MIN_GROUPS, MAX_MEDIAN_SIZE = 4, 100  # groups that names must suggest, and the largest size of the median group
MIN_STRADDLING = 2  # groups on both sides of a split from which on there is a finding
BURST_S = 3.0  # photos that one camera took within this time are a group
MIN_BURSTS = 0.1  # part of the smaller side's images that must be in a burst with images of the other
MAX_IMAGES = 100_000  # of more images, names suggest nothing: to read them would take seconds

_NUM_WITHOUT_EXIF = 30
_NUMBERED = re.compile(r"(.*\d.*?\D)\d+")  # an identifier with a digit, a separator, and a number
_DATE = re.compile(r"(19|20)\d\d[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")


def with_groups(examples: Examples, given: Given | None, data: Any, what: str, is_complete: bool) -> Examples:
    """Return examples with the groups that the option ``groups`` of a fit defines; messages call the table `what`.

    If it `is_complete`, as `train_data` is, a column must exist, and a mapping must have all images: else a DataError.
    """
    values = _values("groups", given, examples, data, what, is_complete)
    return examples if values is None else replace(examples, groups=[_key(value) for value in values])


def with_times(examples: Examples, given: Given | None, data: Any, what: str) -> Examples:
    """Return examples with the times of the option ``time`` of a fit: numbers, dates or ISO 8601; else a DataError."""
    values = _values("time", given, examples, data, what, is_complete=True)
    if values is None:
        return examples
    if num_missing := int(pd.isna(pd.Series(values, dtype=object)).sum()):
        raise DataError(f"time is missing for {num_missing} of {len(values)} images of {what}; drop them, or add times")
    if all(isinstance(value, int | float | np.integer | np.floating) for value in values):
        return replace(examples, times=[float(value) for value in values])
    texts = [_iso(value) for value in values]
    try:
        parsed = pd.to_datetime(pd.Series(texts, dtype=object), utc=True, format="ISO8601")
    except (ValueError, TypeError):
        raise DataError(
            f"time has values such as {values[0]!r}; expected numbers, dates, or text in the format ISO 8601, such as "
            "2024-05-31 or 2024-05-31T12:00:00"
        ) from None
    return replace(examples, times=((parsed - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)).tolist())


def _iso(value: Any) -> Any:
    if isinstance(value, datetime.date | np.datetime64 | pd.Timestamp):
        return pd.Timestamp(value).isoformat()
    # EXIF writes 2024:05:31 12:00:00.
    return re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", value.strip()) if isinstance(value, str) else value


def _key(value: Any) -> str:
    """Return a group's key as text; integers and whole floats are the same, missing ones are ""."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return "" if np.ndim(value) == 0 and pd.isna(value) else str(value).strip()


def _values(
    option: str, given: Given | None, examples: Examples, data: Any, what: str, is_complete: bool
) -> list[Any] | None:
    if given is None:
        return None
    if isinstance(given, str):
        if given in data.columns:
            return list(data[given])
        if is_complete:
            advice = "for images in folders, pass values by path, a function of a path, or a table with such a column"
            raise no_column(option, given, data, advice)
        return None
    if callable(given):
        if odd := next((image for image in examples.images if not isinstance(image, str | Path)), None):
            raise DataError(
                f"{option} is a function of a path, but {what} has images of type {type(odd).__name__}; pass a list "
                "with a value for each image"
            )
        return [given(Path(str(image))) for image in examples.images]
    if isinstance(given, Mapping):
        return _by_path(option, given, examples, what, is_complete)
    if not is_complete:
        return None
    if len(given) != len(examples):
        raise DataError(f"{option} has {len(given)} values, but {what} has {len(examples)} images; give one for each")
    return list(given)


_ABSENT = object()


def _by_path(option: str, given: Mapping[Any, Any], examples: Examples, what: str, is_complete: bool) -> list[Any]:
    """Return the value of each image, looked up by its path, else by its entry in the index."""
    by_path = {str(Path(name)): value for name, value in given.items() if isinstance(name, str | Path)}
    values = []
    for image, entry in zip(examples.images, examples.index, strict=True):
        path = str(Path(image)) if isinstance(image, str | Path) else ""
        values.append(by_path.get(path, given.get(entry, _ABSENT)))
    missing = [image for image, value in zip(examples.images, values, strict=True) if value is _ABSENT]
    if is_complete and missing:
        raise DataError(
            f"{option} has no value for {len(missing)} of {len(values)} images of {what}, such as {missing[0]!r:.100}; "
            "its keys must be the paths of the images, or their entries in the index"
        )
    return [None if value is _ABSENT else value for value in values]


def suggested_groups(images: Sequence[Any], labels: Sequence[Any] | None) -> list[str] | None:
    """Return the groups that file names suggest, "" for names of another form; None if they suggest none.

    In ``patient12_03.jpg`` the group is ``patient12_``: an identifier with a digit before a last number. Dates are no
    identifiers. Groups are suggested only if they are frequent, and at least twice as many as labels.
    """
    if len(images) > MAX_IMAGES:
        return None
    stems = [Path(image).stem if isinstance(image, str | Path) else "" for image in images]
    found = [_NUMBERED.fullmatch(stem) for stem in stems]
    keys = ["" if each is None or _DATE.search(each[1]) else each[1] for each in found]
    sizes = Counter(key for key in keys if key)
    several = {key: num for key, num in sizes.items() if num > 1}
    num_labels = 1 if labels is None else len(set(map(str, labels)))
    is_plain = (
        sum(several.values()) < MIN_COVERAGE * len(images)
        or len(several) < max(MIN_GROUPS, 2 * num_labels)
        or np.median(list(several.values())) > MAX_MEDIAN_SIZE
    )
    return None if is_plain else keys


def on_both_sides(keys: Sequence[str], sides: Sequence[str]) -> dict[str, list[int]]:
    """Return the images of each group that is on several sides of a split, by the group's key; "" means no group."""
    members: dict[str, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        if key:
            members[key].append(position)
    return {key: rows for key, rows in members.items() if len({sides[row] for row in rows}) > 1}


def bursts(images: Sequence[Any], sides: Sequence[str], seconds_left: Callable[[], float]) -> list[str]:
    """Return the groups of photos that one camera took within seconds of each other, by EXIF data; "" for other images.

    EXIF data of the smallest side are read first; if its first images have none, no more are read.
    """
    sizes = Counter(sides)
    order = sorted(range(len(images)), key=lambda row: sizes[sides[row]])
    taken: list[tuple[str, float, int]] = []
    for number, row in enumerate(order):
        if (number == _NUM_WITHOUT_EXIF and not taken) or seconds_left() <= 0:
            break
        if (when := _camera_and_time(images[row])) is not None:
            taken.append((*when, row))
    keys, last = [""] * len(images), ("", -np.inf)
    number = 0
    for camera, time_s, row in sorted(taken):
        number += (camera, True) != (last[0], time_s - last[1] <= BURST_S)
        keys[row], last = f"{camera} {number}", (camera, time_s)
    return keys


def _camera_and_time(image: Any) -> tuple[str, float] | None:
    """Return camera and time of a photo in a file; None without EXIF data of both."""
    if not isinstance(image, str | Path):
        return None
    try:
        with Image.open(image) as opened:
            exif = opened.getexif()
        own = exif.get_ifd(ExifTags.IFD.Exif)
        parts = [own.get(ExifTags.Base.BodySerialNumber), exif.get(ExifTags.Base.Make), exif.get(ExifTags.Base.Model)]
        time = datetime.datetime.strptime(str(own[ExifTags.Base.DateTimeOriginal])[:19], "%Y:%m:%d %H:%M:%S")
    except Exception:  # Pillow's plugins raise nearly anything on damaged files
        return None
    camera = " ".join(str(part).strip("\0 ") for part in parts if part)
    return (camera, time.timestamp()) if camera else None
