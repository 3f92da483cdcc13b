from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import load_file

from saccade.errors import UnknownModelError, WeightsNotFoundError
from saccade.models.weights import find_weights, networks_in_folder, tensor_names, write_weights

DEFAULT = "test_resnet.r160_in1k"
FOLDER_FILES = [  # what a folder may hold for resnet18, best first when no tag is asked for
    "resnet18.a1_in1k.safetensors",
    "resnet18.safetensors",
    "resnet18.my_own.safetensors",
    "resnet18.tv_in1k.safetensors",
]


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({}, path)
    return path


@given(st.sets(st.sampled_from(FOLDER_FILES), min_size=1))
def test_without_a_tag_the_default_tag_is_taken_then_none_then_any(present: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in present:
            touch(Path(folder, name))
        touch(Path(folder, "resnet18d.safetensors"))  # another network
        found = find_weights("resnet18", folder=folder)
        assert found.name == next(name for name in FOLDER_FILES if name in present)


@given(st.sets(st.sampled_from(FOLDER_FILES)))
def test_with_a_tag_only_that_tag_or_an_untagged_file_is_used(present: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in present:
            touch(Path(folder, name))
        wanted = [n for n in ("resnet18.tv_in1k.safetensors", "resnet18.safetensors") if n in present]
        if wanted:
            assert find_weights("resnet18.tv_in1k", folder=folder).name == wanted[0]
        else:
            with pytest.raises(WeightsNotFoundError, match=r"no resnet18.tv_in1k.safetensors or resnet18"):
                find_weights("resnet18.tv_in1k", folder=folder)


def test_the_places_are_searched_in_order(
    hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write_weights: Callable[..., Path]
) -> None:
    named = touch(tmp_path / "named.safetensors")
    in_given_folder = touch(tmp_path / "given" / "test_resnet.safetensors")
    in_set_folder = touch(tmp_path / "set" / "test_resnet.safetensors")
    monkeypatch.setenv("SACCADE_WEIGHTS", str(tmp_path / "set"))
    hub.files["timm/test_resnet.r160_in1k/model.safetensors"] = write_weights("test_resnet").read_bytes()

    assert find_weights("test_resnet", file=named, folder=in_given_folder.parent) == named
    assert find_weights("test_resnet", folder=in_given_folder.parent) == in_given_folder
    assert find_weights("test_resnet") == in_set_folder
    assert hub.requests == []
    in_set_folder.unlink()
    from_hub = find_weights("test_resnet")
    assert tensor_names(from_hub)
    num_requests = len(hub.requests)
    assert num_requests > 0
    assert find_weights(DEFAULT) == from_hub  # from the cache
    assert len(hub.requests) == num_requests
    shutil.rmtree(tmp_path / "hub-cache")
    hub.stop()
    with pytest.raises(WeightsNotFoundError):
        find_weights("test_resnet")


def test_an_old_name_finds_the_file_of_its_timm_network(tmp_path: Path) -> None:
    file = touch(tmp_path / "mobilenetv1_100.safetensors")
    assert find_weights("mobilenet1.0", folder=tmp_path) == file


def test_the_error_lists_what_was_tried_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError) as failed:
        find_weights("resnet18_v1b", folder=tmp_path)
    message = str(failed.value)
    assert "'resnet18_v1b' (resnet18)" in message
    for part in (str(tmp_path), "resnet18.a1_in1k.safetensors", str(tmp_path / "hub-cache"), "127.0.0.1:9"):
        assert part in message
    assert "cannot be reached" in message
    assert "SACCADE_WEIGHTS" in message
    assert "pretrained=False" in message
    assert isinstance(failed.value, FileNotFoundError)


def test_networks_without_published_weights_are_not_searched_on_the_hub(hub: Any) -> None:
    with pytest.raises(WeightsNotFoundError, match="timm lists no pretrained weights for mobilenetv2_035"):
        find_weights("mobilenetv2_035")
    assert hub.requests == []


def test_pickle_files_are_never_used(tmp_path: Path, hub: Any) -> None:
    with pytest.raises(WeightsNotFoundError, match="only a pickle file, which Saccade does not load"):
        find_weights("legacy_xception")
    hub.files["timm/resnet18.a1_in1k/pytorch_model.bin"] = b"pickle"
    with pytest.raises(WeightsNotFoundError, match=r"does not have timm/resnet18.a1_in1k/model.safetensors"):
        find_weights("resnet18")
    pickle = tmp_path / "resnet18.pth"
    shutil.copy(touch(tmp_path / "resnet18.safetensors"), pickle)
    with pytest.raises(WeightsNotFoundError, match=r"(?s)not a .safetensors file.*torch.load.*save_file"):
        find_weights("resnet18", file=pickle)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 100])
def test_a_damaged_file_is_an_error(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "resnet18.safetensors"
    damaged.write_bytes(content)
    with pytest.raises(WeightsNotFoundError, match="cannot be read as safetensors"):
        find_weights("resnet18", file=damaged)
    monkeypatch.setenv("SACCADE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsNotFoundError, match="cannot be read as safetensors"):
        find_weights("resnet18")


def test_a_truncated_file_is_an_error(write_weights: Callable[..., Path]) -> None:
    path = write_weights("test_resnet")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsNotFoundError, match="cannot be read as safetensors"):
        find_weights("test_resnet", file=path)


def test_files_and_folders_that_do_not_exist_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsNotFoundError, match="does not exist"):
        find_weights("resnet18", file=tmp_path / "none.safetensors")
    with pytest.raises(WeightsNotFoundError, match="is a folder"):
        find_weights("resnet18", file=tmp_path)
    with pytest.raises(WeightsNotFoundError, match="does not exist"):
        find_weights("resnet18", folder=tmp_path / "none")
    monkeypatch.setenv("SACCADE_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(WeightsNotFoundError, match=r"none' .SACCADE_WEIGHTS. does not exist"):
        find_weights("resnet18")
    with pytest.raises(WeightsNotFoundError, match="is not a folder"):
        find_weights("resnet18", folder=touch(tmp_path / "file"))


def test_an_empty_environment_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_WEIGHTS", "")
    with pytest.raises(WeightsNotFoundError, match="SACCADE_WEIGHTS is not set"):
        find_weights("resnet18")


def test_an_unknown_network_raises_unknown_model_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError):
        find_weights("resnet17", file=touch(tmp_path / "named.safetensors"))


def test_networks_in_folder_lists_networks_with_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"test_vit": 30, "test_resnet.a": 50, "test_resnet.b": 10, "none": 99}
    for name, size in sizes.items():
        (tmp_path / f"{name}.safetensors").write_bytes(b"x" * size)
    assert networks_in_folder(tmp_path) == ["test_resnet", "test_vit"]
    monkeypatch.delenv("SACCADE_WEIGHTS", raising=False)
    assert networks_in_folder() == []
    monkeypatch.setenv("SACCADE_WEIGHTS", str(tmp_path))
    assert networks_in_folder() == ["test_resnet", "test_vit"]


def test_tied_and_partial_tensors_are_written(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    network[1].weight = network[0].weight
    tensors = {**network.state_dict(), "part": torch.arange(9.0)[3:6], "turned": torch.arange(6.0).view(2, 3).T}
    write_weights(tmp_path / "a.safetensors", tensors)
    loaded = load_file(tmp_path / "a.safetensors")
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
