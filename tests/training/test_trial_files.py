"""Names of files by their epochs, and which of them go."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from saccade.training.trial_files import drop_files, state_file, weights_file


@given(st.sets(st.integers(0, 20_000)), st.sets(st.integers(0, 20_000)), st.integers(0, 20_000))
def test_files_of_earlier_epochs_go_and_no_others(
    tmp_path_factory: object, states: set[int], weights: set[int], before: int
) -> None:
    folder: Path = tmp_path_factory.mktemp("trial")  # type: ignore[attr-defined]
    for path in [*(state_file(folder, epoch) for epoch in states), *(weights_file(folder, epoch) for epoch in weights)]:
        path.touch()
    (folder / "blueprint.json").touch()
    drop_files(folder, "last", before_epoch=before)
    kept = {state_file(folder, epoch) for epoch in states if epoch >= before}
    kept |= {weights_file(folder, epoch) for epoch in weights} | {folder / "blueprint.json"}
    assert set(folder.iterdir()) == kept


def test_all_of_a_kind_go_half_written_ones_too(tmp_path: Path) -> None:
    for name in ("best-0001.safetensors", "best-0002.safetensors.part", "last-0003.safetensors", "best.safetensors"):
        (tmp_path / name).touch()
    drop_files(tmp_path, "best")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "last-0003.safetensors"]


def test_without_a_folder_there_is_nothing_to_remove(tmp_path: Path) -> None:
    drop_files(tmp_path / "nowhere", "last")
