"""Fit, resume, predict and export on a GPU, in less than three minutes: a check for whoever has one.

Run ``python -m benchmarks.gpu_smoke``. It makes its own images and needs no pretrained weights. On a machine without
CUDA or MPS it says so and exits with status 2; it exits with status 1 if a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from saccade import ImagePredictor
from saccade.events import EpochDone, Event
from saccade.numerics.device import choose_device

RECIPE = {"model": "test_resnet", "pretrained": False, "img_size": 64, "batch_size": 16, "lr": 3e-3, "epochs": 4}
COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}
TOLERANCE = 0.05
"""Largest difference of a probability between 16 bits on the GPU and float32 on the CPU."""


def make_images(folder: Path, num: int = 30) -> pd.DataFrame:
    """Write `num` noisy images of each colour, and return their paths and labels."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for name, colour in COLOURS.items():
        for number in range(num):
            pixels = np.clip(np.array(colour) + rng.integers(-60, 60, (72, 80, 3)), 0, 255)
            path = folder / f"{name}-{number:03}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            rows.append((str(path), name))
    return pd.DataFrame(rows, columns=["image", "label"])


class Killed(BaseException):
    """Ends a fit without an orderly finish."""


def kill_after(num_epochs: int) -> Callable[[Event], None]:
    """Return a callback that ends a fit after so many epochs."""
    seen = 0

    def on_event(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, EpochDone)
        if seen == num_epochs:
            raise Killed

    return on_event


def check(name: str, work: Callable[[], None]) -> bool:
    """Run one check, print how it went, and return whether it passed."""
    start_s = time.perf_counter()
    try:
        work()
    except Exception as error:  # each check is reported
        print(f"FAULT {name}: {type(error).__name__}: {error}", flush=True)
        return False
    print(f"ok    {name} ({time.perf_counter() - start_s:.1f} s)", flush=True)
    return True


def run(device: torch.device, folder: Path) -> bool:
    """Run all checks on a device; return whether all passed."""
    frame = make_images(folder / "images")
    options = {"executor": "inline", "ngpus_per_trial": 0 if device.type == "cpu" else None, "random_state": 0}
    predictors: dict[str, ImagePredictor] = {}

    def fit() -> None:
        for amp in (None, True, False):
            path = folder / f"run-{amp}"
            predictor = ImagePredictor(path=path, verbosity=0)
            predictors["fit"] = predictor.fit(frame, hyperparameters={**RECIPE, "amp": amp}, **options)
            top1 = predictors["fit"].evaluate(frame)["top1"]
            assert top1 > 0.9, f"amp={amp}: accuracy {top1}"

    def first_img_size() -> None:
        predictor = ImagePredictor(path=folder / "run-size", verbosity=0)
        predictor.fit(frame, hyperparameters={**RECIPE, "first_img_size": 32}, **options)

    def resume() -> None:
        path = folder / "run-resumed"
        killed = ImagePredictor(path=path, verbosity=0)
        with contextlib.suppress(Killed):
            killed.fit(frame, hyperparameters=RECIPE, callbacks=[kill_after(2)], **options)
        assert not (path / "predictor").exists(), "the fit was not killed"
        ImagePredictor.resume(path, verbosity=0)
        assert (path / "predictor" / "predictor.json").is_file(), "the resumed run has no predictor"

    def predict() -> None:
        predictor = predictors["fit"].to(device)
        found = predictor.predict_proba(frame, as_pandas=False)
        assert np.isfinite(predictor.predict_feature(frame[:3], as_pandas=False)).all()
        assert np.isfinite(predictor.explain(frame[:3])).all()
        predictor.warm_up()
        warm = predictor.predict_proba(frame, as_pandas=False)
        expected = predictor.to("cpu").predict_proba(frame, as_pandas=False)
        for name, other in (("default", found), ("warm", warm)):
            difference = float(np.abs(other - expected).max())
            assert difference < TOLERANCE, f"{name} numerics differ by {difference} from those of the CPU"

    def export() -> None:
        predictor = predictors["fit"].to(device)
        pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in frame["image"][:4]])).to(device)
        module = predictor.pipeline.module()
        with torch.inference_mode():
            expected = module(pixels).predictions.cpu()
        with torch.no_grad():
            exported = torch.export.export(module, (pixels,)).module()
            found = exported(pixels).predictions.cpu()
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)

    checks = {"fit": fit, "first_img_size": first_img_size, "resume": resume, "predict": predict, "export": export}
    passed = [check(name, work) for name, work in checks.items()]  # all of them, also after a fault
    return all(passed)


def main() -> None:
    """Parse the command line, and run the checks on the best device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="run the same checks on the CPU, to test this script")
    device = torch.device("cpu") if parser.parse_args().cpu else choose_device()
    if device.type == "cpu" and "--cpu" not in sys.argv:
        print("This machine has no GPU that torch can use (CUDA or MPS). Run benchmarks.gpu_smoke on one that has.")
        sys.exit(2)
    print(f"torch {torch.__version__} on {device}", flush=True)
    with tempfile.TemporaryDirectory(prefix="saccade_gpu_smoke_") as folder:
        sys.exit(0 if run(device, Path(folder)) else 1)


if __name__ == "__main__":
    main()
