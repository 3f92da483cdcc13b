"""One small Ray cluster for all tests of a run, which ends with the run, even if that is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from filelock import FileLock

PROGRAM = """\
import json, logging, os, shutil, sys, tempfile, time, warnings
warnings.simplefilter("ignore")
import ray
folder = tempfile.mkdtemp(prefix="ray_")  # sockets need a short path
context = ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, _temp_dir=folder,
                   log_to_driver=False, logging_level=logging.ERROR)
print(json.dumps(context.address_info["gcs_address"]), flush=True)
while os.path.exists(f"/proc/{sys.argv[1]}") :
    time.sleep(0.5)
ray.shutdown()
shutil.rmtree(folder, ignore_errors=True)
"""
"""Holds the cluster until the process that runs the tests is gone."""


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the cluster; it has 2 CPUs, one node, and no dashboard."""
    # Ray reads it once in a process, and a cluster that is started by ray.init() has a token otherwise.
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'saccade[ray]'")
    is_xdist = "PYTEST_XDIST_WORKER" in os.environ
    folder = tmp_path_factory.getbasetemp()
    folder, owner = (folder.parent, os.getppid()) if is_xdist else (folder, os.getpid())
    with FileLock(folder / "ray.lock"):
        file = folder / "ray.json"
        if not file.exists():
            with (folder / "ray.log").open("w") as log:
                started = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, str(owner)], stdout=subprocess.PIPE, stderr=log, text=True,
                    start_new_session=True,
                )  # fmt: skip
            assert started.stdout is not None
            with started.stdout as outlet:
                file.write_text(outlet.readline())
            started.returncode = 0  # it outlives this process
        text = file.read_text()
    if not text:
        pytest.skip(f"Ray did not start: {(folder / 'ray.log').read_text()[-500:]}")
    return str(json.loads(text))


@pytest.fixture
def ray_cluster(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The cluster as the default of `RayExecutor`; the fixture is Ray's address."""
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    return ray_address
