from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.executor import ray_files
from saccade.executor.ray_files import (
    FileFacts,
    FilesRequest,
    NodeFiles,
    NodeFilesError,
    SharedFiles,
    copies_folder,
    dumps,
    loads,
    remove_copies,
)


@pytest.fixture(autouse=True)
def _own_copies_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no path of the search be visible, as on another machine."""
    monkeypatch.setattr(FileFacts, "is_here", False)
    monkeypatch.setattr(ray_files, "PART_BYTES", 7)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for name, content in {"a.bin": b"0123456789" * 3, "empty": b"", "sub/b.bin": b"xyz"}.items():
        (folder / name).write_bytes(content)
    return folder


class Search:
    """The process of the search, without Ray: a reference is the bytes themselves."""

    def __init__(self) -> None:
        self.shared = SharedFiles(put=bytes)
        self.parts: list[FilesRequest] = []

    def ask(self, request: FilesRequest) -> Any:
        if request.part is not None:
            self.parts.append(request)
        answer = self.shared.answer(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def node(self) -> NodeFiles:
        return NodeFiles(self.ask)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_that_are_seen_are_read_in_place(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    search = Search()
    file = Path("data/a.bin")  # workers have other working folders
    keys = search.shared.keys([data, file, (data / "empty", data / "sub/b.bin")])
    paths = search.node().paths(keys)
    assert paths[str(data)] == str(data)
    assert paths[str(file)] == str(data / "a.bin")
    assert paths[str(data / "sub/b.bin")] == str(data / "sub/b.bin")
    assert not search.parts
    assert list(copies_folder().iterdir()) == []


@pytest.mark.parametrize("change", ["content", "time", "size", "missing"])
def test_a_file_that_differs_on_the_node_is_not_read_in_place(data: Path, change: str) -> None:
    path = data / "a.bin"
    facts = FileFacts.of(str(path), "a.bin")
    assert facts.is_here
    modified = path.stat().st_mtime_ns
    match change:
        case "missing":
            path.unlink()
        case "time":
            modified += 1
        case _:
            path.write_bytes(b"9876543210" * (3 if change == "content" else 4))
    if change != "missing":
        os.utime(path, ns=(modified, modified))
    assert not facts.is_here


@pytest.mark.usefixtures("elsewhere")
def test_files_and_folders_are_copied_once(data: Path) -> None:
    search, weights = Search(), data / "a.bin"
    keys = search.shared.keys([data, weights, (data / "empty", data / "sub/b.bin")])
    paths = search.node().paths(keys)
    assert contents(Path(paths[str(data)])) == contents(data)
    assert Path(paths[str(weights)]).name == "a.bin"
    assert Path(paths[str(weights)]).read_bytes() == weights.read_bytes()
    assert Path(paths[str(data / "sub/b.bin")]).read_bytes() == b"xyz"
    assert not any(str(data) in path for path in paths.values())
    assert search.shared.num_bytes_read == 33 + 30 + 3
    num = len(search.parts)
    node = search.node()  # another process, which runs several jobs
    assert node.paths(keys) == node.paths(keys) == paths
    assert len(search.parts) == num


@pytest.mark.usefixtures("elsewhere")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6), part_bytes=st.integers(1, 20))
def test_any_sizes_of_files_and_parts_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], part_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for number, size in enumerate(sizes):
        (folder / f"{number}").write_bytes(os.urandom(size))
    search = Search()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_files, "PART_BYTES", part_bytes)
        paths = search.node().paths(search.shared.keys([folder]))
    assert contents(Path(paths[str(folder)])) == contents(folder)
    assert search.shared.num_bytes_read == sum(sizes)
    assert len(search.shared._parts) <= ray_files.KEPT_PARTS


@pytest.mark.usefixtures("elsewhere")
def test_one_process_of_a_node_copies_while_the_others_wait(data: Path) -> None:
    search, found = Search(), []
    keys = search.shared.keys([data])
    threads = [threading.Thread(target=lambda: found.append(search.node().paths(keys))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(paths == found[0] for paths in found)
    assert len(search.parts) == -(-33 // 7)


@pytest.mark.usefixtures("elsewhere")
def test_a_copy_that_is_damaged_is_made_again(data: Path) -> None:
    search = Search()
    keys = search.shared.keys([data])
    search.node().paths(keys)
    (copies_folder() / keys[0] / "a.bin").unlink()
    search.node().paths(keys)
    assert contents(copies_folder() / keys[0]) == contents(data)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("num_parts", range(1, 5))
def test_a_copy_continues_where_a_process_was_killed(data: Path, num_parts: int) -> None:
    search = Search()
    keys = search.shared.keys([data])

    def killed(request: FilesRequest) -> Any:
        if request.part == num_parts:
            raise SystemExit
        return search.ask(request)

    with pytest.raises(SystemExit):
        NodeFiles(killed).paths(keys)
    search.node().paths(keys)
    assert contents(copies_folder() / keys[0]) == contents(data)
    assert [request.part for request in search.parts] == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("is_removed", [False, True])
def test_a_file_that_changes_during_the_search_is_not_copied(data: Path, is_removed: bool) -> None:
    search = Search()
    keys = search.shared.keys([data])
    if is_removed:
        (data / "a.bin").unlink()
    else:
        (data / "a.bin").write_bytes(b"9876543210" * 3)
    assert search.shared.keys([data]) == keys
    reason = "No such file" if is_removed else "has changed since the search began"
    with pytest.raises(NodeFilesError, match=f"cannot get .*data: .*{reason}"):
        search.node().paths(keys)
    assert list((copies_folder() / search.shared.session).glob("*.part")) == []


@pytest.mark.usefixtures("elsewhere")
def test_a_full_disk_of_the_node_is_an_error_with_advice(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search()
    keys = search.shared.keys([data])
    free = 1_000_000_032  # a byte less than the files and the reserve need
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, free))  # type: ignore[attr-defined]
    with pytest.raises(NodeFilesError, match=r"MB do not fit on the disk of .* TMPDIR"):
        search.node().paths(keys)
    free += 1
    search.node().paths(keys)


@pytest.fixture
def other_search(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """The folder of another search, which a process uses; the function kills it."""
    program = (
        "import sys, tempfile; from saccade.executor.ray_files import NodeFiles, copies_folder\n"
        "node = NodeFiles(None); node._in_use(copies_folder() / 'other' / 'key'); print(flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path / "node")}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        def kill() -> None:
            process.kill()
            process.wait()

        yield kill
        kill()


@pytest.mark.usefixtures("elsewhere")
def test_copies_of_a_killed_search_are_removed_by_the_next_one(data: Path, other_search: Callable[[], None]) -> None:
    def names() -> set[str]:
        return {path.name for path in copies_folder().iterdir() if path.is_dir()}

    searches = Search(), Search()
    for search in searches:
        search.node().paths(search.shared.keys([data]))
    assert names() == {"other", searches[1].shared.session}  # no process uses the first one
    other_search()
    last = Search()
    node = last.node()
    node.paths(last.shared.keys([data]))
    assert names() == {last.shared.session}
    remove_copies(last.shared.session)
    assert names() == set()


def test_paths_are_replaced_where_they_are_loaded(tmp_path: Path) -> None:
    folder, text = tmp_path / "data", str(tmp_path / "data")
    content = {"folder": folder, "in it": [folder / "a" / "b.txt"], "beside": Path("other"), "text": text}
    loaded, call = loads(dumps((content, lambda: folder)), {text: "/node/copy"})
    assert loaded == {
        "folder": Path("/node/copy"),
        "in it": [Path("/node/copy/a/b.txt")],
        "beside": Path("other"),
        "text": text,
    }
    assert call() == Path("/node/copy")
