"""Images whose classes are easy to distinguish."""

from __future__ import annotations

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40), "yellow": (220, 210, 40)}


def colour_image(name: str, seed: int, side: int = 32) -> Image.Image:
    """A square of noise in which one colour prevails; no two are the same."""
    noise = np.random.default_rng(seed).integers(-40, 40, (side, side, 3))
    return Image.fromarray(np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8))
