"""The server of an exported ONNX file, where only the libraries are installed that it needs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import numpy as np
import pandas as pd
import pytest

from contracts.servers import check_answers, serving, variants
from saccade import ImagePredictor
from saccade.serve.models import ServedOnnx

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

# Its own libraries, their dependencies, and the standard library; what saccade requires besides cannot be imported.
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv = ["saccade", *{arguments!r}]
from saccade.cli import main
main()
"""
BLOCKED = (
    "cloudpickle", "cmaes", "filelock", "httpx2", "huggingface_hub", "matplotlib", "onnx", "optuna", "pandas",
    "safetensors", "scipy", "sklearn", "threadpoolctl", "timm", "tomli_w", "torch", "torchvision",
)  # fmt: skip


def start(*arguments: str) -> subprocess.Popen[str]:
    code = WITHOUT.format(blocked=BLOCKED, arguments=arguments)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check(client: httpx2.Client, predictor: ImagePredictor, kind: str) -> None:
    """Compare the answers of a server with the predictor of its file."""
    files = variants()
    answers = client.post("/predict", files=[("files", each) for each in files.items()]).json()["predictions"]
    assert client.post("/explain", files={"files": files["plain.png"]}).status_code == 404
    info = client.get("/model").json()
    assert client.post("/predict", files={"files": b"x"}).status_code == 422
    check_answers(predictor, answers, list(files.values()), 1e-4)
    assert info["class_names"] == predictor.class_names
    assert info["can_explain"] is info["can_embed"] is False
    if kind == "multilabel":
        return
    sets = [list(each) for each in predictor.predict_set(list(files.values()), as_pandas=False)]
    found_sets = [answer["set"] for answer in answers]
    if kind == "classes":
        assert found_sets == sets
    else:
        np.testing.assert_allclose(found_sets, sets, rtol=1e-3)


def test_an_exported_file_is_served_without_torch(predictor: ImagePredictor, tmp_path: Path) -> None:
    file = predictor.export("onnx", tmp_path / "model.onnx", check=False)  # which the tests of exports do
    server = start("serve", file, "--port", "0")
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        found = re.search(r"http://[\d.:]+", line)
        assert found, (line, server.communicate(timeout=30)[1])
        with httpx2.Client(base_url=found[0], trust_env=False, timeout=60) as client:
            check(client, predictor, "classes")
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_exported_files_of_other_problems(
    kind: str, frame: pd.DataFrame, fit_tiny: Callable[..., ImagePredictor], tmp_path: Path
) -> None:
    if kind == "multilabel":
        labels = frame["label"].map({"r": ["warm"], "g": [], "b": ["cold", "blue"]})
        predictor = fit_tiny(pd.DataFrame({"image": frame["image"], "label": labels}), "exported_lists")
    else:
        labelled = frame[["image"]].assign(label=frame["value"])
        predictor = fit_tiny(labelled, "exported_numbers", problem_type="regression")
    file = predictor.export("onnx", tmp_path / "model.onnx", check=False)
    with serving(ServedOnnx(Path(file))) as served:
        check(served.client, predictor, kind)


def test_a_file_of_others_is_refused_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    server = start("serve", str(tmp_path / "model.onnx"), "--port", "0")
    assert "is not an ONNX file" in (errors := server.communicate(timeout=60)[1])
    assert "Traceback" not in errors
    assert server.returncode == 2
