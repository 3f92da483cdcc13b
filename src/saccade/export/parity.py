"""Comparison of an exported file with the predictor on images of several sizes."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from saccade.data.decoding import decode_image
from saccade.data.earlier_split import HELD_OUT, EarlierSplit, image_keys
from saccade.data.examples import Examples, ImageLike
from saccade.data.store.stored_form import pixels_of
from saccade.errors import ImageReadError, SaccadeError
from saccade.export.base import ExportFormat, Run
from saccade.export.module import ExportModule
from saccade.fit.run_data import read_run_data
from saccade.fit.run_folder import DATA
from saccade.inference.pipeline import InferencePipeline, Predictions
from saccade.inference.saved import SPLIT, SavedPredictor
from saccade.tasks.problem import Regression

Place = tuple[Examples, int]  # images, and the number of one of them

NUM_IMAGES = 6  # real images that are compared, in their own size and in one of `SIZES`
SIZES = ((32, 32), (41, 160), (700, 90), (223, 301), (1100, 800), (1500, 2000))  # height and width in pixels


def parity_images(saved: SavedPredictor, size: tuple[int, int] | None = None) -> list[np.ndarray]:
    """Return decoded images: validation images of the run if they are there, else synthetic ones.

    They have several sizes, or the height and width of `size`.
    """
    channels = saved.blueprint.in_chans
    originals: list[np.ndarray] = []
    for image in _validation_images(saved):
        if len(originals) == NUM_IMAGES:
            break
        try:
            decoded = decode_image(image, channels=channels, pixel_range=saved.pixel_range).image
        except ImageReadError:
            continue
        decoded.thumbnail((2000, 2000))
        originals.append(pixels_of(decoded))
    rng = np.random.default_rng(0)
    while len(originals) < NUM_IMAGES:  # smooth colours with some noise
        coarse = rng.integers(0, 256, (6, 8, channels), dtype=np.uint8)
        smooth = _resized(coarse, 300, 400).astype(np.int64) + rng.integers(-20, 21, (300, 400, channels))
        originals.append(smooth.clip(0, 255).astype(np.uint8))
    if size is not None:
        return [_resized(image, *size) for image in originals]
    return originals + [_resized(image, *size) for image, size in zip(originals, SIZES, strict=True)]


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    bands = [Image.fromarray(image[:, :, band]).resize((width, height)) for band in range(image.shape[2])]
    return np.dstack([np.asarray(band) for band in bands])


def images_of_run(saved: SavedPredictor) -> tuple[list[Place], list[Place]]:
    """Return the images that the predictor was fitted to, and those that were held out, as the run folder lists them.

    Raises an OSError, ValueError or SaccadeError if it does not.
    """
    train, tuning = read_run_data(saved.folder.parent / DATA)
    split = EarlierSplit.load(saved.folder / SPLIT) if tuning is None else None
    fitted, held_out = [], []
    for part in (train, tuning):
        is_held_out = np.full(len(part or ()), part is tuning)
        if part is not None and split is not None:
            is_held_out = split.sides(image_keys(part.images, [""] * len(part))) == HELD_OUT
        if part is not None:
            fitted += [(part, int(row)) for row in np.flatnonzero(~is_held_out)]
            held_out += [(part, int(row)) for row in np.flatnonzero(is_held_out)]
    return fitted, held_out


def _validation_images(saved: SavedPredictor) -> list[ImageLike]:
    """Return the images that the predictor was not fitted to, if the run folder lists them; else all of the run."""
    try:
        fitted, held_out = images_of_run(saved)
    except (SaccadeError, OSError, ValueError):
        return []
    return [part.images[row] for part, row in held_out or fitted]


def check_parity(
    run: Run, module: ExportModule, pipeline: InferencePipeline, images: list[np.ndarray], chosen: ExportFormat
) -> float:
    """Return the largest difference of a file's probabilities from the predictor's.

    For regression it is relative to the standard deviation of the labels. Raises a SaccadeError if the difference is
    larger than the format's tolerance, or labels, sets or novelty differ by more than it explains.
    """
    parts = [run(image[None]) for image in images]
    found = {name: np.concatenate([part[name] for part in parts]) for name in module.output_names}
    pair = run(np.stack([images[0], images[0][:, ::-1]]))  # more than one image at a time
    for name, rows in pair.items():
        found[name] = np.concatenate([found[name], rows])
    images = [*images, images[0], np.ascontiguousarray(images[0][:, ::-1])]
    expected = pipeline.predict(images, coverage=module.prediction.head.coverage)
    name = module.output_names[0]
    scale = module.problem.std if isinstance(module.problem, Regression) else 1.0
    reference = expected.predictions if module.problem.has_classes else expected.predictions[:, 0]
    difference = float(np.abs(found[name] - reference).max() / scale)
    differences = {name: difference}
    if module.has_novelty:
        differences["novelty"] = float(np.abs(found["novelty"] - pipeline.novelty(images)).max())
    limit = chosen.tolerance
    if limit is None:
        return difference
    for name, value in differences.items():
        if not value <= limit:
            raise SaccadeError(
                f"The exported file differs from the predictor: {name} by up to {value:.2g}, more than {limit:g}. "
                "Nothing was written"
            )
    num_others = _num_other_labels(found, module, expected, limit)
    if num_others:
        raise SaccadeError(
            f"The exported file gives other labels or sets for {num_others} of {len(images)} images, although "
            f"probabilities differ by {difference:.2g} only. Nothing was written"
        )
    return difference


def _num_other_labels(found: dict[str, np.ndarray], module: ExportModule, expected: Predictions, limit: float) -> int:
    """Return how many images have other labels or sets than probabilities explain that differ by `limit`.

    Each decision of the file must be that of the predictor for probabilities that are moved by `limit` in its favour.
    """
    if not module.problem.has_classes:
        return 0
    head, p = module.prediction.head, expected.predictions

    def moved(towards: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.clip(p + np.where(towards, limit, -limit), 0, 1).astype(p.dtype))

    is_one = module.problem.has_one_class
    given = np.eye(p.shape[1], dtype=bool)[found["label"]] if is_one else found["given"]
    is_other = (head.decide(moved(given)).given.numpy() != given).any(1)
    if "set_mask" in found:
        mask = found["set_mask"]
        is_other |= ((head.decide(moved(mask)).set_mask.numpy() | given) != mask).any(1)
    return int(is_other.sum())
