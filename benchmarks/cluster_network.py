"""A search on two nodes in network namespaces, while the link of one of them is cut and healed.

    python -m benchmarks.cluster_network [--cuts 3 20 60] [--seed 0] [--json OUT]

The head and two nodes of Ray have an address each on a bridge, and see neither each other's temporary folder nor the
run's folder, so everything goes through the network. For each of the `--cuts` (seconds) there is a search; when both
nodes train, the link of one is cut for so long, and then healed. A short cut costs nothing but time. After a longer one
the trials of that node are retried on the other. After a still longer one Ray has given up the node; its process ends
when it is connected again, and a new one takes its place, as a service manager would start it.

Everything happens in namespaces of its own (``unshare -rnmp``), which needs Linux and no rights; else the part is
skipped.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cluster_faults import NUM_CPUS, Search
from benchmarks.cluster_nodes import OBJECT_STORE_BYTES, descendants, environment, kill_all, search
from benchmarks.measuring import ROOT, arguments_of, table, work_folder, write_json
from saccade.events import TrialRestarted
from saccade.study.event_log import EventLog

UNSHARE = ["unshare", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
NETWORK = "10.201.0"  # of the bridge
BRIDGE = "bridge0"
PORT = 6379
EPOCH_S = 0.3
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]


def why_not_here() -> str:
    """Return why network namespaces are not available; "" if they are."""
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"{program} is not installed (Linux only)"
    made = ["mount -t tmpfs none /run", f"ip link add {BRIDGE} type bridge", "ip netns add node0"]
    tried = subprocess.run([*UNSHARE, "sh", "-ec", "\n".join(made)], capture_output=True, text=True, check=False)
    return tried.stderr.strip().splitlines()[-1] if tried.returncode else ""


def _ip(*arguments: object) -> None:
    subprocess.run(["ip", *map(str, arguments)], check=True, capture_output=True)


class LinkedNodes:
    """A head and nodes of Ray in network namespaces, of a process that `UNSHARE` has started.

    `private` are folders of which each node has an empty copy of its own.
    """

    def __init__(self, folder: Path, private: Path, num_nodes: int = 2) -> None:
        self._folder, self._private = folder, private
        self._temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: names of sockets have a limit
        self.address = f"{NETWORK}.1:{PORT}"
        self.pids: list[int] = []
        self._numbers: dict[int, int] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
        _ip("link", "set", "lo", "up")
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        here = [f"--node-ip-address={NETWORK}.1", f"--port={PORT}", f"--temp-dir={self._temporary}"]
        self._start([*RAY, "--head", "--num-cpus=0", "--include-dashboard=false", *here], 0)
        for number in range(2, 2 + num_nodes):
            _ip("netns", "add", f"node{number}")
            _ip("link", "add", f"link{number}", "type", "veth", "peer", "name", "eth0", "netns", f"node{number}")
            _ip("link", "set", f"link{number}", "master", BRIDGE, "up")
            for setting in (["addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0"], ["link", "set", "lo", "up"]):
                _ip("-n", f"node{number}", *setting)
            _ip("-n", f"node{number}", "link", "set", "eth0", "up")
            self.start_node(number)

    def start_node(self, number: int) -> None:
        """Start the node's process, and wait until it is in the cluster."""
        mounts = [f"mount -t tmpfs none {folder}" for folder in (self._temporary, self._private)]
        ray = [*RAY, f"--address={self.address}", f"--node-ip-address={NETWORK}.{number}", f"--num-cpus={NUM_CPUS}"]
        command = "\n".join([*mounts, f'exec "$@" --object-store-memory={OBJECT_STORE_BYTES}'])
        inside = ["ip", "netns", "exec", f"node{number}", "unshare", "-m", "sh", "-ec", command, "sh"]
        pid = self._start([*inside, *ray], number)
        self.pids.append(pid)
        self._numbers[pid] = number

    def _start(self, command: list[str], number: int) -> int:
        log = self._folder / f"node{number}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=environment(), stdout=file, stderr=file)
        self._processes.append(process)
        end_s = time.monotonic() + 60
        while b"Ray runtime started" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"node {number} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        return process.pid

    def cut(self, pid: int) -> None:
        """Cut the link of a node."""
        _ip("link", "set", f"link{self._numbers[pid]}", "down")

    def heal(self, pid: int) -> None:
        """Connect a node again."""
        _ip("link", "set", f"link{self._numbers[pid]}", "up")

    def replace_if_ended(self, pid: int) -> bool:
        """Start a node's process again if it has ended; return whether it had."""
        process = next(process for process in self._processes if process.pid == pid)
        if process.poll() is None:
            return False
        self.pids.remove(pid)
        self.start_node(self._numbers[pid])
        return True

    def shutdown(self) -> None:
        """End all nodes."""
        for process in self._processes:
            kill_all([*descendants(process.pid), process.pid])
            process.wait()
        shutil.rmtree(self._temporary, ignore_errors=True)


def one_cut(nodes: LinkedNodes, folder: Path, cut_s: float, seed: int) -> dict[str, Any]:
    """Cut the link of a node while a search runs; return what came of it."""
    rng = random.Random(seed)
    num_trials = 20 + int(cut_s * NUM_CPUS / EPOCH_S / 9 * 2)  # some are left after the cut
    options: dict[str, Any] = {"scheduler": "fifo", "seed": seed, "num_trials": num_trials}
    undisturbed = search(str(folder / f"undisturbed-{cut_s:g}"), **options)
    run = Search(nodes, folder / f"cut-{cut_s:g}", rng, epoch_s=EPOCH_S, marks_folder=Path("/run"), **options)  # type: ignore[arg-type]
    seen: set[int] = set()

    def on_all_nodes() -> bool:
        seen.update(node for mark in run.news() for node in nodes.pids if mark.is_on(node))
        return len(seen) == len(nodes.pids)

    run.wait_for(on_all_nodes)
    time.sleep(rng.uniform(0.5, 1.5))
    node = rng.choice(nodes.pids)
    run.news()
    nodes.cut(node)
    start_s = time.monotonic()
    list(run.log.news())
    num_reports = 0
    retried_s: float | None = None
    is_replaced = False
    while (cut_for_s := time.monotonic() - start_s) < cut_s:
        for event, _ in run.log.news():
            num_reports += event.kind == "epoch_done"
            if isinstance(event, TrialRestarted) and retried_s is None:
                retried_s = cut_for_s
        time.sleep(0.02)
    nodes.heal(node)
    healed_s = time.monotonic()
    run.news()
    used_s: float | None = None

    def is_used() -> bool:
        nonlocal is_replaced
        if not is_replaced and nodes.replace_if_ended(node):
            is_replaced = True
        here = nodes.pids[-1] if is_replaced else node
        return any(mark.is_on(here) and mark.phase == "training" for mark in run.news())

    if run.wait_for(is_used):
        used_s = time.monotonic() - healed_s
    run.marks.hurry()
    violated, again = run.check(undisturbed, is_exact=True, num_in_flight=NUM_CPUS)
    if used_s is None:
        violated.append("the node was not used again")
    log = list(EventLog(run.folder / "run" / "events.jsonl"))
    return {
        "cut_s": cut_s,
        "reports_meanwhile": num_reports,
        "retried": sum(isinstance(event, TrialRestarted) for event in log),
        "retried_after_s": retried_s,
        "is_replaced": is_replaced,
        "used_again_s": used_s,
        "again": again,
        "violations": violated,
    }


def main(argv: list[str] | None = None) -> None:
    """Cut and heal, and print the table."""
    parser = arguments_of(__doc__ or "", has_rounds=False)
    parser.add_argument("--cuts", type=float, nargs="+", default=[3, 20, 60], help="seconds of each cut")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inside", action="store_true", help="this process is in namespaces of its own already")
    argv = sys.argv[1:] if argv is None else argv
    given = parser.parse_args(argv)
    if not given.inside:
        if why := why_not_here():
            print(f"skipped, as network namespaces are not available here: {why}")
            return
        command = [*UNSHARE, sys.executable, "-m", "benchmarks.cluster_network", "--inside", *argv]
        subprocess.run(command, cwd=ROOT, env=environment(), check=True)
        return
    with work_folder() as folder:
        private = folder / "runs"
        private.mkdir()
        nodes = LinkedNodes(folder, private)
        try:
            figures = [one_cut(nodes, private, cut_s, given.seed) for cut_s in given.cuts]
        finally:
            nodes.shutdown()
    write_json(given.json, given, figures)
    heads = ["cut", "reports meanwhile", "trials retried", "after s", "node", "used again after s", "trained twice"]
    rows = [
        [f"{each['cut_s']:g} s", each["reports_meanwhile"], each["retried"], each["retried_after_s"],
         "replaced" if each["is_replaced"] else "the same", each["used_again_s"], each["again"]]
        for each in figures
    ]  # fmt: skip
    print(table(heads, rows))
    wrong = [f"cut of {each['cut_s']:g} s: {text}" for each in figures for text in each["violations"]]
    print("\n".join([f"{len(wrong)} violations", *wrong]))


if __name__ == "__main__":
    main()
