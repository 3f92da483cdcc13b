from __future__ import annotations

from pathlib import Path

import pytest

from saccade.data.sources.sources import NO_FILE, describe_unreadable, find_moved, folder_of
from saccade.errors import ArchiveError, DataError, DownloadError
from saccade.remote.urls import is_url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.txt").write_text("x")
    return tmp_path / "photos"


def test_a_folder_is_returned_as_absolute_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert folder_of(folder) == folder
    assert folder_of("photos") == folder
    assert folder_of(folder.as_uri()) == folder


def test_the_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert folder_of("~/photos") == folder


def test_an_archive_is_unpacked(folder, make_zip, make_tar, own_cache):
    for archive in (make_zip(folder, folder.parent / "a.zip"), make_tar(folder, folder.parent / "b.bin", "w:gz")):
        unpacked = folder_of(archive)
        assert (unpacked / "1.txt").read_text() == "x"
        assert unpacked.is_relative_to(own_cache)


def test_the_archive_of_a_url_is_downloaded_once_and_unpacked(folder, make_zip, file_server):
    file_server.files["/a.zip"] = make_zip(folder, folder.parent / "a.zip").read_bytes()
    first, second = folder_of(file_server.url("/a.zip")), folder_of(file_server.url("/a.zip"))
    assert first == second
    assert (first / "1.txt").read_text() == "x"
    assert len(file_server.requests) == 1


def test_a_url_of_another_file_is_an_error(file_server):
    file_server.files |= {"/a.zip": b"<html>Please log in</html>", "/b.zip": b"Please log in"}
    with pytest.raises(DownloadError, match="web page"):
        folder_of(file_server.url("/a.zip"))
    with pytest.raises(ArchiveError, match="Please log in"):
        folder_of(file_server.url("/b.zip"))


def test_a_url_without_a_file_is_a_download_error(file_server):
    with pytest.raises(DownloadError, match="404"):
        folder_of(file_server.url("/a.zip"))


def test_a_damaged_archive_is_an_archive_error(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ArchiveError, match="it begins with"):
        folder_of(tmp_path / "a.zip")


def test_a_file_that_is_not_an_archive_is_refused(folder):
    with pytest.raises(DataError, match="neither a zip nor a tar archive"):
        folder_of(folder / "1.txt")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("phots", "Did you mean"),
        ("quite_other", "contains: photos"),
        ("photos/deep/er", "contains: 1.txt"),
        ("photos/1.txt/deep", "1.txt is a file"),
    ],
)
def test_the_error_for_a_missing_path_names_what_exists(folder, given, words):
    with pytest.raises(DataError) as caught:
        folder_of(folder.parent / given)
    assert str(folder.parent / given) in str(caught.value)
    assert words in str(caught.value)


def test_is_url():
    assert is_url("https://host/a.zip")
    assert is_url("s3://bucket/a.zip")
    assert not any(is_url(path) for path in ("a.zip", "/a.zip", "C:\\a.zip", "C://a", Path("https://x")))


def test_many_missing_files_are_a_few_examples_and_a_count(tmp_path):
    images = [str(tmp_path / "gone" / f"{number}.png") for number in range(3000)]
    text = describe_unreadable(images, dict.fromkeys(range(3000), NO_FILE))
    assert text.splitlines()[0] == "3000 of 3000 images cannot be read:"
    assert "… and 2997 more" in text
    assert text.count("\n") == 4


def test_a_few_are_all_listed_and_rows_without_a_path_have_their_position():
    text = describe_unreadable(["a.png", None, " ", b"x"], {1: "no path", 2: "no path", 3: "not an image"})
    assert text.splitlines()[1:] == ["  image 1: no path", "  image 2: no path", "  image 3: not an image"]


@pytest.mark.parametrize("missing", ["photos/cat/cat/1.png", "cat/1.png", "photos/archive/cat/1.png"])
def test_a_root_that_is_one_level_off_is_reported(tmp_path, missing):
    there = tmp_path / "photos" / "cat" / "1.png"
    there.parent.mkdir(parents=True)
    there.touch()
    assert find_moved(str(tmp_path / missing)) == find_moved(str((tmp_path / missing).with_suffix(""))) == there
    assert str(there) in describe_unreadable([str(tmp_path / missing)], {0: NO_FILE})
    assert find_moved(str(Path("/") / "no" / "such" / "folder.png")) is None
