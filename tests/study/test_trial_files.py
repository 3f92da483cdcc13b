from __future__ import annotations

from saccade.study.trial_files import LocalTrialFiles
from saccade.testing import TrialFilesContract


class TestLocalTrialFiles(TrialFilesContract):
    def make(self, tmp_path):
        return LocalTrialFiles(tmp_path / "trials")


def test_what_a_killed_process_left_is_removed(tmp_path):
    files = LocalTrialFiles(tmp_path)
    (tmp_path / "0003" / "a-0001.part").mkdir(parents=True)
    (tmp_path / "0003" / "b.txt.part").touch()
    assert files.list(3) == []
    files.put(3, "c.txt", None, lambda path: path.touch())
    assert [path.name for path in (tmp_path / "0003").iterdir()] == ["c.txt"]
