"""Small weights, and hubs on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from loopback_hub import hub, no_hub  # noqa: F401  (fixtures)


@pytest.fixture(autouse=True)
def _no_hub(no_hub: None) -> None:  # noqa: F811
    """Keep each test away from the real hub."""


@pytest.fixture
def write_weights(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes a network's random weights: float16 by default, with a head or without."""

    def write(
        architecture: str,
        filename: str = "weights.safetensors",
        *,
        with_head: bool = True,
        dtype: torch.dtype = torch.float16,
        drop: tuple[str, ...] = (),
    ) -> Path:
        network = timm.create_model(architecture, num_classes=1000)
        head = () if with_head else (f"{network.pretrained_cfg['classifier']}.",)
        state = {
            key: tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor
            for key, tensor in network.state_dict().items()
            if not key.startswith(head) and key not in drop
        }
        path = tmp_path / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, path)
        return path

    return write


@pytest.fixture
def closing_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """A hub that closes each connection; returns a list of the connections."""
    connections: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        stopped = threading.Event()

        def hang_up() -> None:
            while not stopped.is_set():
                try:
                    connection, address = listener.accept()
                except TimeoutError:
                    continue
                connections.append(address)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
            yield connections
        finally:
            stopped.set()
            thread.join()
