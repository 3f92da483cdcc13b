from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from saccade.data.sources.folders import (
    IMAGE_EXTENSIONS,
    descend,
    extensions,
    find_images,
    folder_names,
    has_files,
    images_by_class,
)
from saccade.errors import DataError, DataWarning

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")


def is_split(name: str) -> bool:
    return name == "train"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names_of(images: list[str], root: Path) -> list[str]:
    return [Path(image).relative_to(root).as_posix() for image in images]


def test_images_are_found_at_any_depth_in_sorted_order(tmp_path):
    touch(tmp_path, "b.jpg", "a/z.png", "a/b/1.webp", "c/1.TIF", "a/notes.txt")
    assert names_of(find_images(tmp_path), tmp_path) == ["a/b/1.webp", "a/z.png", "b.jpg", "c/1.TIF"]


def test_hidden_files_and_litter_are_skipped(tmp_path):
    touch(tmp_path, "1.jpg", "._1.jpg", ".DS_Store", ".hidden/2.jpg", "a/Thumbs.db")
    names = ("__MACOSX", "@eaDir", ".@__thumb", "lost+found", ".ipynb_checkpoints", "#recycle", "$RECYCLE.BIN")
    for name in (*names, "System Volume Information", "a/@eaDir"):
        touch(tmp_path, f"{name}/3.jpg")
    assert names_of(find_images(tmp_path), tmp_path) == ["1.jpg"]
    assert folder_names(tmp_path) == ["a"]


@pytest.mark.parametrize("exts", [".bmp", "BMP", ["bmp"], (".Bmp",), {"bmp"}])
def test_extensions_are_accepted_in_any_spelling(tmp_path, exts):
    touch(tmp_path, "1.jpg", "2.BMP")
    assert names_of(find_images(tmp_path, exts), tmp_path) == ["2.BMP"]


def test_empty_extensions_are_an_error():
    with pytest.raises(DataError, match="exts is empty"):
        extensions([])


def test_pillow_can_open_all_default_extensions():
    from PIL import Image, features

    openable = {extension for extension, name in Image.registered_extensions().items() if name in Image.OPEN}
    missing = set(IMAGE_EXTENSIONS) - openable
    with_extra = {".heic", ".heif", ".hif", ".jxl"}
    assert missing - with_extra <= (set() if features.check("avif") else {".avif"})


@needs_links
def test_links_are_followed_without_cycles(tmp_path):
    touch(tmp_path, "in/a/1.jpg", "in/b/2.jpg", "elsewhere/3.jpg")
    root = tmp_path / "in"
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "here").symlink_to(root / "a")
    (root / "a" / "itself").symlink_to("itself")
    (root / "a" / "nowhere.jpg").symlink_to("gone.jpg")
    (root / "a" / "file.jpg").symlink_to(root / "b" / "2.jpg")
    (root / "b" / "out").symlink_to(tmp_path / "elsewhere")
    found = names_of(find_images(root), root)
    # A broken link is listed as unreadable later.
    assert found == ["a/1.jpg", "a/file.jpg", "a/nowhere.jpg", "b/2.jpg", "b/out/3.jpg"]


@needs_links
def test_folders_that_link_to_each_other_are_read_once(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    found = images_by_class(tmp_path)
    assert names_of(found["a"], tmp_path) == ["a/1.jpg", "a/to_b/2.jpg"]
    assert names_of(found["b"], tmp_path) == ["b/2.jpg", "b/to_a/1.jpg"]


def test_a_folder_without_images_is_not_a_class(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/deep/er/2.jpg", "empty/.gitkeep", "texts/1.txt", "loose.jpg")
    expected = r"'empty' \(no files\), 'texts' \(1 \.txt\); images in no class folder .*: 1, such as 'loose\.jpg'"
    with pytest.warns(DataWarning, match=expected):
        found = images_by_class(tmp_path)
    assert {name: len(images) for name, images in found.items()} == {"cat": 1, "dog": 1, "empty": 0, "texts": 0}


def test_without_images_the_error_lists_the_files_found(tmp_path):
    touch(tmp_path, "a/1.heic", "a/2.heic", "a/3.txt", "a/Makefile")
    with pytest.raises(DataError) as caught:
        images_by_class(tmp_path, ".jpg")
    for words in (str(tmp_path), ".jpg", "2 .heic", "1 .txt", "1 no extension", "exts="):
        assert words in str(caught.value)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="there are no files in it"):
        images_by_class(tmp_path)


def test_the_error_for_images_outside_class_folders_has_advice(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg", "notes/a.txt")
    with pytest.raises(DataError, match=r"it contains 2 images directly.*no_class=True"):
        images_by_class(tmp_path)


def test_descend_enters_wrapping_folders(tmp_path):
    touch(tmp_path, "pets/data/cat/1.jpg", "pets/data/dog/1.jpg", "pets/README.md", "pets/.git/x")
    assert descend(tmp_path, is_split) == tmp_path / "pets" / "data"


def test_descend_does_not_enter_a_class(tmp_path):
    touch(tmp_path, "cat/1.jpg")
    assert descend(tmp_path, is_split) == tmp_path
    touch(tmp_path, "cat/2019/2.jpg")
    assert descend(tmp_path, is_split) == tmp_path


def test_descend_stops_at_a_wanted_folder(tmp_path):
    touch(tmp_path, "x/train/cat/1.jpg", "x/train/dog/1.jpg")
    touch(tmp_path, "y/only/cat/1.jpg", "y/only/dog/1.jpg")
    assert descend(tmp_path / "x", is_split) == tmp_path / "x"
    assert descend(tmp_path / "y", is_split) == tmp_path / "y" / "only"


def test_has_files_ignores_hidden_files(tmp_path):
    touch(tmp_path, "a/.gitkeep")
    assert not has_files(tmp_path)
    assert not has_files(tmp_path / "gone")
    touch(tmp_path, "a/b/c.txt")
    assert has_files(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_that_are_not_unicode_are_found(tmp_path):
    try:
        touch(tmp_path, os.fsdecode(b"\xff.jpg"))
    except OSError:
        pytest.skip("this file system takes only Unicode")
    assert os.fsencode(find_images(tmp_path)[0]).endswith(b"\xff.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000"])
@pytest.mark.parametrize("name", ["no_extension", "photo.dat"])
def test_an_image_with_another_extension_is_recognized_by_its_first_bytes(tmp_path, kind, name):
    Image.new("RGB", (9, 9)).save(tmp_path / name, kind)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").touch()
    assert [Path(image).name for image in find_images(tmp_path)] == [name]
    assert find_images(tmp_path, ".png") == []
