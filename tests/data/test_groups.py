from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saccade.data.dataset import ImageDataset
from saccade.data.examples import read_labelled_examples
from saccade.data.groups import bursts, suggested_groups, with_groups, with_times
from saccade.errors import DataError


def table(num: int = 4, **columns: Any) -> ImageDataset:
    return ImageDataset(
        {"image": [f"p{i // 2}_{i}.png" for i in range(num)], "label": ["a", "b"] * (num // 2), **columns}
    )


def groups_of(given: Any, data: pd.DataFrame, is_complete: bool = True) -> list[str] | None:
    return with_groups(read_labelled_examples(data, "label"), given, data, "train_data", is_complete).groups


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("patient", ["1", "", "2", "2"]),
        (["x", None, float("nan"), "y"], ["x", "", "", "y"]),
        ({"p0_0.png": 1, "p0_1.png": 1, "p1_2.png": 2, Path("p1_3.png"): None}, ["1", "1", "2", ""]),
        ({0: "x", 1: "x", 2: "y", 3: "y"}, ["x", "x", "y", "y"]),
        (lambda path: path.stem.split("_")[0], ["p0", "p0", "p1", "p1"]),
    ],
)
def test_groups_are_a_column_a_list_a_mapping_or_a_function(given: Any, expected: list[str]) -> None:
    assert groups_of(given, table(patient=[1, np.nan, 2.0, "2"])) == expected


def test_groups_that_do_not_fit_the_images_are_errors() -> None:
    with pytest.raises(DataError, match=r"did you mean groups='patient'"):
        groups_of("patinet", table(patient=[1, 1, 2, 2]))
    with pytest.raises(DataError, match=r"no groups column 'patient'.*a function of a path"):
        groups_of("patient", table())
    with pytest.raises(DataError, match="groups has 2 values, but train_data has 4 images"):
        groups_of([1, 2], table())
    with pytest.raises(DataError, match=r"no value for 3 of 4 images of train_data, such as 'p0_1.png'"):
        groups_of({"p0_0.png": 1}, table())
    in_memory = pd.DataFrame({"image": [b"1", b"2"], "label": ["a", "b"]})
    with pytest.raises(DataError, match="images of type bytes; pass a list"):
        groups_of(str, in_memory)


def test_validation_images_need_no_groups() -> None:
    assert groups_of("patient", table(), is_complete=False) is None
    assert groups_of({"p0_0.png": 1}, table(), is_complete=False) == ["1", "", "", ""]


def times_of(given: Any) -> list[float] | None:
    data = table()
    return with_times(read_labelled_examples(data, "label"), given, data, "train_data").times


def test_times_are_numbers_dates_or_iso_text() -> None:
    day = 86_400.0
    assert times_of([1, 2.5, np.int64(3), 4]) == [1, 2.5, 3, 4]
    dates = [datetime.date(1970, 1, 2), pd.Timestamp("1970-01-03"), "1970-01-04T00:00:00Z", "1970:01:05 00:00:00"]
    assert times_of(dates) == [day, 2 * day, 3 * day, 4 * day]
    with pytest.raises(DataError, match="time is missing for 1 of 4 images"):
        times_of([1, 2, None, 3])
    with pytest.raises(DataError, match="'03/04/2024'; expected numbers, dates, or text in the format ISO 8601"):
        times_of(["03/04/2024"] * 4)


def names(pattern: str, num: int = 40) -> list[str]:
    return [pattern.format(group=i // 4, i=i, j=i % 4) + ".jpg" for i in range(num)]


@pytest.mark.parametrize(
    "pattern", ["patient{group}_{j:02}", "video{group:03}_frame{i}", "id{group}-{j}", "p{group}a{j}"]
)
def test_names_with_an_identifier_and_a_number_suggest_groups(pattern: str) -> None:
    found = suggested_groups(names(pattern), ["a", "b"] * 20)
    assert found is not None
    assert [found.index(key) for key in found] == [4 * (i // 4) for i in range(40)]


@pytest.mark.parametrize(
    "pattern",
    [
        "{i:04}",
        "img_{i}",
        "IMG_2024010{j}_{i:06}",
        "2024-05-1{j}_{i}",
        "cat.{i}",
        "{i}_photo",
        "n0144076{j}_{i}",
        "dog{i}a",
    ],
)
def test_other_names_suggest_none(pattern: str) -> None:
    assert suggested_groups(names(pattern), ["a", "b", "c"] * 13 + ["a"]) is None


def photo(path: Path, serial: str, time: str) -> str:
    exif = Image.Exif()
    exif[0x0110] = "Model"
    exif.get_ifd(0x8769).update({0xA431: serial, 0x9003: time})
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    return str(path)


def test_photos_of_one_camera_within_seconds_are_a_burst(tmp_path: Path) -> None:
    times = ["2024:05:01 12:00:00", "2024:05:01 12:00:02", "2024:05:01 12:00:30", "2024:05:01 12:00:01"]
    files = [photo(tmp_path / f"{i}.jpg", "B" if i == 3 else "A", time) for i, time in enumerate(times)]
    Image.new("RGB", (8, 8)).save(tmp_path / "none.png")
    keys = bursts([*files, str(tmp_path / "none.png"), b"", "missing.jpg"], ["train", "val"] * 3 + ["val"], lambda: 1.0)
    assert keys[0] == keys[1] != ""
    assert len({keys[0], keys[2], keys[3]}) == 3
    assert keys[4:] == ["", "", ""]


def test_a_damaged_file_has_no_burst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_damaged(_: Any) -> None:
        raise RuntimeError("as pillow_jxl raises")

    monkeypatch.setattr(Image, "open", open_damaged)
    assert bursts([str(tmp_path / "a.jxl")], ["train"], lambda: 1.0) == [""]
