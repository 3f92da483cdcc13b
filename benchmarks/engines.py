"""Features of frozen networks by torch, in 32 and 16 bits, and by ONNX Runtime: images per second, export, difference.

    python -m benchmarks.engines [--data DIR] [--weights DIR] [--networks mobilenetv2_100 …] [--num-images 600]
                                 [--rounds 5] [--threads N] [--busy] [--json OUT]

A linear probe decodes images once, computes their features, and fits a classifier layer. The first table has the
seconds of these parts, and of the export; the second one has images per second (mean and standard error over rounds,
the engines in turns) and the largest difference of a feature from torch's in 32 bits, relative to the largest feature.
``--busy`` keeps one core busy with another program. OpenVINO and int8 are not measured.

With the environment variable ``SACCADE_ENGINE=torch``, fits and predictions use torch alone.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import arguments_of, busy_core, table, work_folder, write_json
from benchmarks.photos import make_photos, photos_of
from saccade.data.store.decoded_images import decoded_images
from saccade.inference.classifier import outputs_and_features
from saccade.models.weights import networks_in_folder
from saccade.numerics.device import Numerics, cpu_threads
from saccade.numerics.engine import ONNX, TORCH
from saccade.tasks.problem import Problem
from saccade.training.probes.heads import HeadFitter
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe

CPU = Numerics(torch.device("cpu"))
ENGINES = {
    TORCH: CPU,
    "torch, 16 bits": replace(CPU, dtype=torch.bfloat16),
    ONNX: replace(CPU, engine=ONNX),
}


def measure(name: str, images: Any, problem: Problem, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the seconds of the parts of a probe, and the rates of each engine in each round."""
    recipe = Recipe.of({"model": name} if given.weights else {"model": name, "pretrained": False})
    classifier = new_classifier(recipe, problem, CPU, given.weights)
    classifier.network.eval()
    spec, paths = classifier.blueprint.input, [str(path) for path in images["image"]]
    start_s = time.perf_counter()
    store = decoded_images(paths, folder / name, shorter_side=round(spec.img_size / spec.crop_pct))
    found: dict[str, Any] = {"decode_s": time.perf_counter() - start_s, "rates": {}, "difference": {}}
    ready: dict[str, tuple[Numerics, torch.nn.Module]] = {}
    for engine, numerics in ENGINES.items():
        classifier.use(CPU, numerics)
        start_s = time.perf_counter()
        classifier.fuse(math.inf)
        found[f"{engine}: fold and export_s"] = time.perf_counter() - start_s
        if numerics.engine == classifier.inference.engine:
            ready[engine] = numerics, classifier.predicting

    def features(engine: str, num: int) -> np.ndarray:
        numerics, network = ready[engine]
        classifier.use(CPU, numerics)
        return outputs_and_features(classifier, classifier.batches(store, np.arange(num)), network)[1]

    for engine in ready:
        features(engine, min(64, len(paths)))  # warm-up
    rows = {}
    for _ in range(given.rounds):
        for engine in ready:
            start_s = time.perf_counter()
            rows[engine] = features(engine, len(paths))
            found["rates"].setdefault(engine, []).append(len(paths) / (time.perf_counter() - start_s))
    for engine, features_ in rows.items():
        found["difference"][engine] = float(np.abs(features_ - rows[TORCH]).max() / np.abs(rows[TORCH]).max())
    start_s = time.perf_counter()
    HeadFitter(rows[TORCH], problem.encode(images["label"]), problem).fit()
    found["head_s"] = time.perf_counter() - start_s
    return found


def rows_of(figures: dict[str, dict[str, Any]]) -> tuple[list[list[Any]], list[list[Any]]]:
    """Return the rows of both tables."""
    parts, rates = [], []
    for name, found in figures.items():
        mean = {engine: statistics.fmean(each) for engine, each in found["rates"].items()}
        error = {
            engine: statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else None
            for engine, each in found["rates"].items()
        }
        num = found["num_images"]
        features_s = [num / mean[engine] if engine in mean else None for engine in ENGINES]
        parts.append([name, found["decode_s"], *features_s, found[f"{ONNX}: fold and export_s"], found["head_s"]])
        best = max(rate for engine, rate in mean.items() if engine != ONNX)
        row: list[Any] = [name]
        for engine in ENGINES:
            row += [mean.get(engine), error.get(engine)]
        ratio = mean[ONNX] / best if ONNX in mean else None
        rates.append([*row, ratio, found["difference"].get("torch, 16 bits"), found["difference"].get(ONNX)])
    return parts, rates


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = arguments_of(__doc__ or "")
    parser.add_argument("--data", type=Path, help="folder with a folder for each class, or with train/")
    parser.add_argument("--weights", type=Path, help="folder of weights; without it they are random")
    parser.add_argument("--networks", nargs="+", help="names in timm; by default those in the folder of weights")
    parser.add_argument("--num-images", type=int, default=600)
    parser.add_argument("--threads", type=int, help="by default torch's number")
    parser.add_argument("--busy", action="store_true", help="beside a program that keeps one core busy")
    given = parser.parse_args(argv)
    names = given.networks or (networks_in_folder(given.weights) if given.weights else ["mobilenetv2_100", "resnet18"])
    busy = busy_core() if given.busy else contextlib.nullcontext()
    with work_folder() as folder, cpu_threads(given.threads), busy:
        images = photos_of(given.data or make_photos(folder / "photos", given.num_images), given.num_images)
        problem = Problem.of(list(images["label"]), "multiclass")
        figures: dict[str, dict[str, Any]] = {}
        for name in names:
            figures[name] = {"num_images": len(images), **measure(name, images, problem, given, folder)}
            print(name, {key: value for key, value in figures[name].items() if key.endswith("_s")}, flush=True)
    write_json(given.json, given, figures)
    parts, rates = rows_of(figures)
    print(table(["seconds", "decode", *ENGINES, "export", "head"], parts))
    heads = [part for engine in ENGINES for part in (engine, "±")]
    print(table(["images per second", *heads, "ratio", "difference of 16 bits", "of onnxruntime"], rates))


if __name__ == "__main__":
    main()
