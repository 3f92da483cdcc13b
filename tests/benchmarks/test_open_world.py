from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import open_world
from saccade import ImagePredictor
from saccade.inference.feature_bank import FeatureBank


def test_novelty_and_groups_are_measured(
    run_benchmark: Callable[..., Any], tiny_photos: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(train: Any, given: Any, seed: int, **options: Any) -> ImagePredictor:
        predictor = ImagePredictor(path=given.place + f"/{len(list(Path(given.place).iterdir()))}", verbosity=0)
        config = {**tiny, "epochs": 1}
        return predictor.fit(train, hyperparameters=config, holdout_frac=0.5, random_state=seed, **options)

    monkeypatch.setattr(open_world, "fit", fit)
    given = ["--data", tiny_photos, "--other", tiny_photos / "test", "--seeds", 1, "--cells", "novelty", "groups"]
    figures = run_benchmark(open_world.main, *given)
    values = {each["name"]: each["values"][0] for each in figures}
    name = f"{tiny_photos.name}/test (10 images)"
    assert values[f"AUROC, {name}"] == pytest.approx(0.5)  # the same images
    assert {"optimism without groups", "optimism with groups", f"AUROC of Mahalanobis++, {name}"} <= values.keys()


def test_mahalanobis_distance_is_smallest_at_the_class_means() -> None:
    rng = np.random.default_rng(0)
    targets = np.arange(200) % 2
    train = (np.array([[5.0, 0, 0], [0, 5.0, 0]])[targets] + rng.normal(0, 0.3, (200, 3))).astype(np.float16)
    bank = FeatureBank(train, targets, train, targets, np.zeros(2, np.int64))
    near, far = open_world.mahalanobis(bank, np.array([[1.0, 0, 0], [0, 0, 1.0]]))
    assert near < 1 < far
