"""The demo: a classifier of handwritten digits, on any machine and without internet access."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from saccade.data.dataset import ImageDataset
from saccade.predictor import ImagePredictor
from saccade.report.figures import predictions_figure
from saccade.report.tables import output_console, print_trials
from saccade.space import Categorical

SIDE, MARGIN = 32, 2
"""Pixels of a side of an image, and of its empty border."""

PREDICTIONS, WHY = "predictions.png", "why.png"
"""The figures: test images with predictions; saliency and similar training images."""

NUM_REASONS = 6
"""Images in the second figure."""

TIME_LIMIT_S = 300
"""The search takes a fraction of it, unless the machine is busy."""

HYPERPARAMETERS: dict[str, Any] = {
    "model": Categorical("test_resnet", "resnet10t"),
    "lr": Categorical(1e-2, 1e-3),
    "epochs": 5,
    "batch_size": 32,
    "img_size": SIDE,
    "pretrained": False,
    "hflip": 0.0,  # a mirrored 2 is not a 2
    "scale": (0.7, 1.0),  # a small crop may not show the digit
}
"""Two small residual networks with random weights, each at two learning rates."""


def run_demo(
    out: Path, hyperparameters: Mapping[str, Any] = HYPERPARAMETERS, num_images: int | None = None
) -> dict[str, float]:
    """Write the digits, search, evaluate on the test set, and draw predictions and explanations; return the scores.

    The folder `out` gets ``digits/`` (the images), ``run/`` (the run), and the pictures ``predictions.png`` and
    ``why.png``. `num_images` None uses all 1797 images.
    """
    console = output_console()
    start_s = time.perf_counter()
    num_written = write_digits(out / "digits", num_images)
    console.print(f"{num_written} handwritten digits of scikit-learn written to {out / 'digits'}", soft_wrap=True)
    train, _, test = ImageDataset.from_folders(out / "digits")
    predictor = ImagePredictor(path=out / "run")
    predictor.fit(
        train,
        time_limit=TIME_LIMIT_S,
        hyperparameters=hyperparameters,
        hyperparameter_tune_kwargs={"searcher": "grid", "scheduler": "fifo"},  # all four, to the end
        nthreads_per_trial=1,  # so two cores train two trials at once
    )
    print_trials(console, predictor.leaderboard(), predictor.fit_summary())
    scores = predictor.evaluate(test)
    draw_predictions(predictor, test, out / PREDICTIONS)
    predictor.why(test, num_images=NUM_REASONS).savefig(out / WHY)
    image = min((out / "digits" / "test").glob("*/*.png"))
    seconds = time.perf_counter() - start_s
    console.print(f"[bold]test accuracy {scores['top1']:.4f}[/bold] on {len(test)} images; {seconds:.0f} s in all")
    console.print(f"sample predictions: {(out / PREDICTIONS).resolve()}", soft_wrap=True)
    console.print(f"why, for some of them: {(out / WHY).resolve()}", soft_wrap=True)
    saccade = "saccade" if shutil.which("saccade") else f"{sys.executable} -m saccade"
    console.print(f"next, try for instance: {saccade} predict {out / 'run'} {image}", soft_wrap=True)
    return scores


def write_digits(folder: Path, num_images: int | None = None) -> int:
    """Write scikit-learn's digits as ``train/<digit>/<number>.png`` and ``test/…``, a quarter; return their number."""
    digits = load_digits()
    pixels_NHW, labels = digits.images[:num_images], digits.target[:num_images]
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
    for split, chosen in (("train", train), ("test", test)):
        for label in np.unique(labels[chosen]):
            (folder / split / str(label)).mkdir(parents=True, exist_ok=True)
        for number in chosen:
            ink_HW = np.rint(pixels_NHW[number] * (255 / 16)).astype(np.uint8)  # the digits have values from 0 to 16
            digit = Image.fromarray(ink_HW).resize((SIDE - 2 * MARGIN,) * 2, Image.Resampling.BICUBIC)
            image = ImageOps.expand(digit, MARGIN)
            image.save(folder / split / str(labels[number]) / f"{number:04d}.png")
    return len(labels)


def draw_predictions(predictor: ImagePredictor, test: ImageDataset, path: Path, num_images: int = 24) -> Path:
    """Draw some of the test images with their predictions, and return the path of the figure.

    Half of the images are those with the lowest confidence; half are drawn at random.
    """
    found = predictor.pipeline.predict(test["image"].tolist())
    confidence = np.array(found.label_probabilities)
    by_confidence = np.argsort(confidence, kind="stable")
    rest = np.random.default_rng(0).permutation(by_confidence[num_images // 2 :])
    shown = np.concatenate([by_confidence[: num_images // 2], rest])[:num_images]
    predicted = np.asarray(predictor.classes)[found.main_class]
    true = test["label"].to_numpy()
    images = test["image"].to_numpy()
    figure = predictions_figure(images[shown].tolist(), predicted[shown], true[shown], confidence[shown].tolist())
    figure.savefig(path)
    return path
