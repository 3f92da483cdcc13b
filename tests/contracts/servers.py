"""Servers on the loopback interface, and images for them."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
from PIL import Image

from saccade.serve.models import ServedModel
from saccade.serve.server import run_server
from saccade.serve.settings import ServerSettings


@dataclass(frozen=True)
class Served:
    """A server in a thread of this process."""

    url: str
    client: httpx2.Client
    stop: Callable[[], None]
    thread: threading.Thread

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)


@contextlib.contextmanager
def serving(model: ServedModel, **settings: Any) -> Iterator[Served]:
    started: list[Any] = []
    is_up = threading.Event()

    def on_start(url: str, stop: Callable[[], None]) -> None:
        started.extend((url, stop))
        is_up.set()

    errors: list[BaseException] = []

    def run() -> None:
        try:
            run_server(model, ServerSettings(port=0, **settings), on_start)
        except BaseException as error:
            errors.append(error)
            is_up.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert is_up.wait(60)
    if errors:
        raise errors[0]
    url, stop = started
    try:
        with httpx2.Client(base_url=url, trust_env=False, timeout=60) as client:
            yield Served(url, client, stop, thread)
    finally:
        stop()
        thread.join(60)
    assert not thread.is_alive()


def png(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def photo(seed: int, width: int = 60, height: int = 40) -> Image.Image:
    """A smooth picture with noise, in which one side is brighter."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (4, 5, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8))
