"""The files for clusters: the KubeRay manifest has the fields that KubeRay demands, and the Slurm script runs."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from saccade.fit.config_file import FitConfig
from saccade.fit.options import option_flag

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

# Fields of KubeRay's ray.io/v1 (version 1.5.1) that the manifest may use, and those that it must.
SPEC = {
    "rayVersion",
    "authOptions",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headGroupSpec",
    "workerGroupSpecs",
}
HEAD, HEAD_NEEDS = {"rayStartParams", "serviceType", "template"}, {"template"}
WORKERS = {"groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template"}
WORKERS_NEED = {"groupName", "minReplicas", "maxReplicas", "template"}


@pytest.fixture(scope="module")
def kuberay() -> dict[str, dict[str, Any]]:
    parts = yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text(encoding="utf-8"))
    return {part["kind"]: part for part in parts}


def version_of_ray() -> str:
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        pytest.skip("Ray is not installed")


def pods(kuberay: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    spec = kuberay["RayCluster"]["spec"]
    (workers,) = spec["workerGroupSpecs"]
    templates = {"head": spec["headGroupSpec"], "worker": workers, "fit": kuberay["Job"]["spec"]}
    return {name: part["template"]["spec"] for name, part in templates.items()}


def test_the_ray_cluster_has_the_fields_of_kuberay(kuberay: dict[str, dict[str, Any]]) -> None:
    cluster = kuberay["RayCluster"]
    assert cluster["apiVersion"] == "ray.io/v1"
    spec = cluster["spec"]
    assert spec.keys() <= SPEC
    assert spec["authOptions"] == {"mode": "token"}
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert HEAD_NEEDS <= head.keys() <= HEAD
    assert WORKERS_NEED <= workers.keys() <= WORKERS
    assert 1 <= workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (head, workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}  # Ray's resources are made of them


def test_versions_are_those_of_the_installed_ray(kuberay: dict[str, dict[str, Any]]) -> None:
    version = version_of_ray()
    assert kuberay["RayCluster"]["spec"]["rayVersion"] == version
    docker = (DEPLOY / "Dockerfile.ray").read_text(encoding="utf-8")
    assert set(re.findall(r"rayproject/ray:([\d.]+)-", docker)) == {version}
    for source in re.findall(r"^COPY --chown=ray (.*) \S+$", docker, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


def test_the_image_passes_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile.ray"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_pods_are_restricted_and_have_one_image(kuberay: dict[str, dict[str, Any]]) -> None:
    found = pods(kuberay)
    assert len({pod["containers"][0]["image"] for pod in found.values()}) == 1
    for name, pod in found.items():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] == (name == "head")
        (container,) = pod["containers"]
        security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == security
        assert container["envFrom"] == [{"secretRef": {"name": "saccade-storage", "optional": True}}]


def test_only_the_cluster_and_fits_reach_it(kuberay: dict[str, dict[str, Any]]) -> None:
    policy, job, cluster = kuberay["NetworkPolicy"]["spec"], kuberay["Job"]["spec"], kuberay["RayCluster"]
    name = cluster["metadata"]["name"]
    own = {"matchLabels": {"ray.io/cluster": name}}  # KubeRay's label of all pods of a cluster
    assert policy["podSelector"] == own
    nodes, fits = policy["ingress"]
    assert nodes == {"from": [{"podSelector": own}]}
    assert fits["from"] == [{"podSelector": {"matchLabels": job["template"]["metadata"]["labels"]}}]
    ports = {each["name"]: each["containerPort"] for each in pods(kuberay)["head"]["containers"][0]["ports"]}
    assert [each["port"] for each in fits["ports"]] == [ports["client"]]
    (container,) = job["template"]["spec"]["containers"]
    assert f"--address=ray://{name}-head-svc:{ports['client']}" in container["args"]
    secret = next(each for each in container["env"] if each["name"] == "RAY_AUTH_TOKEN")["valueFrom"]["secretKeyRef"]
    assert secret == {"name": name, "key": "auth_token"}  # that the operator makes


def options_of_fit() -> set[str]:
    return {f"--{option_flag(FitConfig, name).replace('_', '-')}" for name in FitConfig.model_fields}


def test_options_exist(kuberay: dict[str, dict[str, Any]]) -> None:
    (container,) = pods(kuberay)["fit"]["containers"]
    assert container["command"][:2] == ["saccade", "fit"]
    of_manifest = {argument.partition("=")[0] for argument in container["args"]}
    of_script = set(re.findall(r" (--\w[\w-]*)", slurm().read_text().splitlines()[-1]))
    assert of_script >= {"--resume", "--executor", "--address"}
    assert of_manifest | of_script <= options_of_fit() | {"--resume", "--out"}


def slurm() -> Path:
    return DEPLOY / "slurm.sh"


def test_the_slurm_script_passes_shellcheck() -> None:
    if (shellcheck := shutil.which("shellcheck")) is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, slurm()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


COMMANDS = {
    "scontrol": 'echo "$@" >&2; printf "node1\\nnode2\\nnode3\\n"',
    # Steps run on this machine, as processes of the script.
    "srun": 'echo "srun $*" >>"$LOG"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "hostname": "echo 127.0.0.1 10.0.0.1",
    "ray": f"""
echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >>"$TOKENS"
[[ $* != *--address=* ]] || exec sleep 60
port=$(sed 's/.*--port=\\([0-9]*\\).*/\\1/' <<<"$*")
exec {sys.executable} -c "import socket, time; s = socket.create_server(('127.0.0.1', $port)); time.sleep(60)"
""",
    "saccade": """
until (( $(wc -l <"$TOKENS") == 2 )); do sleep 0.05; done
echo "saccade $*" >>"$LOG"
echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >>"$TOKENS"
exit 3
""",
}


def test_the_slurm_script_starts_a_cluster_and_ends_it(tmp_path: Path) -> None:
    commands, log, tokens = tmp_path / "bin", tmp_path / "log", tmp_path / "tokens"
    commands.mkdir()
    for name, text in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(stat.S_IRWXU)
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_CPUS_PER_TASK": "8"}
    found = {"PATH": f"{commands}:{os.environ['PATH']}", "LOG": str(log), "TOKENS": str(tokens)}
    done = subprocess.run(
        ["bash", slurm(), "photos", "--out", "run"],
        env={**os.environ, **job, **found},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr  # that of the fit; and the script has waited for the end of all steps
    hostname, head, workers, fit = log.read_text().splitlines()
    address = f"127.0.0.1:{20000 + os.getpid() % 10000}"
    assert hostname.endswith("--nodelist=node1 hostname --ip-address")
    assert "--nodes=1 --nodelist=node1 ray start --head" in head
    assert f"--nodes=2 --exclude=node1 ray start --address={address}" in workers
    for step in (head, workers):
        assert {"--cpus-per-task=8", "--block", "--num-cpus=8", "--num-gpus=0"} <= set(step.split())
    assert fit == f"saccade fit photos --out run --resume --executor ray --address {address}"
    (token,) = {*tokens.read_text().splitlines()}
    assert re.fullmatch("token [0-9a-f]{64}", token)
