"""Working folders at URLs: what is sent, who may use them, and failures of the network."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from saccade.errors import DataError, DataWarning, RemoteError, RunInUseError
from saccade.events import JobDone
from saccade.remote import urls as remote
from saccade.remote.urls import UrlFile
from saccade.study import url_folder
from saccade.study.run_folder import EVENTS, LOCK
from saccade.study.url_folder import (
    FolderCopy,
    WatchedFolder,
    check_url,
    fetched,
    send_changes,
    with_urls,
    working_folder,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    for name, seconds in (("SYNC_S", 0.02), ("BEAT_S", 0.05), ("EXPIRY_S", 0.5), ("_SETTLE_S", 0.0)):
        monkeypatch.setattr(url_folder, name, seconds)
    monkeypatch.setattr(remote, "BACKOFF_S", ())


def wait_until(is_so):
    end_s = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.005)


def other_machine(monkeypatch, path: Path) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(path))


def files_at(url: str) -> dict[str, bytes]:
    return {name: (UrlFile(url) / name).read() for name in UrlFile(url).files()}


def fill(folder: Path, **contents: str) -> None:
    for name, text in contents.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_local_place_is_the_folder_itself(tmp_path):
    with working_folder(tmp_path) as folder:
        assert folder == tmp_path
    with working_folder(None) as folder:
        assert folder is None
    assert fetched(tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["memory", "s3"])
def test_changes_are_sent_while_the_run_works(name, request, monkeypatch, tmp_path):
    url = request.getfixturevalue(name) + "/my run ü#1"
    with working_folder(url) as folder:
        fill(folder, run_json="{}", trials__0001__a="x", store__pixels="p", trials__0001__b_part="p")
        (folder / EVENTS).write_text("1\n")
        (folder / "trials" / "0001" / "c.part").write_text("unfinished")
        wait_until(lambda: EVENTS in UrlFile(url).files())
        assert set(files_at(url)) == {LOCK, EVENTS, "run.json", "trials/0001/a", "trials/0001/b_part"}
        with (folder / EVENTS).open("a") as file:
            file.write("2\n")
        (folder / "trials" / "0001" / "a").rename(folder / "trials" / "0001" / "renamed")
        check_url(folder, JobDone(1, "completed"))
        wait_until(lambda: "trials/0001/a" not in UrlFile(url).files())
        wait_until(lambda: (UrlFile(url) / EVENTS).read() == b"1\n2\n")
        assert with_urls(f"see {folder / 'run.json'}.") == f"see {url}/run.json."
        assert with_urls(f"{folder} and {folder}.kept-2030") == f"{url} and {folder}.kept-2030"
    expected = {EVENTS: b"1\n2\n", "run.json": b"{}", "trials/0001/renamed": b"x", "trials/0001/b_part": b"p"}
    assert files_at(url) == expected
    other_machine(monkeypatch, tmp_path / "other")
    copy = fetched(url)
    assert {path.name for path in copy.rglob("*") if path.is_file()} == {EVENTS, "run.json"}
    assert (fetched(url, with_trials=True) / "trials/0001/renamed").read_text() == "x"
    (UrlFile(url) / "run.json").write(b"[]")
    (UrlFile(url) / "trials/0001/b_part").delete()
    assert (fetched(url) / "run.json").read_text() == "[]"
    assert not (copy / "trials" / "0001" / "b_part").exists()
    fill(copy, report__html="page")
    send_changes(copy / "report")
    assert files_at(url)["report/html"] == b"page"
    send_changes(tmp_path)


def test_another_process_may_not_use_the_same_url(memory, monkeypatch, tmp_path):
    url = f"{memory}/run"
    with working_folder(url) as folder:
        fill(folder, run_json="{}")
        with pytest.raises(RunInUseError, match="another process of this machine, or this one"), working_folder(url):
            raise AssertionError
        wait_until(lambda: "run.json" in UrlFile(url).files())
        other_machine(monkeypatch, tmp_path / "other")
        with pytest.raises(RunInUseError, match=f"process {os.getpid()} on "), working_folder(url):
            raise AssertionError
        # The lock of a living process of another machine is renewed.
        monkeypatch.setattr(url_folder, "_is_on_this_machine", lambda owner: False)
        with pytest.warns(DataWarning, match="waiting up to"), pytest.raises(RunInUseError), working_folder(url):
            raise AssertionError
        other_machine(monkeypatch, tmp_path / "cache")
    assert LOCK not in UrlFile(url).files()


@pytest.mark.parametrize("kind", ["same machine", "no news", "old", "damaged"])
def test_the_lock_of_a_process_that_has_ended_expires(memory, kind):
    owner = {"id": "x", "host": "there", "pid": 7, "machine": "other", "started": "1", "time": time.time()}
    if kind == "same machine":
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        owner |= {"pid": process.pid, **url_folder._this_process(process.pid)}
        process.kill()  # a zombie until it is waited for
        wait_until(lambda: not url_folder._this_process(process.pid).get("started"))
        process.wait()
    owner["time"] -= 1e5 if kind == "old" else 0
    (UrlFile(memory) / LOCK).write(b"damaged" if kind == "damaged" else json.dumps(owner).encode())
    if kind in ("same machine", "old"):
        with working_folder(memory):
            pass
    else:
        with pytest.warns(DataWarning, match="waiting up to"), working_folder(memory):
            pass
    assert UrlFile(memory).files() == {}


def test_files_of_the_user_are_not_downloaded_or_removed(memory):
    (UrlFile(memory) / "photos/1.jpg").write(b"x")
    with pytest.raises(DataError, match=r"photos/1.jpg', and is not a run folder"), working_folder(memory):
        raise AssertionError
    assert files_at(memory) == {"photos/1.jpg": b"x"}
    (UrlFile(memory) / "run.json").write(b"{}")
    with working_folder(memory) as folder:
        assert (folder / "photos" / "1.jpg").is_file()
    assert files_at(memory) == {"photos/1.jpg": b"x", "run.json": b"{}"}


def test_names_that_lead_out_of_the_folder_are_left_out(memory, monkeypatch):
    (UrlFile(memory) / "run.json").write(b"{}")
    whole = UrlFile.files
    monkeypatch.setattr(UrlFile, "files", lambda self: {**whole(self), "../outside": "1", "/outside": "1"})
    folder = fetched(memory)
    assert [path.name for path in folder.parent.rglob("*") if "outside" in path.name] == []


def test_a_run_that_could_not_be_sent_is_kept_and_sent_later(memory, monkeypatch):
    url, works = f"{memory}/run", True
    whole = MemoryFileSystem.put_file

    def put_file(self, *args, **kwargs):
        if not works:
            raise ConnectionResetError("reset")
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
    monkeypatch.setattr(url_folder, "GIVE_UP_S", 0.1)

    def run_until_the_connection_fails() -> None:
        nonlocal works
        with working_folder(url) as folder:
            folder.mkdir()
            (folder / EVENTS).write_text("1\n")
            wait_until(lambda: EVENTS in UrlFile(url).files())
            works = False
            fill(folder, run_json="{}")
            (folder / EVENTS).write_text("1\n2\n")
            while True:
                check_url(folder, JobDone(0, "completed"))
                time.sleep(0.005)

    with pytest.raises(RemoteError, match=r"could not be sent to .*\(ConnectionResetError: reset\)") as caught:
        run_until_the_connection_fails()
    folder = FolderCopy(url).folder
    assert f"It is kept in {folder}" in str(caught.value)
    assert (folder / "run.json").is_file()
    assert files_at(url) == {EVENTS: b"1\n"}  # and no lock
    works = True
    with working_folder(url) as again:
        assert (again / EVENTS).read_text() == "1\n2\n"
    assert files_at(url) == {EVENTS: b"1\n2\n", "run.json": b"{}"}
    # If another machine has continued the run, what this one had not sent is set aside.
    (folder / EVENTS).write_text("1\n2\n3\n")
    (UrlFile(url) / EVENTS).write(b"1\n2\nother\n")
    with pytest.warns(DataWarning, match="are kept in") as warned, working_folder(url) as again:
        assert (again / EVENTS).read_text() == "1\n2\nother\n"
    kept = Path(str(warned[0].message).rpartition("kept in ")[2])
    assert (kept / EVENTS).read_text() == "1\n2\n3\n"


def test_a_bucket_that_disappears_ends_the_run(s3):
    import s3fs

    def remove_bucket() -> None:
        while True:
            with contextlib.suppress(OSError):  # a file was sent meanwhile
                s3fs.S3FileSystem().rm(s3, recursive=True)
                return

    def run_until_the_bucket_is_removed() -> None:
        with working_folder(f"{s3}/run") as folder:
            fill(folder, run_json="{}")
            wait_until(lambda: "run.json" in UrlFile(f"{s3}/run").files())
            remove_bucket()
            while True:
                fill(folder, run_json=str(time.time()))
                check_url(folder, JobDone(0, "completed"))
                time.sleep(0.01)

    with pytest.raises(RemoteError, match="specified bucket does not exist"):
        run_until_the_bucket_is_removed()
    assert (FolderCopy(f"{s3}/run").folder / "run.json").is_file()


def test_an_error_of_the_run_names_the_url(memory):
    url = f"{memory}/run"

    def fail(error: type[BaseException]) -> None:
        with url_folder.urls_in_errors(), working_folder(url) as folder:
            fill(folder, run_json="{}")
            raise error(f"{folder}/x is bad")

    with pytest.raises(DataError, match=f"^{url}/x is bad$"):
        fail(DataError)
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt)
    assert files_at(url) == {"run.json": b"{}"}  # and no lock
    with pytest.raises(RemoteError, match="does not exist, or has no files"):
        fetched(f"{memory}/nothing")


def test_a_run_of_another_machine_is_watched(memory, monkeypatch, tmp_path):
    url = f"{memory}/run"
    watched = WatchedFolder(url)
    watched.refresh()
    assert watched.owner() is None
    other_machine(monkeypatch, tmp_path / "other")
    with working_folder(url) as folder:
        fill(folder, run_json="{}")
        (folder / EVENTS).write_text("1\n")
        wait_until(lambda: EVENTS in UrlFile(url).files())
        other_machine(monkeypatch, tmp_path / "cache")
        watched = WatchedFolder(url)
        watched.refresh()
        assert (watched.folder / EVENTS).read_text() == "1\n"
        inode = (watched.folder / EVENTS).stat().st_ino
        assert watched.owner() == 0
        with (folder / EVENTS).open("a") as file:
            file.write("2\n")
        wait_until(lambda: (UrlFile(url) / EVENTS).read() == b"1\n2\n")
        watched.refresh()
        assert (watched.folder / EVENTS).read_text() == "1\n2\n"
        assert (watched.folder / EVENTS).stat().st_ino == inode
        other_machine(monkeypatch, tmp_path / "other")
    other_machine(monkeypatch, tmp_path / "cache")
    assert watched.owner() is None


def test_the_copy_has_a_name_for_every_url(memory):
    names = [FolderCopy(url).folder.name for url in (f"{memory}/a b/", f"{memory}/a b", f"{memory}/ü?#", "s3://b")]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert all(name.isascii() for name in names)
