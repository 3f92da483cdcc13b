"""Messages about unreadable images: a few examples, how many there are, and where missing files may be."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.data.sources.sources import existing_spelling

MAX_LISTED, NUM_EXAMPLES = 10, 3  # of more images than the first number, as many as the second are examples
NO_FILE = "no such file"  # reason of a path where no file is; see `saccade.data.decoding`

_MOST_FOLDERS = 100


def describe_unreadable(images: Sequence[Any], errors: Mapping[int, str]) -> str:
    """Return a message about unreadable images; `errors` are the reasons by position."""
    num = len(errors) if len(errors) <= MAX_LISTED else NUM_EXAMPLES
    named = [f"{name_of(images[position], position)}: {reason}" for position, reason in sorted(errors.items())]
    lines = [f"{len(named)} of {len(images)} images cannot be read:", *named[:num]]
    if len(named) > num:
        lines.append(f"… and {len(named) - num} more")
    missing = [str(images[position]) for position, reason in sorted(errors.items()) if reason == NO_FILE]
    if missing and (found := find_moved(missing[0])) is not None:
        lines.append(f"{found} exists; is the root folder of the paths another one?")
    return "\n  ".join(lines)


def name_of(image: Any, position: int) -> str:
    """Return the path of an image, or its position if it has none."""
    return str(image) if isinstance(image, str | Path) and str(image).strip() else f"image {position}"


def find_moved(path: str) -> Path | None:
    """Return an existing file one level above or below the place where a file is missing; None if there is none."""
    missing = Path(path).absolute()
    above = next((parent for parent in missing.parents if parent.is_dir()), None)
    if above is None:
        return None
    rest = missing.relative_to(above)
    try:
        with os.scandir(above) as entries:
            below = [Path(entry.path) for entry in itertools.islice(entries, _MOST_FOLDERS) if entry.is_dir()]
    except OSError:
        below = []
    candidates = [above.parent / rest, *(folder / rest for folder in sorted(below))]
    if len(rest.parts) > 1:
        candidates.append(above / Path(*rest.parts[1:]))
    spelt = (Path(existing_spelling(str(candidate))) for candidate in candidates)
    return next((candidate for candidate in spelt if candidate.is_file()), None)
