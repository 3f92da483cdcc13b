"""What people hand to an `ImageDataset`, made into a table, a column or a list of paths."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saccade.data.sources.folders import descend, images_by_class
from saccade.data.sources.sources import is_url, local_path
from saccade.errors import DataError, near_names


def as_frame(data: Any, image_column: str) -> pd.DataFrame:
    """Return a new plain table of whatever was given as data."""
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
    """Raise an error that names near columns if there is none of that name."""
    if column not in frame.columns:
        known = [str(name) for name in frame.columns]
        near = near_names(column, known)
        guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        seen = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "") or "none"
        raise DataError(f"No column {column!r}.{guess} Columns: {seen}. Name it with {parameter}=...{advice}.")


def as_images(column: pd.Series[Any], root: Path | None) -> pd.Series[Any]:
    """Return paths as strings, absolute ones where there is a root, and leave all else as it is."""

    def as_image(image: Any) -> Any:
        if isinstance(image, (str, Path)):
            return str(image if root is None else root / image)
        return image

    # Of type object, since pandas' string type cannot hold bytes nor every file name.
    images: pd.Series[Any] = pd.Series(map(as_image, column), index=column.index, dtype=object)
    return images


def image_folder(root: str | Path, sha256: str | None = None) -> Path:
    """Return the folder to look for images in."""
    folder = local_path(root, sha256=sha256)
    # A folder on this machine is taken as the user points to it; an archive often has everything in one
    # folder.
    return folder if not is_url(root) and Path(root).expanduser().is_dir() else descend(folder)


def named_images(images: str | Path | Iterable[str | Path], root: str | Path | None) -> list[str | Path]:
    """Return the paths of images for a list, a pattern, a folder or an archive."""
    if not isinstance(images, (str, Path)):
        paths = list(images)
        if not paths:
            raise DataError("The list of images is empty.")
        for path in paths:
            if not isinstance(path, (str, Path)):
                raise DataError(f"Expected the paths of images, which have names; found {type(path).__name__}.")
        return paths
    base = None if root is None or is_url(images) else local_path(root)
    place = images if base is None else base / images
    if not is_url(images) and glob.has_magic(str(images)) and not Path(place).exists():
        pattern = str(Path(place).expanduser())
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  Path.glob refuses absolute ones
        if not matches:
            raise DataError(f"No file matches the pattern {str(place)!r}.")
        return list(matches)
    return list(images_by_class(local_path(place), no_class=True)[""])
