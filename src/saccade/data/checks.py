"""Checks of a data set before training: coded findings, each with advice.

====== ======== ==========================================================================
Code   Severity Finding
====== ======== ==========================================================================
IMG001 warning  unreadable images
IMG002 info     the same image several times under one label of one part
IMG003 error    the same image under two labels
IMG004 error    the same image in two parts, training and validation for instance
IMG005 warning  classes with fewer than 5 readable training images
IMG006 warning  images of suspicious size or shape, or of one colour
IMG007 warning  the largest class more than 20 times as large as the smallest
IMG008 warning  images of one group on both sides of a split, by their names or EXIF data (error if groups are given)
====== ======== ==========================================================================
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import pandas as pd

from saccade.data.examples import image_name
from saccade.data.groups import MIN_BURSTS, MIN_STRADDLING, bursts, on_both_sides, suggested_groups
from saccade.data.scanning import Scan, SecondsLeft
from saccade.errors import DataError, count_of

MIN_CLASS_SIZE = 5
MAX_IMBALANCE = 20.0
MIN_SIDE = 8  # pixels
MAX_ASPECT = 10.0

Severity = Literal["error", "warning", "info"]

_NUM_FILES_SHOWN, _NUM_FILES_RECORDED = 3, 10

_ABOUT: dict[str, tuple[str, Severity, str]] = {  # title, severity and advice
    "IMG001": ("Unreadable images", "warning", "They are left out; replace or delete the files."),
    "IMG002": ("Duplicates", "info", "They count more than others; delete the copies unless that is intended."),
    "IMG003": ("One image, several labels", "error", "Decide on one label each and delete the other copies."),
    "IMG004": ("The same image in two parts", "error", "Delete them from one of the parts."),
    "IMG005": ("Tiny classes", "warning", "Add images, or merge or drop these classes."),
    "IMG006": ("Suspicious images", "warning", "Look at them; delete those that show nothing."),
}


@dataclass(frozen=True)
class FlaggedImage:
    """An image with a problem: its part, its position there, its file and label, and the problem."""

    part: str
    position: int
    file: str
    label: Any
    detail: str


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    code: str
    """``IMG001`` and so on; codes never change their meaning."""
    title: str
    severity: Severity
    """"error": scores will be misleading; "warning": scores will be lower; "info": no action needed."""
    message: str
    """A sentence with numbers."""
    what_to_do: str
    flagged: tuple[FlaggedImage, ...] = ()
    """The images; empty if the finding is about the whole data set."""

    @property
    def files(self) -> list[str]:
        """Files of the flagged images."""
        return [flagged.file for flagged in self.flagged]

    def to_json(self) -> dict[str, Any]:
        """Return the finding for the event log, with its first files and what is wrong with them."""
        about = {name: getattr(self, name) for name in ("code", "title", "severity", "message", "what_to_do")}
        examples = [f"{each.file} ({each.detail})" for each in self.flagged[:_NUM_FILES_RECORDED]]
        return {**about, "num_images": len(self.flagged), "examples": examples}


@dataclass(frozen=True)
class CheckReport:
    """The findings of all checks, by code."""

    findings: tuple[Finding, ...]
    """At most one for each code."""
    num_images: dict[str, int] = field(default_factory=dict)
    """Number of images that were checked, by part."""

    @property
    def ok(self) -> bool:
        """Whether the checks found neither errors nor warnings."""
        return all(finding.severity == "info" for finding in self.findings)

    @property
    def codes(self) -> list[str]:
        """The codes of the findings."""
        return [finding.code for finding in self.findings]

    def __getitem__(self, code: str) -> Finding:
        for finding in self.findings:
            if finding.code == code:
                return finding
        raise KeyError(f"no finding {code!r}; found: {', '.join(self.codes) or 'nothing'}")

    def to_frame(self) -> pd.DataFrame:
        """Return one row per finding and image (one row without an image for a finding about the whole)."""
        columns = ["code", "title", "severity", "part", "position", "file", "label", "detail"]
        rows: list[tuple[Any, ...]] = []
        for finding in self.findings:
            about = (finding.code, finding.title, finding.severity)
            rows += [(*about, f.part, f.position, f.file, f.label, f.detail) for f in finding.flagged]
            if not finding.flagged:
                rows.append((*about, None, None, None, None, finding.message))
        frame: pd.DataFrame = pd.DataFrame(rows, columns=columns)
        frame["position"] = frame["position"].astype("Int64")
        return frame

    def __str__(self) -> str:
        checked = ", ".join(f"{num} {part}" for part, num in self.num_images.items())
        found = count_of(len(self.findings), "finding") if self.findings else "nothing found"
        lines = [f"Checked {checked} images: {found}"]
        for finding in self.findings:
            lines.append(f"{finding.code} {finding.severity}: {finding.title}. {finding.message}")
            lines += [f"    {each.file} ({each.detail})" for each in finding.flagged[:_NUM_FILES_SHOWN]]
            if (num_more := len(finding.flagged) - _NUM_FILES_SHOWN) > 0:
                lines.append(f"    ... and {num_more} more")
            lines.append(f"    -> {finding.what_to_do}")
        return "\n".join(lines)


@dataclass(frozen=True)
class CheckedPart:
    """One part of a data set, such as the training set, with its `scan_images` or `ImageStore.scan`."""

    images: Sequence[Any]
    labels: Sequence[Any] | pd.Series[Any] | None
    scan: Scan
    groups: Sequence[str] | None = None  # as in `saccade.data.examples.Examples`

    def __post_init__(self) -> None:
        num_labels = len(self.images) if self.labels is None else len(self.labels)
        if not len(self.images) == num_labels == len(self.scan):
            raise DataError(
                f"There are {len(self.images)} images, {num_labels} labels and the scan of {len(self.scan)} "
                "images: the numbers must be equal."
            )


def check_dataset(
    train: CheckedPart,
    val: CheckedPart | None = None,
    test: CheckedPart | None = None,
    *,
    held_out: Collection[int] = (),
    is_regression: bool = False,
    deadline: SecondsLeft = lambda: 1.0,
) -> CheckReport:
    """Check the parts of a data set, each by itself and against the others.

    `held_out` are positions of training images that validate. With `is_regression`, checks of class sizes are skipped.
    `deadline` returns the seconds left; at 0 or less, the remaining checks are skipped. Raises a DataError if the parts
    were scanned at different sizes, so that equal images have different digests.

    Examples
    --------
    >>> import numpy as np
    >>> from saccade.data.scanning import scan_images
    >>> noise = np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    >>> images = [noise, noise.copy()]
    >>> check_dataset(CheckedPart(["a.png", "b.png"], ["cat", "dog"], scan_images(images))).codes
    ['IMG003', 'IMG005']
    """
    parts = {"train": train, "val": val, "test": test}
    images = _Images({name: part for name, part in parts.items() if part is not None})
    checks: list[Callable[[_Images], Finding | None]] = [
        _unreadable,
        _duplicates,
        _conflicting_labels,
        _shared_between_parts,
        _suspicious_images,
        partial(_straddling_groups, held_out=set(held_out), is_regression=is_regression, deadline=deadline),
    ]
    checks += [] if is_regression else [_tiny_classes, _imbalance]
    findings = [finding for check in checks if deadline() > 0 and (finding := check(images)) is not None]
    num_images = {name: len(part.images) for name, part in images.parts.items()}
    return CheckReport(tuple(sorted(findings, key=lambda finding: finding.code)), num_images)


class _Images:
    """All images of all parts, with lookups that several checks use."""

    def __init__(self, parts: dict[str, CheckedPart]) -> None:
        sizes = {part.scan.min_shorter_side for part in parts.values()}
        if len(sizes) > 1:
            raise DataError(
                f"The parts were scanned with different min_shorter_side ({sorted(map(str, sizes))}), "
                "so equal images are not detected: scan all parts alike."
            )
        self.parts = parts
        self.by_digest: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for name, part in parts.items():
            for position, digest in enumerate(part.scan.digests):
                if digest:
                    self.by_digest[digest].append((name, position))

    def repeated(self) -> Iterator[list[tuple[str, int]]]:
        """Yield the places (part, position) of each image that occurs more than once."""
        return (places for places in self.by_digest.values() if len(places) > 1)

    def label(self, name: str, position: int) -> Any:
        labels = self.parts[name].labels
        if labels is None:
            return None
        return labels.iloc[position] if isinstance(labels, pd.Series) else labels[position]

    def file(self, name: str, position: int) -> str:
        return image_name(self.parts[name].images[position], position)

    def flag(self, name: str, position: int, detail: str) -> FlaggedImage:
        return FlaggedImage(name, position, self.file(name, position), self.label(name, position), detail)

    def sizes_of_classes(self) -> Counter[Any]:
        """Count the readable training images of each class, 0 included."""
        train = self.parts["train"]
        counts: Counter[Any] = Counter()
        if train.labels is not None:
            skipped = set(train.scan.skipped)
            for position, digest in enumerate(train.scan.digests):
                if position not in skipped:
                    counts[self.label("train", position)] += 1 if digest else 0
        return counts


def _unreadable(images: _Images) -> Finding | None:
    flagged = [
        images.flag(name, position, reason)
        for name, part in images.parts.items()
        for position, reason in part.scan.errors.items()
    ]
    return _finding("IMG001", f"{count_of(len(flagged), 'file')} without a readable image.", flagged)


def _duplicates(images: _Images) -> Finding | None:
    flagged = []
    for places in images.repeated():
        first_of: dict[tuple[str, Any], int] = {}
        for name, position in places:
            first = first_of.setdefault((name, images.label(name, position)), position)
            if first != position:
                flagged.append(images.flag(name, position, f"same as {images.file(name, first)}"))
    copies = count_of(len(flagged), "copy", "copies")
    return _finding("IMG002", f"{copies} of an image with the same label in the same part.", flagged)


def _conflicting_labels(images: _Images) -> Finding | None:
    flagged = []
    num_different = 0
    for places in images.repeated():
        labels = list(dict.fromkeys(images.label(*place) for place in places))
        labels = [label for label in labels if label is not None]
        if len(labels) > 1:
            num_different += 1
            detail = "labels: " + ", ".join(map(str, labels))
            flagged += [images.flag(*place, detail) for place in places]
    return _finding("IMG003", f"{count_of(num_different, 'image')} under more than one label.", flagged)


def _shared_between_parts(images: _Images) -> Finding | None:
    flagged = []
    for places in images.repeated():
        first_name, first = places[0]  # places come in the order train, val, test
        for name, position in places:
            if name != first_name:
                detail = f"also in {first_name}: {images.file(first_name, first)}"
                flagged.append(images.flag(name, position, detail))
    found = count_of(len(flagged), "image")
    return _finding("IMG004", f"{found} that an earlier part contains as well: scores will be too high.", flagged)


def _tiny_classes(images: _Images) -> Finding | None:
    counts = images.sizes_of_classes()
    tiny = {label: num for label, num in counts.items() if num < MIN_CLASS_SIZE}
    flagged = [
        images.flag("train", position, f"class with {count_of(tiny[label], 'readable image')}")
        for position in range(len(images.parts["train"].images))
        if (label := images.label("train", position)) in tiny
    ]
    listed = ", ".join(f"{label} ({num})" for label, num in list(tiny.items())[:10])
    more = f" and {len(tiny) - 10} more" if len(tiny) > 10 else ""
    few = f"{count_of(len(tiny), 'class', 'classes')} with fewer than {MIN_CLASS_SIZE} readable training images"
    return _finding("IMG005", f"{few}: {listed}{more}.", flagged)


def _suspicious_images(images: _Images) -> Finding | None:
    flagged = []
    for name, part in images.parts.items():
        for position, (width, height) in enumerate(part.scan.sizes.tolist()):
            oddities = []
            if 0 < min(width, height) < MIN_SIDE:
                oddities.append(f"only {width} x {height} pixels")
            if max(width, height) > MAX_ASPECT * min(width, height):
                oddities.append(f"elongated: {width} x {height} pixels")
            if part.scan.is_constant[position]:
                oddities.append("one colour only")
            if oddities:
                flagged.append(images.flag(name, position, ", ".join(oddities)))
    small = f"{count_of(len(flagged), 'image')} with a side under {MIN_SIDE} pixels"
    return _finding(
        "IMG006", f"{small}, with a side more than {MAX_ASPECT:g} times the other, or of one colour.", flagged
    )


def _imbalance(images: _Images) -> Finding | None:
    counts = {label: num for label, num in images.sizes_of_classes().items() if num > 0}
    if not counts:
        return None
    smallest, largest = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[largest] <= MAX_IMBALANCE * counts[smallest]:
        return None
    return Finding(
        "IMG007",
        "Strong imbalance",
        "warning",
        f"Class {largest} has {counts[largest]} training images, class {smallest} only {counts[smallest]}.",
        'If rare classes matter as much as others, pass eval_metric="balanced_accuracy", which also adjusts the '
        "predicted labels; or use class weights, or add images.",
    )


def _straddling_groups(
    images: _Images, held_out: set[int], is_regression: bool, deadline: SecondsLeft
) -> Finding | None:
    rows = [(name, position) for name, part in images.parts.items() for position in range(len(part.images))]
    sides = ["held out" if name == "train" and position in held_out else name for name, position in rows]
    if len(set(sides)) < 2:
        return None
    files = [images.parts[name].images[position] for name, position in rows]
    is_given = any(part.groups is not None for part in images.parts.values())
    if is_given:
        given = {name: part.groups or [""] * len(part.images) for name, part in images.parts.items()}
        source, found = "groups", on_both_sides([given[name][position] for name, position in rows], sides)
    else:
        labels = None if is_regression else [images.label(*row) for row in rows]
        source, found = "file names", on_both_sides(suggested_groups(files, labels) or [""] * len(files), sides)
        if len(found) < MIN_STRADDLING:
            source, found = "EXIF data (camera and time)", on_both_sides(bursts(files, sides, deadline), sides)
            num_least = MIN_BURSTS * min(Counter(sides).values())
            if sum(sides[members[-1]] != sides[0] for members in found.values()) < num_least:
                found = {}
        if len(found) < MIN_STRADDLING:
            return None
    flagged = []
    for key, members in found.items():
        names = " and ".join(dict.fromkeys(sides[row] for row in members))
        flagged += [
            images.flag(*rows[row], f"group {key.strip()} in {names}") for row in members if sides[row] != "train"
        ]
    if not flagged:
        return None
    return Finding(
        "IMG008",
        "Groups on both sides of a split",
        "error" if is_given else "warning",
        f"By their {source}, {count_of(len(flagged), 'held-out image')} of {count_of(len(found), 'group')} "
        f"{'show' if is_given else 'may show'} the subjects of training images: scores will be too high.",
        "Move each group to one side."
        if is_given
        else "If a group is one subject, pass groups=… to fit: a column, or a function of a path.",
        tuple(flagged),
    )


def _finding(code: str, message: str, flagged: list[FlaggedImage]) -> Finding | None:
    """Return a finding if any image is flagged."""
    title, severity, what_to_do = _ABOUT[code]
    return Finding(code, title, severity, message, what_to_do, tuple(flagged)) if flagged else None
