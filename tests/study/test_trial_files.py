from __future__ import annotations

import pytest

from saccade.remote.urls import UrlFile
from saccade.study.trial_files import LocalTrialFiles, UrlTrialFiles
from saccade.testing import TrialFilesContract


class TestLocalTrialFiles(TrialFilesContract):
    def make(self, tmp_path):
        return LocalTrialFiles(tmp_path / "trials")


class TestUrlTrialFiles(TrialFilesContract):
    @pytest.fixture(autouse=True, params=["memory", "s3"])
    def _url(self, request):
        self.url = request.getfixturevalue(request.param)

    def make(self, tmp_path):
        files = UrlTrialFiles(f"{self.url}/my run/trials/")
        assert files.is_shared
        assert files.folder(0) is None
        return files


def test_files_at_a_url_are_objects_of_their_trial(memory, tmp_path):
    files = UrlTrialFiles(f"{memory}/trials")
    files.put(7, "best.safetensors", 3, lambda path: path.write_bytes(b"weights"))
    assert list(UrlFile(memory).files()) == ["trials/0007/best-0003.safetensors"]
    first = files.get(7, "best.safetensors", 3)
    assert files.get(7, "best.safetensors", 3) == first  # downloaded once
    files.put(7, "best.safetensors", 3, lambda path: path.write_bytes(b"others"))
    assert first.read_bytes() == b"weights"
    assert files.get(7, "best.safetensors", 3).read_bytes() == b"others"


def test_what_a_killed_process_left_is_removed(tmp_path):
    files = LocalTrialFiles(tmp_path)
    (tmp_path / "0003" / "a-0001.part").mkdir(parents=True)
    (tmp_path / "0003" / "b.txt.part").touch()
    assert files.list(3) == []
    files.clean(3)
    files.clean(4)
    files.put(3, "c.txt", None, lambda path: path.touch())
    assert [path.name for path in (tmp_path / "0003").iterdir()] == ["c.txt"]


def test_two_writers_of_a_file_do_not_disturb_each_other(tmp_path):
    """As a worker that was given up when its node hung, and the next one."""
    files = LocalTrialFiles(tmp_path)

    def write(path):
        path.write_text("first")
        files.put(3, "a.txt", 1, lambda other: other.write_text("second"))

    files.put(3, "a.txt", 1, write)
    assert files.get(3, "a.txt", 1).read_text() == "first"
    assert files.list(3) == [("a.txt", 1)]
