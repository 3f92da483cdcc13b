"""Folders of splits, recognised by their names: train/ and test/, Training/ and Testing/, seg_train/ and seg_test/."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

from saccade.data.sources.folders import IMAGE_EXTENSIONS, Folder, descend, find_images, folder_names, visible_entries
from saccade.errors import DataError, DataWarning, near_names

_ROLES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "validating", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "holdout", "tst"),
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words}
_NEUTRAL = frozenset(
    ("set", "data", "dataset", "images", "image", "imgs", "img", "pics", "photos", "pictures", "split", "folder", "dir")
)
_ENDINGS = re.compile(r"(set|data|images|imgs)$")


def role_of(name: str) -> tuple[str, str] | None:
    """Return the split that a folder's name stands for, and the rest of the name, by which splits belong together."""
    parted = (
        re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower().replace("hold-out", "holdout").replace("hold_out", "holdout")
    )
    words = [word if word in _ROLE_OF else _ENDINGS.sub("", word) or word for word in re.findall(r"[^\W\d_]+", parted)]
    roles = [_ROLE_OF[word] for word in words if word in _ROLE_OF]
    rest = " ".join(word for word in words if word not in _ROLE_OF and word not in _NEUTRAL)
    return (roles[0], rest) if len(roles) == 1 else None


def find_splits(folder: Folder) -> dict[str, str]:
    """Return the names of the folders of splits, by ``"train"``, ``"val"`` and ``"test"``; empty if there are none.

    Folders are splits if their names say so, and each is one of at least two, or the only folder. Next to other folders
    they are splits only if the images in them are in sub-folders: otherwise a class is called train.
    """
    names = folder_names(folder)
    groups: dict[str, dict[str, list[str]]] = {}
    for name in names:
        if (found := role_of(name)) is not None:
            groups.setdefault(found[1], {}).setdefault(found[0], []).append(name)
    for _, group in sorted(groups.items()):
        chosen = {role: min(group[role], key=_usual) for role in _ROLES if role in group}
        num_named = sum(map(len, group.values()))
        if len(chosen) < 2 and len(names) > 1:
            continue
        loose = (entry.name.lower() for name in chosen.values() for entry in visible_entries(folder / name))
        if num_named == len(names) > 1 or not any(name.endswith(IMAGE_EXTENSIONS) for name in loose):
            return chosen
    return {}


def choose_splits(folder: Folder, wanted: Mapping[str, str | None]) -> dict[str, str]:
    """Return the folder of each split: the given name, or the usual one; warn about folders that are left out.

    `wanted` has a name for ``"train"``, ``"val"`` and ``"test"``. The name of the split itself stands for all usual
    names, and None leaves the split out. Raises a DataError if there is no folder of training images, or none of a name
    that is given.
    """
    names, found = folder_names(folder), find_splits(folder)
    listed = ", ".join(map(repr, names)) or "none"
    chosen = {role: name for role, name in wanted.items() if name is not None and (folder / name).is_dir()}
    for role, name in wanted.items():
        if name is None or role in chosen:
            continue
        if name == role and role in found and found[role] not in chosen.values():
            chosen[role] = found[role]
        elif name != role and role != "train":
            near = near_names(name, names)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"No folder {name!r} in {folder}, given as {role}.{guess} Folders there: {listed}.")
    if "train" not in chosen:
        raise DataError(
            f"No training folder {wanted['train']!r} in {folder}. Folders there: {listed}. Expected folders of splits, "
            "such as train, val and test, with one sub-folder per class. Name others with train=..., val=..., "
            "test=...; for a folder of classes use from_folder."
        )
    declined = {found[role] for role, name in wanted.items() if name is None and role in found}
    left_out = [
        name for name in names if name not in chosen.values() and name not in declined and find_images(folder / name)
    ]
    if left_out:
        text = f"Images in {', '.join(map(repr, left_out))} in {folder} are left out; the splits are {chosen}"
        warnings.warn(DataWarning(f"{text}. Name other folders with train=..., val=..., test=..."), stacklevel=4)
    return chosen


def descend_to_splits(folder: Folder, wanted: Mapping[str, str | None] | None = None) -> Folder:
    """Descend through folders that wrap the splits."""
    names = set(() if wanted is None else wanted.values())
    return descend(folder, lambda name: name in names or role_of(name) is not None)


def class_folder(split: Folder) -> Folder:
    """Descend to the classes of a split, which some archives wrap in another folder: train/train/, train/images/."""
    return descend(split, lambda name: role_of(name) is None and name.lower() not in _NEUTRAL)


def _usual(name: str) -> tuple[int, int, str]:
    """Return a key that sorts the usual names first: val, valid, validation, and then longer ones."""
    words = [word for words in _ROLES.values() for word in words]
    return (words.index(name.lower()) if name.lower() in words else len(words), len(name), name)
