"""Names of files by their epochs, and which of them go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.training.trial_files import drop_files, outputs_file, save_outputs, state_file, weights_file


@given(st.sets(st.integers(0, 20_000)), st.sets(st.integers(0, 20_000)), st.integers(0, 20_000))
def test_files_of_earlier_epochs_go_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, states: set[int], weights: set[int], before: int
) -> None:
    folder = tmp_path_factory.mktemp("trial")
    best = [file(folder, epoch) for epoch in weights for file in (weights_file, outputs_file)]
    for path in [*(state_file(folder, epoch) for epoch in states), *best, folder / "blueprint.json"]:
        path.touch()
    drop_files(folder, "last", before_epoch=before)
    kept = {state_file(folder, epoch) for epoch in states if epoch >= before}
    assert set(folder.iterdir()) == kept | {*best, folder / "blueprint.json"}
    drop_files(folder, "best", before_epoch=before)
    kept |= {file(folder, epoch) for epoch in weights if epoch >= before for file in (weights_file, outputs_file)}
    assert set(folder.iterdir()) == kept | {folder / "blueprint.json"}


def test_outputs_are_written_whole_and_in_32_bits(tmp_path: Path) -> None:
    outputs = np.random.default_rng(0).normal(size=(5, 3))
    save_outputs(outputs_file(tmp_path, 2), outputs)
    assert [path.name for path in tmp_path.iterdir()] == ["best-0002.outputs.npy"]
    read = np.load(outputs_file(tmp_path, 2), allow_pickle=False)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, outputs.astype(np.float32))


def test_all_of_a_kind_go_half_written_ones_too(tmp_path: Path) -> None:
    half = ("best-0002.safetensors.part", "best-0002.outputs.npy.part")
    for name in (*half, "best-0001.safetensors", "best-0001.outputs.npy", "last-0003.safetensors", "best.safetensors"):
        (tmp_path / name).touch()
    drop_files(tmp_path, "best")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "last-0003.safetensors"]


def test_without_a_folder_there_is_nothing_to_remove(tmp_path: Path) -> None:
    drop_files(tmp_path / "nowhere", "last")
