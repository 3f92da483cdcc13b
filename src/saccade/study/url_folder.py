"""Folders at URLs: runs work in a local copy in the cache, and their changes are sent to the URL while they work.

A lock at the URL has the process that uses the folder, and is renewed every `BEAT_S` seconds. Another process takes it
over when it was not renewed for `EXPIRY_S` seconds, or at once if its process has ended on this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from saccade.errors import DataError, DataWarning, RemoteError, RunInUseError, SaccadeError, explained_file_errors
from saccade.events import Event, JobDone, JobFailed, RunStarted, Warned
from saccade.remote.urls import NUM_THREADS, UrlFile, cache_folder, place_of
from saccade.study.run_folder import EVENTS, LOCK, NEW, lock_owner

SYNC_S = 2.0  # pause between two times that changes are sent; more if that takes long
BEAT_S = 10.0  # pause between two renewals of the lock
GIVE_UP_S = 90.0  # failing for so long ends the run, before another machine may take it over
EXPIRY_S = 120.0
_OLD_LOCK_S = 3600.0  # a lock that is older by its clock has expired without waiting
_SETTLE_S = 1.0  # after which a lock that two processes have written belongs to the last one
_READER_WAIT_S = 600.0

POLL_S = 0.5  # of a process that watches a local folder

TRIALS = "trials"
_MOVING = ".moving"
_LOGS = EVENTS, f"{NEW}/{EVENTS}"
_WORK = ("store", "refit", "folds", "students", ".starting", ".predictor")  # what only the running process uses
_MARKS = ("run.json", "data.json", "tune.json", "predictor.json", EVENTS, "predictor", NEW, _MOVING)

_mirrors: dict[Path, Mirror] = {}


@contextlib.contextmanager
def working_folder(place: Path | str | None, marks: Iterable[str] = _MARKS) -> Iterator[Any]:
    """Yield a folder to work in; for a URL, a local copy whose changes are sent there until the block ends.

    A RunInUseError is raised if another process works on the URL, and a DataError if there are files, but none of
    `marks`. If the URL cannot be reached any more, `check_url` and the end of the block raise a RemoteError; then the
    local copy has everything, and is sent when it is used the next time, unless the URL has changed.
    """
    if not isinstance(place, str):
        yield place
        return
    copy = FolderCopy(place)
    with copy.locked(timeout_s=0.1):
        mirror = Mirror(copy)
        try:
            mirror.lock()
            copy.refresh(marks=set(marks))
            _mirrors[copy.folder] = mirror
            mirror.start()
            try:
                yield copy.folder
            except BaseException as error:
                mirror.stop()
                if error is not mirror.error:
                    try:
                        mirror.send_all()
                    except RemoteError as failure:
                        warnings.warn(DataWarning(str(failure)), stacklevel=4)
                raise
            mirror.stop()
            mirror.send_all()
        finally:
            mirror.stop()
            _mirrors.pop(copy.folder, None)
            mirror.unlock()


def check_url(folder: Path, event: Event) -> None:
    """Raise a RemoteError if the URL of a working folder cannot be reached any more; send changes after a job."""
    if (mirror := _mirrors.get(folder)) is not None:
        mirror.check(event)


def fetched(path: str | os.PathLike[str], *, with_trials: bool = False) -> Path:
    """Return the absolute path of a folder; of a URL, that of a local copy, which is made or updated now.

    Files in ``trials/`` are copied only on request. If a run works on the copy, it is returned as it is.
    """
    place = place_of(path)
    if isinstance(place, Path):
        return place
    copy = FolderCopy(place)
    if lock_owner(copy.folder) is None:
        with copy.locked(timeout_s=_READER_WAIT_S):
            if not copy.refresh(with_trials=with_trials):
                raise RemoteError(f"{place} does not exist, or has no files. Check the names of the bucket and the run")
    return copy.folder


def send_changes(path: Path) -> None:
    """Send what was changed in a local copy of a URL; nothing for other paths, and while a run works on the copy."""
    if (copy := FolderCopy.around(path)) is not None and copy.folder not in _mirrors:
        with copy.locked(timeout_s=_READER_WAIT_S):
            copy.send()


def with_urls(text: str) -> str:
    """Return a text with URLs in place of the paths of their local copies."""
    copies = _copies()
    if str(copies) not in text:
        return text

    def url(found: re.Match[str]) -> str:
        return str(_read_state(copies / f"{found[1]}.json").get("url", found[0]))

    return re.sub(re.escape(f"{copies}{os.sep}") + r"([\w.-]*?-[0-9a-f]{12})(?!\.kept|\w)", url, text)


def with_urls_in(event: Event) -> Event:
    """Return an event for the user with URLs in place of the paths of their local copies."""
    match event:
        case Warned():
            return replace(event, text=with_urls(event.text))
        case RunStarted():
            return replace(event, folder=with_urls(event.folder))
    return event


@contextlib.contextmanager
def urls_in_errors() -> Iterator[None]:
    """Context whose errors have URLs in place of the paths of their local copies."""
    try:
        yield
    except SaccadeError as error:
        if not isinstance(error, RemoteError) and (text := with_urls(str(error))) != str(error):
            error.args = (text, *error.args[1:])
        raise


def _copies() -> Path:
    return cache_folder() / "remote"


def _read_state(file: Path) -> dict[str, Any]:
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        _ = state["url"], {name: (version, size, mtime) for name, (version, size, mtime) in state["files"].items()}
        return dict(state)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _is_left_out(name: str) -> bool:
    """Return whether a file is not sent: a lock, an unfinished file, or what only the running process uses."""
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/") or not parts:
        return True
    parts = parts[1:] if parts[0] in (NEW, _MOVING) and len(parts) > 1 else parts
    is_in_checkpoint = parts[0] == TRIALS and len(parts) > 3  # of the user
    if parts[0] == TRIALS and any(part.endswith(".part") for part in parts[1:3]):
        return True
    is_work = parts[0] in _WORK or (parts[0].startswith(".store-") and len(parts) > 1)
    return is_work or (not is_in_checkpoint and name.endswith((".part", ".lock")))


class FolderCopy:
    """A local copy of the folder at a URL, and a record of the files that are the same in both."""

    def __init__(self, url: str) -> None:
        self.remote = UrlFile(url)
        name = re.sub(r"[^\w.-]", "_", self.remote.url.rpartition("/")[2], flags=re.ASCII)[-40:]
        self.folder = _copies() / f"{name}-{hashlib.sha256(self.remote.url.encode()).hexdigest()[:12]}"
        self._state_file = self.folder.with_name(f"{self.folder.name}.json")
        # For each file its version at the URL, and size and time of the local one.
        self._files: dict[str, tuple[str, int, int]] = {}
        self._gone: set[str] = set()

    @classmethod
    def around(cls, path: Path) -> FolderCopy | None:
        """Return the copy that contains a path; None if there is none."""
        folder = next((each for each in (path, *path.parents) if each.parent == _copies()), None)
        url = None if folder is None else _read_state(folder.with_name(f"{folder.name}.json")).get("url")
        return None if url is None else cls(url)

    @contextlib.contextmanager
    def locked(self, timeout_s: float) -> Iterator[None]:
        """Lock the copy; a RunInUseError if another process of this machine has it."""
        import filelock  # slow to import

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.folder.with_name(f"{self.folder.name}.lock"))
        try:
            lock.acquire(timeout=timeout_s)
        except filelock.Timeout:
            raise self._in_use("another process of this machine, or this one") from None
        try:
            self._files = {name: tuple(facts) for name, facts in _read_state(self._state_file).get("files", {}).items()}
            yield
        finally:
            lock.release()

    def _in_use(self, who: str) -> RunInUseError:
        return RunInUseError(f"Another run is using {self.remote.url}: {who}. Stop it, or choose another path.")

    def refresh(self, *, with_trials: bool = True, marks: set[str] | None = None) -> bool:
        """Make the copy equal to the URL; return whether there are files.

        Local changes that were not sent stay if they continue the event log of the URL; otherwise the copy is set
        aside.
        """
        there = {name: version for name, version in self.remote.files().items() if not _is_left_out(name)}
        if there and marks is not None and marks.isdisjoint(PurePosixPath(name).parts[0] for name in there):
            raise DataError(
                f"path={self.remote.url!r} has files, such as {min(there)!r}, and is not a run folder or a saved "
                "predictor. Pass an empty or a new folder"
            )
        if self._changes(here := self._local()):
            if self._is_ahead(there):
                return True
            self._set_aside()
            here = {}
        for name in set(self._files) - set(there):
            (self.folder / name).unlink(missing_ok=True)
            del self._files[name]
        wanted = [
            name
            for name, version in there.items()
            if (name not in here or self._files[name][0] != version)
            and (with_trials or PurePosixPath(name).parts[0] != TRIALS)
        ]
        with _threads() as pool:
            for name, facts in zip(wanted, pool.map(self._download, wanted), strict=True):
                self._files[name] = (there[name], *facts)
        for folder in sorted((path for path in self.folder.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        self._save()
        return bool(there)

    def refresh_logs(self) -> None:
        """Update the event logs alone; the local ones grow."""
        for name in _LOGS:
            path = self.folder / name
            content = b""
            with contextlib.suppress(RemoteError):
                content = (self.remote / name).read()
            before = path.read_bytes() if path.is_file() else b""
            if content and content != before:
                path.parent.mkdir(parents=True, exist_ok=True)
                if content.startswith(before):
                    with path.open("ab") as file:
                        file.write(content[len(before) :])
                else:
                    part = path.with_name(f"{path.name}.part")
                    part.write_bytes(content)
                    part.replace(path)
                self._files[name] = ("", *_facts(path))
        self._save()

    def send(self) -> None:
        """Send what has changed: first files, then the JSON files that name them, then the event logs.

        A file that was removed is removed at the URL the second time that it is missing, when a file that it was
        renamed to has been sent.
        """
        logs = {
            name: path.read_bytes()
            for name in _LOGS
            if (path := self.folder / name).is_file() and self._files.get(name, ("", -1))[1] != path.stat().st_size
        }
        here = self._local()
        changed = self._changes(here) & set(here) - set(_LOGS)
        if not changed and not logs and set(self._files) <= set(here):
            self._gone = set()
            return
        sending = self.folder.with_name(f".{self.folder.name}.sending")
        shutil.rmtree(sending, ignore_errors=True)
        sending.mkdir()
        try:
            # The run may remove or replace files meanwhile, so they are linked first.
            links = {name: self._link(name, sending / str(number)) for number, name in enumerate(sorted(changed))}
            linked = {name: path for name, path in links.items() if path is not None}
            with _threads() as pool:
                for is_json in (False, True):
                    names = [name for name in linked if name.endswith(".json") == is_json]
                    versions = pool.map(self._upload, names, map(linked.__getitem__, names))
                    for name, version in zip(names, versions, strict=True):
                        self._files[name] = (version, *here[name])
            for name, content in logs.items():
                (self.remote / name).write(content)
                size, mtime = here.get(name, (0, 0))
                facts = len(content), mtime if size == len(content) else 0  # it may have grown meanwhile
                self._files[name] = ((self.remote / name).facts()[1], *facts)
            gone = set(self._files) - set(here)
            for name in gone & self._gone:
                (self.remote / name).delete()
                del self._files[name]
            self._gone = gone
        finally:
            shutil.rmtree(sending, ignore_errors=True)
            self._save()

    @property
    def is_sent(self) -> bool:
        """Whether the URL has everything."""
        return not self._changes(self._local())

    def _link(self, name: str, target: Path) -> Path | None:
        try:
            try:
                os.link(self.folder / name, target)
            except OSError:  # not on every file system
                shutil.copyfile(self.folder / name, target)
        except FileNotFoundError:
            return None
        return target

    def _upload(self, name: str, source: Path) -> str:
        file = self.remote / name
        file.upload(source)
        return file.facts()[1]

    def _download(self, name: str) -> tuple[int, int]:
        (self.remote / name).download(self.folder / name)
        return _facts(self.folder / name)

    def _local(self) -> dict[str, tuple[int, int]]:
        """Return size and time of each local file, apart from those that are left out."""
        found = {}
        for parent, folders, names in os.walk(self.folder):
            place = Path(parent).relative_to(self.folder).as_posix()
            prefix = "" if place == "." else f"{place}/"
            folders[:] = [name for name in folders if not _is_left_out(f"{prefix}{name}/x")]
            for name in names:
                path = Path(parent, name)
                if not _is_left_out(prefix + name) and not path.is_symlink():
                    with contextlib.suppress(FileNotFoundError):
                        found[prefix + name] = _facts(path)
        return found

    def _changes(self, here: Mapping[str, tuple[int, int]]) -> set[str]:
        return {name for name in {*here, *self._files} if here.get(name) != self._files.get(name, (None,))[1:]}

    def _is_ahead(self, there: Mapping[str, str]) -> bool:
        """Return whether the local event logs continue those of the URL."""
        logs = [name for name in _LOGS if name in there]
        own = [self.folder / name for name in logs]
        return bool(logs) and all(
            path.is_file() and path.read_bytes().startswith((self.remote / name).read())
            for name, path in zip(logs, own, strict=True)
        )

    def _set_aside(self) -> None:
        if any((self.folder / name).is_file() for name in _LOGS):
            kept = self.folder.with_name(f"{self.folder.name}.kept-{datetime.now():%Y-%m-%d_%H%M%S}")
            self.folder.rename(kept)
            text = (
                f"{self.remote.url} has changed since a run on this machine was stopped before it had sent everything"
            )
            warnings.warn(DataWarning(f"{text}. The files of that run are kept in {kept}"), stacklevel=4)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._files = {}

    def _save(self) -> None:
        part = self._state_file.with_name(f"{self._state_file.name}.part")
        part.write_text(json.dumps({"url": self.remote.url, "files": self._files}), encoding="utf-8")
        part.replace(self._state_file)


class WatchedFolder:
    """A run folder, or the local copy of one at a URL, that is followed while another process works in it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        place = place_of(path)
        self._copy = None if isinstance(place, Path) else FolderCopy(place)
        self.folder = place if isinstance(place, Path) else FolderCopy(place).folder
        self._seen: tuple[bytes, float] = b"", 0.0  # the lock at the URL, and when it was new
        self._is_fetched = False

    @property
    def pause_s(self) -> float:
        """Seconds between two looks at the folder."""
        return POLL_S if self._copy is None else SYNC_S

    def refresh(self) -> None:
        """Update the copy of a URL, after the first time its event log alone, unless a run of this machine uses it."""
        if self._copy is None or lock_owner(self.folder) is not None:
            return
        with contextlib.suppress(RunInUseError), self._copy.locked(timeout_s=SYNC_S):
            if self._is_fetched:
                self._copy.refresh_logs()
            else:
                self._copy.refresh(with_trials=False)
                self._is_fetched = True

    def owner(self) -> int | None:
        """Return the process that works in the folder, 0 if it is on another machine, and None without one."""
        owner = lock_owner(self.folder)
        if owner is not None or self._copy is None:
            return owner
        try:
            lock = (self._copy.remote / LOCK).read()
        except RemoteError:
            return None
        if lock != self._seen[0]:
            self._seen = lock, time.monotonic()
        return None if _has_expired(_parsed(lock)) or time.monotonic() > self._seen[1] + EXPIRY_S else 0


class Mirror:
    """Sends the changes of a working folder, and renews the lock at the URL, in two threads."""

    def __init__(self, copy: FolderCopy) -> None:
        self.copy = copy
        self.error: RemoteError | None = None
        self._file = copy.remote / LOCK
        self._owner = {"id": secrets.token_hex(8), "host": socket.gethostname(), "pid": os.getpid(), **_this_process()}
        self._wake, self._is_over = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []

    def lock(self) -> None:
        """Take the lock at the URL, or raise a RunInUseError."""
        start_s, before = time.monotonic(), self._read()
        if before is not None and not _has_expired(_parsed(before)):
            owner = _parsed(before)
            who = f"process {owner.get('pid')} on {owner.get('host')}"
            if _is_on_this_machine(owner):
                raise self.copy._in_use(who)
            text = f"{self.copy.remote.url} is locked by {who}; waiting up to {EXPIRY_S:.0f} seconds to see if it lives"
            warnings.warn(DataWarning(text), stacklevel=5)
            while time.monotonic() < start_s + EXPIRY_S:
                time.sleep(min(2.0, EXPIRY_S / 10))
                if (now := self._read()) is None:
                    break
                if now != before:
                    raise self.copy._in_use(who)
        self._write()
        time.sleep(_SETTLE_S)
        self._check_owner()

    def unlock(self) -> None:
        """Remove the lock, if it is ours."""
        with contextlib.suppress(RemoteError):
            if _parsed(self._read() or b"").get("id") == self._owner["id"]:
                self._file.delete()

    def start(self) -> None:
        """Start the threads."""
        for work, pause_s in ((self._send, SYNC_S), (self._beat, BEAT_S)):
            thread = threading.Thread(target=self._repeat, args=(work, pause_s), name="saccade-remote", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the threads."""
        self._is_over.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()

    def check(self, event: Event) -> None:
        """Raise the error of the threads; send changes soon after a job."""
        if self.error is not None:
            raise self.error
        if isinstance(event, JobDone | JobFailed):
            self._wake.set()

    def send_all(self) -> None:
        """Send the last changes, or raise a RemoteError."""
        if self.error is not None:
            raise self.error
        try:
            self._check_owner()
            for _ in range(3):  # files are removed the second time that they are missing
                self.copy.send()
                if self.copy.is_sent:
                    return
        except RemoteError as error:
            raise self._failure(error) from error

    def _repeat(self, work: Any, pause_s: float) -> None:
        failing_since_s: float | None = None
        while not self._is_over.is_set():
            start_s = time.monotonic()
            try:
                with explained_file_errors(self.copy.folder, RemoteError):
                    work()
                failing_since_s = None
            except SaccadeError as error:
                failing_since_s = start_s if failing_since_s is None else failing_since_s
                is_temporary = isinstance(error, RemoteError) and error.is_temporary
                if self.error is None and (not is_temporary or time.monotonic() > failing_since_s + GIVE_UP_S):
                    self.error = self._failure(error)
                    return
            except Exception as error:
                self.error = self._failure(error)
                return
            if work == self._beat:
                self._is_over.wait(pause_s)
                continue
            self._wake.wait(max(pause_s, 4 * (time.monotonic() - start_s)))
            if not self._is_over.is_set():
                self._wake.clear()

    def _failure(self, error: BaseException) -> RemoteError:
        return RemoteError(
            f"The run could not be sent to {self.copy.remote.url} ({str(error).rstrip('.')}). It is kept in "
            f"{self.copy.folder}. Resume it by its URL on this machine when the URL can be used again, or by that path"
        )

    def _send(self) -> None:
        self.copy.send()

    def _beat(self) -> None:
        self._check_owner()
        self._write()

    def _check_owner(self) -> None:
        owner = _parsed(self._read() or b"")
        if owner.get("id", self._owner["id"]) != self._owner["id"]:
            who = f"process {owner.get('pid')} on {owner.get('host')} has taken it over"
            raise self.copy._in_use(who)

    def _read(self) -> bytes | None:
        try:
            return self._file.read()
        except RemoteError as error:
            if error.kind != "missing":
                raise
            return None

    def _write(self) -> None:
        self._file.write(json.dumps({**self._owner, "time": time.time()}).encode())


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="saccade-remote")


def _facts(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _this_process(pid: int | None = None) -> dict[str, str]:
    """Return what identifies a process besides its number: its machine (or container), and when it started."""
    with contextlib.suppress(OSError):
        space = Path("/proc/self/ns/pid").readlink().name
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid or os.getpid()}/stat").read_text(encoding="utf-8", errors="replace")
        facts = stat.rpartition(")")[2].split()
        return {"machine": f"{boot} {space}", "started": "" if facts[0] == "Z" else facts[19]}
    return {}


def _is_on_this_machine(owner: Mapping[str, Any]) -> bool:
    return bool(owner.get("machine")) and owner.get("machine") == _this_process().get("machine")


def _has_expired(owner: Mapping[str, Any]) -> bool:
    """Return whether the process of a lock has certainly ended."""
    if _is_on_this_machine(owner):
        pid = owner.get("pid")
        return not isinstance(pid, int) or _this_process(pid).get("started") != owner.get("started")
    written_s = owner.get("time")
    return isinstance(written_s, int | float) and time.time() - written_s > _OLD_LOCK_S
