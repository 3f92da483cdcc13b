"""Faults of a cluster while a search runs on it: no epoch is lost or counted twice, and the answer stays the same.

    python -m benchmarks.cluster_faults [--faults 48] [--replacements 6] [--fit-faults 4] [--seed 0]
        [--json OUT]

Two nodes of Ray run on this machine, with two workers each; the search is a process of its own. A fault hits a trial
that trains, that writes a checkpoint, or that was promoted and loads one, after a random time. Faults are

- ``node``: SIGKILL of all processes of a node, which another one replaces; ``hung node``: SIGSTOP of all of them
- ``frozen node``: the same, but they run again when its trial has continued elsewhere
- ``worker``: SIGKILL of the process that trains; ``stopped worker``: SIGSTOP of it
- ``actor``: SIGKILL of Ray's process of the worker; ``stopped actor``: SIGSTOP of it
- ``coordinator``: SIGKILL of the search, which another process resumes

The function's epochs take a tenth of a second, and each has a checkpoint.
Searches follow each other until all faults have happened. After each, the event log is compared with a search without
faults: see `benchmarks.cluster_nodes.violations`. The table has the seconds from a fault until the event log has the
next epoch of the trial that it hit, and the epochs that were trained twice.

Then nodes are replaced every few seconds (pre-emption), a node joins late, and faults hit fits of real networks, whose
scores have to be those of a fit in worker processes without faults.
"""

from __future__ import annotations

import itertools
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster_nodes import (
    Driver,
    Mark,
    Marks,
    Nodes,
    ancestors,
    descendants,
    environment,
    is_alive,
    kill_all,
    local_nodes,
    log_violations,
    pauses,
    search,
    violations,
)
from benchmarks.cluster_real import fit
from benchmarks.measuring import arguments_of, in_own_process, table, work_folder, write_json
from benchmarks.photos import make_photos
from saccade.events import EpochDone, JobDone, JobFailed, TrialRestarted
from saccade.study.event_log import EventLog

KINDS = ("node", "hung node", "frozen node", "worker", "stopped worker", "actor", "stopped actor", "coordinator")
PHASES = ("training", "checkpointing", "promotion")
EPOCH_S = 0.1
NUM_TRIALS, NUM_EPOCHS = 60, 9
NUM_CPUS = 2  # of a node
IN_FLIGHT = {"node": NUM_CPUS, "hung node": NUM_CPUS, "frozen node": NUM_CPUS, "coordinator": 2 * NUM_CPUS}
"""Epochs that are in flight where a fault hits, if not 1."""

RECOVERY_S = 90.0  # after a fault; later is a violation
POLL_S = 0.003


@dataclass
class Fault:
    """A fault, and what followed."""

    kind: str
    phase: str
    trial: int
    recovered_s: float | None = None
    """Seconds until the log had the next epoch of the trial; None if there was none within `RECOVERY_S`."""


class Search:
    """A search in a process of its own, which faults can hit."""

    def __init__(
        self, nodes: Nodes, folder: Path, rng: random.Random, marks_folder: Path | None = None, **options: Any
    ) -> None:
        folder.mkdir(parents=True)
        self.nodes, self.folder, self.rng = nodes, folder, rng
        self.log = EventLog(folder / "run" / "events.jsonl")
        self.marks = Marks((marks_folder or folder) / f"{folder.name}.marks")
        self.driver = Driver(
            search,
            folder,
            folder=str(folder / "run"),
            executor="ray",
            address=nodes.address,
            marks=str(self.marks.path),
            **options,
        )
        self.faults: list[Fault] = []
        self.all_marks: list[Mark] = []

    def news(self) -> list[Mark]:
        """Return the marks since the last call."""
        news = self.marks.news()
        self.all_marks += news
        return news

    def wait_for(self, found: Callable[[], Any], timeout_s: float = RECOVERY_S) -> Any:
        """Wait until `found` returns something true, and return it; None if the search ends before."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            is_running = self.driver.is_running  # what it has written before it ended is still seen
            if value := found():
                return value
            if not is_running:
                return None
            time.sleep(POLL_S)
        raise TimeoutError(f"nothing happened within {timeout_s:g} s in {self.folder}")

    def target(self, kind: str, phase: str) -> Mark | None:
        """Wait until a worker begins the phase."""
        self.news()
        list(self.log.news())
        if kind == "coordinator" and phase == "promotion" and self.rng.random() < 0.5:  # between pause and promotion
            paused = self.wait_for(lambda: pauses([event for event, _ in self.log.news()]))
            return None if paused is None else Mark(time.time(), (), paused[-1].trial, paused[-1].epoch, phase)

        def found() -> list[Mark]:
            return [mark for mark in self.news() if mark.phase == phase and is_alive(mark.pid)]

        marks = self.wait_for(found)
        return None if marks is None else marks[-1]

    def inject(self, kind: str, phase: str) -> Fault | None:
        """Let a fault happen, and wait until the search has recovered; None if the search ends before."""
        mark = self.target(kind, phase)
        if mark is None:
            return None
        time.sleep(self.rng.uniform(0, EPOCH_S if phase == "training" else 0.01))
        fault = Fault(kind, phase, mark.trial)
        list(self.log.news())
        start_s = time.monotonic()
        self._strike(kind, mark)
        self.faults.append(fault)
        is_restarted = is_coordinator = kind == "coordinator"

        def recovered() -> bool:
            nonlocal is_restarted
            for event, _ in self.log.news():
                is_of_it = getattr(event, "trial", None) == mark.trial
                is_restarted |= isinstance(event, TrialRestarted) and is_of_it
                if isinstance(event, EpochDone) and is_restarted and (is_coordinator or is_of_it):
                    return True
                if isinstance(event, JobDone | JobFailed) and is_of_it:  # it had just done its work
                    return True
            return False

        if self.wait_for(recovered) is not None or self.driver.process.returncode == 0:
            fault.recovered_s = time.monotonic() - start_s
        if kind in ("hung node", "frozen node"):
            node = next(node for node in self.nodes.pids if mark.is_on(node))
            if kind == "frozen node":
                self.nodes.thaw(node)
            else:
                self.nodes.kill(node)
                self.nodes.add()
        return fault

    def _strike(self, kind: str, mark: Mark) -> None:
        if kind == "coordinator":
            self.driver.kill()
            time.sleep(self.rng.uniform(0, 0.5))
            self.driver.start()
        elif kind.endswith("node"):
            node = next(node for node in self.nodes.pids if mark.is_on(node))
            if kind != "node":
                self.nodes.stop(node)
            else:
                self.nodes.kill(node)
                time.sleep(self.rng.uniform(0, 1))
                self.nodes.add()
        else:
            is_stopped = kind.startswith("stopped")
            kill_all([mark.pids[kind.endswith("actor")]], signal.SIGSTOP if is_stopped else signal.SIGKILL)

    def check(
        self, undisturbed: dict[str, Any], *, is_exact: bool, num_in_flight: int | None = None
    ) -> tuple[list[str], int]:
        """Wait for the end; return the violations, and the number of epochs that were trained again."""
        try:
            result = self.driver.result()
        except RuntimeError as error:
            return [str(error)], 0
        found = violations(self.folder / "run", result, undisturbed, is_exact=is_exact)
        self.news()
        trained = Counter((mark.trial, mark.epoch) for mark in self.all_marks if mark.phase == "trained")
        again = sum(number - 1 for number in trained.values())
        limit = num_in_flight or sum(IN_FLIGHT.get(fault.kind, 1) for fault in self.faults)
        if again > limit:
            found.append(f"{again} epochs were trained again, and at most {limit} were in flight")
        found += [f"{each.kind} in {each.phase}: not recovered" for each in self.faults if each.recovered_s is None]
        pids = {pid for mark in self.all_marks for pid in mark.pids[:2]} - {*self.nodes.pids}  # of workers and actors
        end_s = time.monotonic() + 20
        while alive := [pid for pid in pids if is_alive(pid)]:
            if time.monotonic() > end_s:
                found.append(f"{len(alive)} workers live on 20 s after the search")
                break
            time.sleep(0.05)
        return found, again


def faults_in_searches(nodes: Nodes, folder: Path, num_faults: int, seed: int) -> dict[str, Any]:
    """Let faults of all kinds happen in all phases, in as many searches as that takes."""
    rng = random.Random(seed)
    plan: list[tuple[str, str]] = []
    for pair in itertools.islice(itertools.cycle(itertools.product(KINDS, PHASES)), num_faults):
        plan.insert(rng.randint(0, len(plan)), pair)
    faults: list[Fault] = []
    found: list[str] = []
    num_again = num_searches = 0
    while plan:
        scheduler = ("asha", "asha", "fifo")[num_searches % 3]
        options: dict[str, Any] = {"scheduler": scheduler, "seed": seed + num_searches, "num_epochs": NUM_EPOCHS,
                   "num_trials": NUM_TRIALS if scheduler == "asha" else NUM_TRIALS // 3}  # fmt: skip
        undisturbed = search(str(folder / f"undisturbed-{num_searches}"), **options)
        run = Search(nodes, folder / f"search-{num_searches}", rng, epoch_s=EPOCH_S, **options)
        num_searches += 1
        while plan:
            # A fifo search promotes nothing, except that retried trials load checkpoints.
            fit = next((pair for pair in plan if scheduler == "asha" or pair[1] != "promotion"), None)
            fault = None if fit is None else run.inject(*fit)
            if fit is None or fault is None:
                break
            plan.remove(fit)
            print(f"{fault.kind:12} {fault.phase:14} {fault.recovered_s or -1:6.1f} s", flush=True)
            if fault.recovered_s is None:
                break
        violated, again = run.check(undisturbed, is_exact=scheduler == "fifo")
        found += [f"search {num_searches - 1}: {each}" for each in violated]
        print(
            "\n".join([f"search {num_searches - 1} ({scheduler}): {len(violated)} violations", *violated]), flush=True
        )
        faults += run.faults
        num_again += again
    figures = [asdict(fault) for fault in faults]
    return {"searches": num_searches, "faults": figures, "again": num_again, "violations": found}


def replacements(nodes: Nodes, folder: Path, num_replacements: int, seed: int) -> dict[str, Any]:
    """Replace one of two nodes every few seconds, whatever its workers do, until the search ends."""
    rng = random.Random(seed)
    options: dict[str, Any] = {"seed": seed, "num_trials": 4 * NUM_TRIALS, "num_epochs": NUM_EPOCHS}
    undisturbed = search(str(folder / "undisturbed-replacements"), **options)
    run = Search(nodes, folder / "replacements", rng, epoch_s=EPOCH_S, **options)
    run.wait_for(run.news)
    num = 0
    while num < num_replacements and run.driver.is_running:
        time.sleep(rng.uniform(2, 4))
        run.nodes.kill(rng.choice(run.nodes.pids))
        run.faults.append(Fault("node", "any", -1, 0.0))
        run.nodes.add()
        num += 1
    start_s = time.monotonic()
    violated, again = run.check(undisturbed, is_exact=False)
    return {"replacements": num, "again": again, "violations": violated, "rest_s": time.monotonic() - start_s}


def late_joiner(nodes: Nodes, folder: Path, seed: int) -> dict[str, Any]:
    """Let a node join a search that one node began; return the seconds until it trains."""
    options: dict[str, Any] = {"scheduler": "fifo", "num_trials": 12, "num_epochs": 3, "seed": seed}
    # Epochs are long, so that a node that had to wait for the end of a job would be seen.
    run = Search(nodes, folder / "late", random.Random(seed), epoch_s=1.0, **options)
    run.wait_for(run.news)
    time.sleep(2)
    start_s = time.monotonic()
    joined = nodes.add()
    joined_s = time.monotonic()
    run.wait_for(lambda: [mark for mark in run.news() if mark.is_on(joined)])
    trains_s = time.monotonic()
    undisturbed = search(str(folder / "undisturbed-late"), **options)
    violated, _ = run.check(undisturbed, is_exact=True)
    return {"start_s": joined_s - start_s, "until_it_trains_s": trains_s - joined_s, "violations": violated}


def faults_in_fits(nodes: Nodes, folder: Path, num_faults: int, seed: int) -> dict[str, Any]:
    """Let faults hit a fit of real networks; return the violations beside a fit in worker processes."""
    rng = random.Random(seed)
    photos = str(make_photos(folder / "photos", 120, size=(64, 48)))
    options: dict[str, Any] = {"photos": photos, "num_epochs": 12, "seed": seed}
    undisturbed = in_own_process(fit, environment(), folder=str(folder / "fit"), executor="process", **options)
    place = folder / "fit on nodes"
    place.mkdir()
    log = EventLog(place / "run" / "events.jsonl")
    driver = Driver(fit, place, folder=str(place / "run"), executor="ray", address=nodes.address, **options)
    happened: list[str] = []
    while len(happened) < num_faults and driver.is_running:
        if not any(isinstance(event, EpochDone) for event, _ in log.news()):
            time.sleep(0.1)
            continue
        time.sleep(rng.uniform(0, 1))
        kind = ("coordinator", "node", "worker", "actor")[len(happened) % 4]
        trains = [pid for node in nodes.pids for pid in descendants(node) if _is_worker(pid)]
        if kind == "coordinator":
            driver.kill()
            driver.start()
        elif kind == "node":
            nodes.kill(rng.choice(nodes.pids))
            nodes.add()
        elif trains:
            kill_all(ancestors(rng.choice(trains))[:2][-1 if kind == "actor" else 0 :][:1])
        happened.append(kind)
    try:
        result = driver.result(300)
    except RuntimeError as error:
        return {"faults": happened, "violations": [str(error)]}
    found = log_violations(place / "run" / "events.jsonl")
    found += [f"{name}: {result[name]}, and {undisturbed[name]} without faults"
              for name in ("scores", "epochs", "best") if result[name] != undisturbed[name]]  # fmt: skip
    return {"faults": happened, "violations": found}


def _is_worker(pid: int) -> bool:
    try:
        return b"saccade.executor.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def rows_of(faults: list[dict[str, Any]]) -> list[list[Any]]:
    """Return a row of the table for each kind of fault and phase."""
    rows: list[list[Any]] = []
    for kind, phase in itertools.product(KINDS, PHASES):
        of = [fault for fault in faults if (fault["kind"], fault["phase"]) == (kind, phase)]
        seconds = [fault["recovered_s"] for fault in of if fault["recovered_s"] is not None]
        if of:
            middle, most = (statistics.median(seconds), max(seconds)) if seconds else (None, None)
            rows.append([f"{kind}, {phase}", len(of), len(of) - len(seconds), middle, most])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Let all faults happen, and print what came of them."""
    parser = arguments_of(__doc__ or "", has_rounds=False)
    parser.add_argument("--faults", type=int, default=48, help="faults of all kinds in all phases")
    parser.add_argument("--replacements", type=int, default=6, help="nodes that are replaced in one search")
    parser.add_argument("--fit-faults", type=int, default=4, help="faults in a fit of real networks")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    figures: dict[str, Any] = {}
    with work_folder() as folder, local_nodes(num_nodes=1, num_cpus=NUM_CPUS) as nodes:
        figures["late joiner"] = late_joiner(nodes, folder, given.seed)
        if given.faults:
            figures["faults"] = faults_in_searches(nodes, folder, given.faults, given.seed)
        if given.replacements:
            figures["replacements"] = replacements(nodes, folder, given.replacements, given.seed)
        if given.fit_faults:
            figures["fits"] = faults_in_fits(nodes, folder, given.fit_faults, given.seed)
    write_json(given.json, given, figures)
    late = figures["late joiner"]
    print(f"\na node that joins late trains {late['until_it_trains_s']:.1f} s after it is up")
    if given.faults:
        faults = figures["faults"]
        print(table(["fault, phase", "faults", "not recovered", "median s", "max s"], rows_of(faults["faults"])))
        print(f"{faults['searches']} searches; {faults['again']} epochs were trained again")
    if given.replacements:
        print(f"{figures['replacements']['replacements']} nodes were replaced in one search")
    if given.fit_faults:
        print(f"faults in a fit of networks: {', '.join(figures['fits']['faults'])}")
    wrong = [each for part in figures.values() for each in part["violations"]]
    print("\n".join([f"{len(wrong)} violations", *wrong]))


if __name__ == "__main__":
    main()
