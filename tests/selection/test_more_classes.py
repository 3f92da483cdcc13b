"""Classes that are added to a predictor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from saccade import ImagePredictor
from saccade.errors import DataError, HyperparameterError
from saccade.inference.feature_bank import FEATURES

NAMES = ("blue", "green", "red", "yellow")


@pytest.fixture(scope="module")
def images(make_colours_once: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    return make_colours_once(16, NAMES)


@pytest.fixture(scope="module")
def fitted(images: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    tiny = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1, "lr": 3e-3}
    known = images[images["label"].isin(NAMES[:2])]
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    return predictor.fit(known, hyperparameters=tiny, holdout_frac=0.3)


def test_classes_are_added_without_the_earlier_images(
    fitted: ImagePredictor, images: pd.DataFrame, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "saved")
    loaded = ImagePredictor.load(tmp_path / "saved", verbosity=0)
    new = images[images["label"].isin(NAMES[2:])]
    more = loaded.add_classes(new)
    assert Path(more.path) == tmp_path / "saved-1"
    assert more.classes == list(NAMES)
    assert loaded.classes == list(NAMES[:2])
    assert more.evaluate(images)["top1"] > 0.9
    summary = more.fit_summary()
    assert summary["added_classes"] == ["red", "yellow"]
    assert min(summary["earlier_classes_acc"].values()) > 0.8
    again = ImagePredictor.load(more.path, verbosity=0)
    assert again.predict(images).equals(more.predict(images))
    assert again.report().record.events == fitted.report().record.events
    assert len(again.predict_set(images, coverage=0.8)) == len(images)
    assert again.pipeline.bank.class_counts.sum() > loaded.pipeline.bank.class_counts.sum()
    # Its stored features are those of all classes, so that novelty and further classes are possible.
    assert again.novelty(new).max() < 0.5
    assert again.add_classes(images).classes == list(NAMES)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_few_images_and_known_classes(fitted: ImagePredictor, images: pd.DataFrame, num: int, tmp_path: Path) -> None:
    few = images[images["label"].isin(NAMES[1:3])].groupby("label").head(num)
    more = fitted.add_classes(few, path=tmp_path / "more")
    assert more.classes == list(NAMES[:3])
    assert set(more.predict(images)) <= set(NAMES[:3])
    with pytest.raises(DataError, match="exists and is not empty"):
        fitted.add_classes(few, path=tmp_path / "more")


def test_without_stored_features_images_of_all_classes_are_required(
    fitted: ImagePredictor, images: pd.DataFrame, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "old")
    (tmp_path / "old" / FEATURES).unlink()
    old = ImagePredictor.load(tmp_path / "old", verbosity=0)
    new, known = images[images["label"] == "red"], images[images["label"].isin(NAMES[:2])]
    with pytest.raises(DataError, match=r"as old=…; there are none of \['blue', 'green'\]"):
        old.add_classes(new)
    assert old.add_classes(new, old=known).evaluate(images[images["label"] != "yellow"])["top1"] > 0.9


def test_other_problems_and_unreadable_classes_are_errors(
    fitted: ImagePredictor, images: pd.DataFrame, tiny: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_text("")
    broken = pd.DataFrame({"image": [str(tmp_path / "broken.png"), images["image"][0]], "label": ["broken", "blue"]})
    with pytest.raises(DataError, match=r"no image of the new classes \['broken'\] can be read"):
        fitted.add_classes(broken)
    numbers = images.assign(label=np.linspace(0.5, 9.3, len(images)))
    regressor = ImagePredictor(path=tmp_path / "run", verbosity=0).fit(numbers, hyperparameters={**tiny, "epochs": 1})
    with pytest.raises(HyperparameterError, match="add_classes"):
        regressor.add_classes(numbers)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_a_fit_on_few_images_a_class(images: pd.DataFrame, tiny_weights: Path, tmp_path: Path, num: int) -> None:
    few = images.groupby("label").head(num)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    given = {"model": "test_resnet", "img_size": 32, "epochs": 1}
    predictor.fit(few, hyperparameters=given, weights=tiny_weights)
    assert predictor.predict(images).isin(NAMES).all()
