"""Files beside an exported ONNX file: predict.py, a README, and a page that computes the model in the browser."""

from __future__ import annotations

import html
import shutil
from pathlib import Path
from urllib.parse import quote

from saccade.errors import DataError
from saccade.export.metadata import ExportMetadata

COMPANIONS = ("predict.py", "README.md", "index.html")
"""Files that are written beside an ONNX file."""

MARK = "Written by saccade export"
"""In the first line of companions, which are replaced; a user's own files of these names are left alone."""

ORT_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of the npm package onnxruntime-web that the page loads from ort/."""

SCRIPTS = "saccade-page"
"""The folder of the page's scripts and styles."""

WEB_FOLDERS = (SCRIPTS, "ort")

_PAGE = Path(__file__).parents[1] / "serve" / "page"
_OUTPUTS = {
    "probabilities": "float32 (N, {num}): calibrated probability of each class",
    "prediction": "float64 (N,): the number",
    "label": "int64 (N,): number of the class",
    "given": "bool (N, {num}): which labels an image has",
    "set_mask": "bool (N, {num}): the classes that contain the right one with a probability of {coverage:g}",
    "interval": "float64 (N, 2): contains the right number with a probability of {coverage:g}",
    "novelty": "float32 (N,): how unlike the training images an image is, from 0 to 2{threshold}",
}


def write_companions(folder: Path, file: Path, metadata: ExportMetadata) -> None:
    """Write `COMPANIONS` of an ONNX file to a folder, apart from those that are the user's own beside the file."""
    texts = {
        "predict.py": (Path(__file__).parent / "beside" / "predict.py.txt").read_text(encoding="utf-8"),
        "README.md": readme(file.name, metadata),
        "index.html": page_html(file.name),
    }
    for name, text in texts.items():
        there = file.parent / name
        if there.exists() and MARK not in there.read_text(encoding="utf-8", errors="replace").partition("\n")[0]:
            continue
        (folder / name).write_text(text, encoding="utf-8")


def readme(name: str, metadata: ExportMetadata) -> str:
    """Return the text, given the file's name."""
    threshold = metadata.novelty_threshold
    values = {
        "num": len(metadata.class_names),
        "coverage": metadata.coverage or 0.0,
        "threshold": "" if threshold is None else f"; above {threshold:.4g} it is probably none of the classes",
    }
    outputs = "\n".join(f"| `{each}` | {_OUTPUTS[each].format(**values)} |" for each in metadata.outputs)
    models = "\n".join(
        f"| {model.name} | {model.weight:.3f} | {model.license or 'none: no pretrained weights'} |"
        for model in metadata.models
    )
    scores = ", ".join(f"{metric} {value:.4g}" for metric, value in metadata.metrics.items()) or "not known"
    steps = "\n".join(f"- {step}" for step in metadata.preprocessing.steps)
    classes = ", ".join(metadata.class_names[:50]) + (" and others" if len(metadata.class_names) > 50 else "")
    channels = metadata.preprocessing.channels
    kind = {1: "grey", 3: "RGB", 4: "RGBA"}.get(channels, f"{channels}-channel")
    return f"""<!-- {MARK} -->
# {name}

A model of images ({metadata.problem_type}), exported by Saccade {metadata.saccade_version}.
{f"Classes: {classes}." if classes else ""}
Scores on the validation images: {scores}.

```
pip install numpy pillow onnxruntime
python predict.py photo.jpg
```

`index.html` classifies images in a browser, which computes the model itself; images do not leave the device. It needs
{", ".join(f"`{each}`" for each in ORT_FILES)} in a folder `ort` beside it. They are in
the folder `dist` of the npm package `onnxruntime-web`; `saccade export --web DIST` copies them. Browsers run the page
from a web server, not from a file:

```
npm install onnxruntime-web
mkdir -p ort && cp {" ".join(f"node_modules/onnxruntime-web/dist/{each}" for each in ORT_FILES)} ort/
python -m http.server
```

The input is `images`, uint8 (N, height, width, {channels}): upright {kind} images of any one size. Resizing, cropping,
normalisation, all networks, calibration and decisions are inside the file:

{steps}

| output | |
|---|---|
{outputs}

| network | weight | licence of the pretrained weights |
|---|---|---|
{models}

Decode images as `read` in `predict.py` does. Large JPEG files are decoded there at a reduced size, as during training;
decoding them at full size changes probabilities slightly. Names of classes, scores and all of the above are
in the file's metadata, as JSON under the key `saccade`.
"""


def check_ort(folder: Path) -> Path:
    """Return the folder if it has `ORT_FILES`, which is a DataError otherwise."""
    for name in ORT_FILES:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} has no file {name}. Install the npm package onnxruntime-web, and pass its folder dist: "
                "npm install onnxruntime-web, then node_modules/onnxruntime-web/dist"
            )
    return folder


def page_html(model: str) -> str:
    """Return index.html for the file name of a model."""
    page = (_PAGE / "index.html").read_text(encoding="utf-8")
    return (
        page.replace("<!doctype html>", f"<!doctype html><!-- {MARK} -->")
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
