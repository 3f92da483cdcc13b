from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from saccade.errors import HyperparameterError
from saccade.models.network import build_network
from saccade.numerics import engine as module
from saccade.numerics.choice import NumericsMemory, Workload
from saccade.numerics.device import Numerics, cpu_threads
from saccade.numerics.engine import ENGINE_VARIABLE, LEAST_MEASURED, MAX_CHANGE, ONNX, OnnxNetwork, choose_engine

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

SIDE = 32
CPU = Numerics(torch.device("cpu"))
WORKLOAD = Workload("inference", "a network", (8, 3, SIDE, SIDE))


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, 3, pretrained=False).eval()


@pytest.fixture(scope="module")
def cnn() -> nn.Module:
    return network_of("test_byobnet")


@pytest.fixture
def memory(tmp_path: Path) -> NumericsMemory:
    return NumericsMemory(tmp_path / "numerics.json")


@pytest.mark.parametrize("name", ["test_byobnet", "test_efficientnet", "test_vit", "test_convnext"])
@torch.inference_mode()
def test_outputs_are_those_of_torch_for_any_number_of_images(name: str) -> None:
    network = network_of(name)
    side = 160 if name == "test_vit" else SIDE
    x_BCHW = torch.randn(5, 3, side, side)
    exported = OnnxNetwork(network, x_BCHW[:1])
    for images in (x_BCHW, x_BCHW[:2].contiguous(memory_format=torch.channels_last)):
        expected = network(images)
        change = (exported(images) - expected).abs().max()
        assert change <= 1e-5 * expected.abs().max()
    assert exported.is_active
    assert exported.is_checked


@torch.inference_mode()
def test_the_classifier_layer_stays_the_networks(cnn: nn.Module) -> None:
    exported = OnnxNetwork(cnn, torch.zeros(1, 3, SIDE, SIDE))
    assert exported.get_classifier() is cnn.get_classifier()  # type: ignore[operator]
    x_BCHW, head = torch.randn(2, 3, SIDE, SIDE), exported.head
    before = head.weight.clone()  # type: ignore[operator, union-attr]
    try:
        head.weight.mul_(2)  # type: ignore[operator, union-attr]
        torch.testing.assert_close(exported(x_BCHW), cnn(x_BCHW))
    finally:
        head.weight.copy_(before)  # type: ignore[operator, union-attr]


@torch.inference_mode()
def test_torch_continues_after_other_features_or_a_failure(cnn: nn.Module) -> None:
    x_BCHW = torch.randn(4, 3, SIDE, SIDE)
    exported = OnnxNetwork(cnn, x_BCHW[:1])
    session = exported._session

    def changed(factor: float) -> SimpleNamespace:
        return SimpleNamespace(run=lambda *given: [session.run(*given)[0] * factor])

    for factor, is_active in ((1 + MAX_CHANGE / 10, True), (1 + 10 * MAX_CHANGE, False), (math.nan, False)):
        exported._session, exported.is_checked = changed(factor), False
        exported(torch.zeros(2, 3, SIDE, SIDE))
        assert not exported.is_checked  # one colour shows little
        torch.testing.assert_close(exported(x_BCHW), cnn(x_BCHW), rtol=1e-3, atol=1e-4)
        assert exported.is_active is is_active

    exported._session = SimpleNamespace(run=lambda *_: (_ for _ in ()).throw(RuntimeError("no memory")))
    torch.testing.assert_close(exported(x_BCHW), cnn(x_BCHW))
    assert not exported.is_active


class _TwoLayersAtTheEnd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(x_BCHW.mean((2, 3))).sigmoid()  # type: ignore[no-any-return]


class _Unexportable(_TwoLayersAtTheEnd):
    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(torch.linalg.eigvalsh(x_BCHW @ x_BCHW.mT).mean(-1))  # type: ignore[no-any-return]


@pytest.fixture
def always_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if an export took no time."""
    monkeypatch.setattr(module, "EXPORT_S", 0.0)


@pytest.mark.usefixtures("always_measured")
@pytest.mark.parametrize("kind", [_TwoLayersAtTheEnd, _Unexportable, nn.Identity])
def test_a_network_that_cannot_be_exported_is_left_to_torch_and_not_tried_again(
    kind: type[nn.Module], memory: NumericsMemory
) -> None:
    assert choose_engine(CPU, WORKLOAD, kind, LEAST_MEASURED, memory=memory) == (CPU, None, 1.0)
    assert "error" in memory.path.read_text()
    again = choose_engine(CPU, WORKLOAD, lambda: pytest.fail("tried again"), LEAST_MEASURED, memory=memory)
    assert again == (CPU, None, 1.0)


def _timed(monkeypatch: pytest.MonkeyPatch, *, torch_s: float, onnx_s: float, export_s: float) -> None:
    """Replace the clock by one on which a step of 2 images and an export take so long."""
    clock = {"now": 0.0}

    class Exported(nn.Module):
        is_active = True

        def __init__(self, *_: Any) -> None:
            super().__init__()
            clock["now"] += export_s

        def forward(self, _: torch.Tensor) -> None:
            clock["now"] += 2 * onnx_s

    monkeypatch.setattr(module, "OnnxNetwork", Exported)
    monkeypatch.setattr(
        module, "time", SimpleNamespace(perf_counter=lambda: clock["now"], thread_time=lambda: clock["now"])
    )

    class Torch(nn.Module):
        def forward(self, _: torch.Tensor) -> None:
            clock["now"] += 2 * torch_s

    monkeypatch.setattr(module, "_torch_for_tests", Torch, raising=False)


@pytest.mark.parametrize(
    ("torch_s", "onnx_s", "export_s", "is_faster"),
    [(0.05, 0.025, 2.0, True), (0.05, 0.045, 20.0, False), (0.05, 0.049, 0.0, False), (0.05, 0.1, 0.0, False)],
)
def test_the_faster_engine_is_chosen_export_included_and_remembered(
    memory: NumericsMemory,
    monkeypatch: pytest.MonkeyPatch,
    torch_s: float,
    onnx_s: float,
    export_s: float,
    is_faster: bool,
) -> None:
    _timed(monkeypatch, torch_s=torch_s, onnx_s=onnx_s, export_s=export_s)
    given = replace(CPU, dtype=torch.bfloat16, num_threads=1)
    chosen, exported, gain = choose_engine(given, WORKLOAD, module._torch_for_tests, 1000, memory=memory)  # type: ignore[attr-defined]
    expected = replace(CPU, engine=ONNX) if is_faster else given
    assert chosen == expected
    assert (exported is not None) == is_faster
    assert gain == pytest.approx(torch_s / onnx_s if is_faster else 1.0)
    # In another process, whatever the number of images and the time that is left.
    known = choose_engine(given, WORKLOAD, None, 1, 0.0, NumericsMemory(memory.path))
    assert known == (expected, None, pytest.approx(gain))
    assert choose_engine(given, replace(WORKLOAD, network="another"), memory=memory)[0] == given


@pytest.mark.parametrize(
    ("num_images", "seconds_left"), [(LEAST_MEASURED - 1, math.inf), (1000, 3.0), (LEAST_MEASURED, math.inf)]
)
def test_nothing_is_exported_without_enough_work_or_time(
    memory: NumericsMemory, monkeypatch: pytest.MonkeyPatch, num_images: int, seconds_left: float
) -> None:
    _timed(monkeypatch, torch_s=0.01, onnx_s=0.001, export_s=1.0)
    found = choose_engine(CPU, WORKLOAD, module._torch_for_tests, num_images, seconds_left, memory)  # type: ignore[attr-defined]
    assert found == (CPU, None, 1.0)
    again = choose_engine(CPU, WORKLOAD, lambda: pytest.fail("timed again"), num_images, seconds_left, memory)
    assert again == (CPU, None, 1.0)
    found = choose_engine(CPU, WORKLOAD, module._torch_for_tests, 10_000, memory=memory)  # type: ignore[attr-defined]
    assert found[0].engine == ONNX


def test_the_engine_needs_its_packages_a_cpu_and_permission(
    memory: NumericsMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"{WORKLOAD.key([CPU])} | {ONNX} {module._version()}"
    memory.put(key, {"export_s": 1.0, "onnx_image_s": 0.01, "torch_image_s": 0.1})

    def engine(numerics: Numerics = CPU) -> str:
        return choose_engine(numerics, WORKLOAD, memory=memory)[0].engine

    assert engine() == ONNX
    monkeypatch.setenv(ENGINE_VARIABLE, "torch")
    assert engine() == "torch"
    monkeypatch.setenv(ENGINE_VARIABLE, "onx")
    with pytest.raises(HyperparameterError, match=r"SACCADE_ENGINE is 'onx'; expected 'torch' or 'onnxruntime'"):
        engine()
    monkeypatch.delenv(ENGINE_VARIABLE)
    assert engine(replace(CPU, compiled=True)) == engine(Numerics(torch.device("meta"))) == "torch"

    def absent(_: str) -> str:
        raise module.importlib.metadata.PackageNotFoundError

    for where, name, found in (("util", "find_spec", lambda _: None), ("metadata", "version", absent)):
        with monkeypatch.context() as patch:
            patch.setattr(getattr(module.importlib, where), name, found)
            module._version.cache_clear()
            assert engine() == "torch"
        module._version.cache_clear()
    memory.put(key, {"export_s": "unknown"})
    assert engine() == "torch"


def test_threads_are_torchs_and_do_not_spin(cnn: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    given: list[Any] = []
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, **how: given.append(args) or make(*args, **how))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    OnnxNetwork(cnn, torch.zeros(1, 3, SIDE, SIDE))
    ((_, options),) = given
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_predicts_with_torch_and_ends(cnn: nn.Module) -> None:
    x_BCHW = torch.randn(3, 3, SIDE, SIDE)
    with cpu_threads(2):
        exported = OnnxNetwork(cnn, x_BCHW[:1])
    expected = exported(x_BCHW)
    pid = os.fork()
    if pid == 0:
        is_right = False
        try:
            is_right = torch.allclose(exported(x_BCHW), expected, atol=1e-5) and not exported.is_active
            exported._session = None  # it would wait for threads that the fork does not have
        finally:
            os._exit(0 if is_right else 3)
    status = None
    for _ in range(600):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        pytest.fail("the fork did not end")
    assert os.waitstatus_to_exitcode(status) == 0
