"""The web page beside an ONNX file: the server's page, with onnxruntime-web in the browser instead of the server."""

from __future__ import annotations

import html
import shutil
from pathlib import Path
from urllib.parse import quote

from saccade.errors import DataError

ORT_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of the npm package onnxruntime-web that the page loads from ort/."""

SCRIPTS = "saccade-page"
"""The folder of the page's scripts and styles."""

WEB_FOLDERS = (SCRIPTS, "ort")

_PAGE = Path(__file__).parents[1] / "serve" / "page"


def check_ort(folder: Path) -> Path:
    """Return the folder if it has `ORT_FILES`, which is a DataError otherwise."""
    for name in ORT_FILES:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} has no file {name}. Install the npm package onnxruntime-web, and pass its folder dist: "
                "npm install onnxruntime-web, then node_modules/onnxruntime-web/dist"
            )
    return folder


def page_html(model: str, mark: str) -> str:
    """Return index.html for the file name of a model, with `mark` in its first line."""
    page = (_PAGE / "index.html").read_text(encoding="utf-8")
    return (
        page.replace("<!doctype html>", f"<!doctype html><!-- {mark} -->")
        .replace("static/server.js", f"{SCRIPTS}/onnx.js")
        .replace("static/page.css", f"{SCRIPTS}/page.css")
        .replace('data-model="model.onnx"', f'data-model="{html.escape(quote(model))}"')
    )


def copy_scripts(folder: Path, ort: Path | None) -> None:
    """Write the folder `SCRIPTS`, and ort/ if the files are given."""
    copies = {SCRIPTS: [_PAGE / name for name in ("page.css", "page.js", "onnx.js", "onnx-worker.js")]}
    if ort is not None:
        copies["ort"] = [ort / name for name in ORT_FILES]
    for name, files in copies.items():
        (folder / name).mkdir()
        for file in files:
            shutil.copyfile(file, folder / name / file.name)
