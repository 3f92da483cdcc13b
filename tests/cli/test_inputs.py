"""Folders of classes and folders of splits."""

from __future__ import annotations

import shutil
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image

from saccade.cli.inputs import TableColumns, label_columns, read_files, read_splits, read_test_images
from saccade.data.sources.tables import is_table
from saccade.errors import DataError


def make_images(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / folder / "0.png")
    return root


def test_a_folder_of_classes_is_all_for_training(tmp_path):
    train, val, test = read_splits(str(make_images(tmp_path, "cat", "dog")))
    assert train.classes == ["cat", "dog"]
    assert val is None
    assert test is None


def test_splits_that_are_missing_are_none(tmp_path):
    train, val, test = read_splits(str(make_images(tmp_path, "train/cat", "train/dog", "test/cat")))
    assert (len(train), val, len(test)) == (2, None, 1)
    assert test.classes == ["cat", "dog"]


def test_train_may_be_the_only_split(tmp_path):
    assert read_splits(str(make_images(tmp_path, "train/cat", "train/dog"))).train.classes == ["cat", "dog"]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_validation_images_have_several_names(tmp_path, name):
    root = make_images(tmp_path, "train/cat", "train/dog", f"{name}/cat")
    assert len(read_splits(str(root)).val) == 1


@pytest.mark.parametrize("names", [("Training", "Testing"), ("seg_train", "seg_test"), ("training_set", "test_set")])
def test_splits_have_several_names(tmp_path, names):
    root = make_images(tmp_path, *(f"{name}/{label}" for name in names for label in ("cat", "dog")))
    train, val, test = read_splits(str(root))
    assert (len(train), val, len(test)) == (2, None, 2)
    assert len(read_test_images(str(root))) == 2


def test_a_table_may_have_several_labels_and_weights(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("image,tags,furry,wet,weight\na.png,cat; dog,1,0,2\nb.png,,0,1,0.5\n")
    columns = TableColumns(label="tags", label_sep=";", others={"--sample-weight": "weight"})
    assert read_splits(str(table), columns).train["tags"].tolist() == [["cat", "dog"], []]
    train = read_splits(str(table), TableColumns(label=label_columns("furry,wet"))).train
    assert train[["furry", "wet"]].to_numpy().tolist() == [[1, 0], [0, 1]]
    with pytest.raises(DataError, match=r"'weigth'.*Did you mean 'weight'.*--sample-weight"):
        read_splits(str(table), TableColumns(label="tags", others={"--sample-weight": "weigth"}))


def test_tables_are_recognised_by_their_suffix(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    assert is_table("a.CSV")
    assert is_table("https://host/a.tsv?download=1")
    assert not is_table(str(tmp_path / "folder.csv"))


def test_table_paths_are_relative_to_the_table_or_image_root(tmp_path):
    make_images(tmp_path, "cat", "dog")
    for separator, name in ((",", "t.csv"), ("\t", "t.tsv")):
        (tmp_path / name).write_text(f"image{separator}label\n0.png{separator}a\n")
        beside = read_splits(str(tmp_path / name)).train
        elsewhere = read_splits(str(tmp_path / name), TableColumns(root=str(tmp_path / "cat"))).train
        assert beside["image"].tolist() == [str(tmp_path / "0.png")]
        assert elsewhere["image"].tolist() == [str(tmp_path / "cat" / "0.png")]


def test_a_table_at_an_address_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "t.csv").write_text("image,label\n0.png,a\n")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        read = read_splits(f"http://127.0.0.1:{server.server_port}/t.csv", TableColumns(root=str(tmp_path)))
        server.shutdown()
    assert read.train["image"].tolist() == [str(tmp_path / "0.png")]


def test_files_folders_archives_and_patterns_become_files(tmp_path, monkeypatch):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    root = make_images(tmp_path, "a", "a/b", "c")
    assert read_files([str(root / "c" / "0.png"), str(root / "a")]) == [
        str(root / "c" / "0.png"),
        str(root / "a" / "0.png"),
        str(root / "a" / "b" / "0.png"),
    ]
    shutil.make_archive(str(root / "c"), "zip", root / "c")
    assert read_files([str(root / "a" / "*.png"), (root / "a").as_uri(), "no.png"]) == [
        *[str(root / "a" / "0.png")] * 2,
        str(root / "a" / "b" / "0.png"),
        "no.png",
    ]
    assert [Path(file).name for file in read_files([str(root / "c.zip")])] == ["0.png"]


def test_a_class_may_be_called_train(tmp_path):
    assert read_splits(str(make_images(tmp_path, "bus", "car", "train"))).train.classes == ["bus", "car", "train"]


def test_the_test_images_of_a_folder_of_classes_are_all_of_it(tmp_path):
    assert len(read_test_images(str(make_images(tmp_path, "cat", "dog")))) == 2


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError):
        read_splits(str(tmp_path))
