from __future__ import annotations

import functools
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from saccade import ImageDataset
from saccade.data.decoding import read_image
from saccade.data.examples import check_label_column, labelled_table, read_examples, read_labelled_examples
from saccade.errors import DataError, DataWarning, ImageReadError


@pytest.mark.parametrize(
    ("data", "num"),
    [
        ("a.png", 1),
        (Path("a.png"), 1),
        (b"bytes", 1),
        (Image.new("RGB", (4, 4)), 1),
        (np.zeros((4, 4, 3), np.uint8), 1),
        (np.zeros((5, 4, 4, 3), np.uint8), 5),
        (["a.png", Path("b.png"), b"c"], 3),
        (bytearray(b"bytes"), 1),
        (memoryview(b"bytes"), 1),
        (io.BytesIO(b"bytes"), 1),
        ((name for name in ("a.png", "b.png")), 2),
        (torch.zeros(3, 4, 5), 1),
        (torch.zeros(2, 3, 4, 5), 2),
        (np.array([None, "a.png"], object), 2),
        ([None, float("nan"), "", 3, io.StringIO("text")], 5),
        ("https://host/a.png", 1),
        ("long" * 2000, 1),
        (["lång" * 2000 + "[*]", "a.png"], 2),
        ("~nobody/a.png", 1),
        ("", 1),
        (("a.png",), 1),
        (np.array(["a.png", "b.png"]), 2),
        (pd.Series(["a.png", "b.png"], index=[7, 9]), 2),
        ([], 0),
    ],
)
def test_all_types_of_images_are_read(data: object, num: int) -> None:
    examples = read_examples(data)
    assert len(examples) == len(examples.index) == num
    assert examples.labels is None


def test_file_objects_and_tensors_become_bytes_and_arrays() -> None:
    file = io.BytesIO()
    Image.new("RGB", (5, 6), (9, 8, 7)).save(file, "PNG")  # leaves the position at the end
    chw = torch.tensor([9, 8, 7], dtype=torch.uint8)[:, None, None].expand(3, 6, 5)
    forms = [file, chw, chw.permute(1, 2, 0), chw / 255, (chw / 255).to(torch.float16).requires_grad_(), chw[None]]
    for form in forms:
        (image,) = read_examples(form).images
        assert np.asarray(read_image(image)).tolist() == [[[9, 8, 7]] * 5] * 6
    file.close()
    assert read_examples(file).images == [file]  # unreadable
    normalised = (chw / 255 - 0.5) / 0.2
    with pytest.raises(ImageReadError, match="without normalisation"):
        read_image(read_examples(normalised).images[0])


def test_a_folder_an_archive_or_a_pattern_is_all_of_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for name in ("b.png", "cat/a.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / name)
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    folder = tmp_path / "photos"
    for place in (folder, str(folder), "~/photos", folder.as_uri(), f"{folder}/**/*.png", "~/photos/**/*.png"):
        examples = read_examples(place)
        assert sorted(examples.images) == [str(folder / "b.png"), str(folder / "cat" / "a.png")]
        assert list(examples.index) == examples.images
    assert [Path(path).name for path in read_examples(tmp_path / "photos.zip").images] == ["b.png", "a.png"]
    assert len(read_examples(f"{folder}/*")) == 1  # the folder that matches is no image
    (home,) = read_examples("~/photos/b.png").images
    assert read_image(home).size == read_image((folder / "b.png").as_uri()).size == (4, 4)
    with pytest.raises(DataError, match="No file matches"):
        read_examples(str(tmp_path / "*.gif"))


def test_the_index_of_the_input_is_kept() -> None:
    frame = pd.DataFrame({"image": ["a.png", "b.png"], "label": [1, 0]}, index=["x", "y"])
    examples = read_labelled_examples(frame, "label")
    assert list(examples.index) == ["x", "y"]
    assert list(examples.labels) == [1, 0]
    renamed = frame.rename(columns={"image": "path"})
    for row, label in ((frame.iloc[1], None), (frame.iloc[1], "label"), (renamed.iloc[1], ["label"])):
        one = read_examples(row, label)
        assert (one.images, list(one.index)) == (["b.png"], ["y"])


def test_other_types_of_input_are_refused() -> None:
    for wrong in (3, None, {"image": "a.png"}, {"a.png"}, np.array("a.png")):
        with pytest.raises(DataError, match=f"cannot read images from {type(wrong).__name__}"):
            read_examples(wrong)


def test_a_column_of_images_under_another_name_is_found_when_it_is_the_only_one() -> None:
    for name in ("IMG", 0, ("a", "b")):
        assert read_examples(pd.DataFrame([["a.png", 1]], columns=pd.Index([name, "y"])), "y").images == ["a.png"]


def test_the_column_of_images_is_no_label() -> None:
    for frame in (pd.DataFrame({"image": ["a.png"], "y": [1]}), ImageDataset({"image": ["a.png"], "label": ["b"]})):
        with pytest.raises(DataError, match="label='image' is the column of images"):
            read_examples(frame, "image")
    with pytest.raises(DataError, match=r"\['one', 'two'\] may contain images"):
        read_examples(pd.DataFrame({"one": ["a.png"], "two": ["b.png"]}))


def test_a_missing_label_column_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(DataError, match="did you mean label='labels'"):
        read_labelled_examples(pd.DataFrame({"image": ["a.png"], "labels": [1]}), "label")


def test_a_path_is_the_data_set_in_it(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "pets" / name)
    (tmp_path / "pets" / "pets.csv").write_text("image,kind\ncat/a.png,cat\ndog/b.png,dog\n")
    archive = shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "pets")
    for place, label in (
        (str(tmp_path / "pets"), "label"),
        (tmp_path / "pets", "kind"),
        (archive, "label"),
        (tmp_path / "pets" / "pets.csv", "kind"),
    ):
        examples = read_labelled_examples(labelled_table(place, "kind"), label)
        assert examples.labels is not None
        assert examples.labels.tolist() == ["cat", "dog"]
        assert [Path(str(image)).name for image in examples.images] == ["a.png", "b.png"]
        assert Path(str(examples.images[0])).exists()
    shutil.copytree(tmp_path / "pets", tmp_path / "test")
    (tmp_path / "pets").rename(tmp_path / "train")
    with pytest.raises(DataError, match="from_folders"):
        read_labelled_examples(tmp_path, "label")
    with pytest.raises(DataError, match="There is no 'nowhere'"):
        read_labelled_examples("nowhere", "label")
    with pytest.raises(DataError, match="not list; make a table"):
        read_labelled_examples(["a.png"], "label")


def test_columns_and_classes_are_those_of_the_data_set() -> None:
    data = ImageDataset(
        {"photo": ["a.png"], "kind": [0]}, classes=["cat", "dog"], image_column="photo", label_column="kind"
    )
    examples = read_labelled_examples(data, "label")
    assert examples.images == ["a.png"]
    assert examples.class_names == ["cat", "dog"]


@pytest.mark.parametrize("kind", [pd.DataFrame, functools.partial(ImageDataset, label_column="red")])
def test_several_columns_of_labels_are_a_plain_frame(kind: Callable[..., pd.DataFrame]) -> None:
    frame = kind({"image": ["a.png", "b.png"], "red": [0, 1], "round": [1, 1]})
    examples = read_labelled_examples(frame, ["red", "round"])
    assert type(examples.labels) is pd.DataFrame
    assert examples.labels.to_numpy().tolist() == [[0, 1], [1, 1]]
    assert examples.class_names is None
    assert read_examples(frame[["image"]], ["red", "round"]).labels is None
    with pytest.raises(DataError, match=r"no label column 'rund'.*did you mean label='round'"):
        read_labelled_examples(frame, ["red", "rund"])


def test_a_column_of_weights_is_read_when_it_is_named() -> None:
    frame = pd.DataFrame({"image": ["a.png", "b.png"], "label": [1, 0], "weight": [0.5, 2]})
    assert read_labelled_examples(frame, "label").weights is None
    weights = read_labelled_examples(frame, "label", "weight").weights
    assert weights is not None
    assert weights.tolist() == [0.5, 2]
    with pytest.raises(DataError, match=r"no sample_weight column 'wight'.*did you mean sample_weight='weight'"):
        read_labelled_examples(frame, "label", "wight")


def test_the_label_column_of_a_fit_is_checked() -> None:
    data = ImageDataset({"image": ["a.png"], "animal": ["cat"]}, label_column="animal")
    check_label_column(data, "animal")
    check_label_column(pd.DataFrame(data), "breed")  # reported by `read_labelled_examples`
    with pytest.warns(DataWarning, match="using column 'animal'"):
        check_label_column(data, "label")
    with pytest.raises(DataError, match=r"no label column 'breed'.*did you mean label='animal'"):
        check_label_column(data, "breed")


def test_a_duplicate_column_is_an_error() -> None:
    frame = pd.DataFrame([["a.png", 1, 2]], columns=["image", "label", "label"])
    with pytest.raises(DataError, match="several columns 'label'"):
        read_labelled_examples(frame, "label")
