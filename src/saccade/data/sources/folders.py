"""Find image files in folders, and the classes given by folder names."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from saccade.data.sources.url_folder import UrlEntry, UrlFolder
from saccade.errors import DataError, DataWarning
from saccade.remote.urls import UrlFile, is_remote, read_many

IMAGE_EXTENSIONS: tuple[str, ...] = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
    *(".heic", ".heif", ".hif", ".jxl"),  # read with the extra "formats", else listed as unreadable
)
"""Default file name extensions of images."""

SIGNATURES: tuple[bytes, ...] = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
)
"""First bytes of the common formats, by which images with another extension, or without one, are recognized."""

_LITTER = frozenset(
    {
        *("__macosx", "__pycache__", "lost+found", "$recycle.bin", "system volume information", "#recycle"),
        *("@recycle", "@eadir", "#snapshot", "@recently-snapshot", "thumbs.db", "desktop.ini"),
    }
)
"""Names, in lower case, of what operating systems and network drives leave in folders."""

_MAX_NAMES = 12
_SIGNATURE_BYTES = 12

Folder = Path | UrlFolder
Entry = os.DirEntry[str] | UrlEntry


def find_images(folder: Folder, exts: str | Collection[str] | None = None) -> list[str]:
    """Return the paths of all images in a folder and its sub-folders, sorted folder by folder.

    Hidden files, and folders of the system such as those of thumbnails, are skipped. Links are followed, except links
    to a folder that contains them; broken links to images are returned, so that they are listed as unreadable. Without
    `exts`, files with `IMAGE_EXTENSIONS` and other files whose first bytes are those of an image are returned.
    """
    files = list(_visible_files(folder))
    if isinstance(folder, UrlFolder) and exts is None:  # many requests at once
        others = [file for file in files if not file.lower().endswith(IMAGE_EXTENSIONS)]
        starts = read_many([UrlFile(file) for file in others], _SIGNATURE_BYTES)
        no_images = {file for file, start in zip(others, starts, strict=True) if not _is_signature(start)}
        return [file for file in files if file not in no_images]
    return [file for file in files if _is_image(file, exts)]


def images_by_class(
    folder: Folder, exts: str | Collection[str] | None = None, no_class: bool = False
) -> dict[str, list[str]]:
    """Return the sorted images of each direct sub-folder, by its name; with `no_class`, all under "".

    Accents in names are composed, since systems differ in it; except if there is a folder of that name as well. A
    `DataWarning` names sub-folders without images, and images that are in no sub-folder. Raises a DataError with the
    extensions searched for and found if no image is found.
    """
    below: dict[str, Folder] = {"": folder} if no_class else {}
    for entry in () if no_class else _folders(folder):
        composed = unicodedata.normalize("NFC", entry.name)
        below[entry.name if composed in below else composed] = folder / entry.name
    found = {name: find_images(path, exts) for name, path in below.items()}
    if not any(found.values()):
        raise _no_images_error(folder, exts, no_class=no_class)
    empty = [f"{name!r} ({_kinds_of_files(below[name])})" for name, images in found.items() if not images]
    remarks = [f"these folders have no images, and are no classes: {', '.join(empty[:_MAX_NAMES])}"] if empty else []
    if not no_class and (loose := [entry.name for entry in visible_entries(folder) if _is_image(entry.path, exts)]):
        remarks.append(f"images in no class folder are left out: {len(loose)}, such as {loose[0]!r}")
    if remarks:
        advice = " Pass exts=... to read files with other extensions" if empty else ""
        warnings.warn(DataWarning(f"In {folder} {'; '.join(remarks)}.{advice}"), stacklevel=4)
    return found


def _is_image(file: str, exts: str | Collection[str] | None) -> bool:
    if exts is not None or file.lower().endswith(IMAGE_EXTENSIONS):
        return file.lower().endswith(extensions(exts))
    try:
        if is_remote(file):
            return _is_signature(UrlFile(file).read(_SIGNATURE_BYTES))
        with open(file, "rb") as opened:  # noqa: PTH123  pathlib cannot handle names that are not Unicode
            return _is_signature(opened.read(_SIGNATURE_BYTES))
    except OSError:
        return False


def _is_signature(start: bytes) -> bool:
    return start.startswith(SIGNATURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def descend(folder: Folder, is_wanted: Callable[[str], bool]) -> Folder:
    """Descend through folders that contain only one folder, with sub-folders and no images; not past a wanted one."""
    while True:
        entries = [
            entry for entry in visible_entries(folder) if not entry.name.lower().startswith(("readme", "license"))
        ]
        if len(entries) != 1 or not _is_folder(entries[0]) or is_wanted(entries[0].name):
            return folder
        inner = folder / entries[0].name
        if not _folders(inner) or any(_is_image(entry.path, None) for entry in visible_entries(inner)):
            return folder
        folder = inner


def folder_names(folder: Folder) -> list[str]:
    """Return the names of the visible folders in a folder, sorted."""
    return [entry.name for entry in _folders(folder)]


def has_files(folder: Folder) -> bool:
    """Return whether this is a folder with a visible file in it or its sub-folders."""
    return folder.is_dir() and next(_visible_files(folder), None) is not None


def _no_images_error(folder: Folder, exts: str | Collection[str] | None, *, no_class: bool) -> DataError:
    """Return the error that lists the extensions searched for, the files found, and what to do."""
    looked_for = ", ".join(extensions(exts))
    if next(_visible_files(folder), None) is None:
        return DataError(f"No images in {folder}: there are no files in it. Looked for {looked_for}.")
    if not no_class and (loose := find_images(folder, exts)):
        return DataError(
            f"No class folders in {folder}: it contains {len(loose)} images directly. Expected one sub-folder per "
            f"class: pass {folder.parent} if {folder.name!r} is a class, or no_class=True for images without classes; "
            "or use from_name_func or from_csv."
        )
    return DataError(
        f"No images in {folder}: looked for {looked_for}; found instead {_kinds_of_files(folder)}. "
        "Pass exts=... to read files with other extensions."
    )


def _kinds_of_files(folder: Folder) -> str:
    """Return how many files of each extension there are."""
    by_extension = Counter(Path(file).suffix.lower() or "no extension" for file in _visible_files(folder))
    kinds = ", ".join(f"{num} {extension}" for extension, num in by_extension.most_common(_MAX_NAMES))
    return kinds or "no files"


def extensions(exts: str | Collection[str] | None) -> tuple[str, ...]:
    """Return extensions in lower case, with their dot."""
    if exts is None:
        return IMAGE_EXTENSIONS
    given = (exts,) if isinstance(exts, str) else tuple(exts)
    if not given:
        raise DataError("exts is empty; expected file name extensions such as ('.jpg', '.png'), or None.")
    return tuple("." + ext.lower().lstrip(".") for ext in given)


def visible_entries(folder: Folder) -> Sequence[Entry]:
    """Return the entries of a folder, sorted by name, without hidden ones and those of the system."""
    found: list[Entry]
    if isinstance(folder, UrlFolder):
        found = list(folder.entries())
    else:
        with os.scandir(folder) as entries:
            found = list(entries)
    visible = [entry for entry in found if entry.name[0] != "." and entry.name.lower() not in _LITTER]
    return sorted(visible, key=lambda entry: entry.name)


def _folders(folder: Folder) -> list[Entry]:
    return [entry for entry in visible_entries(folder) if _is_folder(entry)]


def _is_folder(entry: Entry) -> bool:
    # DirEntry.is_dir raises for a link to itself; Path.is_dir does not.
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def _visible_files(folder: Folder, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Yield the visible files and broken links; links back to a folder in `above`, the enclosing ones, are skipped."""
    here = (0, 0)
    if isinstance(folder, Path):
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
    for entry in visible_entries(folder):
        if _is_folder(entry):
            yield from _visible_files(folder / entry.name, (*above, here))
        elif entry.is_symlink() or entry.is_file():
            yield entry.path
