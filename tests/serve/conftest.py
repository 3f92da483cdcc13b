"""Tiny predictors, and servers of them on the loopback interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

for package in ("fastapi", "httptools", "uvicorn"):
    pytest.importorskip(package, reason="the extra serve is not installed")

from contracts.servers import Served, photo, serving  # noqa: E402  after the packages that it needs
from saccade import ImagePredictor  # noqa: E402
from saccade.serve.models import ServedPredictor  # noqa: E402

TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 2, "lr": 3e-3}


@pytest.fixture(scope="session")
def fit_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ImagePredictor]:
    def fit(frame: pd.DataFrame, name: str, **options: Any) -> ImagePredictor:
        path = tmp_path_factory.mktemp("runs") / name
        return ImagePredictor(path=path, verbosity=0, **options).fit(
            frame, hyperparameters=TINY, holdout_frac=0.4, executor="inline"
        )

    return fit


@pytest.fixture(scope="session")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Images, and several kinds of labels."""
    folder: Path = tmp_path_factory.mktemp("images")
    rows = []
    for number in range(60):
        path = folder / f"{number}.png"
        image = photo(number)
        image.save(path)
        mean = np.asarray(image).mean((0, 1))
        rows.append((str(path), "rgb"[int(mean.argmax())], float(mean.sum())))
    made = pd.DataFrame(rows, columns=["image", "label", "value"])
    made["is_red"] = (made["label"] == "r").map({True: "yes", False: "no"})
    return made


@pytest.fixture(scope="session")
def predictor(frame: pd.DataFrame, fit_tiny: Callable[..., ImagePredictor]) -> ImagePredictor:
    return fit_tiny(frame[["image", "label"]], "classes")


@pytest.fixture(scope="session")
def model(predictor: ImagePredictor) -> ServedPredictor:
    return ServedPredictor(predictor)


@pytest.fixture(scope="module")
def served(model: ServedPredictor) -> Iterator[Served]:
    with serving(model) as found:
        yield found
