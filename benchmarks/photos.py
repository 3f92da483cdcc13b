"""Photographs for benchmarks: those of a folder, or generated smooth noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from saccade import ImageDataset

_TINTS = np.random.default_rng(0).uniform(-60, 60, (1000, 3))


def make_photos(
    folder: Path, num_images: int, num_classes: int = 4, size: tuple[int, int] = (500, 375), seed: int = 0
) -> Path:
    """Write JPEG files into a folder for each class, and return `folder`.

    A photo is smooth noise, which decoders take as long for as for a real one of that size, with a tint of its class.

    Parameters
    ----------
    folder : Path
        Where to.
    num_images : int
        In all classes together.
    num_classes : int
        At most 1,000.
    size : (int, int)
        Width and height in pixels.
    seed : int
        Photos of different seeds are different.
    """
    rng = np.random.default_rng([seed, num_images])
    width, height = size
    grain = rng.normal(0, 6, (height, width, 1))
    for number in range(num_images):
        index = number % num_classes
        coarse = rng.uniform(0, 255, (max(2, height // 40), max(2, width // 40), 3)) + _TINTS[index]
        image = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(image) + np.roll(grain, int(rng.integers(height * width)))
        path = folder / f"class_{index:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=88)
    return folder


def photos_of(folder: str | Path, num_images: int | None = None) -> ImageDataset:
    """Return the photos below `folder`, or below its ``train``, at most that many, drawn at random."""
    from saccade import ImageDataset

    folder = Path(folder)
    dataset = ImageDataset.from_folder(folder / "train" if (folder / "train").is_dir() else folder)
    if num_images is None or num_images >= len(dataset):
        return dataset
    return dataset.sample(n=num_images, random_state=0).sort_index().reset_index(drop=True)
