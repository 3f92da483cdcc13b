"""A folder of images, and a run that has learned them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from saccade.cli import app


def run_command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def saccade():
    """Run the command line within this process."""
    return run_command


@pytest.fixture(scope="session")
def splits(tmp_path_factory) -> Path:
    """Bright and dark images in train/ and test/, each class in a folder of its own."""
    root = tmp_path_factory.mktemp("splits")
    rng = np.random.default_rng(0)
    for split, num in (("train", 12), ("test", 3)):
        for name, level in (("bright", 220), ("dark", 30)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(num):
                pixels = rng.normal(level, 10, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def fitted(splits, tmp_path_factory) -> tuple[Path, Result]:
    """Return the run folder of a fit, and what the command said."""
    run = tmp_path_factory.mktemp("runs") / "run"
    small = ("--set", "img_size=32", "--set", "pretrained=False", "--set", "batch_size=4", "--set", "epochs=3")
    result = run_command(
        "fit", splits, "--model", "test_resnet", "--lr", "1e-2", *small, "--out", run, "--time-limit", "5m"
    )
    return run, result
