from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from saccade.insight.near_duplicates import PIXEL_THRESHOLD, Picture, agreement


def scene(seed: int, side: int = 160) -> Image.Image:
    """Return a picture of smooth patches of several sizes, similar to a photo."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)).resize((side, side), 3), float
        )
        for cells in (3, 6, 12, 24, 48)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def as_jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


CHANGES = {
    "encoded again": lambda image: as_jpeg(image, 30),
    "smaller": lambda image: image.resize((70, 70)),
    "wider": lambda image: image.resize((200, 120)),
    "cropped": lambda image: image.crop((14, 8, 150, 140)),
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.3))),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_changed_copy_agrees_with_its_original(change: str, seed: int) -> None:
    one, other = Picture(scene(seed)), Picture(CHANGES[change](scene(seed)))
    for found in (agreement(one, other), agreement(other, one)):
        assert found.correlation > PIXEL_THRESHOLD
        assert not found.is_mirrored


def test_a_mirrored_crop_agrees_with_its_original() -> None:
    image = scene(2)
    mirrored = image.crop((5, 10, 140, 150)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    found = agreement(Picture(image), Picture(mirrored))
    assert found.is_mirrored
    assert found.correlation > PIXEL_THRESHOLD


def test_other_pictures_do_not_agree() -> None:
    pictures = [Picture(scene(seed)) for seed in range(6)]
    found = [agreement(one, other).correlation for one in pictures for other in pictures if one is not other]
    assert max(found) < 0.5


def test_a_common_outline_is_not_sufficient() -> None:
    """Dark shirts on white walls have the same outline and different details."""

    def shirt(seed: int) -> Image.Image:
        pixels = np.asarray(scene(seed), float) * 0.3 + 170
        pixels[40:120, 40:120] = np.asarray(scene(seed + 100), float)[40:120, 40:120] * 0.4
        return Image.fromarray(pixels.astype(np.uint8))

    assert agreement(Picture(shirt(0)), Picture(shirt(1))).correlation < 0.6
    assert agreement(Picture(shirt(0)), Picture(shirt(0).resize((90, 90)))).correlation > PIXEL_THRESHOLD


def test_pictures_without_details_are_compared_without_a_warning() -> None:
    white, black = (Picture(Image.new("RGB", (20, 30), colour)) for colour in ("white", "black"))
    assert agreement(white, black).correlation < 0.5
    assert agreement(white, Picture(scene(0))).correlation < 0.5


def test_pictures_of_noise_agree_with_their_copies_only() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.integers(90, 170, (64, 64, 3)).astype(np.uint8) for _ in range(2))
    found = agreement(Picture(one), Picture(one[:, ::-1]))
    assert found.is_mirrored
    assert found.correlation > 0.99
    assert agreement(Picture(one), Picture(other)).correlation < PIXEL_THRESHOLD
