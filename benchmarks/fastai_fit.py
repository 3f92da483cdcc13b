"""Training in fastai, as in its documentation; for an interpreter with fastai, without Saccade.

    python fastai_fit.py --data DIR --weights FILE --network mobilenetv2_100 --epochs 2 --batch-size 8 --lr 1e-3
    python fastai_fit.py --data DIR --weights FILE --network mobilenetv2_100 --batch-size 32 --time-limit 120

With `--epochs`, the whole network is trained for that number. With `--time-limit`, it is `fine_tune` (first the head,
then all layers) at fastai's own learning rate. The number of epochs is estimated from a few batches, and training is
cut off at the limit.

Prints one line of JSON: seconds to import, fit and evaluate, and the accuracies. `--predictions` is a file for the
probabilities of the test images (`probabilities`, `classes` and `labels`, npz).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NUM_TIMED = 3
"""Batches that tell how long an epoch takes."""


def cut_off(end_s: float) -> Any:
    """Return a callback that ends training once it is `end_s` by `time.perf_counter`."""
    from fastai.callback.core import Callback, CancelFitException

    class CutOff(Callback):  # type: ignore[misc]
        def after_batch(self) -> None:
            if self.training and time.perf_counter() > end_s:
                raise CancelFitException

    return CutOff()


def num_epochs(learner: Any, left_s: float) -> int:
    """Return how many epochs of the whole network there is time for, after one of the head and at least one."""
    learner.model.train()
    times_s = [time.perf_counter()]
    for x, y in itertools.islice(learner.dls.train, NUM_TIMED + 1):  # decoding counts as well
        learner.loss_func(learner.model(x), y).backward()
        times_s.append(time.perf_counter())
    learner.model.zero_grad()
    epoch_s = float(np.diff(times_s).min()) * len(learner.dls.train)  # the first batch takes longer
    return max(1, int(left_s / epoch_s - 0.5))  # an epoch of the head takes about a half of one


def trained(given: argparse.Namespace, loaders: Any, start_s: float) -> tuple[float, Any]:
    """Return the validation accuracy and the learner of the best learning rate."""
    import timm
    from fastai.vision.all import Adam, CrossEntropyLossFlat, Learner, accuracy, vision_learner

    overlay = {"pretrained_cfg_overlay": {"file": str(given.weights)}}

    def by_epochs(lr: float) -> Any:
        network = timm.create_model(given.network, num_classes=loaders.c, pretrained=True, **overlay)
        learner = Learner(loaders, network, loss_func=CrossEntropyLossFlat(), opt_func=Adam, metrics=accuracy)
        with learner.no_bar(), learner.no_logging():
            learner.fit_one_cycle(given.epochs, lr)
        return learner

    def by_time() -> Any:
        learner = vision_learner(loaders, given.network, metrics=accuracy, **overlay)
        end_s = start_s + given.time_limit
        with learner.no_bar(), learner.no_logging():
            epochs = num_epochs(learner, end_s - time.perf_counter())
            learner.fine_tune(epochs, cbs=cut_off(end_s))
        return learner

    makers: list[Callable[[], Any]] = [by_time]
    if given.time_limit is None:
        makers = [lambda lr=lr: by_epochs(lr) for lr in given.lr]
    best: tuple[float, Any] = (-1.0, None)
    for make in makers:
        learner = make()
        with learner.no_bar(), learner.no_logging():
            best = max(best, (float(learner.validate()[1]), learner), key=lambda one: one[0])
    return best


def main() -> None:
    """Train, and evaluate on the test images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--predictions", type=Path)
    given = parser.parse_args()
    start_s = time.perf_counter()
    from fastai.vision.all import (
        ImageDataLoaders,
        Normalize,
        RandomResizedCrop,
        get_image_files,
        imagenet_stats,
        set_seed,
    )

    imported_s = time.perf_counter()
    set_seed(given.seed)
    loaders = ImageDataLoaders.from_folder(
        given.data / "train",
        valid_pct=0.1,
        seed=given.seed,
        item_tfms=RandomResizedCrop(224, min_scale=0.35),
        batch_tfms=Normalize.from_stats(*imagenet_stats),
        bs=given.batch_size,
        num_workers=0,
    )
    score, learner = trained(given, loaders, imported_s)
    fitted_s = time.perf_counter()
    files = get_image_files(given.data / "test")
    with learner.no_bar(), learner.no_logging():
        probabilities, _ = learner.get_preds(dl=loaders.test_dl(files))
    classes, labels = np.array(list(loaders.vocab)), np.array([file.parent.name for file in files])
    test_accuracy = float((classes[probabilities.numpy().argmax(1)] == labels).mean())
    if given.predictions is not None:
        np.savez(given.predictions, probabilities=probabilities.numpy(), classes=classes, labels=labels)
    seconds = {"import_s": imported_s - start_s, "fit_s": fitted_s - imported_s}
    seconds["evaluate_s"] = time.perf_counter() - fitted_s
    print(json.dumps({"peer": "fastai", **seconds, "val_acc": score, "test_acc": test_accuracy}))


if __name__ == "__main__":
    main()
