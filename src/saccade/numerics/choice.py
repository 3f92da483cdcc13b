"""Numerics chosen by measuring: a few steps of each candidate, and the fastest whose loss is sound.

No number format and no memory order is the fastest for every network: 16 bits make dense convolutions and attention
about twice as fast on processors that have them, and depthwise convolutions slower in training. So it is measured, for
each network, batch size, image size, device and number of threads, for training and for inference, on a copy of the
network and with random numbers of its own: nothing that is trained changes by it.

Measuring may take `TRAINING_PART` and `INFERENCE_PART` of the time of a trial, of a short one up to `SHORT_PART`, and
`LIMIT_PART` of what is left until its deadline. Where that is too little, fewer images are taken, and below a quarter
of a batch nothing is measured: `Numerics.choose` has the answer then.

What was chosen is remembered (`saccade.numerics.memory`), so a seed gives the same numbers again on the same
machine; only what was chosen by part of a batch is measured once more, by a trial that has the time for more. Between
two machines, or after the cache folder was emptied, the last digits may differ; hyperparameters ``amp`` and
``channels_last`` fix the choice where that matters.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from saccade.numerics.bench import Bench, Purpose, Result, Workload, is_sound
from saccade.numerics.device import Numerics, half_precision, is_half_native
from saccade.numerics.memory import MEMORY, NumericsMemory

TRAINING_PART = 0.025
"""The part of the steps of a trial that measuring for training may take: once, for all trials that are like it."""

INFERENCE_PART = 0.0125
"""The same for inference, of a trial."""

SHORT_PART = 0.1
"""The same where that would be too little to measure anything: from 15 steps on a quarter of a batch is measured.

On average that is won back at once, since the best numerics take a third to all of the time of the default ones; and
the next trial, or run, has the choice for nothing.
"""

PREDICTION_PART = 0.05
"""The part of the batches of a prediction that measuring may take."""

LIMIT_PART = 0.04
"""The part of the time until a deadline that measuring may take."""

PARTS = (1.0, 0.5, 0.25)
"""Parts of a batch that are measured; the ratio of two candidates depends little on it."""

LEAST_STEPS = 6
"""Two candidates, each with a step that counts and one that sets things up, which takes up to twice as long."""

ROUNDS = 3
"""Steps that count, of each candidate, where there is time for them."""

LEAST_GAIN = 1.05
"""How many times as fast as those before it in the list a candidate must be: noise shall not choose among equals."""

HOPELESS = 1.3
"""How many times as long as the best a candidate may take to be measured further."""

MANY_THREADS = 4
"""CPU threads from which on fewer are tried as well: small networks are faster without waiting for so many."""

COMPILE_S = 60.0
"""About what `torch.compile` takes; where measuring may not take so long, it is not tried."""

LONG_STEPS = 50_000
"""Steps of a trial from which on compiling is a candidate at all: it costs as much again when a trial continues."""

STAGES = ("dtype", "channels_last", "num_threads", "compiled")
"""What is tried one after the other, each with the best of those before."""


def structure_name(network: nn.Module, name: str | None = None, *, is_trained: bool = True) -> str:
    """Return a name for a network's arithmetic: its name where it has one, and what of it is trained.

    Parameters
    ----------
    network : torch.nn.Module
        With the parameters that are not trained marked as such.
    name : str or None
        timm's; None makes one of the modules and shapes.
    is_trained : bool
        Whether it matters what of it is trained.

    Examples
    --------
    >>> structure_name(nn.Linear(2, 3), "tiny")
    'tiny with 9 of 9 weights trained'
    """
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
    compiled: bool | None = None,
    *,
    num_steps: float = 0,
) -> list[Numerics]:
    """Return what there is to choose from, the default first; what an argument fixes is the same in all.

    Parameters
    ----------
    device, amp, channels_last, compiled
        As in `Numerics.choose`.
    purpose
        float16 is no candidate for inference by itself: without gradients to scale, nobody sees what overflows.
    num_steps
        Of the whole work: compiling is a candidate on a GPU when these are many.

    Examples
    --------
    >>> [str(numerics) for numerics in candidates(torch.device("cpu"), "training", amp=False, channels_last=True)]
    ['float32, channels last']
    """
    default = Numerics.choose(device, amp, channels_last, compiled)
    dtypes = [default.dtype]
    if amp is None and is_half_native(device):
        half = half_precision(device)
        if purpose == "training" or half is torch.bfloat16:
            dtypes = list(dict.fromkeys([default.dtype, torch.float32, half]))
        else:
            dtypes = [torch.float32]
    found = [replace(default, dtype=dtype) for dtype in dtypes]
    if channels_last is None:
        found += [replace(numerics, channels_last=False) for numerics in found]
    if device.type == "cpu" and (num_threads := torch.get_num_threads()) >= MANY_THREADS:
        found += [replace(numerics, num_threads=num_threads // 2) for numerics in found]
    if compiled is None and device.type == "cuda" and num_steps >= LONG_STEPS:
        found += [replace(numerics, compiled=True) for numerics in found]
    return found


def choose_numerics(
    network: nn.Module,
    workload: Workload,
    among: list[Numerics],
    num_steps: float,
    seconds_left: float = math.inf,
    memory: NumericsMemory = MEMORY,
) -> Numerics:
    """Return the fastest of some candidates: as remembered, or as measured when there is time for that.

    Parameters
    ----------
    network : torch.nn.Module
        On its device, its modules in the modes (training or not) that they will have. It is not changed.
    workload : Workload
        What it is to do.
    among : list of Numerics
        From `candidates`; the first is the default.
    num_steps : float
        How many steps of the workload's batch measuring may take.
    seconds_left : float
        Until a deadline: where the first step says that measuring would take more than `LIMIT_PART` of this, it ends.
    memory : NumericsMemory
        Where choices are looked up and kept.

    Returns
    -------
    Numerics
        One of `among`.
    """
    if len(among) == 1:
        return among[0]
    key = workload.key(among)
    part = next((part for part in PARTS if num_steps >= LEAST_STEPS * part), 0.0)
    remembered, measured_part = _remembered(memory.get(key), among)
    if remembered is not None and measured_part >= part:
        return remembered
    if not part:
        return among[0]
    device = among[0].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        bench = Bench(network, workload, part)
        rounds = _Rounds(bench, num_steps / part, seconds_left)
        try:
            chosen = _fastest(rounds, among)
        except Exception:  # no time; or a fault, such as a lack of memory, that is told best by the work itself
            return among[0]
        finally:
            bench.clear()
    memory.put(key, {"numerics": chosen.to_json(), "part": part, "step_ms": rounds.step_ms()})
    return chosen


def _remembered(record: dict[str, Any] | None, among: list[Numerics]) -> tuple[Numerics | None, float]:
    """Return the candidate that a record is of, and by which part of a batch it was chosen."""
    try:
        numerics = Numerics.from_json((record or {})["numerics"], among[0].device)
        part = float((record or {})["part"])
    except (KeyError, TypeError, ValueError):  # none, or of another version
        return None, 0.0
    return (numerics, part) if numerics in among else (None, 0.0)


def num_steps_for_measuring(num_steps: float, part: float) -> float:
    """Return how many of a trial's steps measuring may take.

    Parameters
    ----------
    num_steps : float
        Of the trial.
    part : float
        `TRAINING_PART` or `INFERENCE_PART`.

    Examples
    --------
    >>> [round(num_steps_for_measuring(num_steps, 0.025), 3) for num_steps in (10, 20, 200)]
    [1.0, 1.5, 5.0]
    """
    return max(part * num_steps, min(SHORT_PART * num_steps, LEAST_STEPS * PARTS[-1]))


class _NoTimeError(Exception):
    """Measuring would take too much of the time that is left."""


def _fastest(rounds: _Rounds, among: list[Numerics]) -> Numerics:
    """Measure candidates stage by stage: those that differ from the best so far in one thing alone."""
    # 32 bits are what the others are compared with, so they come first.
    plain = replace(among[0], dtype=torch.float32)
    rounds.begin(plain if plain in among else among[0])
    for stage in STAGES:
        best = rounds.best(among)
        others = [n for n in among if n != best and replace(n, **{stage: getattr(best, stage)}) == best]
        if stage != "compiled" or rounds.seconds_for_more() >= COMPILE_S:
            rounds.measure(others)
    return rounds.best(among)


class _Rounds:
    """Times of candidates, measured one after the other and again, until the time for it is over."""

    def __init__(self, bench: Bench, max_steps: float, seconds_left: float) -> None:
        self._bench, self._max_steps = bench, max_steps
        self._seconds_left = seconds_left
        self._times_s: dict[Numerics, list[float]] = {}
        self._reference: Result | None = None
        self._spent_s = 0.0

    def best(self, among: list[Numerics]) -> Numerics:
        """Return the first of those measured that is about as fast as the fastest."""
        fast_enough_s = LEAST_GAIN * self._fastest_s()
        return next(n for n in among if n in self._times_s and self._step_s(n) < fast_enough_s)

    def step_ms(self) -> dict[str, float]:
        """Return what a step takes, by the names of the candidates."""
        return {str(numerics): round(1000 * self._step_s(numerics), 3) for numerics in self._times_s}

    def begin(self, reference: Numerics) -> None:
        """Measure what the others are compared with.

        Raises
        ------
        _NoTimeError
            When there is no time for any other.
        """
        self._reference = self._timed(reference)
        if LEAST_STEPS / 2 * self._spent_s > LIMIT_PART * self._seconds_left:
            raise _NoTimeError
        self._times_s[reference] = [self._timed(reference)[0]]
        if not self._has_time(2):
            raise _NoTimeError

    def measure(self, candidates: list[Numerics]) -> None:
        """Time some candidates beside those known; leave out those that are not sound, and soon those that are slow."""
        sound = [numerics for numerics in candidates if self._has_time(2) and self._is_sound(numerics)]
        known = list(self._times_s) if sound else []
        best_before = min(self._times_s, key=self._step_s)
        for number in range(ROUNDS):
            for numerics in sound + (known if number else []):
                if number and (self._is_hopeless(numerics) or not self._has_time(1)):
                    continue
                self._time(numerics)
        # Another program may have slowed just the step of what was the best, and a wrong choice would be remembered.
        if (best := min(self._times_s, key=self._step_s)) != best_before:
            self._time(best_before)
            self._time(best)

    def seconds_for_more(self) -> float:
        """Return how many seconds measuring may go on; the faster the best is, the fewer."""
        return min(self._max_steps * self._fastest_s(), LIMIT_PART * self._seconds_left) - self._spent_s

    def _step_s(self, numerics: Numerics) -> float:
        return min(self._times_s[numerics])

    def _fastest_s(self) -> float:
        return min(map(min, self._times_s.values()))

    def _has_time(self, num_steps: int) -> bool:
        return num_steps * self._fastest_s() <= self.seconds_for_more()

    def _is_hopeless(self, numerics: Numerics) -> bool:
        return self._step_s(numerics) > HOPELESS * self._fastest_s()

    def _time(self, numerics: Numerics) -> None:
        self._times_s.setdefault(numerics, []).append(self._timed(numerics)[0])

    def _timed(self, numerics: Numerics) -> Result:
        start_s = time.perf_counter()
        result = self._bench.step(numerics)
        self._spent_s += time.perf_counter() - start_s
        return result

    def _is_sound(self, numerics: Numerics) -> bool:
        """Take a first step; return whether what it computes is as good as in 32 bits."""
        assert self._reference is not None
        try:
            return is_sound(self._timed(numerics), self._reference)
        except Exception:  # no kernel for this format, no memory, or what a network of the user's own says to it
            return False
