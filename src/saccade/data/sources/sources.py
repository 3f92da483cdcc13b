"""Input data: local folders for folders, archives and URLs; tables and lists of images; which images are unreadable."""

from __future__ import annotations

import glob
import itertools
import os
import re
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saccade.data.sources.archives import unpack
from saccade.data.sources.download import fetch
from saccade.data.sources.folders import IMAGE_EXTENSIONS, Folder, images_by_class
from saccade.data.sources.url_folder import UrlFolder
from saccade.errors import DataError, near_names
from saccade.remote.urls import UrlFile, cache_folder, is_remote, is_url, join

_USUAL_EXTENSIONS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".tif", ".webp")
MAX_LISTED, NUM_EXAMPLES = 10, 3  # of more images than the first number, as many as the second are examples
NO_FILE = "no such file"  # reason of a path where no file is; see `saccade.data.decoding`

_MOST_FOLDERS = 100

ARCHIVE_NAME = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.\w+|7z|rar|zst)$", re.IGNORECASE)


def local_file(path: str | Path, *, sha256: str | None = None) -> Path:
    """Return the absolute path of a file or folder, or of a downloaded URL; a DataError suggests similar names."""
    if is_url(path):
        return fetch(str(path), sha256=sha256)
    found = Path(path).expanduser().absolute()
    if found.exists():
        return found
    above = next(parent for parent in found.parents if parent.exists())
    message = f"There is no {str(path)!r} (looked for {found})."
    if not above.is_dir():
        raise DataError(f"{message} {above} is a file.")
    names = sorted(entry.name for entry in above.iterdir() if not entry.name.startswith("."))
    if near := near_names(found.relative_to(above).parts[0], names):
        raise DataError(f"{message} Did you mean {' or '.join(repr(str(above / match)) for match in near)}?")
    content = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") if names else "nothing"
    raise DataError(f"{message} {above} exists and contains: {content}.")


def folder_of(root: str | Path, *, sha256: str | None = None) -> Folder:
    """Return a folder, or that of an archive or its URL, which is unpacked into the cache; else raise a DataError."""
    if is_remote(root) and not ARCHIVE_NAME.search(str(root)) and UrlFile(str(root)).kind() == "folder":
        return UrlFolder(str(root))
    found = local_file(root, sha256=sha256)
    if found.is_dir():
        return found
    if not found.is_file():
        raise DataError(f"{str(root)!r} is neither a folder nor a regular file.")
    # A damaged archive is recognized by its name, so that `unpack` reports the damage.
    is_archive = ARCHIVE_NAME.search(found.name) or zipfile.is_zipfile(found) or tarfile.is_tarfile(found)
    if not is_url(root) and not is_archive:
        raise DataError(
            f"{str(root)!r} is a file, but neither a zip nor a tar archive. "
            "Expected a folder, an archive of one, or the URL of an archive."
        )
    return unpack(found, cache_folder() / "unpacked")


def list_image_paths(images: str | Path | Iterable[str | Path], root: str | Path | None) -> list[str | Path]:
    """Return the image paths of a list, a glob pattern, a folder or an archive."""
    if not isinstance(images, (str, Path)):
        paths = list(images)
        if not paths:
            raise DataError("The list of images is empty.")
        for path in paths:
            if not isinstance(path, (str, Path)):
                raise DataError(f"Expected paths of images, which have names; found {type(path).__name__}.")
        return paths
    if is_remote(images) and glob.has_magic(str(images)) and UrlFile(str(images)).kind() is None:
        if found := UrlFile(str(images)).matches():
            return list(found)
        raise DataError(f"No file matches the pattern {str(images)!r}.")
    base = None if root is None or is_url(images) else folder_of(root)
    if isinstance(base, UrlFolder):
        return list_image_paths(join(base.url, str(images)), None)
    place = images if base is None else base / images
    if not is_url(images) and glob.has_magic(str(images)) and not Path(place).exists():
        pattern = str(Path(place).expanduser())
        # Path.glob refuses absolute patterns.
        matches = sorted(match for match in glob.glob(pattern, recursive=True) if not Path(match).is_dir())  # noqa: PTH207
        if not matches:
            raise DataError(f"No file matches the pattern {str(place)!r}.")
        return list(matches)
    return list(images_by_class(folder_of(place), no_class=True)[""])


def as_frame(data: Any, image_column: str) -> pd.DataFrame:
    """Return a new DataFrame of a table, a column, or a list of images."""
    if isinstance(data, (str, Path)):
        raise DataError(
            f"{str(data)!r} is a path; expected a table or a list of images. For a folder or an archive use "
            "ImageDataset.from_folder or from_folders, for a CSV file ImageDataset.from_csv."
        )
    if isinstance(data, (pd.Series, pd.Index)):
        data = {image_column: data}
    elif isinstance(data, (Sequence, np.ndarray)) and not (len(data) and all(isinstance(row, dict) for row in data)):
        data = {image_column: pd.Series(list(data), dtype=object)}
    frame: pd.DataFrame = pd.DataFrame(data)
    return frame


def check_column(frame: pd.DataFrame, column: str, parameter: str, advice: str = "") -> None:
    """Raise a DataError with similar names if there is no such column."""
    if list(frame.columns).count(column) > 1:
        raise DataError(f"The table has several columns {column!r}. Give each column a name of its own.")
    if column not in frame.columns:
        known = [str(name) for name in frame.columns]
        near = near_names(column, known)
        guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "") or "none"
        raise DataError(f"No column {column!r}.{guess} Columns: {shown}. Name it with {parameter}=...{advice}.")


def as_images(column: pd.Series[Any], root: str | Path | None) -> pd.Series[Any]:
    """Return paths as strings, absolute if `root` is given, in the spelling of the file; other images unchanged.

    `root` is a folder, an archive, or the URL of one.
    """
    if is_remote(root) and not ARCHIVE_NAME.search(str(root)):
        base: Folder | None = UrlFolder(str(root))  # whose files are not listed
    else:
        base = None if root is None else folder_of(root)

    def as_image(image: Any) -> Any:
        if not isinstance(image, (str, Path)):
            return image
        if isinstance(base, Path) and str(image) and not is_url(image):
            return str(existing_spelling(base / image))
        if isinstance(base, UrlFolder) and str(image) and not is_url(image) and not Path(image).is_absolute():
            return join(base.url, Path(image).as_posix())
        return str(existing_spelling(image))

    # The dtype is object, since pandas' string dtype cannot represent bytes or file names that are not Unicode.
    images: pd.Series[Any] = pd.Series(map(as_image, column), index=column.index, dtype=object)
    return images


def existing_spelling(path: str | Path) -> str | Path:
    """Return a path as it is spelt on the disk: accents composed or decomposed, slashes for backslashes, an extension.

    Paths are looked up only if they have such characters, or no extension of images; they stay if no file is found.
    """
    text = str(path)
    is_plain = text.isascii() and "\\" not in text and text.lower().endswith(IMAGE_EXTENSIONS)
    if is_plain or not text.strip() or is_url(text) or os.path.lexists(text):
        return path
    for candidate in dict.fromkeys((text, text if os.sep == "\\" else text.replace("\\", "/"))):
        found = Path(Path(candidate).anchor)
        for part in Path(candidate).parts[1 if found.name or found.anchor else 0 :]:
            forms = (part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")))
            found = next((found / form for form in forms if os.path.lexists(found / form)), found / part)
        with_extension = (found.with_name(found.name + ending) for ending in _USUAL_EXTENSIONS if found.name)
        # Unlike `Path.is_file`, this raises no error for a name that is too long.
        if (there := next(filter(os.path.isfile, (found, *with_extension)), None)) is not None:
            return str(there) if isinstance(path, str) else there
    return path


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
