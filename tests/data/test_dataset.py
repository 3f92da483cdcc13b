from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saccade.data import ImageDataset
from saccade.errors import DataError, DataWarning, DownloadError, UnknownNameError


@pytest.fixture
def pets(make_class_folders, tmp_path):
    """Two splits; the class "owl" is only in one of them."""
    make_class_folders(tmp_path / "pets" / "train", {"dog": 3, "cat": 2})
    make_class_folders(tmp_path / "pets" / "test", {"cat": 1, "dog": 1, "owl": 2})
    return tmp_path / "pets"


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "pets.csv"
    path.write_text("image,label\na.jpg,dog\nsub/b.jpg,cat\n", encoding="utf-8")
    return path


def names_by_label(dataset):
    return {label: [Path(image).name for image in part["image"]] for label, part in dataset.groupby("label")}


# Made of a table or a list


def test_the_input_table_is_unchanged_and_its_index_and_columns_are_kept(tmp_path):
    frame = pd.DataFrame({"image": [Path("a.jpg"), b"\xff\xd8"], "label": ["x", "y"], "id": [1, 2]}, index=[7, 9])
    before = frame.copy()
    dataset = ImageDataset(frame)
    assert dataset.index.tolist() == [7, 9]
    assert dataset["image"].tolist() == ["a.jpg", b"\xff\xd8"]
    assert dataset["id"].tolist() == [1, 2]
    assert dataset.classes == ["x", "y"]
    dataset.loc[7, "label"] = "z"
    pd.testing.assert_frame_equal(frame, before)


def test_relative_paths_are_taken_from_the_root_and_others_are_kept(tmp_path):
    absolute = str(tmp_path / "else.jpg")
    dataset = ImageDataset([Path("a.jpg"), "sub/b.jpg", absolute, b"bytes"], root=tmp_path, no_class=True)
    assert dataset["image"].tolist() == [str(tmp_path / "a.jpg"), str(tmp_path / "sub" / "b.jpg"), absolute, b"bytes"]


def test_the_root_may_be_an_archive_or_its_address(pets, make_zip, file_server):
    archive = make_zip(pets, pets.parent / "pets.zip")
    file_server.files["/pets.zip"] = archive.read_bytes()
    for root in (archive, file_server.url("/pets.zip")):
        dataset = ImageDataset(["train/cat/000.jpg"], root=root, no_class=True)
        assert Path(dataset["image"].iloc[0]).read_bytes() == (pets / "train/cat/000.jpg").read_bytes()


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, pd.Index])
def test_images_may_be_any_sequence(kind):
    dataset = ImageDataset(kind(["a.jpg", "b.jpg"]), no_class=True)
    assert dataset["image"].tolist() == ["a.jpg", "b.jpg"]


def test_an_empty_list_is_an_empty_dataset():
    assert list(ImageDataset([], no_class=True).columns) == ["image"]


def test_rows_can_be_dictionaries():
    dataset = ImageDataset([{"image": "a.jpg", "label": "x"}, {"image": "b.jpg", "label": "y"}])
    assert dataset["label"].tolist() == ["x", "y"]


def test_pictures_in_memory_are_images_too():
    picture, array = Image.new("RGB", (8, 8)), np.zeros((8, 8, 3), np.uint8)
    dataset = ImageDataset([picture, array], no_class=True)
    assert dataset["image"].iloc[0] is picture
    assert dataset["image"].iloc[1] is array


def test_images_without_classes_have_no_label_column():
    dataset = ImageDataset(pd.DataFrame({"image": ["a.jpg"], "label": [1]}), classes=["x"], no_class=True)
    assert list(dataset.columns) == ["image"]
    assert dataset.classes is None


def test_a_dataset_of_a_dataset_keeps_its_metadata():
    first = ImageDataset({"photo": ["a.jpg"], "kind": [1]}, ["x", "y"], image_column="photo", label_column="kind")
    second = ImageDataset(first)
    assert (second.image_column, second.label_column, second.classes) == ("photo", "kind", ["x", "y"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"imgae": ["a"], "label": [1]}, r"No column 'image'\. Did you mean 'imgae'\?.*image_column="),
        ({"image": ["a"], "kind": [1]}, r"No column 'label'\. Columns: image, kind\..*label_column=.*no_class=True"),
        ({}, "Columns: none"),
    ],
)
def test_a_missing_column_is_an_error_that_names_what_is_there(columns, message):
    with pytest.raises(DataError, match=message):
        ImageDataset(pd.DataFrame(columns))


@pytest.mark.parametrize("data", ["photos", Path("photos.csv")])
def test_the_error_for_a_path_names_the_functions_for_paths(data):
    with pytest.raises(DataError, match=r"from_folder.*from_csv"):
        ImageDataset(data)


# Made of a folder


def test_sub_folders_are_classes_and_labels_their_names(pets):
    dataset = ImageDataset.from_folder(pets / "train")
    assert type(dataset) is ImageDataset
    assert dataset.classes == ["cat", "dog"]
    assert names_by_label(dataset) == {"cat": ["000.jpg", "001.png"], "dog": ["000.jpg", "001.png", "002.jpg"]}
    assert dataset["label"].dtype == object
    assert dataset.index.tolist() == list(range(5))
    assert all(Path(image).is_absolute() and Path(image).exists() for image in dataset["image"])


def test_labels_may_be_numbers_with_names(pets):
    dataset = ImageDataset.from_folder(pets / "train", labels="numbers")
    assert dataset["label"].tolist() == [0, 0, 1, 1, 1]
    assert dataset["label"].dtype == np.int64
    assert dataset.classes == ["cat", "dog"]
    train, val, test = ImageDataset.from_folders(pets, labels="numbers")
    assert train.classes == val.classes == test.classes == ["cat", "dog", "owl"]
    assert test["label"].tolist() == [0, 1, 2, 2]
    assert val["label"].dtype == np.int64
    with pytest.raises(UnknownNameError, match="Did you mean 'numbers'"):
        ImageDataset.from_folder(pets / "train", labels="number")


def test_paths_are_absolute(pets, monkeypatch, tmp_path):
    monkeypatch.chdir(pets)
    dataset = ImageDataset.from_folder("train")
    monkeypatch.chdir(tmp_path)
    assert all(Path(image).exists() for image in dataset["image"])


def test_extensions_can_be_chosen(pets):
    assert len(ImageDataset.from_folder(pets / "train", exts=(".PNG",))) == 2


def test_without_classes_images_are_found_at_any_depth(pets):
    dataset = ImageDataset.from_folder(pets, no_class=True)
    assert list(dataset.columns) == ["image"]
    assert len(dataset) == 9
    assert dataset.classes is None


def test_nested_folders_belong_to_their_class_and_empty_folders_to_none(pets, make_image):
    make_image(pets / "train" / "cat" / "2019" / "May" / "Zoë 猫.JPG")
    (pets / "train" / "bird").mkdir()
    with pytest.warns(DataWarning, match="'bird' .no files"):
        dataset = ImageDataset.from_folder(pets / "train")
    assert dataset.classes == ["cat", "dog"]
    assert "Zoë 猫.JPG" in names_by_label(dataset)["cat"]


def test_folders_of_splits_are_not_classes(pets):
    with pytest.raises(DataError, match=r"splits rather than classes: train, test.*from_folders"):
        ImageDataset.from_folder(pets)


def test_a_folder_that_wraps_the_classes_is_entered_with_a_warning(make_class_folders, tmp_path):
    make_class_folders(tmp_path / "archive" / "PetImages", {"cat": 1, "dog": 1})
    (tmp_path / "archive" / "readme.txt").touch()
    with pytest.warns(DataWarning, match="contains only 'PetImages'"):
        dataset = ImageDataset.from_folder(tmp_path / "archive")
    assert dataset.classes == ["cat", "dog"]
    with pytest.raises(DataError, match=r"pass .*PetImages if 'cat' is a class"):
        ImageDataset.from_folder(tmp_path / "archive" / "PetImages" / "cat")


@pytest.mark.parametrize("wrapping", [".", "pets", "a/b"])
def test_an_archive_may_wrap_the_classes_in_a_folder(make_class_folders, make_zip, tmp_path, wrapping):
    make_class_folders(tmp_path / "in" / wrapping, {"dog": 1, "cat": 1})
    dataset = ImageDataset.from_folder(make_zip(tmp_path / "in", tmp_path / "pets.zip"))
    assert dataset.classes == ["cat", "dog"]


def test_the_error_for_a_missing_folder_suggests_a_similar_one(pets):
    with pytest.raises(DataError, match=r"Did you mean .*train"):
        ImageDataset.from_folder(pets / "tarin")


# Made of several folders


def test_splits_share_their_classes(pets):
    train, val, test = ImageDataset.from_folders(pets)
    assert train.classes == val.classes == test.classes == ["cat", "dog", "owl"]
    assert names_by_label(train).keys() == {"cat", "dog"}
    for split in (train, test):
        assert [Path(image).parent.name for image in split["image"]] == split["label"].tolist()


@pytest.mark.parametrize("val", ["val", None])
def test_a_split_that_is_missing_is_empty_and_has_the_same_columns(pets, val):
    train, missing, _ = ImageDataset.from_folders(pets, val=val)
    assert type(missing) is ImageDataset
    assert len(missing) == 0
    assert missing.dtypes.to_dict() == train.dtypes.to_dict()


def test_a_split_without_files_is_empty_but_one_without_images_is_an_error(pets):
    (pets / "val" / "cat").mkdir(parents=True)
    assert len(ImageDataset.from_folders(pets)[1]) == 0
    (pets / "val" / "cat" / "1.npy").touch()
    with pytest.raises(DataError, match=r"val.*1 \.npy"):
        ImageDataset.from_folders(pets)


def test_splits_may_have_other_names(pets):
    train, val, _ = ImageDataset.from_folders(pets, train="test", val="train")
    assert (len(train), len(val)) == (4, 5)


def test_the_error_for_a_missing_training_folder_lists_the_folders(pets):
    (pets / "train").rename(pets / "photos")
    with pytest.raises(DataError, match=r"No training folder 'train'.*'photos', 'test'.*train=\.\.\."):
        ImageDataset.from_folders(pets)


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "valid", "Testing"),
        ("TRAIN", "Validation", "TEST"),
        ("training_set", "dev_set", "test_set"),
        ("seg_train", "seg_val", "seg_test"),
        ("train_images", "val_images", "test_images"),
        ("train2017", "val2017", "test2017"),
        ("TrainingData", "ValidationData", "hold-out"),
    ],
)
def test_splits_have_many_names(pets, make_class_folders, names):
    make_class_folders(pets / "val", {"cat": 3})
    for old, new in zip(("train", "val", "test"), names, strict=True):
        (pets / old).rename(pets / f"-{new}")
    for name in names:
        (pets / f"-{name}").rename(pets / name)
    assert [len(split) for split in ImageDataset.from_folders(pets)] == [5, 3, 4]
    with pytest.raises(DataError, match=f"splits rather than classes: {', '.join(names)}"):
        ImageDataset.from_folder(pets)


def test_splits_may_be_wrapped_again(pets):
    for name, inner in (("train", "train"), ("test", "images")):
        (pets / name).rename(pets / "wrapped")
        (pets / name).mkdir()
        (pets / "wrapped").rename(pets / name / inner)
    train, _, test = ImageDataset.from_folders(pets)
    assert (len(train), len(test), train.classes) == (5, 4, ["cat", "dog", "owl"])


def test_images_in_other_folders_are_left_out_with_a_warning(pets, make_class_folders):
    make_class_folders(pets / "unused", {"cat": 1, "dog": 1})
    with pytest.warns(DataWarning, match="'unused'.*are left out; the splits are"):
        assert [len(split) for split in ImageDataset.from_folders(pets)] == [5, 0, 4]
    with pytest.raises(DataError, match="splits rather than classes"):
        ImageDataset.from_folder(pets)
    assert len(ImageDataset.from_folders(pets, val="unused")[1]) == 2
    with pytest.raises(DataError, match=r"No folder 'unusd'.*Did you mean 'unused'"):
        ImageDataset.from_folders(pets, val="unusd")


def test_splits_without_classes(pets):
    train, val, test = ImageDataset.from_folders(pets, no_class=True)
    assert [len(split) for split in (train, val, test)] == [5, 0, 4]
    assert [list(split.columns) for split in (train, val, test)] == [["image"]] * 3


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz", "address"])
def test_splits_come_from_folders_archives_and_addresses(pets, kind, make_zip, make_tar, file_server, tmp_path):
    wrapped = tmp_path / "wrapped"
    (wrapped / "data").mkdir(parents=True)
    pets.rename(wrapped / "data" / "pets")
    root: str | Path = wrapped
    if kind in ("zip", "address"):
        root = make_zip(wrapped, tmp_path / "pets.zip")
    elif kind == "tar.gz":
        root = make_tar(wrapped, tmp_path / "pets.tar.gz", "w:gz")
    if kind == "address":
        file_server.files["/pets.zip"] = root.read_bytes()
        root = file_server.url("/pets.zip")
    assert [len(split) for split in ImageDataset.from_folders(root)] == [5, 0, 4]


# Made of a CSV file


def test_a_csv_file_keeps_its_labels_and_names_its_classes(csv, tmp_path):
    dataset = ImageDataset.from_csv(csv, root=tmp_path)
    assert dataset["image"].tolist() == [str(tmp_path / "a.jpg"), str(tmp_path / "sub" / "b.jpg")]
    assert dataset["label"].tolist() == ["dog", "cat"]
    assert dataset.classes == ["cat", "dog"]
    assert ImageDataset.from_csv(str(csv))["image"].tolist() == ["a.jpg", "sub/b.jpg"]


def test_a_csv_file_may_have_other_columns_or_no_labels(tmp_path):
    csv = tmp_path / "pets.csv"
    csv.write_text("photo,price\na.jpg,1.5\n", encoding="utf-8")
    dataset = ImageDataset.from_csv(csv, image_column="photo", label_column="price")
    assert dataset["price"].tolist() == [1.5]
    assert dataset.classes is None
    assert list(ImageDataset.from_csv(csv, image_column="photo", label_column="price", no_class=True).columns) == [
        "photo"
    ]
    with pytest.raises(DataError, match="Columns: photo, price"):
        ImageDataset.from_csv(csv)
    with pytest.warns(DataWarning, match="other columns: price.*label_column="):
        unlabelled = ImageDataset.from_csv(csv, image_column="photo")
    assert list(unlabelled.columns) == ["photo", "price"]
    assert unlabelled.classes is None
    with pytest.raises(DataError, match=r"No column 'prise'\. Did you mean 'price'"):
        ImageDataset.from_csv(csv, image_column="photo", label_column="prise")


def test_a_csv_file_may_have_an_address(csv, file_server):
    file_server.files["/pets.csv"] = csv.read_bytes()
    assert len(ImageDataset.from_csv(file_server.url("/pets.csv"))) == 2
    with pytest.raises(DownloadError):
        ImageDataset.from_csv(file_server.url("/gone.csv"))


def test_classes_called_like_missing_values_are_classes(tmp_path):
    csv = tmp_path / "a.csv"
    csv.write_text("image,label\na,None\nb,NA\nc,null\nd,\n", encoding="utf-8")
    dataset = ImageDataset.from_csv(csv)
    assert dataset.classes == ["NA", "None", "null"]
    assert dataset["label"].isna().tolist() == [False, False, False, True]


def test_a_byte_order_mark_and_tabs_are_understood(tmp_path):
    tsv = tmp_path / "a.tsv"
    tsv.write_text("\ufeffimage\tlabel\na.jpg\tdog\n", encoding="utf-8")
    assert ImageDataset.from_csv(tsv)["image"].tolist() == ["a.jpg"]


@pytest.mark.parametrize("content", [b"", b'image,label\n"a,b\n1,2,3\n', b"image,label\n\xff\xfe\x00,1\n"])
def test_a_file_that_is_not_a_table_is_an_error(tmp_path, content):
    csv = tmp_path / "a.csv"
    csv.write_bytes(content)
    with pytest.raises(DataError, match=r"is not .* text|is not a valid table|NUL|is empty"):
        ImageDataset.from_csv(csv)


def test_the_error_for_a_missing_csv_file_suggests_a_similar_one(csv):
    with pytest.raises(DataError, match=r"Did you mean .*pets\.csv"):
        ImageDataset.from_csv(csv.with_name("pet.csv"))


def test_names_are_found_as_they_are_spelt_on_the_disk(tmp_path, make_image):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    make_image(tmp_path / decomposed / f"{composed}.png")
    make_image(tmp_path / "plain" / "1.png")
    csv = tmp_path / "a.csv"
    csv.write_text(f"image,label\n{composed}/{decomposed}.png,x\nplain\\1.png,y\nplain/1,y\nplain/2,z\n", "utf-8")
    found = ImageDataset.from_csv(csv, root=tmp_path)["image"]
    assert [Path(image).is_file() for image in found] == [True, True, True, False]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([0.0, 1.0], [0, 1]), ([1.0, None], [1, None]), (pd.Categorical(["cat"] * 2, ["cat", "dog", "yak"]), ["cat"] * 2)],
)
def test_labels_of_other_dtypes(labels, expected):
    dataset = ImageDataset({"image": ["a.jpg", "b.jpg"], "label": labels}, classes=["cat", "dog"])
    assert [None if pd.isna(label) else label for label in dataset["label"]] == expected


def test_a_duplicate_column_is_an_error():
    frame = pd.DataFrame([["a.jpg", 1, 2]], columns=["image", "label", "label"])
    with pytest.raises(DataError, match="several columns 'label'"):
        ImageDataset(frame)


# Made by a function of names


def test_a_function_of_names_needs_no_root():
    seen = []
    paths = ["a/cat_1.jpg", Path("b/dog_1.jpg")]
    dataset = ImageDataset.from_name_func(paths, lambda path: seen.append(path) or path.stem.split("_")[0])
    assert seen == [Path(path) for path in paths]
    assert dataset["label"].tolist() == ["cat", "dog"]
    assert dataset["image"].tolist() == [str(path) for path in paths]
    assert dataset.classes == ["cat", "dog"]


def test_a_function_of_names_with_a_root(tmp_path):
    dataset = ImageDataset.from_name_func(["cat_1.jpg"], lambda path: len(path.name), root=tmp_path)
    assert dataset["image"].tolist() == [str(tmp_path / "cat_1.jpg")]
    assert dataset["label"].tolist() == [9]


def test_a_function_of_names_takes_folders_patterns_and_archives(pets, make_zip, monkeypatch):
    archive = make_zip(pets, pets.parent / "pets.zip")
    monkeypatch.chdir(pets)
    for images, root, num in (
        (pets, None, 9),
        (str(pets), None, 9),
        ("train", pets, 5),
        (str(pets / "t*" / "cat" / "*"), None, 3),
        ("train/**/*.png", None, 2),
        ("**/cat/*.jpg", pets, 2),
        (archive, None, 9),
    ):
        dataset = ImageDataset.from_name_func(images, lambda path: Path(path).parent.name, root)
        assert len(dataset) == num
        assert set(dataset["label"]) <= {"cat", "dog", "owl"}
        assert all(Path(image).exists() for image in dataset["image"])


def test_a_function_of_names_without_classes_is_not_called(tmp_path):
    assert list(ImageDataset.from_name_func(["a.jpg"], lambda path: 1 / 0, no_class=True).columns) == ["image"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["a.jpg"], "None as the label of 'a.jpg'"),
        ([], "empty"),
        ([b"x"], "found bytes"),
        ("x*.jpg", "No file matches"),
    ],
)
def test_invalid_uses_of_from_name_func_are_errors(images, message):
    with pytest.raises(DataError, match=message):
        ImageDataset.from_name_func(images, lambda path: None)


# Shown


def test_images_are_shown_with_the_names_of_their_classes(pets):
    dataset = ImageDataset.from_folder(pets / "train")
    figure = dataset.show_images([0, 4, -1])
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["cat", "dog", "dog"]


def test_a_sample_is_seeded_or_the_first(pets):
    dataset = ImageDataset.from_folder(pets / "train").assign(label=list("abcde"))

    def shown(**arguments):
        return "".join(axes.texts[0].get_text() for axes in dataset.show_images(nsample=3, **arguments).axes)

    assert shown(shuffle=False) == "abc"
    assert shown(random_state=0) == shown(random_state=0)
    assert len({shown(random_state=seed) for seed in range(5)}) > 1
    assert len(dataset.show_images().axes) == 5


def test_images_without_labels_are_shown_without(pets):
    figure = ImageDataset.from_folder(pets, no_class=True).show_images(nsample=2)
    assert [len(axes.texts) for axes in figure.axes] == [0, 0]


def test_invalid_positions_and_empty_datasets_cannot_be_shown(pets):
    dataset = ImageDataset.from_folder(pets / "train")
    with pytest.raises(DataError, match="Position 5 is outside the dataset of 5"):
        dataset.show_images([0, 5])
    with pytest.raises(DataError, match="no images"):
        dataset[:0].show_images()


def test_importing_the_class_loads_neither_torch_nor_matplotlib():
    code = "import saccade.data, sys; print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("places", "advice"),
    [
        (["images/cat/1.jpg", "images/dog/1.jpg"], r"\. If these are the classes, pass .*images"),
        (
            ["site1/cat/1.jpg", "site1/dog/1.jpg", "site2/cat/1.jpg", "site2/dog/1.jpg", "site2/cow/1.jpg"],
            r"\. If these are the classes, call .*from_name_func",
        ),
    ],
)
def test_class_folders_one_level_too_high_are_a_warning(tmp_path, places, advice):
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    (tmp_path / "labels.txt").touch()
    with pytest.warns(DataWarning, match=rf"has the sub-folders cat, dog{advice}"):
        ImageDataset.from_folder(tmp_path)


def test_folders_with_the_same_classes_in_them_are_splits_if_a_name_says_so(tmp_path):
    for place in ("train_clean/cat/1.jpg", "train_clean/dog/1.jpg", "unlabeled/cat/1.jpg", "unlabeled/dog/1.jpg"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    with pytest.raises(DataError, match=r"'train_clean' is a usual name of a split.*train_clean, unlabeled.*train=…"):
        ImageDataset.from_folder(tmp_path)


def test_splits_within_class_folders_are_named(tmp_path):
    for place in ("cat/train/1.jpg", "cat/test/2.jpg", "dog/train/3.jpg", "dog/test/4.jpg"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    with pytest.warns(DataWarning, match="test, train, which are splits by their names; the images of all are taken"):
        assert len(ImageDataset.from_folder(tmp_path)) == 4
    train = ImageDataset.from_name_func(f"{tmp_path}/*/train/*", lambda path: path.parent.parent.name)
    assert train["label"].tolist() == ["cat", "dog"]


def test_class_names_have_composed_accents(tmp_path):
    for place in ("train/caf\u00e9/1.jpg", "train/bar/1.jpg", "test/cafe\u0301/1.jpg", "test/bar/1.jpg"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    assert ImageDataset.from_folders(tmp_path)[2].classes == ["bar", "caf\u00e9"]
    assert ImageDataset.from_folder(tmp_path / "test")["label"].tolist() == ["bar", "caf\u00e9"]
