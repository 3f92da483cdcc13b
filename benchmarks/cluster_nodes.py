"""Shared code of the parts of `benchmarks.cluster`: nodes of Ray on this machine, and searches that can be killed.

A search runs in a process that can be killed, on nodes that can be killed. Its function writes a line when it begins a
phase (`Marks`), so that a fault can hit that phase; the event log shows how the search continued.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import saccade
from benchmarks.measuring import ROOT
from saccade.events import Decision, EpochDone, Event, TrialRestarted
from saccade.scheduler import make_scheduler
from saccade.study.event_log import EventLog
from saccade.study.function import FunctionReporter
from saccade.tuning.result import TrialResult

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_AUTH_MODE": "disabled",  # whether or not this user has a token
    "OMP_NUM_THREADS": "1",
}
"""Variables of the nodes' processes."""

OBJECT_STORE_BYTES = 100 * 1024 * 1024

START_S = 0.004
"""Seconds in which a function loads or writes a checkpoint, twice: long enough for a kill in the middle."""


def train(
    config: Mapping[str, Any], report: FunctionReporter, *, marks: str = "", num_epochs: int = 9, epoch_s: float = 0
) -> None:
    """Compute a curve epoch by epoch, each from the state that the last checkpoint has.

    The state depends on all epochs before, so an epoch that is lost or counted twice changes it.
    """

    def mark(phase: str, epoch: int) -> None:
        if marks:
            Marks(Path(marks)).write(phase, epoch, report.trial)

    state, first = 0, report.last_epoch + 1
    if report.checkpoint is not None:
        mark("promotion", first)
        time.sleep(START_S if epoch_s else 0)
        epoch, state = json.loads((report.checkpoint / "state.json").read_text())
        assert epoch == first - 1

    def write(folder: Path) -> None:
        mark("checkpointing", epoch)
        (folder / "half.json").write_text("0" * 1000)
        time.sleep(START_S if epoch_s else 0)
        (folder / "state.json").write_text(json.dumps([epoch, state]))
        time.sleep(START_S if epoch_s else 0)

    for epoch in range(first, num_epochs + 1):
        mark("training", epoch)
        if not (marks and Marks(Path(marks)).is_hurried):
            time.sleep(epoch_s)
        state, score = _next(state, config["x"], epoch)
        mark("trained", epoch)
        report(epoch=epoch, score=score, state=state, checkpoint=write)


def _next(state: int, x: float, epoch: int) -> tuple[int, float]:
    """Return state and score after an epoch. Trials keep their order from epoch to epoch: the best is promoted."""
    return (state * 31 + epoch + int(x * 1e6)) % 1_000_003, 1 - (x - 0.7) ** 2 - 0.5 * 0.8**epoch


@dataclass(frozen=True)
class Mark:
    """A phase that a function has begun; `pids` are its process, the parent of that, and so on."""

    time: float
    pids: tuple[int, ...]
    trial: int
    epoch: int
    phase: str

    @property
    def pid(self) -> int:
        """The process of the function."""
        return self.pids[0]

    def is_on(self, node: int) -> bool:
        """Return whether the process of this node has started that of the function."""
        return node in self.pids


class Marks:
    """A file of marks, which all processes of this machine append to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = 0

    @property
    def is_hurried(self) -> bool:
        """Whether all further epochs are to take no time."""
        return self.path.with_suffix(".hurry").exists()

    def hurry(self) -> None:
        """Let all further epochs take no time, when all faults have happened."""
        self.path.with_suffix(".hurry").touch()

    def write(self, phase: str, epoch: int, trial: int) -> None:
        """Append a line."""
        with self.path.open("ab", buffering=0) as file:
            pids = ",".join(map(str, ancestors(os.getpid())))
            file.write(f"{time.time()} {pids} {trial} {epoch} {phase}\n".encode())

    def news(self) -> list[Mark]:
        """Return the marks since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._seen)
            lines = file.read().split(b"\n")[:-1]
        self._seen += sum(len(line) + 1 for line in lines)
        parts = [line.decode().split() for line in lines]
        return [
            Mark(float(at), tuple(map(int, pids.split(","))), int(trial), int(epoch), phase)
            for at, pids, trial, epoch, phase in parts
        ]


def ancestors(pid: int) -> list[int]:
    """Return a process, its parent, and so on; up to one that has ended."""
    found = []
    with contextlib.suppress(OSError):
        while pid > 1:
            found.append(pid)
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def search(
    folder: str,
    executor: str = "inline",
    address: str | None = None,
    scheduler: str = "asha",
    num_trials: int = 30,
    num_epochs: int = 9,
    epoch_s: float = 0.0,
    seed: int = 0,
    marks: str = "",
) -> dict[str, Any]:
    """Search, or resume the search in this folder; return the answer and the state of all trials."""
    path = Path(folder)
    on_ray = {"address": address} if executor == "ray" else {}
    result = saccade.tune(
        partial(train, marks=marks, num_epochs=num_epochs, epoch_s=epoch_s),
        {"x": saccade.Real(0, 1)},
        num_trials=num_trials,
        searcher="random",
        scheduler=make_scheduler(scheduler, **({"max_epochs": num_epochs} if scheduler == "asha" else {})),
        max_epochs=num_epochs,
        executor=executor,
        path=path,
        resume=(path / "events.jsonl").exists(),
        seed=seed,
        verbosity=0,
        **on_ray,  # type: ignore[arg-type]
    )
    return {"best": [result.best_config, result.best_score], "trials": states(result.trials)}


def states(trials: Sequence[TrialResult]) -> list[Any]:
    """Return what a search keeps of its trials, such as JSON has."""
    kept = [[each.number, each.config, each.status, each.reason, each.seconds, each.reports] for each in trials]
    return json.loads(json.dumps(kept))  # type: ignore[no-any-return]


class Driver:
    """A function of a benchmark's module in a process of its own, which may be killed and started again."""

    def __init__(self, function: Callable[..., dict[str, Any]], place: Path, **arguments: Any) -> None:
        self._result, self._log = place / "result.json", place / "driver.log"
        self._command = [sys.executable, "-m", "benchmarks.measuring", function.__module__, function.__name__]
        self._command += [json.dumps(arguments), str(self._result)]
        self.start()

    def start(self) -> None:
        """Start the process."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()

    def result(self, timeout_s: float = 120) -> dict[str, Any]:
        """Wait for the end of the process, and return the function's result; a RuntimeError if it has failed."""
        try:
            code: int | str = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            code = f"a kill after {timeout_s:g} s"
        if code != 0:
            raise RuntimeError(f"the search ended with {code}: {self._log.read_text()[-3000:]}")
        value: dict[str, Any] = json.loads(self._result.read_text(encoding="utf-8"))
        return value


def environment() -> dict[str, str]:
    """Return the variables of nodes and of processes with a search: they import these benchmarks."""
    path = os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, sys.path)]))
    return {**os.environ, **QUIET, "PYTHONPATH": path}


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_all(pids: Sequence[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to all of them; some may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Nodes:
    """Nodes of a `ray.cluster_utils.Cluster`; the head has no processors for trials, so it can outlive all of them."""

    def __init__(self, num_nodes: int = 2, num_cpus: int = 2) -> None:
        from ray.cluster_utils import Cluster

        self._num_cpus = num_cpus
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "object_store_memory": OBJECT_STORE_BYTES,
                "include_dashboard": False,
            },
        )
        self.address: str = self._cluster.address
        self.pids: list[int] = []  # the process of each node but the head, the newest last
        for _ in range(num_nodes):
            self.add()

    def add(self) -> int:
        """Start one more node; return the number of its process, the parent of its workers."""
        node = self._cluster.add_node(num_cpus=self._num_cpus, object_store_memory=OBJECT_STORE_BYTES)
        self.pids.append(_raylet(node))
        return self.pids[-1]

    def kill(self, pid: int) -> None:
        """Kill all processes of a node at once, as if the machine had lost power."""
        node = next(node for node in self._cluster.worker_nodes if _raylet(node) == pid)
        kill_all([pid, *descendants(pid)])
        self.pids.remove(pid)
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self, pid: int) -> None:
        """Stop all processes of a node, as if the machine hung."""
        kill_all([pid, *descendants(pid)], signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        """Let them run again."""
        kill_all([pid, *descendants(pid)], signal.SIGCONT)

    def shutdown(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


@contextlib.contextmanager
def local_nodes(num_nodes: int = 2, num_cpus: int = 2) -> Iterator[Nodes]:
    """Nodes of Ray on this machine, apart from other clusters on it; they end with the context."""
    before = dict(os.environ)
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: names of sockets have a limit
    os.environ.update({**environment(), "RAY_TMPDIR": folder})
    os.environ.pop("RAY_ADDRESS", None)
    nodes = None
    try:
        nodes = Nodes(num_nodes, num_cpus)
        yield nodes
    finally:
        if nodes is not None:
            nodes.shutdown()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


def violations(folder: Path, result: Mapping[str, Any], undisturbed: Mapping[str, Any], *, is_exact: bool) -> list[str]:
    """Return what is wrong with a search after faults; nothing if the faults have cost no more than time.

    The event log is to have each epoch once, in order (`log_violations`), with the numbers of an undisturbed search; it
    is to restore the state that the search had at its end; and the answer is to be the same. With `is_exact` all trials
    have to be as those of the undisturbed search, not only the answer: for a scheduler whose decisions do not depend on
    the order of events.
    """
    found = log_violations(folder / "events.jsonl")
    restored = saccade.TuneResult.load(folder).trials
    if states(restored) != result["trials"]:
        found.append("the event log restores another state")
    for trial in restored:
        if trial.status in ("failed", "running"):
            found.append(f"trial {trial.number} is {trial.status}: {trial.reason}")
        state = 0
        for report in trial.reports:
            state, score = _next(state, trial.config["x"], report["epoch"])
            if (state, score) != (report["state"], report["score"]):
                found.append(f"trial {trial.number}: epoch {report['epoch']} was not trained from the one before")
    if result["best"] != undisturbed["best"]:
        found.append(f"the answer is {result['best']}, and {undisturbed['best']} without faults")
    ours, theirs = _results(result), _results(undisturbed)
    if [config for config, _ in ours] != [config for config, _ in theirs]:
        found.append("the trials have other configurations")
    elif is_exact and ours != theirs:
        found.append("the trials have other reports")
    return found


def log_violations(path: Path) -> list[str]:
    """Return what is wrong with an event log: an epoch is there twice, or a restart loses one with a checkpoint."""
    found = []
    last: dict[int, int] = {}
    saved: dict[int, int] = {}  # the last epoch with a checkpoint
    for event in EventLog(path):
        match event:
            case EpochDone():
                before = last.get(event.trial, 0)
                if event.epoch != before + 1 and (event.epoch != 0 or event.trial in last):
                    found.append(f"trial {event.trial}: epoch {event.epoch} follows {before}")
                last[event.trial] = event.epoch
                if event.checkpoint is not None:
                    saved[event.trial] = event.epoch
            case TrialRestarted():
                if event.after_epoch != saved.get(event.trial, -1):
                    text = f"restarts after epoch {event.after_epoch}, but has a checkpoint of {saved.get(event.trial)}"
                    found.append(f"trial {event.trial}: {text}")
                last[event.trial] = max(0, event.after_epoch)
    return found


def _results(result: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Return the configuration of each trial, and epochs and scores of its reports."""
    return [(each[1], [(report["epoch"], report["score"]) for report in each[-1]]) for each in result["trials"]]


def pauses(events: Sequence[Event]) -> list[EpochDone]:
    """Return the reports after which a trial paused."""
    return [event for event in events if isinstance(event, EpochDone) and event.decision is Decision.PAUSE]
