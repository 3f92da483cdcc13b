"""ONNX Runtime as the engine of networks whose weights do not change: for features and predictions on a CPU.

It is chosen by a measurement like the rest of `Numerics`. An export takes seconds, so it must be repaid by faster
batches. The classifier layer stays torch's: it may be fitted after the export. Without the packages ``onnx`` and
``onnxruntime``, or with the environment variable ``SACCADE_ENGINE=torch``, torch computes everything.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import io
import math
import os
import time
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from saccade.errors import HyperparameterError
from saccade.models.batch_norm_folding import copy_sharing_parameters
from saccade.numerics.choice import LEAST_GAIN, MEMORY, PARTS, NumericsMemory, Workload
from saccade.numerics.device import Numerics

ENGINE_VARIABLE = "SACCADE_ENGINE"
TORCH, ONNX = "torch", "onnxruntime"  # values of `Numerics.engine`

LEAST_MEASURED = 300  # images of the work from which the engine is measured; timing torch takes the time of 24
EXPORT_S = 2.0  # expected time of an export
EXPECTED_GAIN = 1 / 3  # of torch's time that the engine typically saves; the expected gain must exceed the export
CHOSEN_IMAGES = 1000  # the faster one for so many images is chosen, export included
LEAST_EXPORTED = 200  # images from which an export is worth its time, if this engine is the choice
TIMES = ("export_s", "onnx_image_s", "torch_image_s")  # of a stored measurement, in seconds
ROUNDS = 3  # timed steps of both, in turns

MAX_CHANGE = 1e-4  # largest change of features that counts as rounding, relative to the largest feature
NUM_CHECKED = 4  # images of the first batch whose features are compared
OPSET = 17  # the first with layer normalisation as one operation


class OnnxNetwork(nn.Module):
    """A network whose features ONNX Runtime computes; its classifier layer is the given network's.

    `network` must be in evaluation mode on the CPU, with float32 weights that do not change, except those of the
    classifier layer. `x_BCHW` is an example of its input. The features of the first images are compared with torch's;
    if they differ, or the session fails, torch computes all others. Raises an error of any kind if the network has no
    single classifier layer at its end, or cannot be exported.
    """

    def __init__(self, network: nn.Module, x_BCHW: torch.Tensor) -> None:
        super().__init__()
        self.head: nn.Module = network.get_classifier()  # type: ignore[operator]
        (name,) = (name for name, module in network.named_modules() if module is self.head)
        parent, _, own_name = name.rpartition(".")
        self.backbone = copy_sharing_parameters(network)
        setattr(self.backbone.get_submodule(parent), own_name, nn.Identity())
        with torch.inference_mode():
            expected, found = network(x_BCHW), self.head(self.backbone(x_BCHW))
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=MAX_CHANGE, atol=MAX_CHANGE):
            raise ValueError("the classifier layer is not the last one")
        self._session: Any = _session(_exported(self.backbone, x_BCHW))
        self._process, self.is_checked = os.getpid(), False
        _networks.add(self)
        self.eval()

    def get_classifier(self) -> nn.Module:
        """Return the classifier layer, as timm's networks do."""
        return self.head

    @property
    def is_active(self) -> bool:
        """Whether ONNX Runtime computes the features."""
        return self._session is not None and self._process == os.getpid()  # its threads do not survive a fork

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the network's outputs."""
        outputs: torch.Tensor = self.head(self._features(x_BCHW))
        return outputs

    def _features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if self.is_active:
            try:
                features = torch.from_numpy(self._session.run(None, {"x": x_BCHW.contiguous().numpy()})[0])
            except Exception:  # no memory, for example; if torch fails as well, its error is reported
                self._session = None
            else:
                if self.is_checked or not x_BCHW.std() > 0:  # images of one colour, as of a warm-up, show little
                    return features
                self.is_checked = True
                expected = self.backbone(x_BCHW[:NUM_CHECKED])
                if (features[:NUM_CHECKED] - expected).abs().max() <= MAX_CHANGE * expected.abs().max():
                    return features
                self._session = None
        found: torch.Tensor = self.backbone(x_BCHW)
        return found


_networks: weakref.WeakSet[OnnxNetwork] = weakref.WeakSet()


def _after_fork() -> None:
    """Keep sessions for ever: the threads that a session waits for at its end do not survive a fork."""
    for network in _networks:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(network._session))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def _exported(network: nn.Module, x_BCHW: torch.Tensor) -> bytes:
    """Return a network as a file of ONNX for any number of images."""
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer, about shapes that it takes for constants
        # The older of torch's exporters takes a quarter of the time of the newer one.
        torch.onnx.export(
            network,
            (x_BCHW.clone(),),
            file,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["x"],
            output_names=["features"],
            opset_version=OPSET,
            dynamic_axes={"x": {0: "images"}, "features": {0: "images"}},
        )
    return file.getvalue()


def _session(exported: bytes) -> Any:
    # From 1.29 on, its import starts a thread that reports to Microsoft, unless this is set.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    # Threads that spin while they wait take the time of those they wait for, if another program is busy.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])


@cache
def _version() -> str | None:
    """Return the version of ONNX Runtime; None if it, or the package ``onnx`` for the export, is not installed."""
    try:
        return None if importlib.util.find_spec("onnx") is None else importlib.metadata.version(ONNX)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_available(numerics: Numerics) -> bool:
    """Return whether ONNX Runtime may compute what torch computes with these numerics."""
    engine = os.environ.get(ENGINE_VARIABLE, ONNX)
    if engine not in (TORCH, ONNX):
        raise HyperparameterError(f"{ENGINE_VARIABLE} is {engine!r}; expected {TORCH!r} or {ONNX!r}")
    return engine == ONNX and numerics.device.type == "cpu" and not numerics.compiled and _version() is not None


def choose_engine(
    numerics: Numerics,
    workload: Workload,
    network: Callable[[], nn.Module] | None = None,
    num_images: float = 0,
    seconds_left: float = math.inf,
    memory: NumericsMemory = MEMORY,
) -> tuple[Numerics, OnnxNetwork | None, float]:
    """Return the numerics of the faster engine, the exported network if it was measured now, and the gain.

    `numerics` are the best of torch for this workload. The choice is a stored one, or measured if `num_images` are
    enough and there is time; else it is torch. `network` returns the network with which torch predicts; without it
    nothing is measured. The gain is how many times as fast as torch the engine is.
    """
    if not is_available(numerics):
        return numerics, None, 1.0
    key, exported = f"{workload.key([numerics])} | {ONNX} {_version()}", None

    def is_worthwhile(torch_image_s: float) -> bool:
        return EXPECTED_GAIN * min(num_images * torch_image_s, seconds_left) >= EXPORT_S

    record = memory.get(key) or {}
    known_s = record.get("torch_image_s")
    is_open = not {"export_s", "error"} & record.keys() and (known_s is None or is_worthwhile(known_s))
    if is_open and network is not None and num_images >= LEAST_MEASURED:
        record, exported = _measured(numerics, workload, network(), is_worthwhile)
        memory.put(key, record)
    try:
        export_s, onnx_s, torch_s = (float(record[name]) for name in TIMES)
    except (KeyError, TypeError, ValueError):  # not measured, an error, or a record of another version
        return numerics, None, 1.0
    if LEAST_GAIN * (export_s + CHOSEN_IMAGES * onnx_s) >= CHOSEN_IMAGES * torch_s:
        return numerics, None, 1.0
    return replace(numerics, dtype=torch.float32, num_threads=None, engine=ONNX), exported, torch_s / onnx_s


@torch.inference_mode()
def _measured(
    numerics: Numerics, workload: Workload, network: nn.Module, is_worthwhile: Callable[[float], bool]
) -> tuple[dict[str, Any], OnnxNetwork | None]:
    """Return the times of both engines and the export; of torch alone if it would hardly be repaid, or has an error."""
    num, *sides = workload.shape
    x_BCHW = torch.randn(max(2, round(num * PARTS[-1])), *sides, generator=torch.Generator().manual_seed(0))
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)  # as `Batches` are

    # On one thread, CPU time of this thread excludes what other programs take.
    now = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

    def image_s(compute: Callable[[torch.Tensor], torch.Tensor], of: Numerics) -> float:
        with of.threads(), of.autocast():
            start_s = now()
            compute(x_BCHW)
            return (now() - start_s) / len(x_BCHW)

    image_s(network, numerics)  # includes setup
    torch_s = [image_s(network, numerics)]
    if not is_worthwhile(torch_s[0]):
        return {"torch_image_s": torch_s[0]}, None
    start_s = now()
    try:
        exported = OnnxNetwork(network, x_BCHW[:1])
    except Exception as error:  # many kinds: operations that ONNX lacks, control flow, no memory
        return {"error": f"{type(error).__name__}: {error}"[:200]}, None
    float32 = replace(numerics, dtype=torch.float32, num_threads=None)
    image_s(exported, float32)
    export_s, onnx_s = now() - start_s, []
    if not exported.is_active:
        return {"error": "other features"}, None
    for _ in range(ROUNDS):
        onnx_s.append(image_s(exported, float32))
        torch_s.append(image_s(network, numerics))
    exported.is_checked = False  # on real images again
    return dict(zip(TIMES, (export_s, min(onnx_s), min(torch_s)), strict=True)), exported
