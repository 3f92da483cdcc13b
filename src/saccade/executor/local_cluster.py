"""A Ray cluster of several nodes on this machine, to try what a cluster does; the commands are ``saccade cluster``.

A process of its own, a fresh interpreter of this module, starts the nodes and ends them. It holds the lock of the
folder of the cluster as long as it lives, so nothing else is ever taken for it. Ray listens on 127.0.0.1 only, and
answers only those who have the token in that folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import ClusterError
from saccade.executor.slots import num_usable_cpus
from saccade.study.run_folder import lock_owner, locked, write_json_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 500_000_000  # of each node; what does not fit goes to the disk
START_S, END_S = 120.0, 30.0
"""Time limits of the start and of the end of all nodes."""

POLL_S = 0.1
INSTALL = 'Ray is not installed. Install it: pip install "saccade[ray]"'
_RECORD, _TOKEN, _LOG = "cluster.json", "token", "log.txt"
NODES_ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With "0", Ray takes 127.0.0.1 as the address of this machine, as it always does on Windows and macOS."""


def folder_of_user() -> Path:
    """Return the folder of this user's cluster; of another one for another cache folder, so that tests have their own.

    Its path is short, since those of sockets have at most 107 bytes.
    """
    cache = os.environ.get("SACCADE_CACHE", "")
    own = f"-{hashlib.sha256(cache.encode()).hexdigest()[:8]}" if cache else ""
    return Path("/tmp") / f"saccade-ray-{os.getuid()}{own}"  # noqa: S108  its owner is checked


@dataclass(frozen=True)
class LocalNode:
    """A node of the cluster; `pid` is its main process."""

    name: str
    pid: int
    num_cpus: int


@dataclass(frozen=True)
class LocalCluster:
    """The cluster that runs on this machine."""

    address: str
    nodes: tuple[LocalNode, ...]
    folder: Path

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.address.startswith(f"{LOOPBACK}:")

    @property
    def token_file(self) -> Path:
        """The file with the token that it asks for."""
        return self.folder / _TOKEN

    @property
    def logs(self) -> Path:
        """The folder of Ray's log files, and of what workers print."""
        return self.folder / "ray" / "session_latest" / "logs"

    def environment(self) -> dict[str, str]:
        """Return the variables with which Ray connects to it; Ray reads them when it is imported."""
        variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}
        return {**variables, NODES_ON_LOOPBACK: "0"} if self.is_on_loopback else variables


def running_cluster() -> LocalCluster | None:
    """Return the cluster that runs on this machine for this user; None without one."""
    if os.name == "nt" or lock_owner(folder := folder_of_user()) is None:
        return None
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:  # it starts or ends
        return None
    return LocalCluster(record["address"], tuple(LocalNode(**node) for node in record["nodes"]), folder)


def start_cluster(
    num_nodes: int = 2, cpus_per_node: int | None = None, host: str = LOOPBACK, port: int = 0
) -> LocalCluster:
    """Start a cluster that outlives this process; by default the nodes share the cores of this machine.

    With another `host` than 127.0.0.1, Ray listens on all addresses of this machine. Port 0 is a free one.
    """
    if os.name == "nt":
        raise ClusterError("Ray has no clusters of several nodes on Windows. Use WSL or Linux")
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        raise ClusterError(INSTALL) from None
    folder = folder_of_user()
    if lock_owner(folder) is not None:
        raise ClusterError("A cluster runs already. See saccade cluster status; end it with saccade cluster down")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ClusterError(f"{folder} belongs to another user. Remove it")
    _empty(folder)
    folder.chmod(0o700)
    if not (folder / _TOKEN).exists():  # processes that know an earlier one can connect again
        (folder / _TOKEN).write_text(secrets.token_hex(32), encoding="ascii")
    cpus = max(1, num_usable_cpus() // num_nodes) if cpus_per_node is None else cpus_per_node
    plan = {"num_nodes": num_nodes, "cpus_per_node": cpus, "host": host, "port": port}
    cluster = LocalCluster(f"{host}:{port}", (), folder)
    ray_variables = {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", NODES_ON_LOOPBACK: "1"}
    environment = {**os.environ, **ray_variables, **cluster.environment()}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", __spec__.name, str(folder), json.dumps(plan)]
    with (folder / _LOG).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  this module itself
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s and process.poll() is None:
            if (started := running_cluster()) is not None:
                process.returncode = 0  # it outlives this process: nobody waits for it
                return started
            time.sleep(POLL_S)
        written = (folder / _LOG).read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[-1]
        reason = f"has not started within {START_S:.0f} s" if process.poll() is None else f"did not start: {written}"
        raise ClusterError(f"The cluster {reason}. See {folder / _LOG}, and the logs of Ray in {cluster.logs}")
    except BaseException:  # Ctrl-C as well
        process.terminate()
        raise


def end_cluster() -> LocalCluster | None:
    """End the nodes of the cluster, and whatever runs on them; return None if no cluster runs."""
    folder = folder_of_user()
    cluster = running_cluster()
    end_s = time.monotonic() + END_S
    while os.name != "nt" and (pid := lock_owner(folder)) is not None:
        is_late = time.monotonic() > end_s
        if pid:
            # Ray's processes end when the one that started them does.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if is_late else signal.SIGTERM)
        elif is_late:
            raise ClusterError(f"The process that holds {folder / '.lock'} is not found; end it by hand")
        time.sleep(POLL_S)
    if cluster is not None:
        _empty(folder)
    return cluster


_QUESTION = """
import json, logging, sys
import ray
from ray.util import list_named_actors

ray.init(sys.argv[1], logging_level=logging.ERROR, log_to_driver=False, namespace="saccade-status")
print("saccade", json.dumps([ray.nodes(), ray.available_resources(), list_named_actors(all_namespaces=True)]))
"""


def ask_cluster(address: str, local: LocalCluster | None = None) -> dict[str, Any]:
    """Return the nodes, free resources and workers of a cluster; a process of its own asks it."""
    environment = {**os.environ, "RAY_BACKEND_LOG_LEVEL": "fatal", **(local.environment() if local else {})}
    command = [sys.executable, "-c", _QUESTION, address]
    try:
        answer = subprocess.run(  # noqa: S603  this interpreter
            command, env=environment, capture_output=True, text=True, timeout=START_S, check=True
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"No Ray cluster answers at {address} within {START_S:.0f} s") from None
    except subprocess.CalledProcessError as error:
        if "No module named 'ray'" in error.stderr:
            raise ClusterError(INSTALL) from None
        reason = error.stderr.strip().rpartition("\n")[-1]
        raise ClusterError(f"No Ray cluster answers at {address}: {reason}") from None
    # Ray prints lines of its own.
    line = next(line for line in answer.stdout.splitlines() if line.startswith("saccade "))
    nodes, free, actors = json.loads(line.removeprefix("saccade "))
    kinds = ("CPU", "GPU", "memory")
    return {
        "nodes": [
            {
                "name": name_of(node),
                "is_alive": node["Alive"],
                "resources": {kind: node["Resources"][kind] for kind in kinds if kind in node["Resources"]},
            }
            for node in sorted(nodes, key=name_of)
        ],
        "free": {kind: free[kind] for kind in kinds if kind in free},
        "workers": sorted(actor["name"] for actor in actors if actor["namespace"].startswith("saccade")),
    }


def name_of(node: Mapping[str, Any]) -> str:
    """Return the name that one of ``ray.nodes()`` was started with; of most its host's, as theirs is the address."""
    is_named = node["NodeName"] != node["NodeManagerAddress"]
    return str(node["NodeName"] if is_named else node["NodeManagerHostname"])


def _empty(folder: Path) -> None:
    """Remove what an earlier cluster has left."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name not in (".lock", _TOKEN):
            entry.unlink()


def main(folder: Path, plan: Mapping[str, int | str]) -> None:
    """Start the nodes, and end them at SIGTERM."""
    import logging

    with locked(folder):
        from ray.cluster_utils import Cluster

        logging.disable()
        common: dict[str, Any] = {
            "node_ip_address": plan["host"],
            "num_cpus": plan["cpus_per_node"],
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "include_log_monitor": False,
        }
        of_head: dict[str, Any] = {"gcs_server_port": plan["port"], "no_monitor": True, "dashboard_port": 0}
        cluster = Cluster()
        try:
            nodes = []
            for number in range(1, int(plan["num_nodes"]) + 1):
                name = f"node-{number}"
                node = cluster.add_node(node_name=name, **common, **(of_head if number == 1 else {}))
                pid = next(process.pid for kind, process in node.live_processes() if kind == "raylet")
                nodes.append(LocalNode(name, pid, int(plan["cpus_per_node"])))
            record = {"address": cluster.address, "nodes": [asdict(node) for node in nodes]}
            write_json_atomically(folder / _RECORD, record)
            is_over = threading.Event()
            signal.signal(signal.SIGTERM, lambda *_: is_over.set())  # in place of Ray's handler
            is_over.wait()
        finally:
            (folder / _RECORD).unlink(missing_ok=True)
            for node in filter(None, (*cluster.worker_nodes, cluster.head_node)):
                cluster.remove_node(node, allow_graceful=False)  # a dead node would be waited for
        os._exit(0)  # the lock is released only now


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
