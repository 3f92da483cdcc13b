"""A small photo set, made of photographs that installed packages contain, so that every example runs anywhere."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.cbook import get_sample_data
from matplotlib.image import imread
from PIL import Image
from sklearn.datasets import load_sample_image

from saccade.errors import DataError

SIDE = 96  # pixels of a side of an image


@dataclass(frozen=True)
class Source:
    """A photograph, the function that loads it, and whose it is."""

    load: Callable[[], Image.Image]
    credit: str


SOURCES = {
    "flower": Source(
        lambda: Image.fromarray(load_sample_image("flower.jpg")),
        "flower: flickr.com/photos/vultilion/6056698931, CC BY 2.0, from scikit-learn",
    ),
    "portrait": Source(
        lambda: Image.fromarray(imread(get_sample_data("grace_hopper.jpg", asfileobj=False))),
        "portrait: Grace Hopper, United States Navy, public domain, from matplotlib",
    ),
    "temple": Source(
        lambda: Image.fromarray(load_sample_image("china.jpg")),
        "temple: flickr.com/photos/danielbuechele/6061409035, CC BY 2.0, from scikit-learn",
    ),
}
"""The classes."""


def write_photos(folder: Path, num_images: int, seed: int = 0) -> list[Path]:
    """Write ``folder/<class>/<number>.jpg``, random parts of the photograph of each class, and return the paths.

    A folder that exists and is not empty is a DataError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already; choose another folder, or delete it")
    return write_parts(folder, num_images, seed)


def write_parts(
    folder: Path, num_images: int, seed: int = 0, *, within: tuple[float, float] = (0.0, 1.0)
) -> list[Path]:
    """Write the files of `write_photos`, of this range of each photograph's width, and replace those that exist."""
    rng = np.random.default_rng(seed)
    paths = []
    for name, source in SOURCES.items():
        photo = source.load()
        photo = photo.crop((int(within[0] * photo.width), 0, int(within[1] * photo.width), photo.height))
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(num_images):
            side = int(min(photo.size) * rng.uniform(0.45, 0.75))
            left, top = (int(rng.uniform(0, length - side)) for length in photo.size)
            part = photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
            paths.append(folder / name / f"{number:03}.jpg")
            part.save(paths[-1], quality=90)
    return paths


def write_documented_files(photos: Path) -> list[Path]:
    """Write what the pages of the documentation use besides ``photos``, next to it, and return the paths.

    ``shop/`` and ``shop.zip`` have ``train`` and ``test`` with the classes; four tables have labels of the photos.
    """
    desk = photos.parent
    shop = write_photos(desk / "shop" / "train", 10, seed=1) + write_photos(desk / "shop" / "test", 2, seed=2)
    with zipfile.ZipFile(desk / "shop.zip", "w") as archive:
        for path in shop:
            archive.write(path, path.relative_to(desk))
    files = sorted(photos.rglob("*.jpg"))
    names, kinds = [path.relative_to(photos).as_posix() for path in files], [path.parent.name for path in files]
    tags = [f"{kind};outdoors" if number % 2 else kind for number, kind in enumerate(kinds)]
    prices = np.random.default_rng(0).uniform(5, 50, len(files)).round(2)
    tables = {
        "labels.csv": {"image": names, "label": kinds},
        "motifs.csv": {"file": names, "motif": kinds},
        "tags.csv": {"image": names, "tags": tags},
        "prices.csv": {"image": names, "price": prices},
    }
    for name, columns in tables.items():
        pd.DataFrame(columns).to_csv(desk / name, index=False)
    with Image.open(files[0]) as photo:
        photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(desk / "new.jpg")
    return [desk / "shop", desk / "shop.zip", *(desk / name for name in tables), desk / "new.jpg"]
