"""Images, tables and archives at URLs."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from colours import colour_image
from saccade.cli.inputs import read_files, read_splits
from saccade.data.dataset import ImageDataset
from saccade.data.decoding import read_image
from saccade.data.examples import read_examples, read_labelled_examples
from saccade.data.scanning import scan_images
from saccade.data.store.decoded_images import fingerprint
from saccade.errors import DataError, ImageReadError, RemoteError
from saccade.remote.urls import UrlFile


def png(name: str = "red", seed: int = 0, side: int = 8) -> bytes:
    file = io.BytesIO()
    colour_image(name, seed, side).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(params=["memory", "s3"])
def root(request) -> str:
    """The URL of folders of classes with odd names."""
    url = request.getfixturevalue(request.param) + "/my pets"
    for label in ("cat #1", "dög?"):
        for name in ("1.png", "sub/2 [b].PNG", ".hidden.png", "notes.txt", "no_extension"):
            content = b"text" if name == "notes.txt" else png(seed=len(name))
            UrlFile(f"{url}/{label}/{name}").write(content)
    return url


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_of_classes_at_a_url(root, slash):
    dataset = ImageDataset.from_folder(root + slash)
    assert dataset.classes == ["cat #1", "dög?"]
    assert dataset["image"].tolist() == [
        f"{root}/{label}/{name}" for label in dataset.classes for name in ("1.png", "no_extension", "sub/2 [b].PNG")
    ]
    scan = scan_images(dataset["image"].tolist())
    assert (scan.errors, scan.sizes.tolist()) == ({}, [[8, 8]] * 6)
    assert read_labelled_examples(root, "label").images == dataset["image"].tolist()
    assert read_examples(root).images == read_files([root]) == sorted(dataset["image"])
    one = f"{root}/cat #1/sub/2 [b].PNG"
    assert read_examples(one).images == [one]
    assert read_examples(f"{root}/cat #1/no_extension").images == [f"{root}/cat #1/no_extension"]
    assert read_examples(f"{root}/*/1.png").images == [f"{root}/{label}/1.png" for label in dataset.classes]
    with pytest.raises(DataError, match="No file matches the pattern"):
        read_examples(f"{root}/*/3.png")


def test_folders_of_splits_at_a_url(memory):
    for name in ("data/Train/cat/1.png", "data/Train/dog/1.png", "data/Test/dog/1.png"):
        UrlFile(f"{memory}/{name}").write(png())
    train, _, test = ImageDataset.from_folders(memory)
    assert (train["label"].tolist(), test["image"].tolist()) == (["cat", "dog"], [f"{memory}/data/Test/dog/1.png"])
    splits = read_splits(memory)
    assert splits.test is not None
    assert (len(splits.train), splits.val, len(splits.test)) == (2, None, 1)
    with pytest.raises(DataError, match="are splits rather than classes"):
        ImageDataset.from_folder(memory)


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "jsonl"])
def test_a_table_at_a_url_has_paths_relative_to_its_folder(memory, kind):
    frame = pd.DataFrame({"image": ["images/a b.png", f"{memory}/elsewhere/c.png"], "label": ["cat", "dog"]})
    for image in ("images/a b.png", "elsewhere/c.png"):
        UrlFile(f"{memory}/{image}").write(png())
    content = {
        "csv": lambda: frame.to_csv(index=False).encode(),
        "parquet": lambda: frame.to_parquet(),
        "json": lambda: frame.to_json(orient="records").encode(),
        "jsonl": lambda: frame.to_json(orient="records", lines=True).encode(),
    }[kind]()
    table = f"{memory}/pets.{kind}"
    UrlFile(table).write(content)
    paths = [f"{memory}/images/a b.png", f"{memory}/elsewhere/c.png"]
    assert read_labelled_examples(table, "label").images == paths
    assert read_splits(table).train["image"].tolist() == paths
    assert ImageDataset.from_csv(table, root=memory)["image"].tolist() == paths
    assert scan_images(paths).errors == {}
    UrlFile(table).write(content.replace(b"dog", b"cow"))
    assert ImageDataset.from_csv(table, root=memory).classes == ["cat", "cow"]  # it has changed


def test_urls_in_a_local_table_stay(tmp_path, memory):
    csv = tmp_path / "pets.csv"
    csv.write_text(f"image,label\n{memory}/a.png,cat\nb.png,dog\nhttps://host/c.png,dog\n")
    expected = [f"{memory}/a.png", str(tmp_path / "b.png"), "https://host/c.png"]
    assert read_labelled_examples(str(csv), "label").images == expected
    assert read_splits(str(csv)).train["image"].tolist() == expected


def test_an_archive_at_a_url(s3, make_zip, tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        (tmp_path / "pets" / label / "1.png").write_bytes(png())
    UrlFile(f"{s3}/my pets.zip").upload(make_zip(tmp_path / "pets", tmp_path / "pets.zip"))
    dataset = ImageDataset.from_folder(f"{s3}/my pets.zip")
    assert dataset.classes == ["cat", "dog"]
    assert read_image(dataset["image"][0]).size == (8, 8)
    with pytest.raises(RemoteError, match="does not exist"):
        ImageDataset.from_folder(f"{s3}/your pets.zip")


def test_unreadable_images_at_urls_have_reasons(s3, monkeypatch):
    UrlFile(f"{s3}/text.png").write(b"text")
    UrlFile(f"{s3}/empty.png").write(b"")
    names = ["text.png", "empty.png", "missing.png"]
    errors = scan_images([f"{s3}/{name}" for name in names]).errors
    assert errors == {0: "not an image: cannot identify its format", 1: "file is empty", 2: "no such file"}
    monkeypatch.setenv("SACCADE_MAX_IMAGE_GB", "0.000000002")
    with pytest.raises(ImageReadError, match="or more; set SACCADE_MAX_IMAGE_GB"):
        read_image(f"{s3}/text.png")
    with pytest.raises(RemoteError, match="Unknown protocol"):  # no other image can be read either
        scan_images(["s4://bucket/a.png"] * 3)


def test_many_images_are_read_at_once(memory, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    content, whole = png(), MemoryFileSystem.cat_file
    urls = [f"{memory}/{number}.png" for number in range(1000)]
    for url in urls:
        UrlFile(url).write(content)

    def slow(self, *args, **kwargs):
        time.sleep(0.005)
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", slow)
    start_s = time.perf_counter()
    assert scan_images(urls).errors == {}
    assert time.perf_counter() - start_s < 1000 * 0.005


def test_changed_images_are_decoded_again(root):
    images = ImageDataset.from_folder(root)["image"].tolist()
    before = fingerprint(images, "")
    assert fingerprint(images, "") == before
    UrlFile(images[0]).write(png("blue"))
    assert fingerprint(images, "") != before


def test_local_urls_are_paths(tmp_path):
    for path in (tmp_path / "cat" / "1.png", tmp_path / "cat" / "a b.png"):
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    for scheme in ("file", "local"):
        assert read_image(f"{scheme}://{tmp_path}/cat/a b.png").size == (4, 4)
        assert ImageDataset.from_folder(f"{scheme}://{tmp_path}").classes == ["cat"]
        assert read_examples(f"{scheme}://{tmp_path}/cat").images == [
            str(Path(tmp_path, "cat", name)) for name in ("1.png", "a b.png")
        ]
