"""Output and figure of `saccade explain`."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image


def rows_of(stdout: str) -> dict[str, list[str]]:
    """Return the rows of the table by file name."""
    head, *lines = stdout.splitlines()
    assert head.split() == ["image", "label", "probability", "nearest", "similarity"]
    cells = [line.split() for line in lines if not line.startswith("written") and "--num-images" not in line]
    return {path.rsplit("/", 1)[-1]: rest for path, *rest in cells}


def test_the_figure_is_written_and_its_rows_are_printed(saccade, fitted, splits, tmp_path):
    out = tmp_path / "new" / "why.jpg"
    shutil.copy(splits / "test" / "dark" / "0.png", tmp_path / "a.png")
    (tmp_path / "z.png").write_text("no image")
    bright = splits / "test" / "bright" / "1.png"
    result = saccade("explain", fitted[0], tmp_path / "a.png", bright, tmp_path / "z.png", "--out", out, "-k", 2)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"written to {out}"
    rows = rows_of(result.stdout)
    assert {name: (row[0], row[2]) for name, row in list(rows.items())[:2]} == {
        "a.png": ("dark", "dark"),
        "1.png": ("bright", "bright"),
    }
    assert all(0.5 < float(row[1]) <= 1 and -1 <= float(row[3]) <= 1 for row in list(rows.values())[:2])
    assert rows["z.png"] == ["cannot", "be", "read"]
    assert "not an image" in result.stderr
    with Image.open(out) as picture:
        assert (picture.format, picture.width) == ("JPEG", 12 + 4 * (144 + 12))


def test_num_images_limits_the_images(saccade, fitted, splits, tmp_path):
    images = splits / "test"
    result = saccade("explain", fitted[0], images, "--num-images", 4, "-k", 1, "--out", tmp_path / "why.png")
    assert result.exit_code == 0, result.stderr
    assert "4 of 6 images; pass --num-images to show more" in result.stdout
    assert len(result.stdout.splitlines()) == 1 + 4 + 2


def test_among_sets_the_training_images(saccade, fitted, splits, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(fitted[0] / "predictor", moved)
    (moved / "embeddings.safetensors").unlink(missing_ok=True)
    image, out = splits / "test" / "dark" / "0.png", tmp_path / "why.png"
    result = saccade("explain", moved, image, "--out", out)
    assert result.exit_code == 2
    assert "does not list its training images" in result.stderr
    assert not out.exists()
    result = saccade("explain", moved, image, "--out", out, "--among", splits)
    assert result.exit_code == 0, result.stderr
    assert rows_of(result.stdout)["0.png"][2] == "dark"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "why.xyz"), "why.xyz is not the name of a supported image file"),
        (("--out", "why"), "pass --out with a name that ends in .png"),
        (("-k", "0"), "expected a whole number, from 1 to 50"),
        (("--num-images", "100000"), "expected a whole number, from 1 to 200"),
        (("--among", "labels.csv"), "labels.csv is a table"),
        (("--among", "nowhere"), "nowhere"),
        (("--out", "file/why.png"), "file"),
        (("gone.png", "--out", "why.png"), "gone.png"),
    ],
)
def test_invalid_arguments_are_one_line_errors(saccade, fitted, splits, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    images = () if arguments[0] == "gone.png" else (splits / "test" / "dark" / "0.png",)
    result = saccade("explain", fitted[0], *images, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("saccade: ")
    assert message in result.stderr
    assert not (tmp_path / "why.png").exists()


def test_a_folder_without_run_is_a_one_line_error(saccade, splits, tmp_path):
    result = saccade("explain", tmp_path, splits / "test")
    assert result.exit_code == 2
    assert "contains no predictor.json" in result.stderr
