from __future__ import annotations

import torch

from saccade.training.device import Numerics, choose_device


def test_a_named_device_is_taken() -> None:
    assert choose_device("cpu") == torch.device("cpu")


def test_a_cpu_computes_in_32_bits_unless_told_otherwise() -> None:
    cpu = torch.device("cpu")
    assert Numerics.choose(cpu, None).dtype is torch.float32
    assert Numerics.choose(cpu, False).dtype is torch.float32
    assert Numerics.choose(cpu, True).dtype is torch.bfloat16


def test_a_network_is_placed_channels_last() -> None:
    layer = Numerics(torch.device("cpu")).place(torch.nn.Conv2d(3, 4, 3))
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
