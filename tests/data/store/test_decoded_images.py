from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.data import decoding
from saccade.data.store.decoded_images import fingerprint

BLACK = np.zeros((4, 6, 3), np.uint8)


def test_fingerprints_are_equal_for_equal_images_and_options_only(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"first")
    picture = Image.fromarray(BLACK)
    cases: list[tuple[list[Any], str]] = [
        ([path], "8|3"), ([path], "9|3"), ([path], "8|1"), ([path, path], "8|3"), ([], "8|3"),
        ([b"first"], "8|3"), ([b"firs", b"t"], "8|3"), ([BLACK], "8|3"), ([BLACK.reshape(6, 4, 3)], "8|3"),
        ([BLACK > 0], "8|3"), ([picture], "8|3"), ([picture.resize((4, 6))], "8|3"),
        ([picture.convert("L")], "8|3"),
        ([tmp_path / "nowhere.png"], "8|3"), ([tmp_path], "8|3"), ([3], "8|3"), ([BLACK[:0]], "8|3"),
    ]  # fmt: skip
    names = [fingerprint(*case) for case in cases]
    assert len(set(names)) == len(cases)
    assert names == [fingerprint(*case) for case in cases]
    assert fingerprint([str(path)], "8|3") == names[0]


def test_a_changed_file_has_another_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"first")
    before = fingerprint([path], "8|3")
    monkeypatch.chdir(tmp_path)
    assert fingerprint(["a.png"], "8|3") == before
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    touched = fingerprint([path], "8|3")
    path.write_bytes(b"longer")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert len({before, touched, fingerprint([path], "8|3")}) == 3


def test_images_are_decoded_again_after_a_reader_was_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {fingerprint([tmp_path / "a.heic"], "8|3")}
    monkeypatch.setenv("SACCADE_MAX_IMAGE_GB", "3")
    names.add(fingerprint([tmp_path / "a.heic"], "8|3"))
    monkeypatch.setattr(decoding, "_reader_versions", lambda: "pillow-heif 9")
    names.add(fingerprint([tmp_path / "a.heic"], "8|3"))
    assert len(names) == 3


def test_a_file_that_was_swapped_for_one_of_the_same_size_and_time_has_another_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    names = set()
    for place in (None, 0, 50_000, 99_999):
        content = bytearray(100_000)
        if place is not None:
            content[place] = 1
        path.write_bytes(content)
        os.utime(path, ns=(0, 0))
        names.add(fingerprint([path], "8|3"))
    assert len(names) == 4


def test_by_content_path_and_modification_time_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_STORE_KEY", "content")
    names = []
    for number, content in enumerate([b"first", b"first", b"other"]):
        path = tmp_path / f"{number}.png"
        path.write_bytes(content)
        names.append(fingerprint([path], "8|3"))
    assert names[0] == names[1] != names[2]


def test_palette_and_transparency_change_the_fingerprint() -> None:
    first = Image.new("P", (2, 2))
    first.putpalette([1, 2, 3])
    second = first.copy()
    second.putpalette([3, 2, 1])
    third = first.copy()
    third.info["transparency"] = 0
    assert len({fingerprint([image], "8|3") for image in (first, second, third)}) == 3
