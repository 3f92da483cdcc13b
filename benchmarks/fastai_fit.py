"""The same training in fastai, as its documentation teaches it; for the interpreter that has fastai, without Saccade.

    python fastai_fit.py --data DIR --weights FILE --network mobilenetv2_100 --epochs 2 --batch-size 8 --lr 1e-3

Prints one line of JSON: seconds to import, fit and evaluate, and the accuracies.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Train with each learning rate, and judge the best by the test images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--lr", type=float, nargs="+", required=True)
    given = parser.parse_args()
    start_s = time.perf_counter()
    import timm
    from fastai.vision.all import (
        Adam,
        CrossEntropyLossFlat,
        ImageDataLoaders,
        Learner,
        Normalize,
        RandomResizedCrop,
        accuracy,
        get_image_files,
        imagenet_stats,
        set_seed,
    )

    imported_s = time.perf_counter()
    set_seed(0)
    loaders = ImageDataLoaders.from_folder(
        given.data / "train",
        valid_pct=0.1,
        seed=0,
        item_tfms=RandomResizedCrop(224, min_scale=0.35),
        batch_tfms=Normalize.from_stats(*imagenet_stats),
        bs=given.batch_size,
        num_workers=0,
    )
    best: tuple[float, Any] = (-1.0, None)
    for lr in given.lr:
        network = timm.create_model(
            given.network,
            num_classes=loaders.c,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(given.weights)},
        )
        learner = Learner(loaders, network, loss_func=CrossEntropyLossFlat(), opt_func=Adam, metrics=accuracy)
        with learner.no_bar(), learner.no_logging():
            learner.fit_one_cycle(given.epochs, lr)
            score = float(learner.validate()[1])
        best = max(best, (score, learner), key=lambda one: one[0])
    fitted_s = time.perf_counter()
    learner = best[1]
    test = loaders.test_dl(get_image_files(given.data / "test"), with_labels=True)
    with learner.no_bar(), learner.no_logging():
        test_accuracy = float(learner.validate(dl=test)[1])
    seconds = {"import_s": imported_s - start_s, "fit_s": fitted_s - imported_s}
    seconds["evaluate_s"] = time.perf_counter() - fitted_s
    print(json.dumps({"peer": "fastai", **seconds, "val_acc": best[0], "test_acc": test_accuracy}))


if __name__ == "__main__":
    main()
