"""``saccade cluster`` starts a Ray cluster that outlives the command, shows it, and ends it without a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from saccade.errors import ClusterError
from saccade.executor import local_cluster

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Ray has no clusters of several nodes on Windows")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of the cluster, in place of that of the user."""
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    short = local_cluster.folder_of_user()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield short
    local_cluster.end_cluster()
    if short.exists():
        for name in (".lock", "token"):
            (short / name).unlink(missing_ok=True)
        short.rmdir()


def output_of(result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_without_a_cluster_there_is_nothing_to_show_or_to_end(saccade):
    for action in ("status", "down"):
        assert output_of(saccade("cluster", action, "--json")) == {
            "kind": "result",
            "is_running": False,
            "address": None,
            "nodes": [],
            "free": {},
            "workers": [],
            "logs": None,
        }
    assert "no cluster of saccade cluster up runs" in saccade("cluster", "down").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("down", "--nodes", "2"), "--nodes is an option of saccade cluster up, not of down"),
        (("up", "--address", "head:6379"), "--address is an option of saccade cluster status, not of up"),
        (("up", "--node", "2"), "Did you mean --nodes?"),
        (("restart",), "is not one of 'up', 'status', 'down'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(saccade, arguments, message):
    result = saccade("cluster", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_a_folder_of_somebody_else_is_refused(saccade, folder):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    folder.symlink_to("/tmp")
    try:
        result = saccade("cluster", "up")
    finally:
        folder.unlink()
    assert result.exit_code == 2
    assert "belongs to another user" in result.stderr


def check_that_only_its_token_is_answered(cluster, monkeypatch):
    pytest.importorskip("grpc", reason="grpc is not installed")
    from saccade.executor.ray_executor import _check_reachable

    with monkeypatch.context() as context:
        context.delenv("RAY_AUTH_MODE", raising=False)
        with pytest.raises(ClusterError, match="answers only those who have its token"):
            _check_reachable(cluster.address)
        context.setenv("RAY_AUTH_MODE", "token")
        context.setenv("RAY_AUTH_TOKEN", "another one")
        with pytest.raises(ClusterError, match="Check that RAY_AUTH_TOKEN"):
            _check_reachable(cluster.address)
        context.delenv("RAY_AUTH_TOKEN")
        context.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.token_file))
        _check_reachable(cluster.address)


def test_a_cluster_outlives_the_command_until_it_is_ended(saccade, folder, monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    started = output_of(saccade("cluster", "up", "--nodes", "2", "--cpus-per-node", "1", "--json"))
    assert [(node["name"], node["resources"]) for node in started["nodes"]] == [
        ("node-1", {"CPU": 1.0}),
        ("node-2", {"CPU": 1.0}),
    ]
    cluster = local_cluster.running_cluster()
    assert cluster.address == started["address"]
    assert folder.stat().st_mode & 0o077 == 0  # the token is in it
    host, port = started["address"].split(":")
    assert host == "127.0.0.1"
    own_address = next((each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)), host)
    if not own_address.startswith("127."):
        with pytest.raises(OSError, match="refused"):  # other machines do not reach it
            socket.create_connection((own_address, int(port)), 5)
    check_that_only_its_token_is_answered(cluster, monkeypatch)
    again = saccade("cluster", "up")
    assert again.exit_code == 2
    assert "A cluster runs already" in again.stderr
    pids = [node["pid"] for node in started["nodes"]]
    os.kill(pids[1], signal.SIGKILL)  # a node dies
    end_s = time.monotonic() + 60
    nodes: dict[str, bool] = {}
    while nodes.get("node-2", True) and time.monotonic() < end_s:
        found = output_of(saccade("cluster", "status", "--json"))
        nodes = {node["name"]: node["is_alive"] for node in found["nodes"]}
    end_s = time.monotonic() + 60
    assert nodes == {"node-1": True, "node-2": False}
    assert found["free"]["CPU"] == 1
    assert Path(found["logs"]).is_dir()
    supervisor = local_cluster.lock_owner(folder)
    assert output_of(saccade("cluster", "down", "--json"))["is_running"] is False
    while any(map(is_running, [*pids, supervisor])):  # the lock is released a moment before the process has ended
        assert time.monotonic() < end_s
    assert {entry.name for entry in folder.iterdir()} == {".lock", "token"}
