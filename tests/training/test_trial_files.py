from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.training.trial_files import load_state, save_state

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text(),
    st.lists(st.floats(-1e3, 1e3, width=32), max_size=4).map(torch.tensor),
)  # fmt: skip
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(state=STATES)
def test_states_are_read_back_equal(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    save_state(path, state)
    assert same(load_state(path), state)


def test_optimizer_state_is_read_back_equal(tmp_path: Path) -> None:
    def optimizer() -> torch.optim.Optimizer:
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        layer(torch.ones(1, 3, 8, 8)).sum().backward()
        return optimizer

    one, other = optimizer(), optimizer()
    one.step()
    save_state(tmp_path / "optimizer", one.state_dict())
    other.load_state_dict(load_state(tmp_path / "optimizer"))
    for moment in ("exp_avg", "exp_avg_sq", "step"):
        for a, b in zip(one.state.values(), other.state.values(), strict=True):
            assert torch.equal(a[moment], b[moment])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    save_state(path, {"a": 1})
    with pytest.raises(TypeError, match="set"):
        save_state(path, {"a": {1, 2}})
    assert load_state(path) == {"a": 1}
