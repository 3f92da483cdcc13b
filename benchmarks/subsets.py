"""Hard subsets of a data set: few images per class, imbalance, wrong labels, small images.

A subset is text such as ``fewshot=5``, ``imbalanced=100``, ``noisy=0.2`` or ``side=32``; ``side=32+fewshot=5`` is
both, in this order, and ``full`` is the whole set. All random choices depend on a seed. Test images change only in
their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FULL = "full"
"""The subset that is everything."""

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

ByClass = Mapping[str, list[Path]]


def images_by_class(folder: Path) -> dict[str, list[Path]]:
    """Return the images below `folder` by the name of their class's folder, both sorted."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*/*")):
        if path.suffix.lower() in SUFFIXES:
            found.setdefault(path.parent.name, []).append(path)
    if not found:
        raise SystemExit(f"{folder} has no images; expected a folder for each class, with images in it")
    return found


def few_shot(images: ByClass, num: float, rng: np.random.Generator) -> dict[str, list[Path]]:
    """Keep that many images of each class."""
    return {name: [paths[i] for i in _some(len(paths), int(num), rng)] for name, paths in images.items()}


def imbalanced(images: ByClass, ratio: float, rng: np.random.Generator) -> dict[str, list[Path]]:
    """Keep ever fewer images from class to class: the rarest has a `ratio`-th of the most frequent one's, but two.

    Numbers fall exponentially, as in the long-tailed sets of Cui et al., "Class-Balanced Loss Based on Effective Number
    of Samples", CVPR 2019. The order of the classes is drawn.
    """
    names = [list(images)[i] for i in rng.permutation(len(images))]
    most = min(len(paths) for paths in images.values())
    nums = {name: max(2, round(most * ratio ** (-place / max(1, len(names) - 1)))) for place, name in enumerate(names)}
    return {name: [paths[i] for i in _some(len(paths), nums[name], rng)] for name, paths in images.items()}


def noisy(images: ByClass, share: float, rng: np.random.Generator) -> dict[str, list[Path]]:
    """Give a fraction of the images the label of another class, each equally likely."""
    names, found = list(images), {name: list[Path]() for name in images}
    for name, paths in images.items():
        wrong = set(_some(len(paths), round(share * len(paths)), rng))
        for number, path in enumerate(paths):
            others = [other for other in names if other != name]
            found[others[int(rng.integers(len(others)))] if number in wrong else name].append(path)
    return found


DRAWS: dict[str, Callable[[ByClass, float, np.random.Generator], dict[str, list[Path]]]] = {
    "fewshot": few_shot,
    "imbalanced": imbalanced,
    "noisy": noisy,
}


def parse_subset(subset: str) -> list[tuple[str, float]]:
    """Return the parts of a subset, each with its number.

    Raises
    ------
    ValueError
        When it is none.

    Examples
    --------
    >>> parse_subset("side=32+fewshot=5")
    [('side', 32.0), ('fewshot', 5.0)]
    >>> parse_subset("full")
    []
    """
    parts = []
    for part in [] if subset == FULL else subset.split("+"):
        name, _, number = part.partition("=")
        known = [*DRAWS, "side"]
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if name not in known or not value > 0 or (name == "noisy" and value >= 1):
            raise ValueError(
                f"{part!r} is no subset; expected full, fewshot=IMAGES, imbalanced=RATIO, noisy=SHARE, side=PIXELS, or "
                "several of them with + between"
            )
        parts.append((name, value))
    return parts


def make_subset(data: Path, subset: str, seed: int, folder: Path) -> Path:
    """Make a subset of a data set in `folder`, and return the folder with its train and test.

    Parameters
    ----------
    data : Path
        With ``train`` and ``test``, each with a folder for each class.
    subset : str
        As in `parse_subset`.
    seed : int
        Of all that is drawn.
    folder : Path
        Where to; it gets links to the images, or new images where their size changes. `data` itself is ``full``.
    """
    parts = parse_subset(subset)
    if not parts:
        return data
    rng = np.random.default_rng(seed)
    train, sides = images_by_class(data / "train"), [int(number) for name, number in parts if name == "side"]
    for name, number in parts:
        if name in DRAWS:
            train = DRAWS[name](train, number, rng)
    for split, images in (("train", train), ("test", images_by_class(data / "test"))):
        for path, place in _places(images, folder / split):
            place.parent.mkdir(parents=True, exist_ok=True)
            if sides:
                _write_small(path, place, sides[-1])
            else:
                place.symlink_to(path.resolve())
    return folder


def _places(images: ByClass, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Return where each image goes; its old class is in its name, since a wrong label may bring two of one name."""
    for name, paths in images.items():
        for path in paths:
            yield path, folder / name / f"{path.parent.name}-{path.name}"


def _write_small(path: Path, place: Path, side: int) -> None:
    """Write the central square of an image with that many pixels a side, losslessly."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        small = ImageOps.fit(upright.convert("L" if upright.mode in ("1", "L") else "RGB"), (side, side))
    small.save(place.with_suffix(".png"))


def _some(num_all: int, num: int, rng: np.random.Generator) -> list[int]:
    return sorted(rng.permutation(num_all)[:num].tolist())
