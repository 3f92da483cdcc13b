"""Images of the report: any kind of image, missing ones, no downloads, and a limit of time."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import html5lib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade.data.sources import download
from saccade.inference.validation import ValidationRecord
from saccade.insight.label_issues import probably_wrong
from saccade.report import image_sections as sections
from saccade.report.image_sections import IMAGE_SECTIONS, pictures_of
from saccade.report.record import RunRecord
from saccade.tasks.problem import Problem

ODD = ["<b>'x' & \"y\"</b>", "عربي", "$x$ 🍎\udcff"]


def record_of(images: list[Any], predictions: np.ndarray, targets: np.ndarray, problem: Problem) -> RunRecord:
    names = ODD if problem.has_one_class else ["a", "b", "c"]
    saved: Any = SimpleNamespace(problem=problem, names_of_classes=names, pixel_range=None, summary={})
    record = RunRecord(Path("run"), False, saved, images=images)
    paths = [str(image) if isinstance(image, str | Path) else "" for image in images]
    found = ValidationRecord.of(
        problem, targets, predictions, predictions, targets, np.arange(len(images)), paths, np.zeros((len(images), 2))
    )
    record.__dict__.update(validation=found, pipeline=None)
    return record


@pytest.fixture
def images(tmp_path: Path) -> list[Any]:
    rng = np.random.default_rng(0)
    wide = Image.fromarray(rng.integers(0, 255, (40, 80, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    wide.save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(rng.integers(0, 65535, (300, 300), np.uint16)).save(tmp_path / "deep.png")
    wide.convert("LA").save(tmp_path / "alpha.png")
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    files = [tmp_path / name for name in ("turned.jpg", "deep.png", "alpha.png", "damaged.png", "deleted.png")]
    return [*files, "https://example.org/image.png", rng.integers(0, 255, (9, 8, 3), np.uint8), wide]


def test_images_of_all_kinds_have_a_thumbnail_or_a_reason(images: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "fetch", lambda *_, **__: pytest.fail("a report downloads nothing"))
    problem = Problem.of(["a", "b", "c"], "multiclass")
    predictions = np.tile(np.array([[0.2, 0.3, 0.5]], np.float32), (len(images), 1))
    targets = np.zeros(len(images), np.int64)
    targets[-1] = 1
    record = record_of(images, predictions, targets, problem)
    pictures = pictures_of(record)
    assert sorted(pictures.thumbnails) == [0, 1, 2, 6, 7]
    assert pictures.reasons[4] == "the file is not found"
    assert "URL" in pictures.reasons[5]
    assert 3 in pictures.reasons
    page, num_shown = "", 0
    for section in IMAGE_SECTIONS:
        if section.html is not None and (frame := section.frame(record)) is not None:
            page += section.html(record, frame)
            num_shown += frame["image"].isin(list(pictures.thumbnails)).sum()
            assert len(frame) == len(images) or section.name == "label_issues"
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(
        f"<!DOCTYPE html><html lang=en><title>x</title>{page}".encode(errors="replace").decode()
    )
    texts = {"".join(node.itertext()).strip() for node in document.iter()}
    assert {ODD[0], "No image: the file is not found"} <= texts
    assert all(node.get("alt") for node in document.iter("img"))
    assert page.count("data:image/webp") == num_shown >= 10
    assert len(page) < 100_000


def test_thumbnails_are_upright_and_small(images: list[Any]) -> None:
    for image, size in zip(images, [(40, 80), (128, 128), (80, 40)], strict=False):
        url = sections.thumbnail(image, 128)
        file = io.BytesIO(base64.b64decode(url.removeprefix("data:image/webp;base64,")))
        with Image.open(file) as found:
            assert (found.format, found.size) == ("WEBP", size)


def test_a_downloaded_image_is_shown_without_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://example.org/a.png"
    monkeypatch.setattr(download, "cache_folder", lambda: tmp_path)
    assert download.cached_file(url) is None
    file = download._folder_of(url, None) / "a.png"
    file.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(file)
    assert sections.local_source(url) == file
    assert sections.local_source(file.as_uri()) == file


def test_without_time_the_page_has_reasons_in_place_of_images(images: list[Any]) -> None:
    problem = Problem.of(["a", "b"], "binary")
    predictions = np.tile(np.array([[0.2, 0.8]], np.float32), (len(images), 1))
    record = record_of(images, predictions, np.zeros(len(images), np.int64), problem)
    record.seconds_left = lambda: 0.0
    pictures = pictures_of(record)
    assert not pictures.thumbnails
    assert set(pictures.reasons.values()) == {"the time limit left no time for it"}


def test_tables_are_empty_if_all_labels_are_right() -> None:
    problem = Problem.of(["a", "b", "c"], "multiclass")
    targets = np.array([0, 1, 2, 0, 1, 2])
    record = record_of([np.zeros((4, 4, 3), np.uint8)] * 6, np.eye(3, dtype=np.float32)[targets], targets, problem)
    mistakes, *_ = IMAGE_SECTIONS
    frame = mistakes.frame(record)
    assert frame is not None
    assert frame.empty
    assert mistakes.html is not None
    assert "The labels of all validation images are right." in mistakes.html(record, frame)


@given(st.integers(1, 40), st.integers(0, 2**31), st.booleans())
def test_mistakes_are_the_images_that_are_wrong(num: int, seed: int, has_one: bool) -> None:
    rng = np.random.default_rng(seed)
    if has_one:
        problem = Problem.of(["a", "b", "c"], "multiclass")
        targets = rng.integers(3, size=num)
        predictions = rng.dirichlet(np.ones(3), num).astype(np.float32)
    else:
        problem = Problem.of([["a", "b", "c"]], "multilabel")
        targets = (rng.random((num, 3)) < 0.3).astype(np.float32)
        predictions = rng.random((num, 3)).astype(np.float32)
    given = problem, ["a", "b", "c"], targets, predictions, predictions
    mistakes, uncertain = sections.mistakes_frame(*given), sections.uncertain_frame(*given)
    assert mistakes is not None
    assert uncertain is not None
    wrong = np.flatnonzero(~problem.are_right(predictions, targets))
    assert sorted(mistakes["image"]) == wrong.tolist()
    assert (mistakes["true"] != mistakes["predicted"]).all()
    assert mistakes["confidence"].is_monotonic_decreasing
    assert sorted(uncertain["image"]) == list(range(num))
    assert uncertain["confidence"].is_monotonic_increasing
    pd.testing.assert_series_equal(
        uncertain.set_index("image")["is_right"].sort_index(),
        pd.Series(problem.are_right(predictions, targets), pd.RangeIndex(num, name="image"), name="is_right"),
    )
    issues = sections.label_issues_frame(*given)
    if not has_one or len(np.unique(targets)) < 2:
        assert issues is None
    else:
        assert issues is not None
        flagged = np.flatnonzero(probably_wrong(predictions.astype(np.float64), targets))
        assert sorted(issues["image"]) == flagged.tolist()
        assert (issues["label"] != issues["suggested_label"]).all()


def test_images_without_labels_are_named_so() -> None:
    problem = Problem.of([["a", "b"]], "multilabel")
    p = np.array([[0.9, 0.1], [0.2, 0.3]], np.float32)
    frame = sections.mistakes_frame(problem, ["a", "b"], np.array([[0, 0], [1, 1]], np.float32), p, p)
    assert frame is not None
    assert frame[["true", "predicted"]].values.tolist() == [["none", "a"], ["a, b", "none"]]
    assert frame["confidence"].tolist() == pytest.approx([0.9, 0.8])
