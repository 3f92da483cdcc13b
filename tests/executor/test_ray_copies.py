"""Files that no worker of a Ray cluster sees: ``/proc/self/fd/N/…`` is a path in the process of the test only."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saccade.errors import ClusterError
from saccade.events import Decision, EpochDone, Event, JobDone, JobFailed, WorkerLost
from saccade.executor import RayExecutor, ray_executor, ray_files
from saccade.executor.ray_files import SharedFiles
from saccade.study.trial import Job, LocalFiles, Reporter, Trainable

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system has no /proc"),
]


@pytest.fixture
def hidden(tmp_path: Path) -> Iterator[Path]:
    """A path of `tmp_path` that other processes do not see."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield Path(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[SharedFiles]:
    """The files that executors send from now on."""
    made: list[SharedFiles] = []

    def make(put: Any) -> SharedFiles:
        made.append(SharedFiles(put))
        return made[-1]

    monkeypatch.setattr(ray_executor, "SharedFiles", make)
    return made


def reader(path: Path) -> Trainable:
    class Reader(Trainable):
        """Reports the checksum of a file, and of another one of the configuration."""

        def __init__(self) -> None:
            self.path = path

        def train(self, job: Job, report: Reporter) -> str:
            checksum = zlib.crc32(job.config["other"].read_bytes(), zlib.crc32(self.path.read_bytes()))
            report(EpochDone(job.trial, 1, float(checksum), 0.0, is_last=True))
            return ""

        def portable(self, job: Job) -> tuple[Job, LocalFiles]:
            return job, [self.path, job.config["other"]]

    return Reader()


def run(executor: RayExecutor, jobs: list[Job]) -> list[Event]:
    events: list[Event] = []

    def handle(event: Event) -> Decision:
        events.append(event)
        while jobs and executor.num_free:
            executor.submit(jobs.pop())
        return Decision.CONTINUE

    executor.wait_for_start(60)
    executor.run(handle)  # which the workers that join, or end their jobs, call
    return events


def test_a_node_gets_each_file_once_for_all_of_its_workers_and_trials(
    tmp_path: Path, hidden: Path, shared: list[SharedFiles]
) -> None:
    contents = {"data": os.urandom(ray_files.PART_BYTES + 5), "one": b"1", "two": b"2"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    names = ["one", "two"] * 3
    with RayExecutor(reader(hidden / "data"), max_workers=2) as executor:
        events = run(executor, [Job(trial, {"other": hidden / name}) for trial, name in enumerate(names)])
        copies = Path(tempfile.gettempdir(), f"saccade-{os.getuid()}", shared[0].session)
        assert copies.is_dir()
    scores = {event.trial: event.score for event in events if isinstance(event, EpochDone)}
    assert scores == {
        trial: zlib.crc32(contents[name], zlib.crc32(contents["data"])) for trial, name in enumerate(names)
    }
    assert sum(isinstance(event, JobDone) for event in events) == 6
    assert shared[0].num_bytes_read == sum(map(len, contents.values()))
    assert not copies.exists()


def test_files_that_have_changed_end_the_search(
    tmp_path: Path, hidden: Path, monkeypatch: pytest.MonkeyPatch, shared: list[SharedFiles]
) -> None:
    monkeypatch.setattr(ray_executor, "START_S", 0.0)
    (tmp_path / "data").write_text("old")
    events: list[Event] = []

    def handle(event: Event) -> Decision:
        events.append(event)
        return Decision.CONTINUE

    with RayExecutor(reader(hidden / "data"), max_workers=1) as executor:
        executor.wait_for_start(60)
        shared[0].keys([hidden / "data"])
        (tmp_path / "data").write_text("newer")
        executor.submit(Job(0, {"other": hidden / "data"}))
        with pytest.raises(
            ClusterError, match=r"can get the files of the trials: .* has changed since the search began"
        ):
            executor.run(handle)
    lost, failure = events[-2:]
    assert isinstance(lost, WorkerLost)
    assert isinstance(failure, JobFailed)
    assert failure.is_node_lost
