"""`why` and `reasons` of a fitted predictor."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saccade import ImageDataset, ImagePredictor
from saccade.errors import DataError, HyperparameterError, ImageReadError, NotFittedError

TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 4, "lr": 3e-3}
NAMES = ("blue", "green", "red")
MakeColours = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def train(make_colours_once: MakeColours) -> pd.DataFrame:
    return make_colours_once(12, NAMES)


@pytest.fixture(scope="module")
def test(make_colours_once: MakeColours) -> pd.DataFrame:
    return make_colours_once(4, NAMES, seed=5).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def fitted(train: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    path = tmp_path_factory.mktemp("run")
    return ImagePredictor(path=path, verbosity=0).fit(train, hyperparameters=TINY)


def test_reasons_agree_with_the_other_methods(fitted: ImagePredictor, test: pd.DataFrame) -> None:
    reasons = fitted.reasons(test, k=3)
    assert [reason.image for reason in reasons] == test["image"].tolist()
    assert [reason.true for reason in reasons] == test["label"].tolist()
    assert [reason.predicted for reason in reasons] == fitted.predict(test).tolist()
    assert [reason.probability for reason in reasons] == pytest.approx(fitted.predict_proba(test).max(axis=1).tolist())
    near = fitted.nearest(test, k=3)
    found = [each for reason in reasons for each in reason.neighbours]
    assert [each.image for each in found] == near["image"].tolist()
    assert [each.label for each in found] == near["label"].tolist()
    assert [each.similarity for each in found] == pytest.approx(near["similarity"].tolist(), abs=1e-5)
    overlays = fitted.explain(test, form="overlay")
    has_map = fitted.explain(test).any(axis=(1, 2))
    assert [reason.overlay is not None for reason in reasons] == has_map.tolist()
    for reason, overlay in zip(reasons, overlays, strict=True):
        if reason.overlay is None:
            continue
        np.testing.assert_allclose(np.asarray(reason.overlay, float), np.asarray(overlay, float), atol=1)


def test_the_figure_has_a_row_for_each_image(fitted: ImagePredictor, test: pd.DataFrame) -> None:
    figure = fitted.why(test, k=2, num_images=5)
    assert len(figure.axes) == 5 * (1 + 1 + 2)
    titles = [axes.texts[0].get_text() for axes in figure.axes]
    assert titles[1::4] == ["saliency"] * 5
    assert all("similarity" in title for title in titles[2::4] + titles[3::4])
    assert Image.open(io.BytesIO(figure._repr_png_())).width > 4 * 144


def test_mistakes_are_first_and_then_the_lowest_confidence(fitted: ImagePredictor, test: pd.DataFrame) -> None:
    confidence = fitted.predict_proba(test).max(axis=1)
    mislabelled = test.assign(label=test["label"].where(test.index != test.index[7], "of no class"))
    reasons = fitted.reasons(mislabelled, k=1, num_images=4)
    assert (reasons[0].image, reasons[0].true, reasons[0].is_wrong) == (test["image"].iloc[7], "of no class", True)
    is_right = fitted.predict(test) == mislabelled["label"]
    expected = confidence[is_right].sort_values(kind="stable").index[: 4 - (~is_right).sum()]
    assert [reason.image for reason in reasons if not reason.is_wrong] == test.loc[expected, "image"].tolist()
    unlabelled = fitted.reasons(test["image"].tolist(), k=1, num_images=4)
    assert [reason.image for reason in unlabelled] == test["image"].iloc[
        np.argsort(confidence, kind="stable")[:4]
    ].tolist()
    assert not any(reason.is_wrong or reason.true for reason in unlabelled)
    most = fitted.reasons(test["image"].tolist(), k=1, num_images=11)
    nearest = fitted.nearest([reason.image for reason in most], k=1)["image"].tolist()
    assert len(set(nearest)) > 2
    assert [reason.neighbours[0].image for reason in most] == nearest


def test_unreadable_images_are_last(fitted: ImagePredictor, test: pd.DataFrame) -> None:
    images = [b"no image", *test["image"].tolist(), "gone.png"]
    assert {reason.predicted for reason in fitted.reasons(images, num_images=12)} <= set(NAMES)
    few = fitted.reasons(images[:3], k=1)
    assert [reason.predicted is None for reason in few] == [True, False, False]
    assert (few[0].overlay, few[0].neighbours) == (None, ())
    titles = [axes.texts[-1].get_text() for axes in fitted.why(images[:3], k=1).axes]
    assert titles[0] == "cannot be read"
    assert len(titles) == 1 + 3 + 3
    with pytest.raises(ImageReadError):
        fitted.why([b"no image", "gone.png"])


def test_class_names_do_not_depend_on_the_numbering_of_a_data_set(test: pd.DataFrame, tmp_path: Path) -> None:
    for number, row in enumerate(test.itertuples()):
        for split in ("train", "other"):
            (tmp_path / split / row.label).mkdir(parents=True, exist_ok=True)
            Image.open(row.image).save(tmp_path / split / row.label / f"{number}.png")
    (tmp_path / "other" / "blue").rename(tmp_path / "other" / "zinc")
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(ImageDataset.from_folder(tmp_path / "train"), hyperparameters={**TINY, "epochs": 1})
    other = ImageDataset.from_folder(tmp_path / "other")
    reasons = predictor.reasons(other, k=1)
    assert [reason.true for reason in reasons] == [Path(image).parent.name for image in other["image"]]
    assert {reason.neighbours[0].label for reason in reasons} <= set(NAMES)
    assert {reason.predicted for reason in reasons} <= set(NAMES)
    assert [reason.is_wrong for reason in reasons] == [reason.true != reason.predicted for reason in reasons]
    among = predictor.reasons(other, k=1, among=other)
    assert [each.neighbours[0].label for each in among] == [each.true for each in among]


def test_among_accepts_images_in_memory(fitted: ImagePredictor, test: pd.DataFrame) -> None:
    pictures = [Image.open(path).convert("RGB") for path in test["image"]]
    reasons = fitted.reasons(test, k=1, among=pictures)
    assert all(each.neighbours[0].image is picture for each, picture in zip(reasons, pictures, strict=True))
    assert fitted.why(test.head(2), k=1, among=pictures).axes[2].texts[0].get_text() == "similarity 1.00"


def test_invalid_arguments_are_errors_before_any_computation(fitted: ImagePredictor, tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match="k was given"):
        fitted.why("gone.png", k=0)
    with pytest.raises(HyperparameterError, match="num_images was given"):
        fitted.why("gone.png", num_images=0)
    with pytest.raises(DataError, match="no images"):
        fitted.why([])
    with pytest.raises(NotFittedError):
        ImagePredictor().why("gone.png")
    fitted.save(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "embeddings.safetensors").unlink(missing_ok=True)
    with pytest.raises(DataError, match="pass them: among=train"):
        ImagePredictor.load(tmp_path / "elsewhere", verbosity=0).why("gone.png")


def test_multilabel_problems_and_regression_have_reasons(train: pd.DataFrame, tmp_path: Path) -> None:
    lists = train.assign(label=[[name, "dark"] if number % 2 else [name] for number, name in enumerate(train["label"])])
    columns = train[["image"]].assign(**{name: (train["label"] == name).astype(int) for name in NAMES})
    values: dict[str, Any] = {"blue": 0.5, "green": 1.5, "red": 2.5}
    numbers = train.assign(label=train["label"].map(values))
    small = {**TINY, "epochs": 1}
    for number, (frame, label) in enumerate([(lists, "label"), (columns, list(NAMES)), (numbers, "label")]):
        path = tmp_path / str(number)
        predictor = ImagePredictor(label, path=path, verbosity=0).fit(frame, hyperparameters=small)
        for _ in range(2):  # the second time labels are read from the stored file
            reasons = predictor.reasons(frame, k=2, num_images=40)
            assert [reason.neighbours[0].label for reason in reasons] == [reason.true for reason in reasons]
            predictor = ImagePredictor.load(path, verbosity=0)
        assert {reason.probability for reason in reasons} == {None}
        has_map = predictor.explain(frame).any(axis=(1, 2)).tolist()
        assert [reason.overlay is not None for reason in reasons] == has_map
        if frame is numbers:
            assert [float(str(reason.true)) for reason in reasons] == frame["label"].tolist()
            assert [float(str(reason.predicted)) for reason in reasons] == pytest.approx(
                predictor.predict(frame), rel=1e-4
            )
            assert not any(reason.is_wrong for reason in reasons)
            few = predictor.reasons(frame, k=1, num_images=3)
            errors = (predictor.predict(frame) - frame["label"]).abs().sort_values(ascending=False)
            assert abs(float(str(few[0].predicted)) - float(str(few[0].true))) == pytest.approx(
                errors.iloc[0], abs=1e-4
            )
        else:
            assert [reason.is_wrong for reason in reasons] == [each.true != each.predicted for each in reasons]
        assert len(predictor.why(frame, k=1, num_images=2).axes) in (4, 5, 6)
