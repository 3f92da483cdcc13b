from __future__ import annotations

import os
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from saccade.models.copies import Copies, file_version

BYTES = 4 * 4 * 4  # of nn.Linear(4, 4, bias=False)


def layer(value: float) -> nn.Module:
    network = nn.Linear(4, 4, bias=False)
    nn.init.constant_(network.weight, value)
    return network


@given(keys=st.lists(st.integers(0, 4)), num_kept=st.integers(0, 4))
def test_what_was_used_last_is_kept_and_nobody_can_change_it(keys: list[int], num_kept: int) -> None:
    copies, built, recent = Copies(max_bytes=num_kept * BYTES), [], []
    for key in keys:
        num_built = len(built)
        network = copies.get(key, lambda key=key: (built.append(key), layer(key))[1])  # type: ignore[misc]
        assert torch.equal(network.weight, torch.full((4, 4), float(key)))
        with torch.no_grad():
            network.weight.fill_(-1.0)
        assert (len(built) == num_built) == (key in recent)
        recent = [*(k for k in recent if k != key), key][-num_kept:] if num_kept else []


def test_what_is_larger_than_all_that_may_be_kept_drives_nothing_out() -> None:
    copies = Copies(max_bytes=BYTES)
    copies.get("small", lambda: layer(1.0))
    copies.get("large", lambda: nn.Linear(50, 50))
    copies.get("small", lambda: nn.Identity()).weight  # noqa: B018


def test_what_is_drawn_from_the_same_numbers_is_a_copy_and_leaves_the_same_numbers_behind() -> None:
    copies, num_built = Copies(), 0

    def build() -> nn.Module:
        nonlocal num_built
        num_built += 1
        return nn.Linear(4, 4)

    found = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        found.append((copies.get_drawn("line", build).weight, torch.rand(1)))
    assert num_built == 2
    assert all(torch.equal(one, other) for one, other in zip(found[0], found[2], strict=True))
    assert not torch.equal(found[0][0], found[1][0])
    assert found[0][0] is not found[2][0]


def test_what_is_too_large_to_keep_is_drawn_each_time() -> None:
    copies = Copies(max_bytes=BYTES)
    torch.manual_seed(0)
    first, second = (copies.get_drawn("large", lambda: nn.Linear(50, 50)) for _ in range(2))
    assert not torch.equal(first.weight, second.weight)


def test_a_file_that_was_written_anew_is_another_version(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"1234")
    before = file_version(path)
    assert file_version(path) == before
    os.utime(path, ns=(1, 1))
    assert file_version(path) != before
    path.write_bytes(b"12345")
    os.utime(path, ns=(before[2], before[2]))
    assert file_version(path) != before
