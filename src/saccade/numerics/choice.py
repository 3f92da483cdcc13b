"""Choose numerics by measuring: a few steps of each candidate; the fastest one with correct results wins.

No number format or memory format is the fastest for every network: 16 bits make dense convolutions and attention about
twice as fast on processors that support them, and depthwise convolutions slower in training. So each combination of
network, batch size, image size, device and number of threads is measured once, on a copy of the network with noise.

Choices are stored in ``numerics.json`` in the cache folder, so a seed gives the same numbers again on the same machine.
Another machine, or an emptied cache, may change the last digits; hyperparameters ``amp`` and ``channels_last`` fix the
choice where that matters.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import hashlib
import json
import math
import os
import platform
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional

from saccade.models.network import classifier_parameters
from saccade.numerics.device import Numerics, half_precision, is_half_native
from saccade.remote.urls import cache_folder

TRAINING_PART = 0.025  # fraction of a trial's training steps that measuring may take, once for all similar trials
INFERENCE_PART = 0.0125  # the same for validation

# The same for short trials, where it would be too little to measure anything.
# On average the trial gains it back: the best numerics take a third to all of the time of the default.
SHORT_PART = 0.1

PREDICTION_PART = 0.05  # fraction of the batches of a prediction that measuring may take
LEAST_S = 0.2  # with less time than this nothing is measured: the first step alone may take longer
PARTS = (1.0, 0.5, 0.25)  # parts of a batch that are measured; the ratio of two candidates depends little on it
LEAST_STEPS = 6  # steps of two candidates: a timed one each, and a warm-up that takes up to twice as long
ROUNDS = 3  # timed steps of each candidate, if there is time
LEAST_GAIN = 1.05  # how many times as fast as those before it a candidate must be, so that noise does not decide
HOPELESS = 1.3  # a candidate that takes this many times as long as the best is not measured further
MANY_THREADS = 4  # CPU threads from which half as many are a candidate: small networks lose time synchronising threads
STAGES = ("dtype", "channels_last", "num_threads")  # fields of `Numerics`, varied in this order

# Over 17 networks, 16 bits changed the loss of a batch of noise by at most 0.5 % and the norm of its gradient by 4 %
# (batch statistics of 4 images). Overflow and cancellation are far beyond these limits.
MAX_LOSS_CHANGE = 0.05
MAX_GRADIENT_CHANGE = 0.25
MAX_OUTPUT_CHANGE = 0.05
_LOSS_SCALE = 128.0  # small gradients underflow in float16

Result = tuple[float, float, float, torch.Tensor]  # seconds of a step, loss, norm of the gradient, outputs

Purpose = Literal["training", "inference"]


@dataclass(frozen=True)
class Workload:
    """What numerics are chosen for."""

    purpose: Purpose
    network: str  # the architecture: timm's name, or `structure_name`
    shape: tuple[int, int, int, int]  # of a batch: (images, channels, height, width)

    def key(self, among: list[Numerics]) -> str:
        """Return the key of a choice among these candidates on this machine."""
        shape, listed = "x".join(map(str, self.shape)), "; ".join(sorted(map(str, among)))
        return f"{self.purpose} | {self.network} | {shape} | {machine(among[0].device)} | {listed}"


def structure_name(network: nn.Module, name: str | None = None, *, is_trained: bool = True) -> str:
    """Return a name of a network's arithmetic: timm's, or a hash of modules and shapes; and the trained part."""
    if name is None:
        parts = [f"{key} {type(module).__qualname__}" for key, module in network.named_modules()]
        parts += [f"{key} {tuple(parameter.shape)}" for key, parameter in network.named_parameters()]
        name = "own " + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    if not is_trained:
        return name
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return f"{name} with {sum(n for n, trained in sizes if trained)} of {sum(n for n, _ in sizes)} weights trained"


def candidates(
    device: torch.device,
    purpose: Purpose,
    amp: bool | None = None,
    channels_last: bool | None = None,
    compiled: bool = False,
) -> list[Numerics]:
    """Return the candidates, the default first; arguments that are not None fix a property of all.

    float16 is never chosen for inference, where no gradient scaler would detect an overflow.
    """
    default = Numerics.choose(device, amp, channels_last, compiled)
    dtypes = [default.dtype]
    if amp is None and is_half_native(device):
        half = half_precision(device)
        is_allowed = purpose == "training" or half is torch.bfloat16
        dtypes = list(dict.fromkeys([default.dtype, torch.float32, half])) if is_allowed else [torch.float32]
    found = [replace(default, dtype=dtype) for dtype in dtypes]
    if channels_last is None:
        found += [replace(numerics, channels_last=False) for numerics in found]
    if device.type == "cpu" and (num_threads := torch.get_num_threads()) >= MANY_THREADS:
        found += [replace(numerics, num_threads=num_threads // 2) for numerics in found]
    return found


def num_steps_for_measuring(num_steps: float, part: float) -> float:
    """Return how many of `num_steps` steps measuring may take; `part` is `TRAINING_PART` or `INFERENCE_PART`."""
    return max(part * num_steps, min(SHORT_PART * num_steps, LEAST_STEPS * PARTS[-1]))


class NumericsMemory:
    """Choices by their key, in this process and in a JSON file.

    A file that cannot be read or written, or an entry lost to another process, only costs another measurement. The
    default `path` is ``numerics.json`` in the cache folder (``$SACCADE_CACHE``, or the platform's default).
    """

    MAX_CHOICES = 1000

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[tuple[Path, str], dict[str, Any]] = {}

    @property
    def path(self) -> Path:
        """The file."""
        return cache_folder() / "numerics.json" if self._path is None else self._path

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the choice of this key, if there is one."""
        if (self.path, key) not in self._known and (choice := self._read().get(key)) is not None:
            self._known[self.path, key] = choice
        return self._known.get((self.path, key))

    def put(self, key: str, choice: dict[str, Any]) -> None:
        """Add a choice, and replace the file atomically."""
        self._known[self.path, key] = choice
        choices = self._read()
        choices.pop(key, None)  # the newest is last
        choices = dict([*choices.items(), (key, choice)][-self.MAX_CHOICES :])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump({"choices": choices}, file, indent=1)
                Path(temporary).replace(self.path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError:  # a full disk or a read-only folder: this process has the choice all the same
            return

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            choices = json.loads(self.path.read_text(encoding="utf-8"))["choices"]
            if isinstance(choices, dict) and all(isinstance(choice, dict) for choice in choices.values()):
                return choices
            fault = "it has no choices"
        except OSError:  # there is no file yet
            return {}
        except (ValueError, KeyError, TypeError) as error:
            fault = f"{type(error).__name__}: {error}"
        warnings.warn(f"{self.path} is damaged and will be replaced ({fault})", stacklevel=3)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)  # so that there is one warning
        return {}


MEMORY = NumericsMemory()  # of this process; a worker shares it among its trials


def choose_numerics(
    network: nn.Module,
    workload: Workload,
    among: list[Numerics],
    num_steps: float,
    limit_s: float = math.inf,
    memory: NumericsMemory = MEMORY,
) -> Numerics:
    """Return the fastest of the candidates: the stored choice, or a measured one if there is time; else the first.

    `network`, in the mode of the work itself, is not changed. Measuring takes at most `num_steps` steps of the workload
    and `limit_s`. If these are few, fewer images are used; below a quarter of a batch, or `LEAST_S`, nothing is
    measured. A choice by part of a batch is measured again when there is more time.
    """
    if len(among) == 1:
        return among[0]
    key = workload.key(among)
    part = next((part for part in PARTS if num_steps >= LEAST_STEPS * part), 0.0)
    stored = known_choice(workload, among, part, memory)
    if stored is not None:
        return stored
    if not part or limit_s < LEAST_S:
        return among[0]
    device = among[0].device
    num, *sides = workload.shape
    shape = (max(min(2, num), round(num * part)), *sides)  # one image has no batch statistics
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        bench = Bench(network, workload.purpose == "training", shape)  # type: ignore[arg-type]
        measurement = _Measurement(bench, num_steps / part, limit_s)
        try:
            chosen = measurement.fastest(among)
        except Exception:  # no time; or an error such as too little memory, which the work itself reports better
            return among[0]
        finally:
            bench.clear()
    memory.put(key, {"numerics": chosen.to_json(), "part": part, "step_ms": measurement.step_ms()})
    return chosen


def known_choice(
    workload: Workload, among: list[Numerics], part: float = 0.0, memory: NumericsMemory = MEMORY
) -> Numerics | None:
    """Return the stored choice by measurements of at least this part of a batch; None if there is none."""
    record = memory.get(workload.key(among)) or {}
    try:
        stored, stored_part = Numerics.from_json(record["numerics"], among[0].device), float(record["part"])
    except (KeyError, TypeError, ValueError, AttributeError):  # nothing, or a record of another version
        return None
    return stored if stored in among and stored_part >= part else None


class _NoTimeError(Exception):
    """Measuring would take too long."""


class _Measurement:
    """Times of candidates, measured in turns for `limit_s` seconds and `max_steps` steps of the fastest at most."""

    def __init__(self, bench: Bench, max_steps: float, limit_s: float) -> None:
        self._bench, self._max_steps, self._limit_s = bench, max_steps, limit_s
        self._step_s: dict[Numerics, float] = {}  # the fastest step of each
        self._spent_s = 0.0

    def step_ms(self) -> dict[str, float]:
        """Return the milliseconds of a step by candidate."""
        return {str(numerics): round(1000 * step_s, 3) for numerics, step_s in self._step_s.items()}

    def fastest(self, among: list[Numerics]) -> Numerics:
        """Vary one property after the other, each from the best so far; without time for two, raise a _NoTimeError."""
        # All others are compared with float32.
        float32 = replace(among[0], dtype=torch.float32)
        first = float32 if float32 in among else among[0]
        reference = self._take_step(first)
        if LEAST_STEPS / 2 * self._spent_s > self._limit_s:
            raise _NoTimeError
        self._time(first)
        if not self._has_time(2):
            raise _NoTimeError
        for stage in STAGES:
            best = self._best(among)
            others = [each for each in among if each != best and replace(each, **{stage: getattr(best, stage)}) == best]
            self._measure(others, reference)
        return self._best(among)

    def _measure(self, others: list[Numerics], reference: Result) -> None:
        """Time more candidates; leave out those with wrong results, and early those that are slow."""

        def is_right(numerics: Numerics) -> bool:
            try:  # after this warm-up step
                return is_sound(self._take_step(numerics), reference)
            except Exception:  # no kernel for this format, no memory, or an error of a custom network
                return False

        sound = [each for each in others if self._has_time(2) and is_right(each)]
        known = list(self._step_s) if sound else []
        before = min(self._step_s, key=self._step_s.__getitem__)
        for round_ in range(ROUNDS):
            for each in sound if round_ == 0 else sound + known:
                is_hopeless = round_ > 0 and self._step_s[each] > HOPELESS * min(self._step_s.values())
                if round_ == 0 or (not is_hopeless and self._has_time(1)):
                    self._time(each)
        # Another program may have slowed just the steps of the former best, and the choice would be stored.
        if (best := min(self._step_s, key=self._step_s.__getitem__)) != before:
            self._time(before)
            self._time(best)

    def _best(self, among: list[Numerics]) -> Numerics:
        """Return the first candidate in the list that is about as fast as the fastest."""
        most_s = LEAST_GAIN * min(self._step_s.values())
        return next(each for each in among if each in self._step_s and self._step_s[each] < most_s)

    def _left_s(self) -> float:
        return min(self._max_steps * min(self._step_s.values()), self._limit_s) - self._spent_s

    def _has_time(self, num_steps: int) -> bool:
        return num_steps * min(self._step_s.values()) <= self._left_s()

    def _time(self, numerics: Numerics) -> None:
        self._step_s[numerics] = min(self._take_step(numerics)[0], self._step_s.get(numerics, math.inf))

    def _take_step(self, numerics: Numerics) -> Result:
        start_s = time.perf_counter()
        result = self._bench.step(numerics)
        self._spent_s += time.perf_counter() - start_s
        return result


def machine(device: torch.device) -> str:
    """Return what determines speed here: the processor, the number of threads, and torch's version."""
    threads = f"{torch.get_num_threads()} threads | " if device.type == "cpu" else ""
    return f"{processor(device)} | {threads}torch {torch.__version__}"


@cache
def processor(device: torch.device) -> str:
    """Return the name of a device's hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # only Linux has it
        return f"{device.type} {platform.processor() or platform.machine()}"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{device.type} {names[0] if names else platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


class Bench:
    """A copy of a network with noise of `shape` (B, C, H, W); a step includes loss and backward if `is_training`."""

    def __init__(self, network: nn.Module, is_training: bool, shape: tuple[int, int, int, int]) -> None:
        self._network, self._is_training = copy.deepcopy(network), is_training
        self._numerics: Numerics | None = None
        device = next(self._network.parameters()).device
        self._x_BCHW = torch.randn(shape).to(device).contiguous(memory_format=torch.channels_last)  # as `Batches` are
        self._targets: torch.Tensor | None = None
        # Without dropout, so that all numerics compute the same.
        for module in self._network.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd | DropPath):
                module.eval()
            if isinstance(getattr(module, "drop_rate", None), float):  # timm's networks pass it to a function
                module.drop_rate = 0.0  # type: ignore[assignment]
        # A classifier layer of zeros would hide everything that the backbone computes.
        head = classifier_parameters(self._network)
        with torch.no_grad():
            for name, parameter in self._network.named_parameters():
                if name in head and parameter.ndim > 1 and not parameter.any():
                    parameter.normal_(0.0, 0.02)

    def step(self, numerics: Numerics) -> Result:
        """Take one step. In inference there is no gradient, and loss and norm are 0."""
        before, self._numerics = self._numerics, numerics
        if before is None or before.memory_format != numerics.memory_format:
            numerics.place(self._network)
        torch.manual_seed(0)
        # On one thread, CPU time of this thread excludes what other programs take.
        is_alone = numerics.device.type == "cpu" and torch.get_num_threads() == 1
        now = time.thread_time if is_alone else time.perf_counter
        with numerics.threads():
            _synchronize(numerics.device)
            start_s = now()
            if not self._is_training:
                with torch.inference_mode():
                    outputs = self._forward(numerics)
                _synchronize(numerics.device)
                return now() - start_s, 0.0, 0.0, outputs
            scale = _LOSS_SCALE if numerics.dtype is torch.float16 else 1.0
            self._network.zero_grad()
            outputs = self._forward(numerics)
            if self._targets is None:
                self._targets = torch.randn_like(outputs)
            loss = functional.mse_loss(outputs, self._targets)
            (loss * scale).backward()  # type: ignore[no-untyped-call]
            _synchronize(numerics.device)
            seconds = now() - start_s
        gradients = [parameter.grad for parameter in self._network.parameters() if parameter.grad is not None]
        return seconds, loss.item(), nn.utils.get_total_norm(gradients).item() / scale, outputs.detach()

    def _forward(self, numerics: Numerics) -> torch.Tensor:
        with numerics.autocast():
            outputs = self._network(self._x_BCHW)
        # Some networks return the outputs of a second head as well.
        first: torch.Tensor = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
        return first.float()

    def clear(self) -> None:
        """Release the memory."""
        is_cuda = self._x_BCHW.is_cuda
        del self._network, self._x_BCHW, self._targets
        if is_cuda:
            gc.collect()
            torch.cuda.empty_cache()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def is_sound(result: Result, reference: Result) -> bool:
    """Return whether a step computed what the reference did, apart from rounding."""
    _, loss, norm, outputs = result
    _, loss_32, norm_32, outputs_32 = reference
    if not (math.isfinite(loss) and math.isfinite(norm) and bool(outputs.isfinite().all())):
        return False
    if norm_32:  # training, where batch statistics of a few images make single outputs unreliable
        is_near = abs(loss - loss_32) <= MAX_LOSS_CHANGE * abs(loss_32)
        return is_near and abs(norm - norm_32) <= MAX_GRADIENT_CHANGE * norm_32
    change = (outputs - outputs_32).norm().item()
    return bool(change <= MAX_OUTPUT_CHANGE * outputs_32.norm().item())
