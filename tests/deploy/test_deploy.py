"""The files of `deploy/` are valid, fit each other, and name what exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")


def load(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def requirements() -> dict[str, Requirement]:
    lines = (DEPLOY / "requirements-onnx.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {each.name.lower(): each for each in found}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfiles_pass_hadolint(name: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, DEPLOY / name], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfiles_copy_what_exists_and_are_not_root(name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    assert "USER 10001:10001" in text
    assert "HEALTHCHECK" in text
    assert 'CMD ["/model' in text


def test_ports_paths_and_users_agree() -> None:
    docker = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    port = re.findall(r"^EXPOSE (\d+)$", docker, re.MULTILINE)
    command = re.findall(r"^CMD \[(.*)\]$", docker, re.MULTILINE)[-1].replace('"', "").split(", ")
    assert port == ["8000"]
    assert command == ["/model/model.onnx", "--host", "0.0.0.0", "--port", "8000"]
    (compose,), (prometheus,) = load("compose.yaml"), load("prometheus.yml")
    server = compose["services"]["saccade"]
    assert server["ports"] == ["127.0.0.1:8000:8000"]
    assert server["volumes"][0]["target"] == "/model"
    assert server["read_only"]
    assert (ROOT / "deploy" / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    (job,) = prometheus["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["saccade:8000"]
    for volume in compose["services"]["prometheus"]["volumes"]:
        source = volume.partition(":")[0]
        assert (DEPLOY / source).is_file() if source.startswith(".") else source in compose["volumes"]
    deployment, service = load("kubernetes.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == command
    assert container["ports"] == [{"name": "http", "containerPort": 8000}]
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in docker
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_probes_and_options_exist_in_the_server() -> None:
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    app = (ROOT / "src/saccade/serve/app.py").read_text(encoding="utf-8")
    from saccade.serve.app import PUBLIC
    from saccade.serve.settings import KEY_VARIABLE, ServerSettings

    container = load("kubernetes.yaml")[0]["spec"]["template"]["spec"]["containers"][0]
    paths = {container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")}
    assert paths <= set(PUBLIC)  # probes have no key
    assert set(re.findall(r"http://127\.0\.0\.1:8000(/\w+)", (DEPLOY / "Dockerfile").read_text())) <= set(PUBLIC)
    assert '"/metrics"' in app
    assert container["env"][0]["name"] == KEY_VARIABLE
    settings = ServerSettings(host="0.0.0.0", port=8000)
    grace_s = load("kubernetes.yaml")[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > settings.timeout_s


def test_the_requirements_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    known = {each.name.lower(): each for each in map(Requirement, named)}
    for name, requirement in requirements().items():
        assert str(requirement.specifier) == str(known[name].specifier)
    serve = {Requirement(each).name.lower() for each in project["optional-dependencies"]["serve"]}
    assert serve <= requirements().keys()


def test_the_requirements_suffice_to_import_the_server(tmp_path: Path) -> None:
    found: set[str] = set()
    waiting = list(requirements())
    while waiting:
        name = waiting.pop().lower()
        if name in found:
            continue
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
        found.add(name)
        of_it = [Requirement(each) for each in needs]
        waiting += [each.name for each in of_it if each.marker is None or each.marker.evaluate({"extra": ""})]
    normal = {name.replace("_", "-").replace(".", "-") for name in found}
    blocked = sorted(
        module
        for module, owners in packages_distributions().items()
        if not {owner.lower().replace("_", "-").replace(".", "-") for owner in owners} & {*normal, "saccade"}
    )
    assert {"torch", "sklearn", "pandas"} <= set(blocked)
    code = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from saccade.cli.app import app
from saccade.export.onnx_model import OnnxModel
from saccade.serve import app as _, models, server
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
