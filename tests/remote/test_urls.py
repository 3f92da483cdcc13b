from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from saccade.errors import DataError, DownloadError, RemoteError
from saccade.remote import urls as remote
from saccade.remote.urls import UrlFile, is_remote, is_url, join, place_of

ODD_NAMES = ("a b.png", "ü/é.png", "a#1?x=2.png", "a[1]*.png", "%20.png", "dir/.hidden/x")


def test_urls_are_told_from_paths():
    assert all(map(is_url, ("https://host/a.zip", "s3://bucket/a.zip", "file:///a", "simplecache::s3://bucket/a.zip")))
    assert not any(map(is_url, ("a.zip", "/a.zip", "C:\\a.zip", "C://a", "a::b", Path("https://x"), None)))
    assert all(map(is_remote, ("s3://b/a", "gs://b/a", "abfs://c@account.dfs.core.windows.net/a", "hdfs://h:1/a")))
    assert not any(map(is_remote, ("http://h/a", "HTTPS://h/a", "file:///a", "local:///a", "C://a", Path("s3://b"))))


def test_the_place_of_a_run_is_a_path_or_a_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("run") == place_of(Path("run")) == tmp_path / "run"
    assert place_of(f"file://{tmp_path}/a b") == place_of(f"local://{tmp_path}/a b") == tmp_path / "a b"
    assert place_of("s3://bucket/run/") == "s3://bucket/run"
    with pytest.raises(DataError, match=r"lost a slash of its URL. Pass the URL as text"):
        place_of(Path("s3://bucket/run"))
    with pytest.raises(DataError, match="an address of the web"):
        place_of("https://host/run")
    with pytest.raises(DownloadError, match="names a file on the host"):
        place_of("file://other/run")


@pytest.mark.parametrize("name", ["memory", "s3"])
def test_files_have_any_names(name, request, tmp_path):
    folder = UrlFile(request.getfixturevalue(name) + "/some folder/")
    assert folder.files() == {}
    assert folder.names() == []
    assert folder.kind() is None
    for number, each in enumerate(ODD_NAMES):
        (folder / each).write(each.encode() * number)
    assert folder.kind() == "folder"
    assert sorted(folder.files()) == sorted(ODD_NAMES)
    assert sorted(folder.names()) == sorted({each.split("/")[0] for each in ODD_NAMES})
    for number, each in enumerate(ODD_NAMES):
        file = pickle.loads(pickle.dumps(UrlFile(f"{folder.url}/{each}")))
        assert file.kind() == "file"
        assert (file.read(), file.read(3)) == (each.encode() * number, (each.encode() * number)[:3])
        file.download(tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == each.encode() * number
    facts = (folder / ODD_NAMES[0]).facts()
    (folder / ODD_NAMES[0]).upload(tmp_path / "copy")
    assert (folder / ODD_NAMES[0]).facts() != facts
    for each in ODD_NAMES:
        (folder / each).delete()
        (folder / each).delete()
    assert folder.files() == {}
    with pytest.raises(RemoteError, match="does not exist") as caught:
        (folder / ODD_NAMES[2]).read()
    assert caught.value.kind == "missing"


def test_a_file_system_without_atomic_writes_gets_the_file_beside_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_NOT_FSSPEC", ())
    file = UrlFile(f"file://{tmp_path}/sub/a.txt")
    for content in (b"1", b"2"):
        file.write(content)
    assert file.read() == b"2"
    assert [each.name for each in (tmp_path / "sub").iterdir()] == ["a.txt"]


def test_patterns_and_joined_urls(memory):
    folder = UrlFile(memory)
    for name in ("a/1.png", "a/2.txt", "b/3.png"):
        (folder / name).write(b"x")
    assert UrlFile(f"{memory}/*/*.png").matches() == [f"{memory}/a/1.png", f"{memory}/b/3.png"]
    assert UrlFile(f"{memory}/c/*.png").matches() == []
    assert join("simplecache::s3://bucket/a/", "b") == "simplecache::s3://bucket/a/b"


def test_errors_say_what_to_do(s3, monkeypatch):
    with pytest.raises(RemoteError, match=r"Unknown protocol 's4'.*Known: .*s3"):
        UrlFile("s4://bucket/a").read()
    with pytest.raises(RemoteError, match=r"no-such-bucket/a does not exist .*[Bb]ucket"):
        UrlFile("s3://no-such-bucket/a").write(b"x")
    from fsspec.registry import known_implementations

    monkeypatch.setitem(known_implementations, "s5", {"class": "nowhere.S5", "err": "Please install s5fs to access S5"})
    with pytest.raises(RemoteError, match=r"install s5fs.*pip install \"saccade\[remote\]\""):
        UrlFile("s5://bucket/a").read()


def test_temporary_failures_are_retried(memory, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    failures = [ConnectionResetError("reset"), TimeoutError("late")]
    whole = MemoryFileSystem.cat_file

    def cat_file(self, *args, **kwargs):
        if failures:
            raise failures.pop()
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    monkeypatch.setattr(remote, "BACKOFF_S", (0.0, 0.0))
    (UrlFile(memory) / "a").write(b"x")
    assert (UrlFile(memory) / "a").read() == b"x"
    failures += [ConnectionResetError("reset")] * 3
    with pytest.raises(RemoteError, match=r"cannot be reached or used \(ConnectionResetError: reset\)"):
        (UrlFile(memory) / "a").read()


@pytest.mark.parametrize("given", ["s3://bucket/a.onnx", "https://host/a.onnx", Path("gs://bucket/a.onnx")])
def test_files_for_people_are_written_to_local_paths_only(given: str | Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="written to a local path only"):
        remote.output_path(given)
    assert remote.output_path(tmp_path / "a.onnx") == tmp_path / "a.onnx"
