from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from saccade.models.network import build_network
from saccade.numerics import choice as numerics_module
from saccade.numerics.choice import (
    LEAST_GAIN,
    LEAST_S,
    LEAST_STEPS,
    NumericsMemory,
    Result,
    Workload,
    candidates,
    choose_numerics,
    known_choice,
    num_steps_for_measuring,
    structure_name,
)
from saccade.numerics.device import Numerics

CPU = torch.device("cpu")
PLAIN = Numerics(CPU)
ALL = [
    Numerics(CPU, dtype, channels_last, num_threads=num_threads)
    for num_threads, channels_last, dtype in itertools.product(
        (None, 2), (True, False), (torch.float32, torch.bfloat16)
    )
]
WORKLOAD = Workload("training", "a network", (16, 3, 8, 8))
SLOW_START = 2.0
"""How many times as long the first step of a candidate takes."""

Cost = Callable[[Numerics], float]


class FakeBench:
    """A bench whose steps take what they are told to, on a clock of its own."""

    cost_s: Cost
    unsound: frozenset[Numerics]
    now_s: float
    steps: list[Numerics]
    parts: list[float]

    @classmethod
    def reset(cls, cost_s: Cost, unsound: frozenset[Numerics] = frozenset()) -> None:
        cls.cost_s, cls.unsound, cls.now_s, cls.steps, cls.parts = staticmethod(cost_s), unsound, 0.0, [], []

    def __init__(self, network: nn.Module, is_training: bool, shape: tuple[int, ...]) -> None:
        self.part = shape[0] / WORKLOAD.shape[0]
        FakeBench.parts.append(self.part)

    def step(self, numerics: Numerics) -> Result:
        seconds = self.cost_s(numerics) * self.part
        FakeBench.now_s += seconds * (1.0 if numerics in self.steps else SLOW_START)
        self.steps.append(numerics)
        loss = math.nan if numerics in self.unsound else 1.0
        return seconds, loss, 1.0, torch.ones(2)

    def clear(self) -> None:
        """Do nothing."""


@pytest.fixture(scope="module", autouse=True)
def _fake_bench() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numerics_module, "Bench", FakeBench)
        patch.setattr(numerics_module, "time", SimpleNamespace(perf_counter=lambda: FakeBench.now_s))
        yield


@pytest.fixture
def memory(tmp_path: Path) -> NumericsMemory:
    return NumericsMemory(tmp_path / "numerics.json")


def choose(
    memory: NumericsMemory, num_steps: float = 1000.0, limit_s: float = math.inf, among: list[Numerics] = ALL
) -> Numerics:
    return choose_numerics(nn.Identity(), WORKLOAD, among, num_steps, limit_s, memory)


FACTORS = st.fixed_dictionaries({name: st.floats(0.2, 5.0) for name in ("bfloat16", "channels first", "fewer threads")})


def cost_of(factors: dict[str, float]) -> Cost:
    def cost_s(numerics: Numerics) -> float:
        return (
            (factors["bfloat16"] if numerics.dtype is torch.bfloat16 else 1.0)
            * (1.0 if numerics.channels_last else factors["channels first"])
            * (1.0 if numerics.num_threads is None else factors["fewer threads"])
        )

    return cost_s


@given(factors=FACTORS)
def test_the_fastest_candidate_is_chosen_up_to_noise(
    tmp_path_factory: pytest.TempPathFactory, factors: dict[str, float]
) -> None:
    cost_s = cost_of(factors)
    FakeBench.reset(cost_s)
    chosen = choose(NumericsMemory(tmp_path_factory.mktemp("memory") / "numerics.json"))
    assert cost_s(chosen) <= 1.001 * LEAST_GAIN**3 * min(map(cost_s, ALL))
    assert chosen == PLAIN or cost_s(PLAIN) >= LEAST_GAIN * cost_s(chosen)


@given(factors=FACTORS, num_steps=st.floats(0.0, 100.0), limit_s=st.floats(0.0, 1000.0) | st.just(math.inf))
def test_measuring_stays_within_its_limit(
    tmp_path_factory: pytest.TempPathFactory, factors: dict[str, float], num_steps: float, limit_s: float
) -> None:
    cost_s = cost_of(factors)
    FakeBench.reset(cost_s)
    choose(NumericsMemory(tmp_path_factory.mktemp("memory") / "numerics.json"), num_steps, limit_s)
    if num_steps < LEAST_STEPS / 4 or limit_s < LEAST_S:
        assert not FakeBench.steps
        return
    # What is begun is ended: a first step of a candidate and one that counts, and another of it and of the best before.
    last_s = (SLOW_START + 3) * FakeBench.parts[0] * max(cost_s(numerics) for numerics in FakeBench.steps)
    assert FakeBench.now_s <= min(num_steps * cost_s(PLAIN), limit_s) + last_s


@given(factors=FACTORS, unsound=st.frozensets(st.sampled_from(ALL[1:])))
def test_candidates_with_wrong_results_are_never_chosen(
    tmp_path_factory: pytest.TempPathFactory, factors: dict[str, float], unsound: frozenset[Numerics]
) -> None:
    FakeBench.reset(cost_of(factors), unsound)
    assert choose(NumericsMemory(tmp_path_factory.mktemp("memory") / "numerics.json")) not in unsound


@pytest.mark.parametrize("num_steps", [1.5, 3.0, 6.0, 100.0])
def test_a_single_slow_step_does_not_decide(memory: NumericsMemory, num_steps: float) -> None:
    slow_steps = {1}  # the one of the default that counts

    def cost_s(numerics: Numerics) -> float:
        is_slowed = numerics == PLAIN and len(FakeBench.steps) in slow_steps
        return 3.0 if is_slowed else 1.5 if numerics.dtype is torch.bfloat16 else 1.0

    FakeBench.reset(cost_s)
    assert choose(memory, num_steps, among=ALL[:2]) == PLAIN


def test_a_choice_is_stored_for_this_and_later_processes(memory: NumericsMemory) -> None:
    FakeBench.reset(cost_of({"bfloat16": 0.4, "channels first": 2.0, "fewer threads": 1.0}))
    chosen = choose(memory)
    assert chosen == Numerics(CPU, torch.bfloat16)
    num_steps = len(FakeBench.steps)
    assert choose(memory, num_steps=0.0, limit_s=0.0) == chosen
    assert choose(NumericsMemory(memory.path)) == chosen
    assert len(FakeBench.steps) == num_steps
    assert choose(memory, num_steps=0.0, among=ALL[:2]) == PLAIN  # another question, of which nothing is known


def test_the_key_of_a_choice_is_independent_of_the_order_of_candidates(memory: NumericsMemory) -> None:
    FakeBench.reset(cost_of({"bfloat16": 0.4, "channels first": 2.0, "fewer threads": 1.0}))
    assert known_choice(WORKLOAD, ALL, memory=memory) is None
    chosen = choose(memory, num_steps=2.0)
    assert known_choice(WORKLOAD, ALL[::-1], memory=memory) == chosen
    assert known_choice(WORKLOAD, ALL, 1.0, memory) is None  # it was measured on a quarter of a batch


def test_a_choice_by_part_of_a_batch_is_measured_again_with_more_time(memory: NumericsMemory) -> None:
    FakeBench.reset(cost_of({"bfloat16": 0.4, "channels first": 2.0, "fewer threads": 1.0}))
    for num_steps in (2.0, 2.5, 3.0, 1.5, 100.0, 5.0):
        choose(memory, num_steps)
    assert FakeBench.parts == [0.25, 0.5, 1.0]


def test_without_time_the_default_is_used_and_not_stored(memory: NumericsMemory) -> None:
    FakeBench.reset(cost_of({"bfloat16": 0.4, "channels first": 2.0, "fewer threads": 1.0}))
    assert choose(memory, limit_s=0.4) == PLAIN
    assert not memory.path.exists()
    assert choose(memory) != PLAIN


def test_records_of_other_versions_are_measured_again(memory: NumericsMemory) -> None:
    FakeBench.reset(cost_of({"bfloat16": 0.4, "channels first": 2.0, "fewer threads": 1.0}))
    for record in ({"dtype": "float8"}, {"numerics": {"dtype": "float8"}, "part": 1.0}, {"numerics": 3, "part": "x"}):
        memory.put(WORKLOAD.key(ALL), record)
        assert choose(memory).dtype is torch.bfloat16


class FailingBench(FakeBench):
    def step(self, numerics: Numerics) -> Result:
        if numerics.dtype is torch.bfloat16:
            raise TypeError("a network of the user's own that knows no such numbers")
        return super().step(numerics)


class BrokenBench(FakeBench):
    error: Exception

    def step(self, numerics: Numerics) -> Result:
        raise self.error


def test_errors_of_a_candidate_exclude_it(memory: NumericsMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeBench.reset(cost_of({"bfloat16": 0.1, "channels first": 2.0, "fewer threads": 1.0}))
    monkeypatch.setattr(numerics_module, "Bench", FailingBench)
    assert choose(memory) == PLAIN


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), ValueError("more than 1 value per channel")])
def test_errors_of_the_reference_step_give_the_default(
    memory: NumericsMemory, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(BrokenBench, "error", error, raising=False)
    monkeypatch.setattr(numerics_module, "Bench", BrokenBench)
    assert choose(memory) == PLAIN
    assert not memory.path.exists()


def test_the_default_is_the_first_candidate_and_fixed_properties_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics_module, "is_half_native", lambda device: True)
    for amp, channels_last, purpose in itertools.product(
        (None, True, False), (None, True, False), ("training", "inference")
    ):
        found = candidates(CPU, purpose, amp, channels_last)  # type: ignore[arg-type]
        assert found[0] == Numerics.choose(CPU, amp, channels_last)
        assert len(set(found)) == len(found)
        assert {n.dtype for n in found} == {
            None: {torch.float32, torch.bfloat16},
            True: {torch.bfloat16},
            False: {torch.float32},
        }[amp]
        assert {n.channels_last for n in found} == ({True, False} if channels_last is None else {channels_last})
        assert not any(n.compiled for n in found)


def test_16_bits_are_no_candidate_where_they_are_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics_module, "is_half_native", lambda device: False)
    assert {n.dtype for n in candidates(CPU, "training")} == {torch.float32}


def test_fewer_threads_are_candidates_from_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for num, expected in ((2, {None}), (16, {None, 8})):
        monkeypatch.setattr(torch, "get_num_threads", lambda num=num: num)
        assert {n.num_threads for n in candidates(CPU, "training")} == expected


def test_the_structure_name_has_architecture_and_trained_weights() -> None:
    def layers(width: int = 4) -> nn.Module:
        return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))

    assert structure_name(layers()) == structure_name(layers())
    assert structure_name(layers()) != structure_name(layers(5))
    frozen = layers()
    frozen[0].requires_grad_(False)
    assert structure_name(frozen) != structure_name(layers())
    assert structure_name(frozen, is_trained=False) == structure_name(layers(), is_trained=False)
    timm_network = build_network("test_resnet", 2, pretrained=False)
    assert structure_name(timm_network, "test_resnet").startswith("test_resnet ")


def test_the_key_of_a_choice_contains_everything_that_matters() -> None:
    inference = replace(WORKLOAD, purpose="inference")
    others = [replace(WORKLOAD, network="other"), replace(WORKLOAD, shape=(4, 3, 8, 8))]
    keys = {work.key(among) for work in (WORKLOAD, inference, *others) for among in (ALL[:1], ALL[:2])}
    assert len(keys) == 8


def test_part_of_a_batch_has_at_least_two_images_for_batch_statistics(memory: NumericsMemory) -> None:
    FakeBench.reset(lambda numerics: 1.0)
    for num, expected in ((4, 2), (2, 2), (1, 1)):
        choose_numerics(nn.Identity(), replace(WORKLOAD, shape=(num, 3, 8, 8)), ALL, 2.0, math.inf, memory)
        assert FakeBench.parts[-1] * 16 == expected


@pytest.mark.parametrize(("num_steps", "measured"), [(10, 1.0), (20, 1.5), (200, 5.0)])
def test_short_trials_measure_a_larger_part_of_their_steps(num_steps: int, measured: float) -> None:
    assert num_steps_for_measuring(num_steps, 0.025) == pytest.approx(measured)
