"""The demo: classifiers of photographs and of handwritten digits, on any machine and without internet access."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from saccade.apps.sample_data import SOURCES, write_parts
from saccade.data.dataset import ImageDataset
from saccade.insight.figures import predictions_figure
from saccade.predictor import ImagePredictor
from saccade.report.tables import output_console, print_trials
from saccade.space import Categorical

SIDE, MARGIN = 32, 2  # pixels of a side of an image, and of its empty border

PHOTOGRAPHS, PREDICTIONS, WHY = "photographs.png", "predictions.png", "why.png"
"""The figures: test photographs and test digits with predictions; saliency and similar training images."""

NUM_PHOTOGRAPHS = 20  # training images per class, and test images per class

PRETRAINED: dict[str, Any] = {"model": "tf_efficientnet_lite0", "epochs": 1, "transfer_lr_mult": 0.0}
"""A linear classifier on the features of the network whose ImageNet weights are installed with Saccade."""

NUM_SHOWN, NUM_REASONS = 24, 6  # images in a figure of predictions, and in the one of explanations
TIME_LIMIT_S = 300  # the search takes a fraction of it, unless the machine is busy

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
    """Classify photographs by pretrained features, then search on digits; evaluate, draw predictions and explanations.

    `out` is the folder of images, runs and pictures; the search uses `num_images` digits, or all 1797. Returns its
    scores.
    """
    console = output_console()
    start_s = time.perf_counter()
    _classify_photographs(console, out)
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
    top1 = scores["top1"]
    console.print(f"[bold]digits: test accuracy {top1:.4f}[/bold] on {len(test)} images; {seconds:.0f} s in all")
    for picture in (PHOTOGRAPHS, PREDICTIONS):
        console.print(f"sample predictions: {(out / picture).resolve()}", soft_wrap=True)
    console.print(f"why, for some of them: {(out / WHY).resolve()}", soft_wrap=True)
    if (report := out / "run" / "report.html").is_file():  # it is written if the limit leaves time
        console.print(f"report of the search: {report.resolve()}", soft_wrap=True)
    saccade = "saccade" if shutil.which("saccade") else f"{sys.executable} -m saccade"
    console.print(f"To predict an image: {saccade} predict {out / 'run'} {image}", soft_wrap=True)
    return scores


def _classify_photographs(console: Console, out: Path) -> None:
    """Fit a classifier to parts of the left half of each photograph, and evaluate it on parts of the right half."""
    write_parts(out / "photographs" / "train", NUM_PHOTOGRAPHS, within=(0.0, 0.5))
    write_parts(out / "photographs" / "test", NUM_PHOTOGRAPHS, within=(0.5, 1.0))
    train, _, test = ImageDataset.from_folders(out / "photographs")
    console.print(
        f"{len(train)} training images: parts of the left halves of {len(SOURCES)} photographs of scikit-learn and "
        "matplotlib",
        soft_wrap=True,
    )
    predictor = ImagePredictor(path=out / "photographs_run")
    predictor.fit(
        train,
        time_limit=TIME_LIMIT_S,
        hyperparameters=PRETRAINED,
        hyperparameter_tune_kwargs={"num_trials": 1},
        holdout_frac=0.5,
    )
    top1 = predictor.evaluate(test)["top1"]
    draw_predictions(predictor, test, out / PHOTOGRAPHS)
    console.print(
        f"[bold]photographs: test accuracy {top1:.4f}[/bold] on {len(test)} parts of the right halves, by pretrained "
        f"features of {PRETRAINED['model']}\n",
        soft_wrap=True,
    )


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


def draw_predictions(predictor: ImagePredictor, test: ImageDataset, path: Path) -> Path:
    """Draw some of the test images with their predictions, and return the path of the figure.

    Half of the images are those with the lowest confidence; half are drawn at random.
    """
    found = predictor.pipeline.predict(test["image"].tolist())
    confidence = np.array(found.label_probabilities)
    by_confidence = np.argsort(confidence, kind="stable")
    rest = np.random.default_rng(0).permutation(by_confidence[NUM_SHOWN // 2 :])
    shown = np.concatenate([by_confidence[: NUM_SHOWN // 2], rest])[:NUM_SHOWN]
    predicted = np.asarray(predictor.classes)[found.main_class]
    true = test["label"].to_numpy()
    images = test["image"].to_numpy()
    figure = predictions_figure(images[shown].tolist(), predicted[shown], true[shown], confidence[shown].tolist())
    figure.savefig(path)
    return path
