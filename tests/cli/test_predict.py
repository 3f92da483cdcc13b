"""What `predict` prints and writes."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from saccade.inference.feature_bank import FeatureBank


@pytest.fixture
def photos(splits, tmp_path):
    """Three images in folders, a file that is no image, and one that has nothing to do with it."""
    root = tmp_path / "photos"
    (root / "deep" / "down").mkdir(parents=True)
    shutil.copy(splits / "test" / "dark" / "0.png", root / "a.png")
    shutil.copy(splits / "test" / "bright" / "0.png", root / "deep" / "b.png")
    shutil.copy(splits / "test" / "bright" / "1.png", root / "deep" / "down" / "c.png")
    (root / "notes.txt").touch()
    (root / "z.png").write_text("no image")
    return root


def test_all_images_below_a_folder_are_taken(saccade, fitted, photos):
    result = saccade("predict", fitted[0], photos)
    assert result.exit_code == 0, result.stderr
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    told = {path.removeprefix(f"{photos}/"): answer.split("  ")[0] for path, answer in lines}
    assert told == {"a.png": "dark", "deep/b.png": "bright", "deep/down/c.png": "bright", "z.png": "cannot be read"}
    assert "not an image" in result.stderr


def test_a_table_has_labels_and_probabilities(saccade, fitted, photos, tmp_path):
    result = saccade("predict", fitted[0], photos, "--csv", tmp_path / "out.csv")
    assert result.exit_code == 0, result.stderr
    assert "4 images: bright (2), dark (1), cannot be read (1)" in result.stdout
    table = pd.read_csv(tmp_path / "out.csv").set_index("image")
    assert table.columns.tolist() == ["label", "p_bright", "p_dark"]
    assert table["label"].fillna("").tolist() == ["dark", "bright", "bright", ""]
    good = table[table["label"].notna()]
    np.testing.assert_allclose(good[["p_bright", "p_dark"]].sum(axis=1), 1, atol=1e-5)
    assert (good["label"] == good[["p_bright", "p_dark"]].idxmax(axis=1).str.removeprefix("p_")).all()
    assert table.loc[str(photos / "z.png"), ["p_bright", "p_dark"]].isna().all()


def test_images_unlike_the_training_images_get_the_label_unknown(saccade, fitted, photos, monkeypatch, tmp_path):
    for novelty, label in ((-1.0, "strange"), (3.0, "dark")):
        monkeypatch.setattr(FeatureBank, "threshold", lambda bank, rate, novelty=novelty: novelty)
        result = saccade("predict", fitted[0], photos / "a.png", "--unknown", "strange", "--csv", tmp_path / "out.csv")
        assert result.exit_code == 0, result.stderr
        assert pd.read_csv(tmp_path / "out.csv")["label"].tolist() == [label]
    result = saccade("predict", fitted[0], photos / "a.png", "--false-alarm-rate", "0.1")
    assert result.exit_code == 2
    assert "--unknown" in result.stderr


def test_no_image_that_can_be_read_is_an_error(saccade, fitted, photos, tmp_path):
    result = saccade("predict", fitted[0], photos / "z.png", photos / "gone.png", "--csv", tmp_path / "out.csv")
    assert result.exit_code == 2
    assert "z.png: not an image" in result.stderr
    assert not (tmp_path / "out.csv").exists()


def test_a_folder_without_images_is_an_error(saccade, fitted, tmp_path):
    result = saccade("predict", fitted[0], tmp_path)
    assert result.exit_code == 2
    assert f"There are no images in {tmp_path}" in result.stderr


def test_numbers_are_predicted_as_such(saccade, splits, tmp_path):
    files = sorted((splits / "train").rglob("*.png"))
    pd.DataFrame({"image": list(map(str, files)), "label": np.linspace(0, 1, len(files))}).to_csv(tmp_path / "t.csv")
    small = ("--set", "pretrained=False", "--set", "img_size=32", "--set", "epochs=1", "--model", "test_resnet")
    fit = saccade("fit", tmp_path / "t.csv", *small, "--out", tmp_path / "run")
    assert fit.exit_code == 0, fit.stderr
    (tmp_path / "bad.png").touch()
    shown = saccade("predict", tmp_path / "run", files[0], tmp_path / "bad.png")
    assert shown.exit_code == 0, shown.stderr
    number = float(shown.stdout.splitlines()[0].split()[-1])
    assert shown.stdout.splitlines()[1].endswith("cannot be read")
    written = saccade("predict", tmp_path / "run", files[0], tmp_path / "bad.png", "--csv", tmp_path / "out.csv")
    assert "2 images: read (1), cannot be read (1)" in written.stdout
    table = pd.read_csv(tmp_path / "out.csv")
    assert table.columns.tolist() == ["image", "label"]
    assert table["label"].iloc[0] == pytest.approx(number, rel=1e-4)
    assert np.isnan(table["label"].iloc[1])


def test_a_table_that_cannot_be_written_is_an_error_before_predictions(saccade, photos, tmp_path):
    for csv, text in ((tmp_path, "is a folder"), (tmp_path / "none" / "x.csv", "none of x.csv does not exist")):
        result = saccade("predict", tmp_path / "no run", photos, "--csv", csv)
        assert result.exit_code == 2
        assert text in " ".join(result.stderr.split())
