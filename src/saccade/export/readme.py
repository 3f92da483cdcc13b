"""The README beside an exported ONNX file."""

from __future__ import annotations

from saccade.export.metadata import ExportMetadata
from saccade.export.web import ORT_FILES

_OUTPUTS = {
    "probabilities": "float32 (N, {num}): calibrated probability of each class",
    "prediction": "float64 (N,): the number",
    "label": "int64 (N,): number of the class",
    "given": "bool (N, {num}): which labels an image has",
    "set_mask": "bool (N, {num}): the classes that contain the right one with a probability of {coverage:g}",
    "interval": "float64 (N, 2): contains the right number with a probability of {coverage:g}",
    "novelty": "float32 (N,): how unlike the training images an image is, from 0 to 2{threshold}",
}


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
    return f"""<!-- Written by saccade export -->
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
