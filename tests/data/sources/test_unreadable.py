from __future__ import annotations

from pathlib import Path

import pytest

from saccade.data.sources.unreadable import NO_FILE, describe_unreadable, find_moved


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
