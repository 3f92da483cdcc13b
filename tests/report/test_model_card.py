"""Model cards: true, complete, and safe against any class name."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import markdown
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade import ImagePredictor
from saccade.errors import DataError
from saccade.inference.validation import VALIDATION
from saccade.report.model_card import ModelCard, escaped, is_generated

TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1, "lr": 3e-3}
ODD = {"blue": "a|b <b>*bold*</b>", "green": "- [x](http://y.z): 'q' \"p\" #1", "red": "猫\n`co`de_x"}


@pytest.fixture(scope="module")
def images(make_colours_once: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    return make_colours_once(20, tuple(ODD))


@pytest.fixture(scope="module")
def fitted(images: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    rare = images.drop(index=images.index[images["label"] == "red"][:14])
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    return predictor.fit(rare.assign(label=rare["label"].map(ODD)), hyperparameters=TINY, holdout_frac=0.3)


def parts_of(card: ModelCard) -> tuple[dict[str, Any], str]:
    """Return the metadata of a card, and its text as HTML."""
    _, metadata, text = card.text.split("---\n", 2)
    return yaml.safe_load(metadata), markdown.markdown(text, extensions=["tables", "fenced_code"])


def cells_of(page: str, first: str) -> list[str]:
    rows = ([html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in page.split("<tr>"))
    return next(cells for cells in rows if cells[:1] == [first])


def test_the_card_has_the_numbers_of_the_fit(fitted: ImagePredictor) -> None:
    metadata, page = parts_of(fitted.model_card("me/colours", dataset="colours", license="mit"))
    assert metadata["library_name"] == "saccade"
    assert metadata["pipeline_tag"] == "image-classification"
    assert (metadata["license"], metadata["datasets"]) == ("mit", ["colours"])
    (result,) = metadata["model-index"][0]["results"]
    accuracy = next(each for each in result["metrics"] if each["type"] == "accuracy")
    summary, record = fitted.fit_summary(), fitted.pipeline.saved.validation
    assert record is not None
    assert accuracy["value"] == pytest.approx(summary["valid_acc"], abs=1e-6)
    assert result["dataset"]["split"] == "validation"
    assert cells_of(page, "top1")[1] == f"{summary['valid_acc']:.4g}"
    low, high = map(float, cells_of(page, "top1")[2].split(" to "))
    assert 0 <= low <= summary["valid_acc"] <= high <= 1
    assert f"These are {record.num_val} images, and not test images" in page
    assert f"{record.num_train} training images, {record.num_val} validation images" in page
    assert "from_hub('me/colours')" in html.unescape(page)
    assert "random" in cells_of(page, "test_resnet")
    # Of six images of the rare class, and in all.
    assert "Classes are imbalanced: 14 training images of" in page
    assert "Fewer than 10 training images: 猫" in page


def test_odd_class_names_are_shown_as_they_are(fitted: ImagePredictor) -> None:
    record = fitted.pipeline.saved.validation
    assert record is not None
    _, page = parts_of(fitted.model_card("x: |y| --- # <i>"))
    for name, num in zip(fitted.class_names, record.train_counts.tolist(), strict=True):
        assert cells_of(page, " ".join(name.split()))[1] == str(num)
    assert "<b>" not in page
    assert "<a " not in page
    assert "<h1>x: |y| --- # <i></h1>" in html.unescape(page)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_escaped_text_is_the_text_again_in_html(text: str) -> None:
    page = markdown.markdown(f"# T\n\nA {escaped(text)} z", extensions=["tables", "attr_list", "toc"])
    shown = "".join(each if each.isprintable() else "\ufffd" for each in " ".join(text.split()))
    found = re.fullmatch(r"<h1[^>]*>T</h1>\s*<p>A (.*) z</p>", page, re.DOTALL)
    assert found is not None
    assert html.unescape(found[1]) == shown


def test_a_card_and_its_plot_are_written_and_an_edited_card_is_kept(fitted: ImagePredictor, tmp_path: Path) -> None:
    card = fitted.model_card()
    path = card.save(tmp_path / "card")
    assert path == tmp_path / "card" / "README.md"
    with Image.open(path.parent / "calibration.png") as plot:
        assert min(plot.size) > 300
        assert np.asarray(plot.convert("L")).std() > 5
    assert card.save(path) == path  # its own card is replaced
    path.write_text(path.read_text(encoding="utf-8") + "\nMy notes.\n", encoding="utf-8")
    assert not is_generated(path.read_text(encoding="utf-8"))
    with pytest.raises(DataError, match="not an unedited card of Saccade"):
        card.save(tmp_path / "card")
    assert path.read_text(encoding="utf-8").endswith("My notes.\n")


def test_without_stored_predictions_the_card_has_the_score_alone(fitted: ImagePredictor, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    (tmp_path / "saved" / VALIDATION).unlink()
    loaded = ImagePredictor.load(tmp_path / "saved")
    card = loaded.model_card()
    metadata, page = parts_of(card)
    assert card.figure is None
    assert "model-index" not in metadata
    assert f"{fitted.fit_summary()['valid_score']:.4g}" in page
    assert "are not stored with this predictor" in page
    assert "No metrics" not in page
    assert "calibration.png" not in page


@pytest.mark.parametrize("problem_type", ["multilabel", "regression"])
def test_other_problems_have_cards(images: pd.DataFrame, tmp_path: Path, problem_type: str) -> None:
    rng = np.random.default_rng(0)
    if problem_type == "multilabel":
        labels: list[Any] = [[name] * (number % 3 > 0) + ["odd|one"] * (number % 2) for number, name in
                             enumerate(images["label"])]  # fmt: skip
    else:
        labels = rng.normal(100, 5, len(images)).tolist()
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0, label="label")
    predictor.fit(images.assign(label=labels), hyperparameters=TINY, holdout_frac=0.3)
    card = predictor.model_card()
    metadata, page = parts_of(card)
    assert card.figure is not None
    card.save(tmp_path / "card")
    if problem_type == "multilabel":
        assert metadata["pipeline_tag"] == "image-classification"
        assert cells_of(page, "f1_micro")[1] == f"{predictor.fit_summary()['valid_f1_micro']:.4g}"
        assert len(cells_of(page, "odd|one")) == 6
    else:
        assert "pipeline_tag" not in metadata
        assert cells_of(page, "rmse")[1] == f"{predictor.fit_summary()['valid_rmse']:.4g}"
        assert "<h2>Classes</h2>" not in page
