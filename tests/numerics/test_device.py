from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.numerics import device as device_module
from saccade.numerics.device import Numerics, choose_device, cpu_threads, useful_threads


def test_a_named_device_is_returned() -> None:
    assert choose_device("cpu") == torch.device("cpu")


def test_the_default_on_cpus_is_float32() -> None:
    cpu = torch.device("cpu")
    assert Numerics.choose(cpu, None).dtype is torch.float32
    assert Numerics.choose(cpu, False).dtype is torch.float32
    assert Numerics.choose(cpu, True).dtype is torch.bfloat16


def test_a_network_is_placed_channels_last() -> None:
    layer = Numerics(torch.device("cpu")).place(torch.nn.Conv2d(3, 4, 3))
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)


@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    channels_last=st.booleans(),
    compiled=st.booleans(),
    num_threads=st.none() | st.integers(1, 64),
)
def test_numerics_json_round_trip(
    dtype: torch.dtype, channels_last: bool, compiled: bool, num_threads: int | None
) -> None:
    numerics = Numerics(torch.device("cpu"), dtype, channels_last, compiled, num_threads)
    record = json.loads(json.dumps(numerics.to_json()))
    assert Numerics.from_json(record, torch.device("cpu")) == numerics
    assert Numerics.from_json(record, torch.device("cuda")).device.type == "cuda"


@pytest.mark.parametrize("record", [{}, {"dtype": "float8"}, {"dtype": "float32", "speed": 3}, None])
def test_an_invalid_record_of_numerics_is_an_error(record: Any) -> None:
    with pytest.raises((KeyError, TypeError)):
        Numerics.from_json(record, torch.device("cpu"))


def test_given_numerics_override_the_defaults() -> None:
    cpu = torch.device("cpu")
    assert not Numerics.choose(cpu, None, channels_last=False).channels_last
    assert Numerics.choose(cpu, None, compiled=True).compiled


def test_a_network_can_be_placed_again_in_another_memory_format(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    layer = Numerics(torch.device("cpu")).place(torch.nn.Conv2d(3, 4, 3))
    assert Numerics(torch.device("cpu"), channels_last=False).place(layer) is layer
    assert layer.weight.is_contiguous()
    assert not compiled
    Numerics(torch.device("cpu"), compiled=True).place(layer)
    assert compiled == [layer]


def test_threads_are_limited_by_the_current_number() -> None:
    before = torch.get_num_threads()
    with cpu_threads(3):
        for num, expected in ((None, 3), (2, 2), (64, 3)):
            with Numerics(torch.device("cpu"), num_threads=num).threads():
                assert torch.get_num_threads() == expected
        with cpu_threads(None):
            assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("step_ms", "expected"),
    [
        ({4: 1.0, 3: 1.3, 2: 2.0, 1: 4.0}, 4),  # nothing else runs
        ({4: 20.0, 3: 15.0, 2: 4.0, 1: 2.0}, 1),  # threads wait for cores that others use
        ({4: 9.0, 3: 3.0, 2: 4.0, 1: 7.0}, 3),
        ({4: 4.4, 3: 4.0, 2: 5.0, 1: 9.0}, 4),  # a small difference is noise
    ],
)
def test_fewer_threads_are_used_where_they_are_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, step_ms: dict[int, float], expected: int
) -> None:
    now_s = 0.0

    def convolve(x: torch.Tensor, weight: torch.Tensor, **_: Any) -> torch.Tensor:
        nonlocal now_s
        now_s += step_ms[torch.get_num_threads()] / 1000
        return x

    monkeypatch.setattr(torch.nn.functional, "conv2d", convolve)
    monkeypatch.setattr(device_module, "time", SimpleNamespace(perf_counter=lambda: now_s))
    with cpu_threads(4):
        assert useful_threads() == expected
        assert torch.get_num_threads() == 4
    with cpu_threads(1):
        assert useful_threads() == 1
