from __future__ import annotations

import csv
import io

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from saccade.data import ImageDataset
from saccade.data.sources.tables import read_table
from saccade.errors import DataError
from saccade.tasks.problem import Problem


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Write a table, and return its path."""
    folder = tmp_path_factory.mktemp("tables")

    def write(content, name="labels.csv"):
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@given(
    labels=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1), min_size=1
    )
)
@example(labels=["007", "010"])
@example(labels=["1.10", "1.1"])
@example(labels=["1.10", "1.20"])
@example(labels=["1.0", "2.0"])
@example(labels=["1e5", "2e5"])
@example(labels=["-0", "0"])
@example(labels=["9" * 30, "1"])
@example(labels=["inf", "nan"])
@example(labels=["NA", "None"])
@example(labels=["True", "FALSE"])
@example(labels=[" a", "a "])
@example(labels=["0.5", "-2.25"])
def test_labels_stay_as_they_are_written(write, labels):
    text = io.StringIO()
    csv.writer(text).writerows([("image", "label"), *((f"{number:05}", label) for number, label in enumerate(labels))])
    dataset = ImageDataset.from_csv(write(text.getvalue()))
    assert all(
        str(label) == text or (isinstance(label, float) and label == float(text))  # 3 is 3.0 among fractions
        for label, text in zip(dataset["label"], labels, strict=True)
    )
    assert dataset["image"].tolist() == [f"{number:05}" for number in range(len(labels))]


def test_numbers_are_numbers(write):
    frame = read_table(write("image,age,price,weight,count,padded\na,3,0.5,1,,1.50\nb,40,2,1.5,7,2.25\n"), "image")
    assert [str(dtype) for dtype in frame.dtypes] == ["object", "int64", "float64", "float64", "Int64", "object"]
    prices = "".join(f"{number}.jpg,{number / 4:.2f}\n" for number in range(90))
    assert Problem.of(read_table(write("image,label\n" + prices), "image")["label"]).type == "regression"


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffimage,label\na.png,café\nb.png,dog\n",
        "image,label\r\na.png,café\r\nb.png,dog\r\n",
        "image,label,\na.png,café,\nb.png,dog,\n",
        "image,label\na.png,café,\nb.png,dog,\n",
        "image;label\na.png;café\nb.png;dog\n",
        "image\tlabel\na.png\tcafé\nb.png\tdog\n",
        "image|label\na.png|café\nb.png|dog\n",
        '"label";"a,b,c";"image"\ncafé;1;a.png\ndog;2;b.png\n',
        "image , label\na.png,café\n\n,\nb.png,dog\n",
        "image,label\na.png,café\nb.png,dog\n".encode("utf-16"),
        "image\tlabel\r\na.png\tcafé\r\nb.png\tdog\r\n".encode("utf-16"),
        "image,label\na.png,café, \nb.png,dog, \n".encode("utf-32"),
    ],
)
def test_tables_as_spreadsheets_write_them(write, content):
    for name in ("labels.csv", "labels.tsv"):
        frame = read_table(write(content, name), "image")
        assert (frame["image"].tolist(), frame["label"].tolist()) == (["a.png", "b.png"], ["café", "dog"])


def test_other_encodings_and_separators_are_named(write):
    latin = write("image,label\na.png,café\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8 text.*encoding='cp1252'"):
        read_table(latin, "image")
    assert read_table(latin, "image", encoding="cp1252")["label"].tolist() == ["café"]
    for encoding in ("utf-16-le", "utf-16-be"):
        with pytest.raises(DataError, match=rf"NUL.*encoding='{encoding}'"):
            read_table(write("image,label\na.png,dog\n".encode(encoding)), "image")
    with pytest.raises(DataError, match="unknown encoding: latin1252"):
        read_table(latin, "image", encoding="latin1252")
    assert read_table(write("image:label\na.png:dog\n"), "image", sep=":")["label"].tolist() == ["dog"]
    with pytest.raises(DataError, match="is a spreadsheet or compressed"):
        read_table(write(b"PK\3\4" + bytes(100)), "image")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,label\na.png,dog,seen by Ann\n", "Row 2 of .* has 3 fields, but the header names 2 columns"),
        ("a.png,dog\nb.png,cat\n", "first line of .* must name the columns.*a.png,dog"),
        ("image,label,label\na.png,dog,cat\n", "several columns 'label'"),
        ("\n\n", "is empty; expected a table"),
    ],
)
def test_columns_are_never_shifted(write, content, message):
    with pytest.raises(DataError, match=message):
        read_table(write(content), "image")


def test_missing_fields_are_missing_values(write):
    frame = read_table(write("image,label\na.png,\n,cat\nc.png\n"), "image")
    assert frame["label"].isna().tolist() == [True, False, True]
    assert frame["image"].isna().tolist() == [False, True, False]
    assert isinstance(frame, pd.DataFrame)
