"""Images beyond the training set: novelty, added classes, few images a class, and groups.

    python -m benchmarks.open_world --data DIR --other DIR [DIR …] [--weights DIR] [--limit 30] [--seeds 3] [--json OUT]

DIR has `train/` and `test/` with a folder for each class; `--other` are images of other kinds. The cells:

- *novelty*: AUROC of `ImagePredictor.novelty` for test images against those of each other folder; the same with
  Mahalanobis++ on the same stored features; and the part of both that `unknown` marks at a false-alarm rate of .05;
- *classes*: a fit on seven tenths of the classes, to which `add_classes` adds the rest: test accuracy on earlier
  classes before and after, and on all classes, beside a fit on all;
- *few-shot*: test accuracy of a fit on 1, 2, 5 and 20 images a class;
- *groups*: each image of a tenth of the training set as five crops: validation minus test accuracy, without and with
  `groups`.

A value is the mean over seeds ± its standard error. Each fit has the time limit.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.measuring import arguments_of, table, write_json
from saccade import ImageDataset, ImagePredictor
from saccade.inference.feature_bank import FeatureBank

CELLS = ("novelty", "classes", "few-shot", "groups")

MAX_OTHER = 500

Found = Iterator[tuple[str, float]]


def fit(train: ImageDataset, given: argparse.Namespace, seed: int, **options: Any) -> ImagePredictor:
    """Return a predictor that was fitted within the limit, in a new folder."""
    predictor = ImagePredictor(path=tempfile.mkdtemp(dir=given.place), verbosity=0)
    weights = None if given.weights is None else str(given.weights)
    return predictor.fit(train, time_limit=given.limit, weights=weights, random_state=seed, **options)


def accuracy(predictor: ImagePredictor, images: ImageDataset) -> float:
    """Return the accuracy on labelled images."""
    return float(predictor.evaluate(images)["top1"])


def mahalanobis(bank: FeatureBank, features: np.ndarray) -> np.ndarray:
    """Return the smallest squared Mahalanobis distance of unit features to a class mean, with a shared covariance."""
    x, new = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (bank.train.astype(np.float64), features))
    classes = np.unique(bank.train_targets)
    means = np.stack([x[bank.train_targets == label].mean(0) for label in classes])
    residuals = x - means[np.searchsorted(classes, bank.train_targets)]
    covariance = residuals.T @ residuals / len(x)
    covariance += 0.01 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    precision = np.linalg.inv(covariance)
    return np.min([np.einsum("nd,de,ne->n", new - mean, precision, new - mean) for mean in means], axis=0)


def novelty(given: argparse.Namespace, train: ImageDataset, test: ImageDataset, seed: int) -> Found:
    """Yield AUROCs and rates of `unknown`."""
    predictor = fit(train, given, seed)
    known = predictor.novelty(test, as_pandas=False)
    bank = predictor.pipeline.bank
    features = predictor.embed(test)
    yield "unknown, of test images", float(np.mean(known > bank.threshold(0.05)))
    for folder in given.other:
        files = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        files = np.random.default_rng(seed).permutation(files)[:MAX_OTHER].tolist()
        others = predictor.embed(files)
        is_read = np.isfinite(others).all(1)
        scores = predictor.novelty(files, as_pandas=False)[is_read]
        is_other = np.r_[np.zeros(len(known)), np.ones(len(scores))]
        both = np.concatenate([mahalanobis(bank, rows) for rows in (features, others[is_read])])
        name = f"{folder.parent.name}/{folder.name} ({len(scores)} images)"
        yield f"AUROC, {name}", float(roc_auc_score(is_other, np.r_[known, scores]))
        yield f"AUROC of Mahalanobis++, {name}", float(roc_auc_score(is_other, both))
        yield f"unknown, of {name}", float(np.mean(scores > bank.threshold(0.05)))


def classes(given: argparse.Namespace, train: ImageDataset, test: ImageDataset, seed: int) -> Found:
    """Yield accuracies before and after `add_classes`."""
    names = np.random.default_rng(seed).permutation(sorted(set(train["label"])))
    earlier = set(names[: max(2, round(0.7 * len(names)))])
    of_train, of_test = (images["label"].isin(earlier) for images in (train, test))
    first = fit(train[of_train], given, seed)
    more = first.add_classes(train[~of_train])
    yield "earlier classes, before", accuracy(first, test[of_test])
    yield "earlier classes, after", accuracy(more, test[of_test])
    yield "all classes, after", accuracy(more, test)
    yield "all classes, fit on all", accuracy(fit(train, given, seed), test)


def few_shot(given: argparse.Namespace, train: ImageDataset, test: ImageDataset, seed: int) -> Found:
    """Yield the accuracy by the number of images a class."""
    for num in (1, 2, 5, 20):
        few = train.sample(frac=1, random_state=seed).groupby("label").head(num)
        yield f"{num} a class", accuracy(fit(few, given, seed), test)


def groups(given: argparse.Namespace, train: ImageDataset, test: ImageDataset, seed: int) -> Found:
    """Yield how much the validation accuracy exceeds the test accuracy."""
    rng, folder = np.random.default_rng(seed), Path(tempfile.mkdtemp(dir=given.place))
    rows = []
    for number, (path, label) in enumerate(train.sample(frac=0.1, random_state=seed)[["image", "label"]].to_numpy()):
        with Image.open(path) as image:
            for crop in range(5):
                left, top = rng.uniform(0, 0.2, 2) * image.size
                box = (left, top, left + 0.8 * image.width, top + 0.8 * image.height)
                file = folder / f"{number}_{crop}.png"
                image.convert("RGB").crop(tuple(map(int, box))).save(file)
                rows.append((str(file), label, number))
    crops = ImageDataset({"image": [row[0] for row in rows], "label": [row[1] for row in rows]})
    for name, own in (("without groups", None), ("with groups", [row[2] for row in rows])):
        predictor = fit(crops, given, seed, groups=own)
        yield f"optimism {name}", float(predictor.fit_summary()["valid_acc"]) - accuracy(predictor, test)


MEASURES: dict[str, Callable[..., Found]] = dict(zip(CELLS, (novelty, classes, few_shot, groups), strict=True))


def rows_of(found: dict[tuple[str, str], list[float]]) -> list[list[str]]:
    """Return the rows of the table: mean and standard error over seeds."""
    rows = []
    for (cell, name), values in found.items():
        error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
        rows.append([cell, name, str(len(values)), f"{statistics.mean(values):.4f}{error}"])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure the cells, and print a table."""
    parser = arguments_of(__doc__ or "", has_rounds=False)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--other", type=Path, nargs="*", default=[])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--limit", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    given = parser.parse_args(argv)
    train, _, test = ImageDataset.from_folders(given.data)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        given.place = place
        for seed in range(given.seeds):
            for cell in given.cells:
                for name, value in MEASURES[cell](given, train, test, seed):
                    found[cell, name].append(value)
                    print(f"seed {seed}, {cell}: {name} {value:.4f}", flush=True)
    print(table(("cell", "", "seeds", "value"), rows_of(found)))
    write_json(
        given.json, given, [{"cell": cell, "name": name, "values": each} for (cell, name), each in found.items()]
    )


if __name__ == "__main__":
    main()
