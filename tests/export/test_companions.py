"""The page beside an ONNX file in Chromium: it classifies as the predictor does, or names what is missing."""

from __future__ import annotations

import functools
import http.server
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saccade import ImagePredictor
from saccade.errors import DataError
from saccade.export.companions import ORT_FILES, check_ort, copy_scripts, page_html
from saccade.export.exporting import write_companions
from saccade.export.metadata import ExportedPreprocessing, ExportMetadata

METADATA = ExportMetadata(
    saccade_version="1.0",
    problem_type="multiclass",
    class_names=["blue", "red"],
    models=[],
    preprocessing=ExportedPreprocessing(channels=3, shorter_side=32, steps=[]),
    metrics={},
    outputs=["probabilities", "label"],
)


@pytest.fixture
def serve_folder() -> Iterator[Callable[[Path], str]]:
    """Serve a folder as ``python -m http.server`` does."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    servers = []

    def serve(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Quiet, directory=os.fspath(folder))
        )
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://localhost:{server.server_port}/"

    yield serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context()
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


def pictures() -> dict[str, Image.Image]:
    """Images of several sizes and modes, which browsers decode without loss as PNG."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (50, 90, 4), np.uint8)
    pixels[..., 3] = np.linspace(0, 255, 90)
    rgba = Image.fromarray(pixels)
    turned = rgba.convert("RGB").rotate(0)
    turned.getexif()[0x112] = 6
    return {"rgba.png": rgba, "rgb.png": rgba.convert("RGB"), "grey.png": rgba.convert("L"), "turned.png": turned}


def test_the_page_classifies_as_the_predictor_does(
    page: Any,
    serve_folder: Callable[[Path], str],
    tmp_path: Path,
    make_colours: Callable[..., pd.DataFrame],
    tiny: dict[str, Any],
) -> None:
    if not os.environ.get("SACCADE_ORT_WEB"):
        pytest.skip("SACCADE_ORT_WEB is not the folder dist of the npm package onnxruntime-web")
    pytest.importorskip("onnxscript")
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(make_colours(12, names=("blue", "red", "green")), hyperparameters=tiny)
    old = tmp_path / "out" / "saccade-page" / "page.js"
    kept = tmp_path / "out" / "ort" / "mine.txt"
    for file_there in (old, kept):
        file_there.parent.mkdir(parents=True)
        file_there.write_text("old")
    predictor.export("onnx", tmp_path / "out" / "my model #1.onnx", web=os.environ["SACCADE_ORT_WEB"])
    assert kept.exists()
    files = {}
    for name, picture in pictures().items():
        file = io.BytesIO()
        picture.save(file, "PNG", exif=picture.getexif())
        files[name] = file.getvalue()
    expected = predictor.predict_proba(list(files.values()), as_pandas=False)
    labels = predictor.predict(list(files.values()))

    address = serve_folder(tmp_path / "out")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.set_input_files(
        "#files", [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files.items()]
    )
    page.locator(".verdict").nth(3).wait_for()
    for name, row, label in zip(files, expected, labels, strict=True):
        card = page.locator(".card", has_text=name)
        shown = card.locator(".bars li").all_inner_texts()
        found = {line.split()[0]: float(line.split()[-2]) / 100 for line in shown}
        assert found == pytest.approx(dict(zip(predictor.classes, row, strict=True)), abs=1.5e-3)  # 0.1 % is shown
        assert card.locator(".verdict strong").inner_text() == label
    assert page.locator("#title").inner_text() == "my model #1"
    assert all(url.startswith((address, f"blob:{address}")) for url in requests)
    page.set_input_files("#files", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"})
    page.locator(".error", has_text="This browser cannot read the file as an image.").wait_for()


def write_model(folder: Path, metadata: str | None) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.ModelProto(ir_version=9, producer_name="x" * 300)
    if metadata is not None:
        model.metadata_props.add(key="other", value="{")
        model.metadata_props.add(key="saccade", value=metadata)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "The model file model.onnx was not found beside this page."),
        (lambda folder: (folder / "model.onnx").write_text("no model"), "was not exported by Saccade"),
        (lambda folder: write_model(folder, None), "was not exported by Saccade"),
        (
            lambda folder: write_model(folder, METADATA.model_dump_json()),
            "onnxruntime-web was not found in the folder ort/",
        ),
    ],
)
def test_what_is_missing_is_named(
    make: Callable[[Path], object], message: str, page: Any, serve_folder: Callable[[Path], str], tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text(page_html("model.onnx"))
    copy_scripts(tmp_path, None)
    make(tmp_path)
    page.goto(serve_folder(tmp_path))
    page.get_by_text(message).wait_for()


def test_a_page_opened_as_a_file_names_the_command_that_serves_it(page: Any, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(page_html("model.onnx"))
    copy_scripts(tmp_path, None)
    page.goto((tmp_path / "index.html").as_uri())
    page.get_by_text("python -m http.server").wait_for()


def test_a_page_of_the_user_is_kept(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "index.html").write_text("<h1>My photographs</h1>")
    write_companions(tmp_path / "new", tmp_path / "model.onnx", METADATA)
    assert not (tmp_path / "new" / "index.html").exists()
    assert 'data-model="a%22%26.onnx"' in page_html('a"&.onnx')


def test_a_folder_without_onnxruntime_web_is_refused(tmp_path: Path) -> None:
    (tmp_path / ORT_FILES[0]).touch()
    with pytest.raises(DataError, match=f"has no file {ORT_FILES[1]}.*npm install onnxruntime-web"):
        check_ort(tmp_path)
