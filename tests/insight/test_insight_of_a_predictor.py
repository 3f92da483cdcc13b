"""Explanations through the methods of a fitted predictor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saccade import ImagePredictor
from saccade.errors import DataError, NotFittedError, UnknownNameError
from saccade.insight.embeddings import EMBEDDINGS, _recent
from saccade.models.weights import read_weights, write_weights

TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 4, "lr": 3e-3}


@pytest.fixture(scope="module")
def train(make_colours_once: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    return make_colours_once(12, ("blue", "green", "red"))


@pytest.fixture(scope="module")
def fitted(train: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    path = tmp_path_factory.mktemp("run")
    return ImagePredictor(path=path, verbosity=0).fit(train, hyperparameters=TINY)


def test_explain_supports_every_form(fitted: ImagePredictor, train: pd.DataFrame, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.open(train["image"][0]).resize((60, 40)).save(wide)
    maps = fitted.explain([train["image"][0], wide])
    assert maps.shape == (2, 32, 32)
    assert maps.dtype == np.float32
    (whole,) = fitted.explain(wide, form="image", target="red")
    assert whole.shape == (40, 60)
    overlays = fitted.explain([wide, b"no image"], form="overlay", target=["red", "blue"], method="smooth_grad")
    assert [overlays[0].size, overlays[1]] == [(60, 40), None]
    with pytest.raises(UnknownNameError, match="Did you mean 'red'"):
        fitted.explain(wide, target="rad")
    with pytest.raises(UnknownNameError, match="form"):
        fitted.explain(wide, form="images")
    with pytest.raises(NotFittedError):
        ImagePredictor().explain(wide)


def test_the_nearest_training_images_have_the_same_label(
    fitted: ImagePredictor, make_colours_once: Callable[..., pd.DataFrame], train: pd.DataFrame
) -> None:
    test = make_colours_once(3, ("blue", "green", "red"), seed=5).sample(frac=1, random_state=0)
    found = fitted.nearest(test, k=4)
    assert list(found.columns) == ["query", "rank", "image", "label", "similarity"]
    assert len(found) == 4 * len(test)
    assert (found["label"] == found["query"].map(test["label"])).mean() > 0.9
    itself = fitted.nearest(train["image"][7], k=1)
    assert itself["image"].item() == train["image"][7]
    assert itself["similarity"].item() == pytest.approx(1, abs=1e-2)
    among = fitted.nearest(test, k=1, among=test)
    assert among["image"].tolist() == test["image"].tolist()


def test_embeddings_are_saved_with_the_predictor(
    fitted: ImagePredictor, train: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fitted.nearest(train["image"][:2], k=3)
    saved = Path(fitted.path) / "predictor"
    assert (saved / EMBEDDINGS).is_file()
    fitted.save(tmp_path / "elsewhere")
    fitted.save(Path(fitted.path) / "predictor")
    _recent.clear()
    moved = ImagePredictor.load(tmp_path / "elsewhere", verbosity=0)
    pd.testing.assert_frame_equal(moved.nearest(train["image"][:2], k=3), expected, check_exact=False, atol=1e-2)
    (tmp_path / "elsewhere" / EMBEDDINGS).write_bytes(b"damaged")
    _recent.clear()
    with pytest.raises(DataError, match="pass them: among=train"):
        moved.nearest(train["image"][0])
    assert len(moved.nearest(train["image"][0], among=train)) == 5


def test_embeddings_of_another_network_are_not_used(
    fitted: ImagePredictor, train: pd.DataFrame, tmp_path: Path
) -> None:
    fitted.nearest(train["image"][0])
    shutil.copytree(fitted.path, tmp_path / "run")
    other = tmp_path / "run" / "predictor"
    (path,) = other.glob("weights*.safetensors")
    tensors, metadata = read_weights(path)
    write_weights(
        path,
        {name: tensor * 1.5 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()},
        metadata,
    )
    description = other / "predictor.json"
    record = json.loads(description.read_text())
    del record["members"][0]["checksum"]
    description.write_text(json.dumps(record))
    before = (other / EMBEDDINGS).read_bytes()
    ImagePredictor.load(tmp_path / "run", verbosity=0).nearest(train["image"][0])
    assert (other / EMBEDDINGS).read_bytes() != before


def test_find_leaks_returns_copies_of_training_images(fitted: ImagePredictor, tmp_path: Path) -> None:
    def soft_patches(seed: int) -> Image.Image:
        cells = np.random.default_rng(seed).uniform(0, 255, (10, 10, 3)).astype(np.uint8)
        return Image.fromarray(cells).resize((80, 80), Image.Resampling.BICUBIC)

    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        soft_patches(number).save(path)
    train = pd.DataFrame({"image": paths, "label": ["blue", "red"] * 3})
    leaked = tmp_path / "leaked.jpg"
    soft_patches(4).resize((64, 64)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(leaked, quality=80)
    test = [soft_patches(7), leaked, soft_patches(8)]
    leaks = fitted.find_leaks(test, among=train, threshold=0)
    assert leaks[["index", "image", "other_image", "other_label"]].to_numpy().tolist() == [
        [1, str(leaked), str(paths[4]), "blue"]
    ]
    assert leaks["is_mirrored"].all()
    assert len(fitted.find_leaks(test, threshold=0)) == 0
    pairs = fitted.near_duplicates([*paths, leaked], threshold=0)
    assert pairs[["index", "other_index"]].to_numpy().tolist() == [[4, 6]]


def test_label_issues_finds_flipped_labels(
    make_colours_once: Callable[..., pd.DataFrame], tmp_path: Path, fitted: ImagePredictor
) -> None:
    frame = make_colours_once(20, ("blue", "green", "red"), seed=7)
    flipped = frame.sample(frac=0.1, random_state=0).index
    right = frame.loc[flipped, "label"].copy()
    frame.loc[flipped, "label"] = right.map({"blue": "red", "red": "green", "green": "blue"})
    issues = fitted.label_issues(frame)
    assert set(flipped) <= set(issues.index)
    assert len(issues) <= len(flipped) + 2
    assert (issues.loc[flipped, "suggested_label"] == right).all()
    assert len(fitted.label_issues()) <= 2


def test_regression_has_no_label_issues(train: pd.DataFrame, tmp_path: Path) -> None:
    numbers: dict[str, Any] = {"blue": 0.5, "green": 1.5, "red": 2.5}
    frame = train.assign(label=train["label"].map(numbers))
    predictor = ImagePredictor(path=tmp_path / "run", problem_type="regression", verbosity=0)
    predictor.fit(frame, hyperparameters={**TINY, "epochs": 1})
    with pytest.raises(DataError, match="regression problem"):
        predictor.label_issues()
    assert predictor.explain(frame["image"][:2]).shape == (2, 32, 32)
    assert predictor.nearest(frame["image"][0], k=2)["label"].isin(numbers.values()).all()
