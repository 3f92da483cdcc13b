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
import pytest
from PIL import Image

from saccade import ImagePredictor
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


def variants() -> dict[str, bytes]:
    """Files of all kinds that `predict` reads, which decoders treat differently."""
    rotated = Image.Exif()
    rotated[0x0112] = 6
    large = photo(7, 900, 1400)
    return {
        "plain.png": png(photo(1)),
        "small.png": png(photo(2, 9, 7)),
        "long.png": png(photo(3, 300, 20)),
        "large.jpg": png(large, "JPEG", quality=90),
        "turned.jpg": png(photo(4, 200, 100), "JPEG", exif=rotated),
        "cmyk.jpg": png(photo(5, 90, 90).convert("CMYK"), "JPEG"),
        "grey.png": png(photo(6).convert("L")),
        "palette.gif": png(photo(8).convert("P"), "GIF"),
        "alpha.webp": png(photo(9).convert("RGBA"), "WEBP"),
        "deep.png": png(Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16)),
    }


def check_answers(
    predictor: ImagePredictor, answers: list[dict[str, Any]], files: list[bytes], atol: float = 1e-6
) -> None:
    """Compare answers with `predict` and `predict_proba` of the same files."""
    labels = predictor.predict(files, as_pandas=False).tolist()
    probabilities = predictor.predict_proba(files, as_pandas=False)
    for answer, label, row in zip(answers, labels, probabilities, strict=True):
        if not predictor.classes:
            assert answer["label"] == pytest.approx(label, rel=max(atol, 1e-6))
            assert answer["probability"] is answer["probabilities"] is None
            continue
        assert answer["label"] == ([str(each) for each in label] if isinstance(label, list) else str(label))
        assert list(answer["probabilities"]) == predictor.class_names
        assert list(answer["probabilities"].values()) == pytest.approx(row.tolist(), abs=atol)
        if isinstance(label, list):
            assert answer["probability"] is None
        else:
            assert answer["probability"] == answer["probabilities"][answer["label"]]
