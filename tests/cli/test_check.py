"""What `check` finds and prints."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
from PIL import Image


@pytest.fixture
def spoilt(splits, tmp_path):
    """The splits, with a file that is no image, and a copy of a training image in test/."""
    root = tmp_path / "spoilt"
    shutil.copytree(splits, root)
    (root / "train" / "dark" / "bad.png").write_text("no image")
    shutil.copy(root / "train" / "dark" / "0.png", root / "test" / "dark" / "copy.png")
    return root


def test_good_images_are_told_in_a_line(saccade, splits):
    result = saccade("check", splits)
    assert (result.exit_code, result.stdout) == (0, "images checked: 24 in train, 6 in test; nothing found\n")


def test_findings_are_shown_with_files_and_advice_and_errors_have_an_exit_code(saccade, spoilt):
    result = saccade("check", spoilt)
    assert result.exit_code == 1
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == "images checked: 25 in train, 7 in test"
    assert lines[1].split()[:2] == ["warning", "IMG001"]
    assert "train/dark/bad.png (not an image: cannot identify its format)" in lines
    assert "test/dark/copy.png (also in train: train/dark/0.png)" in lines
    assert any(line.startswith("error") and "IMG004" in line for line in lines)
    assert "-> Delete them from one of the parts." in lines


def test_warnings_alone_are_no_failure(saccade, spoilt):
    (spoilt / "test" / "dark" / "copy.png").unlink()
    result = saccade("check", spoilt)
    assert result.exit_code == 0
    assert "IMG001" in result.stdout


def test_all_findings_are_written_to_a_table_with_whole_paths(saccade, spoilt, tmp_path):
    saccade("check", spoilt, "--csv", tmp_path / "findings.csv")
    frame = pd.read_csv(tmp_path / "findings.csv")
    assert frame["code"].tolist() == ["IMG001", "IMG004"]
    assert frame["file"].tolist() == [str(spoilt / "train/dark/bad.png"), str(spoilt / "test/dark/copy.png")]


def test_images_without_classes_are_checked_too(saccade, splits):
    result = saccade("check", splits / "train" / "dark")
    assert (result.exit_code, result.stdout) == (0, "images checked: 12 in train; nothing found\n")


def test_an_archive_is_checked_as_a_folder(saccade, spoilt, tmp_path, monkeypatch):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    archive = shutil.make_archive(str(tmp_path / "images"), "zip", spoilt)
    assert saccade("check", archive).stdout == saccade("check", spoilt).stdout


def test_a_table_is_checked_whatever_is_in_it(saccade, tmp_path):
    for number in range(6):
        Image.effect_noise((16, 16 + number), 50).save(tmp_path / f"{number}.png")
    rows = [(f"{number}.png", number / 4) for number in range(6)]
    pd.DataFrame([*rows, ("gone.png", 1.0), (None, 2.0)], columns=["image", "label"]).to_csv(tmp_path / "t.csv")
    result = saccade("check", tmp_path / "t.csv")
    assert result.exit_code == 2
    assert "1 of 8 images cannot be read" in result.stderr
    assert "--image-root" in result.stderr
    assert "2 files without a readable image" in result.stdout
    assert "gone.png (no such file)" in result.stdout
    assert "IMG005" not in result.stdout  # labels that are numbers are no classes


def test_labels_that_are_missing_are_told(saccade, tmp_path, splits):
    (tmp_path / "t.csv").write_text(f"image,label\n{splits}/test/dark/0.png,\n{splits}/test/dark/1.png,dark\n")
    result = saccade("check", tmp_path / "t.csv")
    assert result.exit_code == 2
    assert "1 of 2 labels are missing" in result.stderr


def test_no_images_at_all_is_an_error(saccade, tmp_path):
    result = saccade("check", tmp_path)
    assert result.exit_code == 2
    assert "No images" in result.stderr
